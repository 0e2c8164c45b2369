//! A terminal with a shell on it, and somebody who types: for jobs that are launched and restarted by hand.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use crate::sandbox::{BOUND, Running, Sandbox};
use crate::{tool, tree};

/// A terminal, and the shell on it.
pub struct Terminal {
    master: File,
    shell: Running,
    /// What was shown and not yet looked at.
    shown: String,
    /// All that was shown.
    all: String,
}

impl Terminal {
    /// An interactive shell with job control, in the sandbox and as its user, on a terminal of its own. The tools are found by
    /// their names.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn new(sandbox: &Sandbox) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a pseudo-terminal");
        let path = std::fs::read_link(format!("/proc/self/fd/{}", pty.slave.as_raw_fd())).expect("it has a path");
        sandbox.identity.own_path(&path);
        for side in [pty.master.as_fd(), pty.slave.as_fd()] {
            // Nobody but the shell is to have either.
            let close = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
            nix::fcntl::fcntl(side, close).expect("a descriptor of ours");
        }
        let mut command = sandbox.command("setsid");
        command.args(["--ctty", "--wait", "bash", "--norc", "--noprofile", "-i"]);
        command.env("PS1", "ready> ").env("TERM", "dumb");
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tool("").display()));
        let slave = File::from(pty.slave);
        let copy = || slave.try_clone().expect("a copy of a descriptor");
        command.stdin(copy()).stdout(copy()).stderr(copy());
        let shell = Running::start(command, sandbox.join("no-errors"));
        let mut terminal = Self { master: File::from(pty.master), shell, shown: String::new(), all: String::new() };
        terminal.expect("ready> ");
        terminal
    }

    /// Types.
    ///
    /// # Panics
    /// When there is no terminal any more.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until something is shown, and forgets all up to that.
    ///
    /// # Panics
    /// When it is not shown in time.
    pub fn expect(&mut self, text: &str) {
        let end = Instant::now() + BOUND;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            assert!(Instant::now() < end, "waited for {text:?} in vain; shown was:\n{}", self.all);
            self.read(Duration::from_millis(100));
        }
    }

    /// Types a key until something is shown: a shell names a job that it puts into the foreground before it gives it the terminal.
    ///
    /// # Panics
    /// When it is not shown in time.
    pub fn types_until(&mut self, key: &str, text: &str) {
        let end = Instant::now() + BOUND;
        while !self.shown.contains(text) {
            assert!(Instant::now() < end, "waited for {text:?} in vain; shown was:\n{}", self.all);
            self.types(key);
            // What is shown first is the key.
            let wait = Instant::now() + Duration::from_millis(500);
            while !self.shown.contains(text) && Instant::now() < wait {
                self.read(Duration::from_millis(100));
            }
        }
        self.expect(text);
        // The last key may have come after the one that had the effect.
        std::thread::sleep(Duration::from_millis(300));
        self.read(Duration::from_millis(1));
    }

    /// What is shown in a while from now on.
    #[must_use]
    pub fn shows_within(&mut self, time: Duration) -> String {
        let end = Instant::now() + time;
        self.shown.clear();
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.read(left);
        }
        std::mem::take(&mut self.shown)
    }

    fn read(&mut self, at_most: Duration) {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(at_most.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
            let mut buffer = [0; 4096];
            let n = self.master.read(&mut buffer).unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..n]);
            self.shown += &text;
            self.all += &text;
        }
    }

    /// Ends a tool that runs on the terminal, with its job.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, name: &str) {
        let is_it = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
        let pid = tree::family(self.shell.pid()).into_iter().find(is_it);
        tree::kill_tree(pid.unwrap_or_else(|| panic!("{name} does not run; shown was:\n{}", self.all)));
        // The shell sees it stopped first, and tells of its end when it is asked for something.
        self.types("echo it is gone\n");
        self.expect("\nit is gone");
        self.expect("ready> ");
    }
}
