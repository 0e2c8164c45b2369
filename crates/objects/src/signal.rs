//! Signals: handlers, and what is pending.

use serde::{Deserialize, Serialize};

/// What a process does on each signal, and what is pending for it as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SignalState {
    /// The action for signal `i + 1`, as `rt_sigaction` gave it; 64 of them.
    pub actions: Vec<SignalAction>,
    /// Signals pending for the process, in the order in which they were queued.
    pub pending: Vec<Siginfo>,
}

/// The kernel's `struct sigaction` on x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalAction {
    /// `SIG_DFL` (0), `SIG_IGN` (1) or a handler's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// The C library's way back from a handler.
    pub restorer: u64,
    /// Signals blocked while it runs: bit `n - 1` for signal `n`.
    pub mask: u64,
}

/// A pending signal's `siginfo_t`: its 128 bytes as the kernel gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Siginfo(pub Vec<u8>);
