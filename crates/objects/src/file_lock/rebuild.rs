//! Locks taken again.

use std::os::fd::{AsFd, AsRawFd};

use ckpt_sys::descriptor::{fcntl, set_record_lock};
use rustix::fs::{FlockOperation, flock};

use super::{FileLock, Holder};

/// Takes a lock that belongs to a description. A lease's signal will tell the number that `fd` has now. Nothing is waited for: `EAGAIN` says that somebody else has one.
pub fn rebuild(fd: impl AsFd, lock: &FileLock) -> std::io::Result<()> {
    let raw = |error: ckpt_sys::raw::Errno| std::io::Error::from_raw_os_error(error.0);
    match lock.holder {
        Holder::Flock if lock.exclusive => Ok(flock(fd, FlockOperation::NonBlockingLockExclusive)?),
        Holder::Flock => Ok(flock(fd, FlockOperation::NonBlockingLockShared)?),
        Holder::Description => set_record_lock(fd.as_fd().as_raw_fd(), &record(lock)).map_err(raw),
        Holder::Lease => {
            let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
            fcntl(fd.as_fd().as_raw_fd(), libc::F_SETLEASE.cast_unsigned(), kind.unsigned_abs().into()).map(|_| ()).map_err(raw)
        }
        Holder::Process(_) => Ok(()),
    }
}

/// A record lock as a `struct flock` of x86-64: type and origin, start, length (0: to the end), pid.
#[must_use]
pub fn record(lock: &FileLock) -> [u64; 4] {
    let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let len = lock.end.map_or(0, |end| end.wrapping_sub(lock.start).wrapping_add(1));
    [u64::from(kind.unsigned_abs()) | (libc::SEEK_SET.unsigned_abs() as u64) << 16, lock.start, len, 0]
}
