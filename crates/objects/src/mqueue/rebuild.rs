//! Rebuilds message queues, in an IPC namespace of the job's own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ckpt_sys::mqueue::{self, Attributes};
use ckpt_sys::raw::Errno;
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::Mqueue;
use crate::rebuild::RebuildError;

fn failed(what: &'static str) -> impl FnOnce(Errno) -> RebuildError {
    move |Errno(errno)| RebuildError::Call { what: what.to_owned(), source: io::Error::from_raw_os_error(errno) }
}

fn bare_name(queue: &Mqueue) -> Result<CString, RebuildError> {
    let name = queue.name.0.strip_prefix(b"/").unwrap_or(&queue.name.0);
    CString::new(name).map_err(|_| failed("name a POSIX message queue")(Errno(libc::EINVAL)))
}

/// Makes the queue with its messages, open for reading and writing. Descriptions of it are opened through this one.
///
/// # Errors
/// A queue of that size or number is not allowed (`fs.mqueue`).
pub fn rebuild(queue: &Mqueue) -> Result<OwnedFd, RebuildError> {
    const WHAT: &str = "make a POSIX message queue (see fs.mqueue.msg_max, fs.mqueue.msgsize_max and ulimit -q)";
    let reopen = |made: i32| rustix::fs::open(format!("/proc/self/fd/{made}"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let fd = mqueue::create(&bare_name(queue)?, &Attributes::new(queue.capacity, queue.message_size), reopen)
        .and_then(|opened| opened.map_err(|error| Errno(error.raw_os_error())))
        .map_err(failed(WHAT))?;
    for (priority, message) in &queue.messages {
        mqueue::send(fd.as_raw_fd(), *priority, message, 0).map_err(failed("fill a POSIX message queue"))?;
    }
    Ok(fd)
}

/// Gives the queue its owner and permissions, and takes its name away where it had none any more: when everybody has opened it.
///
/// # Errors
/// The owner cannot be set, or the name not be taken away.
pub fn finish(fd: impl AsFd, queue: &Mqueue) -> Result<(), RebuildError> {
    let (uid, gid) = queue.owner;
    // Only root can give it to another; whoever else restarts a job was its owner.
    let _ = rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(queue.mode))
        .map_err(|error| failed("set the permissions of a POSIX message queue")(Errno(error.raw_os_error())))?;
    if queue.removed {
        mqueue::remove(&bare_name(queue)?).map_err(failed("remove the name of a POSIX message queue"))?;
    }
    Ok(())
}
