//! The signals that are pending for the calling thread, and for its process.

use core::sync::atomic::Ordering::Relaxed;

use ckpt_sys::sigframe::UContext;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::PendingSignal;
use linux_raw_sys::general as nr;

use crate::own_handler::is_from_coordinator;
use crate::procfs::signal_set;
use crate::shared::Shared;
use crate::state::CONFIG;
use crate::{action, call, interrupted, timers};

/// Signals 1 to 31, which are queued once at most (signal(7)).
const STANDARD_SIGNALS: SignalSet = SignalSet::from_bits((1 << 31) - 1);

/// The sets of pending signals that a thread answers for: its own, and for a process's first thread those of the process.
fn sets(tid: i32) -> &'static [(&'static [u8], bool)] {
    if tid == call::getpid() { &[(b"SigPnd:", true), (b"ShdPnd:", false)] } else { &[(b"SigPnd:", true)] }
}

/// Whether signals are pending for which this thread answers.
pub fn has_some(tid: i32) -> bool {
    sets(tid).iter().any(|(key, _)| !signal_set(tid, key).is_empty())
}

/// Takes one of a set of signals out of its queue, if one is pending.
fn take(set: SignalSet, owner: i32) -> Option<PendingSignal> {
    let mut signal = PendingSignal { tid: owner, reserved: 0, info: [0; 16] };
    let no_wait = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `set` is a signal set of 8 bytes, `info` has the 128 bytes of a siginfo.
    let taken = unsafe { syscall!(nr::__NR_rt_sigtimedwait, set.as_ptr(), signal.info.as_mut_ptr(), &raw const no_wait, 8) };
    taken.ok().map(|_| signal)
}

/// Makes signals to the process that the first thread would have got its own. The kernel gives it them when it does not block them (`complete_signal` in
/// kernel/signal.c). Those that come while all threads are in the handler would go to the thread that leaves it first, and a first thread that waits for
/// them would not be woken.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn claim(shared: &Shared, tid: i32, frame: *const UContext) {
    if tid != call::getpid() || shared.threads_len() == 1 {
        return;
    }
    // SAFETY: the caller's promise.
    let mask = SignalSet::from_bits(unsafe { (*frame).sigmask }).with(CONFIG.get().signal);
    for signal in signal_set(tid, b"ShdPnd:") - mask {
        if action::has_handler(signal)
            && let Some(signal) = take(SignalSet::of(signal), tid)
        {
            requeue(&signal, tid);
        }
    }
}

/// Records the signals that are pending for the calling thread, and by a process's first thread those for the process too, with all
/// that came with them, and leaves them pending.
///
/// There is no call to look at a queued signal: each is taken out and queued again. All signals are blocked meanwhile, and only a
/// thread itself may queue signals that claim to come from the kernel (and for a process its first thread), so it is done here. Where the
/// first thread has ended, the coordinator looks at those of the process.
///
/// What is recorded is to end the call that this thread waits in, in the image too.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn capture(shared: &Shared, tid: i32, frame: *mut UContext) {
    // SAFETY: the caller's promise.
    unsafe {
        claim(shared, tid, frame);
        // Before, for those that a timer sends again a moment later.
        interrupted::end_if_signalled(frame);
    }
    let first = shared.control().pending.load(Relaxed);
    // The kernel takes a thread's own signals before the process's, so each set is emptied in its turn.
    for &(key, own) in sets(tid) {
        empty(shared, tid, key, if own { tid } else { 0 });
    }
    let control = shared.control();
    for i in first..control.pending.load(Relaxed) {
        requeue(&shared.pending(i), tid);
    }
    // SAFETY: the caller's promise.
    unsafe { interrupted::end_if_signalled(frame) };
}

/// Takes all signals of a set out of their queue, and records them.
fn empty(shared: &Shared, tid: i32, key: &[u8], owner: i32) {
    // A standard signal that is pending again has come since: it stays pending in the place of the one that was taken. An interval timer with
    // a short period sends one after the other.
    let mut once = SignalSet::EMPTY;
    loop {
        let set = signal_set(tid, key) - once;
        let Some(signal) = (!set.is_empty()).then(|| take(set, owner)).flatten() else { return };
        let number = signal.info[0] as i32;
        // A second checkpoint signal means nothing to the job. The signal of a timer comes from the timer again.
        // SAFETY: `info` is a whole siginfo, as the kernel gave it.
        let is_checkpoint = number == CONFIG.get().signal && is_from_coordinator(unsafe { &*signal.info.as_ptr().cast() });
        if is_checkpoint || timers::note_pending(shared, &signal.info) {
            continue;
        }
        if !shared.push_pending(signal) {
            requeue(&signal, tid);
            return;
        }
        once |= SignalSet::of(number) & STANDARD_SIGNALS;
    }
}

fn requeue(signal: &PendingSignal, tid: i32) {
    let number = signal.info[0] as u32;
    let pid = call::getpid();
    // SAFETY: `info` is a whole siginfo, as the kernel gave it.
    let _ = unsafe {
        if signal.tid == 0 {
            syscall!(nr::__NR_rt_sigqueueinfo, pid, number, signal.info.as_ptr())
        } else {
            syscall!(nr::__NR_rt_tgsigqueueinfo, pid, tid, number, signal.info.as_ptr())
        }
    };
}
