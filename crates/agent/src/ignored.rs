//! Signals that the job ignores stay out of its way while a handler of ours runs.
//!
//! The kernel discards an ignored signal when it is sent, but "blocked signals are never ignored" (`sig_ignored` in kernel/signal.c). It asks one
//! thread: the first for a signal to a process, the one that forked for SIGCHLD. While that thread is in a handler that blocks every signal, an
//! ignored signal is queued instead, another thread is woken for it (`complete_signal`), and its calls such as `epoll_wait` end with `EINTR`. So
//! our handlers do not block those signals, and the kernel discards them as ever.
//!
//! The handler of the checkpoint signal is installed with a mask that leaves them out. The preloaded library keeps the mask right when the program
//! sets handlers through the C library. Actions that were set in another way, or before the program began, are looked at when a handler begins. A
//! program that gives such a signal a handler meanwhile waits ([`wait_while_frozen`]): its handler must not run within ours.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use ckpt_sys::signal_set::SignalSet;
use linux_raw_sys::general as nr;

use crate::action::{self, IGNORED_BY_DEFAULT, is_ignored};
use crate::call::{self, change_mask};
use crate::state::{BUSY, OWNER, TRANSIENT};

/// How often a thread that waits looks, in microseconds.
const LOOK_US: i64 = 200;

/// Blocks only the signals that the process does not ignore, and those that the interrupted thread blocks with this mask. Gives the ignored ones.
pub fn let_in(mask: u64) -> SignalSet {
    // First the signals that come often: the handler's mask may not know that the program handles them.
    let by_default = ignored(IGNORED_BY_DEFAULT);
    if by_default != IGNORED_BY_DEFAULT {
        change_mask(nr::SIG_BLOCK, IGNORED_BY_DEFAULT - by_default);
    }
    let all = by_default | ignored(!IGNORED_BY_DEFAULT);
    leave_out(all, mask);
    all
}

/// Blocks all signals but these, and those that the interrupted thread blocks.
fn leave_out(ignored: SignalSet, mask: u64) {
    change_mask(nr::SIG_SETMASK, !ignored | SignalSet::from_bits(mask));
}

/// As [`let_in`], for the leader, which looks for all threads.
pub fn let_in_for_all(mask: u64) {
    TRANSIENT.ignored.store(let_in(mask).bits(), Release);
}

/// As [`let_in`], for a thread that the leader has called.
pub fn let_in_as_found(mask: u64) {
    leave_out(SignalSet::from_bits(TRANSIENT.ignored.load(Acquire)), mask);
}

/// Waits until no thread of this process is in the handler of the checkpoint signal, if one is.
pub fn wait_while_frozen() {
    // A child of fork has a copy of its parent's state, and one of vfork is not frozen.
    while TRANSIENT.phase.load(Acquire) == BUSY && OWNER.load(Relaxed) == call::getpid() {
        call::pause_us(LOOK_US);
    }
}

/// Those of a set of signals that the process ignores.
pub fn ignored(set: SignalSet) -> SignalSet {
    set.iter().filter(|&signal| action::of(signal).is_some_and(|[handler, ..]| is_ignored(signal, handler))).collect()
}
