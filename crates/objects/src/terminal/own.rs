//! The terminal that a launcher or a restart itself runs on: what it is lent for, and given back as.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ckpt_sys::terminal::{Query, Setting, get, set, set_settings, settings};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use rustix::fs::{Mode, OFlags, open};

use super::TerminalSettings;

/// The terminal of this process, as it was found.
#[derive(Debug)]
pub struct OwnTerminal {
    descriptor: OwnedFd,
    /// It controls this process's session.
    pub controls: bool,
    /// Its settings.
    pub settings: TerminalSettings,
}

impl OwnTerminal {
    /// The controlling terminal, or the first of standard input, output and error that is one.
    #[must_use]
    pub fn find() -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let controlling = open("/dev/tty", flags, Mode::empty()).ok();
        let controls = controlling.is_some();
        let descriptor = controlling.or_else(standard)?;
        let settings = settings(descriptor.as_raw_fd()).ok()?.into();
        Some(Self { descriptor, controls, settings })
    }

    /// Whether this process is in the terminal's foreground, as far as there is one: it may be changed then.
    #[must_use]
    pub fn is_in_foreground(&self) -> bool {
        !self.controls || get(self.descriptor.as_raw_fd(), Query::Foreground) == Ok(nix::unistd::getpgrp().as_raw())
    }

    /// Sets its modes.
    pub fn set(&self, settings: &TerminalSettings) {
        // Speeds and the like are the terminal's own.
        let mut wanted = *settings;
        wanted.modes[2] = self.settings.modes[2];
        wanted.speeds = self.settings.speeds;
        // A terminal that has gone takes none.
        let _ = unstopped(|| set_settings(self.descriptor.as_raw_fd(), &wanted.into()).ok());
    }

    /// Brings this process's group to the foreground again, where the group that a job has left there has ended.
    pub fn take_foreground(&self) {
        let Ok(group) = get(self.descriptor.as_raw_fd(), Query::Foreground) else { return };
        let own = nix::unistd::getpgrp();
        let is_gone = group > 0 && nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), None) == Err(nix::Error::ESRCH);
        if self.controls && group != own.as_raw() && is_gone {
            let _ = unstopped(|| set(self.descriptor.as_raw_fd(), Setting::Foreground, own.as_raw()).ok());
        }
    }
}

/// The first of standard input, output and error that is a terminal.
#[must_use]
pub fn standard() -> Option<OwnedFd> {
    let duplicate = |fd: &dyn AsFd| rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 3).ok();
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    if stdin.is_terminal() {
        duplicate(&stdin)
    } else if stdout.is_terminal() {
        duplicate(&stdout)
    } else if stderr.is_terminal() {
        duplicate(&stderr)
    } else {
        None
    }
}

/// Does something to a terminal that would stop a process of its background.
fn unstopped<T>(act: impl FnOnce() -> T) -> T {
    let (set, mut before) = (SigSet::from(Signal::SIGTTOU), SigSet::empty());
    let blocked = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before));
    let result = act();
    if blocked.is_ok() {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    }
    result
}
