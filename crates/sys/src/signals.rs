//! The calling thread's signal mask, and signals waited for. Sets are of 8 bytes, bit `n - 1` for signal `n`.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// Blocks the signals of a set beside those that are blocked.
pub fn block(set: u64) {
    // SAFETY: the set is read, and lives over the call, which cannot fail.
    let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, nr::SIG_BLOCK, &raw const set, 0, size_of::<u64>()) };
}

/// Blocks exactly the signals of a set; gives those that were blocked. libc keeps two signals out, this does not.
pub fn set_blocked(set: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: both sets live over the call, which cannot fail.
    let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, nr::SIG_SETMASK, &raw const set, &raw mut before, size_of::<u64>()) };
    before
}

/// What `siginfo_t` says of a signal (sigaction(2)). `pid` and `value` mean something only where a process sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub signal: i32,
    /// `si_code`: at most 0 where a process sent it.
    pub code: i32,
    /// `si_pid`; 0 for a process outside of this pid namespace.
    pub pid: i32,
    /// `si_value`, as a pointer.
    pub value: u64,
}

/// sigtimedwait(2) for any signal that is blocked, without end.
///
/// # Errors
///
/// `EINTR`.
pub fn wait_for_any() -> Result<Arrived, Errno> {
    let all = u64::MAX;
    // `struct siginfo` of x86-64 (include/uapi/asm-generic/siginfo.h): signo, errno, code, padding, pid, uid, value.
    let mut info = [0u64; 16];
    // SAFETY: the set is read and the siginfo of 128 bytes written; both live over the call.
    unsafe { syscall!(nr::__NR_rt_sigtimedwait, &raw const all, info.as_mut_ptr(), 0, size_of::<u64>()) }?;
    Ok(Arrived { signal: info[0] as i32, code: info[1] as i32, pid: info[2] as i32, value: info[3] })
}

/// kill(2): a negative number is that of a process group.
///
/// # Errors
///
/// `ESRCH` where nobody is left, `EPERM` where the signal may not be sent.
pub fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_kill, pid, signal) }.map(|_| ())
}
