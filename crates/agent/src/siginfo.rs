//! `siginfo_t` of a signal that a process sent (sigaction(2)).

use linux_raw_sys::general as nr;

/// The fields that kill(2) and sigqueue(3) fill in.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Siginfo {
    signal: i32,
    error: i32,
    code: i32,
    padding: i32,
    /// The sender.
    pub pid: i32,
    /// Its real user id.
    pub uid: u32,
    /// The value that sigqueue(3) was given.
    value: u64,
    rest: [u64; 12],
}

impl Siginfo {
    /// That of a signal that nobody known sent by kill(2).
    pub fn of_nobody(signal: i32) -> Self {
        Self { signal, error: 0, code: nr::SI_USER as i32, padding: 0, pid: 0, uid: 0, value: 0, rest: [0; 12] }
    }

    /// Whether kill(2) sent it.
    pub fn is_from_kill(&self) -> bool {
        self.code == nr::SI_USER as i32
    }

    /// Whether tgkill(2) sent it.
    pub fn is_from_tgkill(&self) -> bool {
        self.code == nr::SI_TKILL
    }

    /// The value that sigqueue(3) was given; `None` where the signal was sent by another call.
    pub fn value(&self) -> Option<u64> {
        (self.code == nr::SI_QUEUE).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_laid_out_as_the_kernels() {
        assert_eq!(size_of::<Siginfo>(), 128);
        assert_eq!((core::mem::offset_of!(Siginfo, pid), core::mem::offset_of!(Siginfo, value)), (16, 24));
        let info = Siginfo::of_nobody(15);
        assert!(info.is_from_kill() && info.value().is_none());
    }
}
