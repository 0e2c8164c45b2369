//! The program's own handler for the number of the checkpoint signal. The kernel is never given it: what comes neither from the coordinator nor from a
//! leader of this process is the program's, and its handler is called from ours.
//!
//! The signal is never blocked, so the program's handler may be entered again before it has returned.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use ckpt_sys::sigframe::UContext;
use ckpt_sys::signal_set::SignalSet;
use linux_raw_sys::general as nr;

use crate::action::{Action, DEFAULT, IGNORE, SA_RESTART};
use crate::siginfo::Siginfo;
use crate::state::{CONFIG, IDLE, TRANSIENT};
use crate::{call, interrupted};

/// What the program believes to have set.
static BELIEVED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// The action that the program believes to have set for the checkpoint signal.
pub fn believed_action() -> Action {
    let [handler, rest @ ..] = &BELIEVED;
    let handler = handler.load(Acquire);
    let [flags, restorer, mask] = rest.each_ref().map(|word| word.load(Relaxed));
    [handler, flags, restorer, mask]
}

/// Sets it; gives the one before.
pub fn believe(action: Action) -> Action {
    let before = believed_action();
    // The handler comes last: a signal in between finds the one before, with the flags and the mask of the new one. No new handler runs with the old
    // ones.
    for (word, value) in BELIEVED.iter().zip(action).rev() {
        word.store(value, Release);
    }
    before
}

/// Whether the coordinator sent a checkpoint signal, by tgkill(2). After a restart it is in another pid namespace, and has no number.
pub fn is_from_coordinator(info: &Siginfo) -> bool {
    info.is_from_tgkill() && (info.pid == 0 || info.pid == CONFIG.get().launcher)
}

/// Whether a checkpoint signal came from the coordinator, or from this process's leader.
fn is_ours(info: &Siginfo) -> bool {
    let from_leader = || info.is_from_tgkill() && info.pid == call::getpid() && TRANSIENT.phase.load(Acquire) != IDLE;
    is_from_coordinator(info) || from_leader()
}

/// Calls the program's handler if the signal is the program's and it has one; whether it did.
///
/// # Safety
/// As for [`on_checkpoint_signal`](crate::on_checkpoint_signal).
pub unsafe fn takes(signal: i32, info: *const Siginfo, frame: *mut UContext) -> bool {
    let [handler, flags, _, mask] = believed_action();
    // SAFETY: the caller's promise.
    if handler == DEFAULT || handler == IGNORE || is_ours(unsafe { &*info }) {
        return false;
    }
    if flags & u64::from(nr::SA_RESETHAND) != 0 {
        believe(Action::default());
    }
    // SAFETY: the program has set this handler for a signal, and is called with what the kernel gave; the frame is the calling thread's own.
    unsafe {
        interrupted::end_by_handler(frame, flags & SA_RESTART != 0);
        let blocked = SignalSet::from_bits((*frame).sigmask | mask).without(signal);
        call::change_mask(nr::SIG_SETMASK, blocked);
        let handler = core::mem::transmute::<u64, extern "C" fn(i32, *const Siginfo, *mut UContext)>(handler);
        handler(signal, info, frame);
    }
    true
}
