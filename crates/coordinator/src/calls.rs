//! System calls that a frozen process makes for the coordinator: about objects that only its namespaces, or the process itself, can name.

use std::io;
use std::time::{Duration, Instant};

use ckpt_session::Received;
use ckpt_wire::{CallRecord, Order, Report, ReportKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::freeze::FrozenProcess;

/// How long a call may take: none that is made waits for anything.
const GRACE: Duration = Duration::from_secs(10);

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A number.
    Number(u64),
    /// The address of a byte of the window ([`crate::hand_over::HandOver::window`]).
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

/// The result of a system call as an agent reports it: its value, or the error number.
fn result(value: i64) -> Result<u64, i32> {
    u64::try_from(value).map_err(|_| value.checked_neg().and_then(|errno| i32::try_from(errno).ok()).unwrap_or(libc::EIO))
}

impl FrozenProcess {
    /// Whether it may be asked to make calls: one that has a filter of system calls might be ended by them.
    pub fn makes_calls(&self) -> bool {
        self.status.number("Seccomp") == 0
    }

    /// Has its agent make a system call.
    pub fn call(&self, number: i64, args: &[Arg]) -> io::Result<u64> {
        let mut call = CallRecord { number: number.unsigned_abs(), ..CallRecord::default() };
        for (i, arg) in args.iter().enumerate() {
            match arg {
                Arg::Number(number) => call.args[i] = *number,
                Arg::Window(at) => {
                    call.args[i] = self.memory.window() + at;
                    call.offsets |= 1 << i;
                }
            }
        }
        self.memory.set_call(call);
        self.order(Order::Call)?;
        let begun = Instant::now();
        loop {
            match self.connection.receive::<Report>() {
                Received::Message(report, _) if ReportKind::of(&report) == Some(ReportKind::Called) => {
                    return result(report.value).map_err(io::Error::from_raw_os_error);
                }
                Received::Nothing if begun.elapsed() < GRACE => {
                    let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
                    let _ = poll(&mut [PollFd::new(&self.connection, PollFlags::IN)], Some(&timeout));
                }
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }

    /// Reads a file as the process sees it: one of `/proc` that tells of the reader's namespaces.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has no end.
    pub fn read_for_us(&self, path: &str) -> io::Result<String> {
        const SIZE: usize = 1 << 16;
        const LARGEST: usize = 64 << 20;
        self.memory.put(&[path.as_bytes(), &[0]].concat());
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let fd = self.call(libc::SYS_openat, &[libc::AT_FDCWD.into(), Arg::Window(0), flags.into(), 0.into()])?;
        let mut text = Vec::new();
        let outcome = loop {
            match self.call(libc::SYS_read, &[Arg::Number(fd), Arg::Window(0), SIZE.into()]) {
                Ok(0) => break Ok(()),
                Ok(_) if text.len() > LARGEST => break Err(io::ErrorKind::FileTooLarge.into()),
                Ok(n) => text.extend(self.memory.get(usize::try_from(n).unwrap_or(0))),
                Err(error) => break Err(error),
            }
        };
        self.call(libc::SYS_close, &[Arg::Number(fd)])?;
        outcome.map(|()| String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_result() {
        assert_eq!((result(7), result(-libc::EPERM as i64)), (Ok(7), Err(libc::EPERM)));
        assert_eq!((result(i64::MAX), result(i64::MIN)), (Ok(i64::MAX as u64), Err(libc::EIO)));
    }
}
