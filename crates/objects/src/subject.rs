//! A frozen process that is observed, and the system calls that its agent makes: about objects that only its namespaces, or the process
//! itself, can name.

use std::io;

use crate::observe::ObserveError;
use crate::process::Status;
use crate::{FilePath, HostPid, NsPid};

/// An argument of a system call.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A number.
    Number(u64),
    /// The address of a byte of the window, by its offset.
    Window(u64),
}

impl From<i32> for Arg {
    fn from(number: i32) -> Self {
        Self::Number(i64::from(number).cast_unsigned())
    }
}

impl From<u32> for Arg {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Arg {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

/// A frozen process. Its *window* is memory of [`ckpt_wire::SLOT_DATA`] bytes, through which the calls that it makes are given bytes and
/// give them back.
pub trait Subject {
    /// Its pid here.
    fn pid(&self) -> HostPid;

    /// A thread of it that lives, through which its `/proc` is read: the first if that lives.
    fn live(&self) -> HostPid;

    /// Its pid as the job sees it.
    fn ns_pid(&self) -> NsPid;

    /// What `/proc/PID/status` said when it was frozen.
    fn status(&self) -> &Status;

    /// Has its agent make a system call that waits for nothing.
    ///
    /// # Errors
    ///
    /// What the call fails with; `ConnectionAborted` when the agent does not answer.
    fn call(&self, number: i64, args: &[Arg]) -> io::Result<u64>;

    /// The address of the window in its memory.
    ///
    /// # Errors
    ///
    /// When its agent has not told.
    fn window(&self) -> io::Result<u64>;

    /// Puts bytes into the window; what does not fit is left out.
    fn put(&self, bytes: &[u8]);

    /// The first bytes of the window.
    fn get(&self, len: usize) -> Vec<u8>;

    /// Its name.
    fn name(&self) -> FilePath {
        self.status().name()
    }

    /// Whether it may be asked to make calls: a filter of system calls (seccomp) might end it for them.
    fn makes_calls(&self) -> bool {
        self.status().number("Seccomp") == 0
    }

    /// Reads a file as the process sees it: one of `/proc` that tells of the reader's namespaces.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or read there, or has no end.
    fn read_file(&self, path: &str) -> io::Result<String> {
        const SIZE: usize = 1 << 16;
        const LARGEST: usize = 64 << 20;
        self.put(&[path.as_bytes(), &[0]].concat());
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let fd = self.call(libc::SYS_openat, &[libc::AT_FDCWD.into(), Arg::Window(0), flags.into(), 0.into()])?;
        let mut text = Vec::new();
        let outcome = loop {
            match self.call(libc::SYS_read, &[Arg::Number(fd), Arg::Window(0), SIZE.into()]) {
                Ok(0) => break Ok(()),
                Ok(_) if text.len() > LARGEST => break Err(io::ErrorKind::FileTooLarge.into()),
                Ok(n) => text.extend(self.get(usize::try_from(n).unwrap_or(0))),
                Err(error) => break Err(error),
            }
        };
        self.call(libc::SYS_close, &[Arg::Number(fd)])?;
        outcome.map(|()| String::from_utf8_lossy(&text).into_owned())
    }

    /// The error for a process that has something which is not kept. `what` is the rest of a sentence.
    fn refuse(&self, what: impl Into<String>, remedy: &'static str) -> ObserveError {
        ObserveError::Refused { pid: self.ns_pid().0, name: self.name(), what: what.into(), remedy }
    }
}
