//! The shield: a batch system's warning signal can reach every process of a job, though it is meant for the launcher alone, and its default action
//! would end each that does not catch it.
//!
//! Wherever a shielded signal would have its default action, this handler is installed. It decides by who sent the signal:
//!
//! - One that `kill` sent from outside of the job, while a coordinator is there to act on its own copy, is dropped. The program must not notice: the
//!   call that it waits in is made again.
//! - Any other (from a process of the job, from the launcher, which passes signals on, from the kernel, a timer, …) has its default effect.
//!
//! What was dropped can be let in later: when the coordinator has taken its checkpoint and passes the signal on.
//!
//! Outside of the job is who does not descend from the launcher, or, after a restart, from its stand-in, which has the launcher's pid. A sender in
//! another pid namespace has no number here.

use core::sync::atomic::Ordering::Relaxed;

use ckpt_sys::raw::Errno;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::{blocked, syscall};
use ckpt_wire::LET_IN;
use linux_raw_sys::general as nr;

use crate::call::{self, nr_errno};
use crate::interrupted;
use crate::procfs::Path;
use crate::rendezvous;
use crate::state::{CONFIG, TRANSIENT};

/// `si_code` of a signal that kill(2) sent.
const SI_USER: i32 = 0;
/// No process has more ancestors than this.
const MANY: u32 = 10_000;
/// How often a line of ancestors is walked anew because one of them has ended meanwhile.
const TRIES: u32 = 3;

/// `si_code` of a signal that sigqueue(3) sent.
const SI_QUEUE: i32 = -1;

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

/// The handler.
///
/// # Safety
/// The kernel calls it, with every signal blocked, with `info` at the signal's whole `siginfo_t` and `frame` at the `ucontext` of the interrupted
/// thread.
pub unsafe extern "C" fn on_shielded_signal(signal: i32, info: *const Siginfo, frame: *mut UContext) {
    // A child of vfork runs this in its parent's memory: nothing but atomics is written.
    // SAFETY: the caller's promise.
    unsafe {
        if is_for_the_launcher(&*info) {
            TRANSIENT.dropped.fetch_or(1 << (signal - 1), Relaxed);
            interrupted::leave_as_found(frame);
        } else {
            take_default(signal, info, frame);
        }
    }
}

/// Whether the checkpoint signal came to have a signal let in that was dropped; which is done then.
///
/// # Safety
/// As for [`on_shielded_signal`].
pub unsafe fn lets_in(info: *const Siginfo, frame: *mut UContext) -> bool {
    // SAFETY: the caller's promise.
    let Siginfo { code, value, .. } = unsafe { *info };
    let signal = match value.checked_sub(LET_IN) {
        Some(signal @ 1..=64) if code == SI_QUEUE => signal as i32,
        _ => return false,
    };
    let mut action = [0u64; 4];
    // SAFETY: with no new action, the old one is written to `action`; the rest is the caller's promise.
    unsafe {
        let asked = syscall!(nr::__NR_rt_sigaction, signal, 0, action.as_mut_ptr(), 8);
        if asked.is_ok() && is_shield(action[0]) && TRANSIENT.dropped.load(Relaxed) & 1 << (signal - 1) != 0 {
            let uid = syscall!(nr::__NR_getuid).unwrap_or(0) as u32;
            let pid = CONFIG.get().launcher;
            let info = Siginfo { signal, error: 0, code: SI_USER, padding: 0, pid, uid, value: 0, rest: [0; 12] };
            take_default(signal, &raw const info, frame);
        } else {
            interrupted::leave_as_found(frame);
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

fn is_for_the_launcher(info: &Siginfo) -> bool {
    info.code == SI_USER && is_outside(info.pid, info.uid) && rendezvous::is_anybody_there()
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
