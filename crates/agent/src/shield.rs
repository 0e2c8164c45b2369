//! The shield: a batch system's warning signal can reach every process of a job, though it is meant for the launcher alone. The default action of such a
//! signal would end each process that does not catch it, and those that catch it would act on it just when a checkpoint is to be taken.
//!
//! So wherever a shielded signal would have its default action, this module's handler is installed; and where the program has a handler of its own, a
//! stub before it (`wrapped`). Both decide by who sent the signal:
//!
//! - One that `kill` sent from outside of the job is held back, and the coordinator is told. The program does not notice: the call that it waits in is made again.
//!   The coordinator knows whether it got the signal itself, and has it let in when it has done what that asked for, or never; or at once, when the signal was
//!   sent to this process alone.
//! - Any other (from a process of the job, from the launcher, which passes signals on, from the kernel, a timer, …), or one that comes when no coordinator is
//!   there, has the effect that it would have without the shield.
//!
//! Outside of the job is who does not descend from the launcher, or, after a restart, from its stand-in, which has the launcher's pid. A sender in
//! another pid namespace has no number here.

use core::sync::atomic::Ordering::Relaxed;

use ckpt_sys::raw::Errno;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::{blocked, syscall};
use ckpt_wire::{LET_IN, LET_IN_IF_HANDLED};
use linux_raw_sys::general as nr;

use crate::call::{self, nr_errno};
use crate::ignored;
use crate::interrupted;
use crate::procfs::Path;
use crate::rendezvous;
use crate::state::{CONFIG, HeldSignal, TRANSIENT};
use crate::wrapped::wrapped;

/// `si_code` of a signal that kill(2) sent.
const SI_USER: i32 = 0;
/// `si_code` of a signal that sigqueue(3) sent.
const SI_QUEUE: i32 = -1;
/// `SIG_IGN`.
const IGNORE: u64 = 1;
pub const SA_RESTART: u64 = 0x1000_0000;
/// No process has more ancestors than this.
const MANY: u32 = 10_000;
/// How often a line of ancestors is walked anew because one of them has ended meanwhile.
const TRIES: u32 = 3;

/// `siginfo_t` of a signal that a process sent.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Siginfo {
    signal: i32,
    error: i32,
    code: i32,
    padding: i32,
    /// The sender.
    pid: i32,
    /// Its real user id.
    uid: u32,
    /// What sigqueue(3) was given.
    value: u64,
    rest: [u64; 12],
}

impl Siginfo {
    /// Whether it is of a kind that is held back when it comes from outside.
    pub fn may_be_held_back(&self) -> bool {
        self.code == SI_USER
    }
}

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

/// Whether a signal came from outside of the job, and is held back until the coordinator says otherwise. To be asked with every signal blocked.
///
/// A child of vfork does this in its parent's memory: nothing but atomics is written.
pub fn is_held_back(signal: i32, info: &Siginfo) -> bool {
    let bit = 1 << (signal - 1);
    if TRANSIENT.let_in.load(Relaxed) & bit != 0 && TRANSIENT.let_in.fetch_and(!bit, Relaxed) & bit != 0 {
        return false;
    }
    if !info.may_be_held_back() || !is_outside(info.pid, info.uid) {
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

fn note_of(signal: i32) -> Option<&'static HeldSignal> {
    TRANSIENT.held.get(usize::try_from(signal - 1).ok()?)
}

/// The signal as it was when it was held back. What the process noted is gone when it has called exec since.
fn take_held(signal: i32) -> Siginfo {
    let mut info = Siginfo { signal, error: 0, code: SI_USER, padding: 0, pid: 0, uid: 0, value: 0, rest: [0; 12] };
    if let Some(note) = note_of(signal) {
        let known = note.holder_and_sender.load(Relaxed);
        if (known >> 32) as i32 == call::getpid() {
            (info.pid, info.uid) = (known as u32 as i32, note.uid.load(Relaxed));
            note.holder_and_sender.store(0, Relaxed);
        }
    }
    info
}

/// Whether the checkpoint signal came to have a signal let in that this process told it holds back; which is done then.
///
/// # Safety
/// As for [`on_shielded_signal`].
pub unsafe fn lets_in(info: *const Siginfo, frame: *mut UContext) -> bool {
    // SAFETY: the caller's promise.
    let Siginfo { code, value, .. } = unsafe { *info };
    let asked = |from: u64| value.checked_sub(from).filter(|signal| code == SI_QUEUE && (1..=64).contains(signal));
    let (signal, if_handled) = match (asked(LET_IN), asked(LET_IN_IF_HANDLED)) {
        (Some(signal), _) => (signal as i32, false),
        (_, Some(signal)) => (signal as i32, true),
        _ => return false,
    };
    let mut action = [0u64; 4];
    // SAFETY: with no new action, the old one is written to `action`.
    let _ = unsafe { syscall!(nr::__NR_rt_sigaction, signal, 0, action.as_mut_ptr(), 8) };
    let handler = action[0];
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
                    TRANSIENT.let_in.fetch_or(1 << (signal - 1), Relaxed);
                }
                // To the process: this thread may block it. A process may send itself what claims to come from elsewhere.
                let _ = syscall!(nr::__NR_rt_sigqueueinfo, call::getpid(), signal, &raw const info);
                interrupted::leave_as_found(frame);
            }
            _ => interrupted::leave_as_found(frame),
        }
    }
    true
}

/// Whether a handler, as the kernel knows it, is the shield's.
pub fn is_shield(handler: u64) -> bool {
    handler == on_shielded_signal as *const () as u64
}

/// Has a signal its default effect: it comes again, and finds no handler.
///
/// # Safety
/// As for [`on_shielded_signal`].
unsafe fn take_default(signal: i32, info: *const Siginfo, frame: *mut UContext) {
    let default = [0u64; 4];
    let (pid, tid) = (call::getpid(), call::gettid());
    // SAFETY: the action is a kernel sigaction, `info` a whole siginfo; the frame is this thread's own (the caller's promise).
    unsafe {
        let _ = syscall!(nr::__NR_rt_sigaction, signal, default.as_ptr(), 0, 8);
        // A mask that held only as long as the interrupted call may have let it in.
        (*frame).sigmask &= !(1 << (signal - 1));
        // To this thread: the default is the end of the whole process. A thread may send only itself what claims to come from elsewhere.
        if syscall!(nr::__NR_rt_tgsigqueueinfo, pid, tid, signal, info).is_err() {
            let _ = syscall!(nr::__NR_tgkill, pid, tid, signal);
        }
    }
}

/// Whether a process that sent a signal is not of the job.
fn is_outside(pid: i32, uid: u32) -> bool {
    let launcher = CONFIG.get().launcher;
    if pid == 0 {
        return true;
    }
    if pid == call::getpid() {
        return false;
    }
    for _ in 0..TRIES {
        let mut at = pid;
        for _ in 0..MANY {
            if at == launcher {
                return false;
            }
            if at == 0 {
                return true;
            }
            let Some(parent) = parent_of(at) else { break };
            at = parent;
        }
        // SAFETY: signal 0 only asks whether the process is there.
        match unsafe { syscall!(nr::__NR_kill, at, 0) } {
            // It has ended. Of the sender nothing is known any more but whose it was.
            Err(Errno(nr_errno::ESRCH)) if at == pid => break,
            // An ancestor has ended, and its children have another.
            Err(Errno(nr_errno::ESRCH)) => (),
            // Another user's, which /proc does not show (`hidepid`).
            Err(_) => return true,
            // There is no /proc to look at.
            Ok(_) => return false,
        }
    }
    // SAFETY: takes no argument and cannot fail.
    let own = unsafe { syscall!(nr::__NR_getuid) };
    own != Ok(u64::from(uid))
}

/// The parent of a process; 0 for one in another pid namespace.
fn parent_of(pid: i32) -> Option<i32> {
    let path = Path::new().text(b"/proc/").number(pid as u64).text(b"/stat");
    let file = call::open(path.as_bytes()).ok()?;
    let mut buffer = [0u8; 128];
    let len = call::read(&file, &mut buffer).ok()?;
    // `PID (NAME) STATE PPID …`; the name may hold any character.
    let stat = buffer.get(..len)?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    blocked::number(stat.get(end + 4..)?, 10).map(|(parent, _)| parent as i32)
}
