//! Signals of the restart's own process, while it makes the job's.

use ckpt_session::JobState;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

/// Blocks the signals that the coordinator listens to: one that comes between the job's first step and the coordinator's is to wait
/// for that, and not to end the restart.
pub fn hold_those_that_are_listened_to(job: &JobState) {
    let bit = |signal: &(i32, String)| u32::try_from(signal.0 - 1).ok().and_then(|bit| 1u64.checked_shl(bit));
    let set = job.info.settings.on.iter().filter_map(bit).fold(0u64, |set, bit| set | bit);
    // SAFETY: a signal set of 8 bytes that lives over the call.
    let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, libc::SIG_BLOCK, &raw const set, 0, size_of::<u64>()) };
}

/// All signals are blocked in the processes of a restart: what comes for a process of the job waits until that is itself again.
pub fn with_all_blocked<T>(act: impl FnOnce() -> T) -> T {
    let (all, mut before) = (u64::MAX, 0u64);
    let set = |new: *const u64, old: *mut u64| {
        // SAFETY: both are null or signal sets of 8 bytes that live over the call. By a raw call, since libc keeps two signals
        // out.
        let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of::<u64>()) };
    };
    set(&raw const all, &raw mut before);
    let result = act();
    set(&raw const before, std::ptr::null_mut());
    result
}
