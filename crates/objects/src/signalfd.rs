//! Signalfds: signals that are read instead of handled (signalfd(2)).
//!
//! One has no state but its mask: a read gives the reader's own pending signals. An epoll instance waits with it for the signals of
//! the process that registered it: see [`crate::epoll`].

use serde::{Deserialize, Serialize};

mod observe;
mod rebuild;

pub use observe::observe;
pub use rebuild::rebuild;

/// A signalfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalfdState {
    /// The signals that it accepts: bit `n - 1` for signal `n`. Never the checkpoint signal.
    pub mask: u64,
}
