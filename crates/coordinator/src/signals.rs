//! The signals that the coordinator listens to, and settings of its own that its job must not inherit.
//!
//! The only unsafe code of this crate beside the hand-over memory and the probes: the standard library has no safe way to either.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{LaunchError, system};
use crate::options::{Action, Reactions};

extern "C" fn do_nothing(_signal: libc::c_int) {}

/// Makes writing past a file size limit (`ulimit -f`) fail with `EFBIG`, which is reported, instead of ending the coordinator.
///
/// The signal is caught rather than ignored: what is caught is the default again after `exec`, so the job is still ended by it.
pub fn survive_file_size_limit() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(do_nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, which is allowed in any context.
    let before = unsafe { sigaction(Signal::SIGXFSZ, &action) }?;
    if matches!(before.handler(), SigHandler::SigIgn) {
        // Whoever started the coordinator ignores it, and wants it ignored in the job too.
        // SAFETY: puts back what was there.
        unsafe { sigaction(Signal::SIGXFSZ, &before) }?;
    }
    Ok(())
}

/// What the coordinator was started with, and changes for itself: its commands begin with it.
#[derive(Clone, Copy)]
pub struct Inherited {
    /// The signal mask. The coordinator blocks the signals that it reads from a descriptor.
    mask: SigSet,
    /// The limit on open files. The coordinator needs some for each process of the job, and raises it as far as it may.
    files: Rlimit,
}

impl Inherited {
    /// Blocks these signals, and raises the limit.
    fn replace(blocked: &SigSet) -> nix::Result<Self> {
        let mut mask = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(blocked), Some(&mut mask))?;
        let files = getrlimit(Resource::Nofile);
        // Where it cannot be raised, what needs more fails by name.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
        Ok(Self { mask, files })
    }
}

/// Has a command begin with what the coordinator began with.
///
/// Unless some of `shielded` are blocked in it: with those blocked too, so that none comes before the command's agent is there, which lets them in.
pub fn start_as_before(command: &mut Command, before: Inherited, shielded: &[Signal]) {
    let Inherited { mut mask, files } = before;
    let hold = !shielded.is_empty() && !shielded.iter().any(|signal| mask.contains(*signal));
    if hold {
        shielded.iter().for_each(|signal| mask.add(*signal));
    }
    let set = move || {
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        setrlimit(Resource::Nofile, files)?;
        if hold {
            ckpt_sys::process::block(ckpt_wire::SHIELD_MARK).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, which is allowed there (signal-safety(7)).
    unsafe { command.pre_exec(set) };
}

/// Has a command of the coordinator's own begin so, in a session of its own: no terminal's signals, and nothing of the job's, reach it.
pub fn start_apart(command: &mut Command, before: Inherited) {
    start_as_before(command, before, &[]);
    let leave = || nix::unistd::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec setsid(2) is one system call, which is allowed there (signal-safety(7)).
    unsafe { command.pre_exec(leave) };
}

/// The signals that the coordinator listens to: blocked, and read from a descriptor.
pub struct Signals {
    pub descriptor: SignalFd,
    pub reactions: Reactions,
    /// What the coordinator was started with.
    pub before: Inherited,
}

impl Signals {
    /// Blocks them, and opens the descriptor.
    pub fn catch(reactions: &Reactions) -> Result<Self, LaunchError> {
        let fail = |errno: nix::Error| system("listen to signals")(errno.into());
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        for on in reactions.iter() {
            set.add(Signal::try_from(on.signal.as_raw()).map_err(fail)?);
        }
        let before = Inherited::replace(&set).map_err(fail)?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(fail)?;
        survive_file_size_limit().map_err(fail)?;
        Ok(Self { descriptor, reactions: reactions.clone(), before })
    }

    /// The next signal that came and is not SIGCHLD, what it does, and whether the kernel sent it.
    pub fn next(&mut self) -> Option<(rustix::process::Signal, Action, bool)> {
        while let Ok(Some(info)) = self.descriptor.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Some(on) = self.reactions.iter().find(|on| on.signal.as_raw() == number) {
                return Some((on.signal, on.action, info.ssi_code == libc::SI_KERNEL));
            }
        }
        None
    }
}
