//! The signals that the coordinator listens to, and signal settings of its own that its job must not inherit.
//!
//! The only unsafe code of this crate beside the hand-over memory and the probes: the standard library has no safe way to either.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{LaunchError, system};
use crate::options::{Action, Reactions};

/// `si_code` of a signal that the kernel sent, such as a terminal's.
const SI_KERNEL: i32 = 0x80;

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

/// Has a command begin with this signal mask, and not with the signals blocked that the coordinator reads from a descriptor.
///
/// Unless some of `shielded` are blocked in it: with those blocked too, so that none comes before the command's agent is there, which lets them in.
pub fn start_with_mask(command: &mut Command, mut mask: SigSet, shielded: &[Signal]) {
    let hold = !shielded.is_empty() && !shielded.iter().any(|signal| mask.contains(*signal));
    if hold {
        shielded.iter().for_each(|signal| mask.add(*signal));
    }
    let set = move || {
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        if hold {
            ckpt_sys::process::block(ckpt_wire::HELD_MARK).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, which is allowed there (signal-safety(7)).
    unsafe { command.pre_exec(set) };
}

/// Has a command of the coordinator's own begin with this signal mask, in a session of its own: no terminal's signals, and nothing of the job's, reach it.
pub fn start_apart(command: &mut Command, mask: SigSet) {
    start_with_mask(command, mask, &[]);
    let leave = || nix::unistd::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec setsid(2) is one system call, which is allowed there (signal-safety(7)).
    unsafe { command.pre_exec(leave) };
}

/// The signals that the coordinator listens to: blocked, and read from a descriptor.
pub struct Signals {
    pub descriptor: SignalFd,
    pub reactions: Reactions,
    /// The signal mask that the coordinator was started with.
    pub before: SigSet,
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
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before)).map_err(fail)?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(fail)?;
        survive_file_size_limit().map_err(fail)?;
        Ok(Self { descriptor, reactions: reactions.clone(), before })
    }

    /// The next signal that came and is not SIGCHLD, what it does, and whether the kernel sent it.
    pub fn next(&mut self) -> Option<(rustix::process::Signal, Action, bool)> {
        while let Ok(Some(info)) = self.descriptor.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Some(on) = self.reactions.iter().find(|on| on.signal.as_raw() == number) {
                return Some((on.signal, on.action, info.ssi_code == SI_KERNEL));
            }
        }
        None
    }
}
