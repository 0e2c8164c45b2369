//! Signals of the restart's own process, while it makes the job's.

use ckpt_session::JobState;
use ckpt_sys::signals::{block, set_blocked};

/// Blocks the signals that the coordinator listens to: one that comes between the job's first step and the coordinator's is to wait
/// for that, and not to end the restart.
pub fn hold_those_that_are_listened_to(job: &JobState) {
    let bit = |signal: &(i32, String)| u32::try_from(signal.0 - 1).ok().and_then(|bit| 1u64.checked_shl(bit));
    let set = job.info.settings.on.iter().filter_map(bit).fold(0u64, |set, bit| set | bit);
    block(set);
}

/// All signals are blocked in the processes of a restart: what comes for a process of the job waits until that is itself again.
pub fn with_all_blocked<T>(act: impl FnOnce() -> T) -> T {
    let before = set_blocked(u64::MAX);
    let result = act();
    set_blocked(before);
    result
}
