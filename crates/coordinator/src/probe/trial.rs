//! Trials in a child process. Their effects end with the child.
//!
//! The caller must have one thread, so the probes run in a program run of their own.
#![allow(unsafe_code)]

use std::fs;
use std::io;

use ckpt_objects::HostPid;
use ckpt_sys::fork::{Fork, fork};
use ckpt_sys::raw::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::ForkResult;
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, getegid, geteuid, getpid, waitpid};

/// The pid that the trial asks for: the first that a namespace does not set aside for itself.
const CHOSEN: i32 = 300;

/// What a restart does first, by its steps in order. `None`: the step was not reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespaces {
    /// Making user (where `with_user`), pid and mount namespaces.
    pub make: Option<Result<(), Errno>>,
    /// Mapping the own user and group into the new user namespace.
    pub map_user: Option<Result<(), Errno>>,
    /// Making a process with a pid of choice.
    pub choose_pid: Option<Result<(), Errno>>,
    /// Keeping mounts from the outside.
    pub separate_mounts: Option<Result<(), Errno>>,
    /// Mounting `/proc`.
    pub mount_proc: Option<Result<(), Errno>>,
}

/// Tries what a restart does first; with a user namespace where one is needed.
pub fn namespaces(with_user: bool) -> Namespaces {
    let user = if with_user { libc::CLONE_NEWUSER } else { 0 };
    let flags = (user | libc::CLONE_NEWPID | libc::CLONE_NEWNS).cast_unsigned();
    let Ok((results, results_in)) = pipe_with(PipeFlags::CLOEXEC) else { return Namespaces::default() };
    // In the new user namespace they are not known any more.
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let tried = in_child(flags.into(), || {
        let tell = |result: Result<(), Errno>| {
            let errno = result.err().map_or(0, |Errno(errno)| errno);
            let _ = write(&results_in, &errno.to_ne_bytes());
        };
        if with_user {
            tell(map_user(uid, gid).map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO))));
        }
        tell(choose_pid());
        let try_mount =
            |what: Option<&str>, at: &str, flags| mount(what, at, what, flags, None::<&str>).map_err(|errno| Errno(errno as i32));
        tell(try_mount(None, "/", MsFlags::MS_REC | MsFlags::MS_SLAVE));
        tell(try_mount(Some("proc"), "/proc", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC));
    });
    let child = match tried {
        Ok(child) => child,
        Err(error) => return Namespaces { make: Some(Err(error)), ..Namespaces::default() },
    };
    drop(results_in);
    let next = || {
        let mut number = [0; 4];
        let known = matches!(read(&results, &mut number), Ok(4)).then(|| i32::from_ne_bytes(number));
        known.map(|errno| if errno == 0 { Ok(()) } else { Err(Errno(errno)) })
    };
    let mut seen = Namespaces { make: Some(Ok(())), ..Namespaces::default() };
    if with_user {
        seen.map_user = next();
    }
    seen.choose_pid = next();
    seen.separate_mounts = next();
    seen.mount_proc = next();
    let _ = waitpid(Some(child), WaitOptions::empty());
    seen
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

/// As a restart does: a group map may be written by an ordinary user only where groups cannot be dropped.
fn map_user(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn choose_pid() -> Result<(), Errno> {
    // SAFETY: this process was forked with one thread and has started none.
    match unsafe { fork(0, Some(CHOSEN)) }? {
        Fork::Child => exit(i32::from(getpid().as_raw_nonzero().get() != CHOSEN)),
        Fork::Parent(_) => {
            let ended = waitpid(Pid::from_raw(CHOSEN), WaitOptions::empty()).map_err(errno)?;
            if ended.is_some_and(|(_, status)| status.exit_status() == Some(0)) { Ok(()) } else { Err(Errno(libc::ESRCH)) }
        }
    }
}

/// Runs `look` with the pid of a child that waits, and shares this process's open files.
pub fn with_child<T>(look: impl FnOnce(HostPid) -> T) -> Result<T, Errno> {
    let (never, _never_in) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
    // By the C library's fork: a container may forbid clone3, which a checkpoint does not need.
    // SAFETY: the caller of a trial has one thread; the child reads, and ends.
    match unsafe { nix::unistd::fork() }.map_err(|errno| Errno(errno as i32))? {
        ForkResult::Child => {
            let _ = read(&never, &mut [0]);
            exit(0)
        }
        ForkResult::Parent { child } => {
            let seen = look(HostPid(child.as_raw()));
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(child, None);
            Ok(seen)
        }
    }
}

/// Runs `act` in a child with these namespaces of its own (`CLONE_NEW*`), which then ends.
fn in_child(flags: u64, act: impl FnOnce()) -> Result<Pid, Errno> {
    // SAFETY: the caller of a trial has one thread; the child works on its copy of all memory, and never returns.
    match unsafe { fork(flags, None) }? {
        Fork::Child => {
            act();
            exit(0)
        }
        Fork::Parent(pid) => Pid::from_raw(pid).ok_or(Errno(libc::ESRCH)),
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: ends this process without running what the parent has set up for its own end.
    unsafe { libc::_exit(code) }
}
