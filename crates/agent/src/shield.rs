//! The shield: a batch system's warning signal can reach every process of a job, though it is meant for the launcher alone. Its default action
//! would end each process that does not catch it, and a process that catches it would act on it just when a checkpoint is to be taken.
//!
//! So this module's handler is installed wherever a shielded signal would have its default action, and a stub (`stubs`) before each handler of
//! the program's own. Both decide by the sender of the signal:
//!
//! - A signal that `kill` sent from outside of the job is held back, and the coordinator is told. The program does not notice: the call that it
//!   waits in is made again. The coordinator knows whether it got the signal itself. If so, it has the signal let in when it has acted on it,
//!   or never; if the signal was sent to this process alone, at once.
//! - Any other signal (from a process of the job, from the launcher, which passes signals on, from the kernel, a timer, …) has the effect that it
//!   would have without the shield. So has every signal while no coordinator is there.
//!
//! A sender is outside of the job when it does not descend from the launcher, or, after a restart, from its stand-in, which has the launcher's
//! pid. A sender in another pid namespace has no number here.

use core::sync::atomic::Ordering::Relaxed;

use ckpt_sys::raw::Errno;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::{blocked, syscall};
use ckpt_wire::{LET_IN, LET_IN_IF_HANDLED};
use linux_raw_sys::general as nr;

use crate::action::{self, Action, IGNORE, is_shield};
use crate::call::{self, nr_errno};
use crate::procfs::Path;
use crate::siginfo::Siginfo;
use crate::state::{CONFIG, SignalNote, TRANSIENT};
use crate::wrapped::wrapped;
use crate::{ignored, interrupted, rendezvous};

/// No process has more ancestors than this.
const MANY: u32 = 10_000;
/// How often a line of ancestors is walked anew because one of them has ended meanwhile.
const TRIES: u32 = 3;

/// The handler in the place of the default action.
///
/// # Safety
/// The kernel calls it, with every signal blocked, with `info` at the signal's whole `siginfo_t` and `frame` at the `ucontext` of the interrupted
/// thread.
pub unsafe extern "C" fn on_shielded_signal(signal: i32, info: *const Siginfo, frame: *mut UContext) {
    // SAFETY: the caller's promise.
    unsafe {
        ignored::let_in((*frame).sigmask);
        if is_held_back(signal, &*info) {
            interrupted::leave_as_found(frame);
        } else {
            take_default(signal, info, frame);
        }
    }
}

/// Whether a signal came from outside of the job, and is held back until the coordinator lets it in. To be called with every signal blocked.
///
/// A child of vfork does this in its parent's memory: nothing but atomics is written.
pub fn is_held_back(signal: i32, info: &Siginfo) -> bool {
    let bit = SignalSet::of(signal).bits();
    if TRANSIENT.let_in.load(Relaxed) & bit != 0 && TRANSIENT.let_in.fetch_and(!bit, Relaxed) & bit != 0 {
        return false;
    }
    if !info.is_from_kill() || !is_outside(info.pid, info.uid) {
        return false;
    }
    let Some(note) = note_of(signal) else { return false };
    // Noted first: the coordinator may be quick.
    note.uid.store(info.uid, Relaxed);
    note.holder_and_sender.store((call::getpid() as u64) << 32 | u64::from(info.pid as u32), Relaxed);
    let is_told = rendezvous::announce(signal);
    if !is_told {
        note.holder_and_sender.store(0, Relaxed);
    }
    is_told
}

fn note_of(signal: i32) -> Option<&'static SignalNote> {
    TRANSIENT.held.get(usize::try_from(signal - 1).ok()?)
}

/// The signal as it was when it was held back. The process loses its note of it when it calls exec.
fn take_held(signal: i32) -> Siginfo {
    let mut info = Siginfo::of_nobody(signal);
    if let Some(note) = note_of(signal) {
        let known = note.holder_and_sender.load(Relaxed);
        if (known >> 32) as i32 == call::getpid() {
            (info.pid, info.uid) = (known as u32 as i32, note.uid.load(Relaxed));
            note.holder_and_sender.store(0, Relaxed);
        }
    }
    info
}

/// Lets a signal in that this process holds back, if the checkpoint signal came for that; whether it did.
///
/// # Safety
/// As for [`on_shielded_signal`].
pub unsafe fn lets_in(info: *const Siginfo, frame: *mut UContext) -> bool {
    // SAFETY: the caller's promise.
    let Some((signal, if_handled)) = unsafe { *info }.value().and_then(asked_for) else { return false };
    let [handler, ..] = action::of(signal).unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe {
        let info = take_held(signal);
        match is_shield(handler) {
            true if !if_handled => {
                take_default(signal, &raw const info, frame);
                return true;
            }
            false if handler != IGNORE => {
                if wrapped(handler).is_some() {
                    TRANSIENT.let_in.fetch_or(SignalSet::of(signal).bits(), Relaxed);
                }
                // To the process: this thread may block it. A process may send itself a signal that claims to come from elsewhere.
                let _ = syscall!(nr::__NR_rt_sigqueueinfo, call::getpid(), signal, &raw const info);
                interrupted::leave_as_found(frame);
            }
            _ => interrupted::leave_as_found(frame),
        }
    }
    true
}

/// The signal that the coordinator has let in by the value of a checkpoint signal, and whether only where the program handles it.
fn asked_for(value: u64) -> Option<(i32, bool)> {
    let from = |base: u64| value.checked_sub(base).filter(|signal| (1..=64).contains(signal)).map(|signal| signal as i32);
    from(LET_IN).map(|signal| (signal, false)).or_else(|| from(LET_IN_IF_HANDLED).map(|signal| (signal, true)))
}

/// Has a signal its default effect: it comes again, and finds no handler.
///
/// # Safety
/// As for [`on_shielded_signal`].
unsafe fn take_default(signal: i32, info: *const Siginfo, frame: *mut UContext) {
    let default = Action::default();
    let (pid, tid) = (call::getpid(), call::gettid());
    // SAFETY: the action is a kernel sigaction, `info` a whole siginfo; the frame is this thread's own (the caller's promise).
    unsafe {
        let _ = syscall!(nr::__NR_rt_sigaction, signal, default.as_ptr(), 0, 8);
        // The interrupted call may have let it in by a mask of its own.
        (*frame).sigmask &= !SignalSet::of(signal).bits();
        // To this thread: the default ends the whole process. A thread may send a signal that claims to come from elsewhere only to itself.
        if syscall!(nr::__NR_rt_tgsigqueueinfo, pid, tid, signal, info).is_err() {
            let _ = syscall!(nr::__NR_tgkill, pid, tid, signal);
        }
    }
}

/// Whether a process that sent a signal is not of the job.
fn is_outside(pid: i32, uid: u32) -> bool {
    match pid {
        0 => return true,
        pid if pid == call::getpid() => return false,
        _ => (),
    }
    (0..TRIES).find_map(|_| descends_from_outside(pid)).unwrap_or_else(|| {
        // Nothing is known of the sender any more but its user.
        // SAFETY: takes no argument and cannot fail.
        let own = unsafe { syscall!(nr::__NR_getuid) };
        own != Ok(u64::from(uid))
    })
}

/// Whether a process does not descend from the launcher; nothing where one of the line has ended.
fn descends_from_outside(pid: i32) -> Option<bool> {
    let mut at = pid;
    for _ in 0..MANY {
        match at {
            at if at == CONFIG.get().launcher => return Some(false),
            0 => return Some(true),
            _ => (),
        }
        let Some(parent) = parent_of(at) else { break };
        at = parent;
    }
    // SAFETY: signal 0 only asks whether the process is there.
    match unsafe { syscall!(nr::__NR_kill, at, 0) } {
        Err(Errno(nr_errno::ESRCH)) => None,
        // Another user's, which /proc does not show (`hidepid`).
        Err(_) => Some(true),
        // There is no /proc to look at.
        Ok(_) => Some(false),
    }
}

/// The parent of a process; 0 for one in another pid namespace.
fn parent_of(pid: i32) -> Option<i32> {
    let path = Path::new().text(b"/proc/").number(pid as u64).text(b"/stat");
    let file = call::open(path.as_bytes()).ok()?;
    let mut buffer = [0u8; 128];
    let len = call::read(&file, &mut buffer).ok()?;
    parse_parent(buffer.get(..len)?)
}

/// The parent in a `stat` file: `PID (NAME) STATE PPID …`. The name may hold any character.
fn parse_parent(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    blocked::number(stat.get(end + 4..)?, 10).map(|(parent, _)| parent as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_signal_says_what_to_let_in() {
        assert_eq!(asked_for(LET_IN + 15), Some((15, false)));
        assert_eq!(asked_for(LET_IN_IF_HANDLED + 64), Some((64, true)));
        for value in [0, LET_IN, LET_IN + 65, LET_IN_IF_HANDLED, u64::MAX] {
            assert_eq!(asked_for(value), None, "{value:#x}");
        }
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parse_parent(b"12 (a) S 4 (b) S 7 12"), Some(7));
        assert_eq!(parse_parent(b"12 (a"), None);
        assert_eq!(parse_parent(b"12 (a)"), None);
    }
}
