//! Signals that the job ignores stay out of its way while a handler of ours runs.
//!
//! The kernel throws an ignored signal away where it is sent, but "blocked signals are never ignored" (`sig_ignored` in kernel/signal.c), and the
//! thread that it looks at is, for a signal to a process, the first one, for SIGCHLD the one that forked. While that is in a handler that blocks every
//! signal, one that is ignored is queued instead, another thread is woken for it (`complete_signal`), and calls of that such as `epoll_wait` end
//! with `EINTR`. So the handlers do not block those signals. Nothing comes in: they are thrown away as ever.
//!
//! The handler of the checkpoint signal is installed with a mask that leaves them out, which is kept right when the program sets handlers through
//! the C library. What it has set otherwise, or was started with, is looked at when a handler begins. A program that gives such a signal a handler
//! meanwhile is made to wait ([`wait_while_frozen`]): the handler must not run within ours.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

use crate::call;
use crate::rendezvous::pause_us;
use crate::state::{BUSY, OWNER, TRANSIENT};

/// Signals whose default action is to be ignored: CHLD, CONT, URG, WINCH.
pub const BY_DEFAULT: u64 = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 27;
/// `SIG_DFL`.
const DEFAULT: u64 = 0;
/// `SIG_IGN`.
const IGNORE: u64 = 1;
/// How often a thread that waits looks, in microseconds.
const LOOK_US: i64 = 200;

/// Leaves only those signals blocked that the process does not ignore, or that the interrupted thread blocks with this mask. Gives all that it ignores.
pub fn let_in(mask: u64) -> u64 {
    // First of all, what comes often and is not to come in: the mask may not know that it has a handler.
    let by_default = ignored(BY_DEFAULT);
    if by_default != BY_DEFAULT {
        set_mask(nr::SIG_BLOCK, BY_DEFAULT & !by_default);
    }
    let all = by_default | ignored(!BY_DEFAULT);
    set_mask(nr::SIG_SETMASK, !all | mask);
    all
}

/// As [`let_in`], for the leader, which looks for all threads.
pub fn let_in_for_all(mask: u64) {
    TRANSIENT.ignored.store(let_in(mask), Release);
}

/// As [`let_in`], for a thread that the leader has called.
pub fn let_in_as_found(mask: u64) {
    set_mask(nr::SIG_SETMASK, !TRANSIENT.ignored.load(Acquire) | mask);
}

/// Waits until no thread of this process is in the handler of the checkpoint signal, if one is.
pub fn wait_while_frozen() {
    // A child of fork or vfork has what its parent was at as a copy, or is not looked at.
    while TRANSIENT.phase.load(Acquire) == BUSY && OWNER.load(Relaxed) == call::getpid() {
        pause_us(LOOK_US);
    }
}

/// Whether a signal with this action, as the kernel knows it, is ignored.
pub fn is_ignored(signal: u32, handler: u64) -> bool {
    handler == IGNORE || handler == DEFAULT && BY_DEFAULT & 1 << (signal - 1) != 0
}

/// Those of a set of signals that the process ignores.
pub fn ignored(set: u64) -> u64 {
    let is_such = |signal: &u32| {
        let mut action = [0u64; 4];
        // SAFETY: with no new action, the old one is written to `action`, a kernel sigaction.
        let asked = unsafe { syscall!(nr::__NR_rt_sigaction, *signal, 0, action.as_mut_ptr(), 8) };
        asked.is_ok() && is_ignored(*signal, action[0])
    };
    let signals = (1..=64u32).filter(|signal| set & 1 << (signal - 1) != 0);
    signals.filter(is_such).fold(0, |found, signal| found | 1 << (signal - 1))
}

fn set_mask(how: u32, set: u64) {
    // SAFETY: the set lives over the call. What is not blocked any more has no handler.
    let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, how, &raw const set, 0, 8) };
}
