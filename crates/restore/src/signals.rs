//! Signals of the restart's own process, while it makes the job's.

use ckpt_session::JobState;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::signals::{block, set_blocked};

/// Blocks the signals that the coordinator listens to: one that comes between the job's first step and the coordinator's is to wait
/// for that, and not to end the restart.
pub fn hold_those_that_are_listened_to(job: &JobState) {
    let mut set = SignalSet::from_bits(0);
    job.info.settings.on.iter().for_each(|(signal, _)| set.insert(*signal));
    block(set.bits());
}

/// All signals are blocked in the processes of a restart: what comes for a process of the job waits until that is itself again.
pub fn with_all_blocked<T>(act: impl FnOnce() -> T) -> T {
    let before = set_blocked(u64::MAX);
    let result = act();
    set_blocked(before);
    result
}
