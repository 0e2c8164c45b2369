//! Signals: handlers, and what is pending.

use linux_raw_sys::general::{__NR_rt_sigqueueinfo, __NR_rt_tgsigqueueinfo};
use serde::{Deserialize, Serialize};

use crate::NsPid;
use crate::deferred::{Deferred, OnFailure, Purpose};
use crate::rebuild::RebuildError;

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

impl Siginfo {
    const LEN: usize = 128;

    /// That of a signal of which nothing is known but its number: the kernel gives as much where its queue was full (`SI_USER`, of nobody).
    #[must_use]
    pub fn of_nobody(signal: i32) -> Self {
        let mut info = vec![0; Self::LEN];
        info[..4].copy_from_slice(&signal.to_ne_bytes());
        Self(info)
    }

    /// The signal's number.
    #[must_use]
    pub fn signal(&self) -> i32 {
        self.word(0)
    }

    /// The id of the timer of timer_create(2) that it comes from.
    #[must_use]
    pub fn timer(&self) -> Option<i32> {
        // siginfo_t: si_signo, si_errno, si_code, padding, si_timerid.
        (self.word(2) == libc::SI_TIMER).then(|| self.word(4))
    }

    /// Whether kill(2) sent it.
    #[must_use]
    pub fn is_from_kill(&self) -> bool {
        self.word(2) == libc::SI_USER
    }

    /// The process that sent it by kill(2), if that is of the same pid namespace.
    #[must_use]
    pub fn sender(&self) -> Option<i32> {
        // Where a timer's has its id, this has si_pid.
        self.is_from_kill().then(|| self.word(4)).filter(|&pid| pid != 0)
    }

    /// Makes it one from another pid namespace.
    pub fn forget_sender(&mut self) {
        if let Some(pid) = self.0.get_mut(16..20) {
            pid.fill(0);
        }
    }

    fn word(&self, i: usize) -> i32 {
        self.0.chunks_exact(4).nth(i).map_or(0, |word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }
}

/// Calls that queue signals, to the calling thread `tid` of process `pid` or (by its leader) to the whole process. The kernel lets a
/// thread send itself what looks as if it came from anybody.
///
/// # Errors
/// Something is not of the size of a `siginfo_t`.
pub fn queue(pid: NsPid, tid: Option<NsPid>, signals: &[Siginfo]) -> Result<Deferred, RebuildError> {
    let mut deferred = Deferred::default();
    for siginfo in signals {
        if siginfo.0.len() != Siginfo::LEN {
            return Err(RebuildError::Incomplete("a pending signal"));
        }
        let (signal, info) = (siginfo.signal().into(), deferred.put(&siginfo.0));
        let (call, args) = match tid {
            Some(tid) => (__NR_rt_tgsigqueueinfo, vec![pid.0.into(), tid.0.into(), signal, info]),
            None => (__NR_rt_sigqueueinfo, vec![pid.0.into(), signal, info]),
        };
        deferred.call(Purpose::PendingSignal, OnFailure::Fail, call, &args);
    }
    Ok(deferred)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_signal_are_found() {
        let mut info = Siginfo::of_nobody(34);
        assert_eq!((info.signal(), info.timer(), info.sender()), (34, None, None));
        info.0[16..20].copy_from_slice(&4711i32.to_ne_bytes());
        assert_eq!(info.sender(), Some(4711));
        info.forget_sender();
        assert_eq!(info, Siginfo::of_nobody(34));
        info.0[8..12].copy_from_slice(&libc::SI_TIMER.to_ne_bytes());
        info.0[16..20].copy_from_slice(&7i32.to_ne_bytes());
        assert_eq!(info.timer(), Some(7));
    }
}
