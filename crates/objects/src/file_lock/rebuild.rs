//! Locks taken again.
//!
//! 1. [`check`], beforehand and outside of the new namespaces, where it can be seen who has a lock that the job needs.
//! 2. [`take_of_descriptions`], in the process that builds all files: OFD locks and flock(2).
//! 3. [`take_of_process`], in each process of the job: POSIX locks belong to processes, and go when any descriptor of the file is closed.
//! 4. [`take_leases`], last of all: to open a file, as a restart does, would break a lease of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ckpt_sys::descriptor::{fcntl, set_record_lock};
use ckpt_sys::number;
use linux_raw_sys::general::{__NR_fcntl, F_SETLK};
use rustix::fs::{FlockOperation, flock};

use super::{FileLock, Holder, Standing, held};
use crate::context::{Context, Resolve};
use crate::deferred::{Deferred, OnFailure, Purpose};
use crate::open_file::lockable_path;
use crate::rebuild::{RebuildError, copy_of, lift, own_fd_path};
use crate::{NsPid, Objects};

/// How long locks of a job that was killed a moment ago may still be there.
const STALE: Duration = Duration::from_secs(2);

/// A lock that somebody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenLock {
    /// The file.
    pub path: PathBuf,
    /// Who has it, in words.
    pub who: String,
}

/// Takes a lock that belongs to a description. Nothing is waited for: `EAGAIN` says that somebody else has one.
fn rebuild(fd: impl AsFd, lock: &FileLock) -> std::io::Result<()> {
    match lock.holder {
        Holder::Flock if lock.exclusive => Ok(flock(fd, FlockOperation::NonBlockingLockExclusive)?),
        Holder::Flock => Ok(flock(fd, FlockOperation::NonBlockingLockShared)?),
        Holder::Description => set_record_lock(fd.as_fd().as_raw_fd(), &record(lock)).map_err(raw),
        Holder::Lease | Holder::Process(_) => Ok(()),
    }
}

/// Calls by which process `pid` takes its POSIX locks.
#[must_use]
pub fn take_of_process(objects: Objects<'_>, pid: NsPid) -> Deferred {
    let mut deferred = Deferred::default();
    for lock in objects.locks.iter().filter(|lock| lock.holder == Holder::Process(pid)) {
        let record = deferred.put_words(&record(lock));
        deferred.call(Purpose::FileLock, OnFailure::Fail, __NR_fcntl, &[lock.fd.into(), F_SETLK.into(), record]);
    }
    deferred
}

/// A record lock as a `struct flock` of x86-64: type and origin, start, length (0: to the end), pid.
fn record(lock: &FileLock) -> [u64; 4] {
    let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let len = lock.end.map_or(0, |end| end.wrapping_sub(lock.start).wrapping_add(1));
    [u64::from(kind.unsigned_abs()) | (libc::SEEK_SET.unsigned_abs() as u64) << 16, lock.start, len, 0]
}

fn raw(error: ckpt_sys::raw::Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.0)
}

/// A lock that somebody else has, and that the job needs.
pub fn check(objects: Objects<'_>, resolve: Resolve<'_>) -> Option<TakenLock> {
    if objects.locks.is_empty() {
        return None;
    }
    let begun = Instant::now();
    loop {
        let standing = held(&std::fs::read_to_string("/proc/locks").unwrap_or_default());
        match objects.locks.iter().find_map(|lock| forbidden(objects, resolve, lock, &standing)) {
            Some(_) if begun.elapsed() < STALE => std::thread::sleep(Duration::from_millis(20)),
            taken => return taken,
        }
    }
}

fn forbidden(objects: Objects<'_>, resolve: Resolve<'_>, lock: &FileLock, standing: &[Standing]) -> Option<TakenLock> {
    let path = resolve(lockable_path(objects, lock.file)?);
    let meta = path.metadata().ok()?;
    let device = format!("{:02x}:{:02x}", libc::major(meta.dev()), libc::minor(meta.dev()));
    let is_of_file = |other: &&Standing| other.inode.1 == meta.ino() && (other.inode.0 == device || other.inode == lock.inode);
    let other = standing.iter().filter(is_of_file).find(|other| lock.is_forbidden_by(other))?;
    if lock.holder == Holder::Flock && inherited_flock(meta.dev(), meta.ino()).is_some() {
        return None;
    }
    let name = std::fs::read_to_string(format!("/proc/{}/comm", other.pid)).unwrap_or_default();
    let who = match other.pid {
        pid @ 1.. => format!("process {pid} ({})", name.trim_end()),
        _ => "somebody else".to_owned(),
    };
    Some(TakenLock { path, who })
}

/// A descriptor that this restart has inherited and that holds a lock of this file. The job was launched with such a one too.
fn inherited_flock(device: u64, inode: u64) -> Option<RawFd> {
    let numbers = std::fs::read_dir("/proc/self/fd").ok()?;
    numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok()).find(|fd| {
        let is_file =
            std::fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|meta| (meta.dev(), meta.ino()) == (device, inode));
        is_file && std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).is_ok_and(|info| info.contains(": FLOCK "))
    })
}

/// Takes the locks that belong to descriptions. `open` are all files of the job.
///
/// # Errors
/// Somebody else has the lock.
pub fn take_of_descriptions(context: &dyn Context, open: &mut [Option<OwnedFd>]) -> Result<(), RebuildError> {
    let objects = context.objects();
    for lock in objects.locks.iter().filter(|lock| matches!(lock.holder, Holder::Description | Holder::Flock)) {
        let place = open.get_mut(lock.file.at()).ok_or(RebuildError::Incomplete("a file that is locked"))?;
        let Some(own) = place else { continue };
        match rebuild(&*own, lock) {
            Ok(()) => (),
            Err(error) => {
                let meta = std::fs::metadata(own_fd_path(own.as_fd())).map_err(RebuildError::call("examine a locked file"))?;
                match inherited_flock(meta.dev(), meta.ino()).filter(|_| lock.holder == Holder::Flock) {
                    Some(inherited) => *place = Some(lift(copy_of(inherited)?, context.lowest())?),
                    None => return Err(cannot(objects, lock)(error)),
                }
            }
        }
    }
    Ok(())
}

fn cannot(objects: Objects<'_>, lock: &FileLock) -> impl FnOnce(std::io::Error) -> RebuildError {
    let what = if lock.holder == Holder::Lease { "lease" } else { "lock" };
    RebuildError::call(match lockable_path(objects, lock.file) {
        Some(path) => format!("take its {what} of {path} again; see /proc/locks for who has one"),
        None => format!("take its {what} of a file without a name again"),
    })
}

/// Descriptions that have leases: their indices in [`Objects::open_files`].
pub fn leased(objects: Objects<'_>) -> impl Iterator<Item = usize> {
    objects.locks.iter().filter(|lock| lock.holder == Holder::Lease).map(|lock| lock.file.at())
}

/// Takes the lease that description `index` had.
///
/// # Errors
/// Somebody has the file open, or it is another user's.
pub fn take_leases(objects: Objects<'_>, fd: BorrowedFd<'_>, index: usize) -> Result<(), RebuildError> {
    for lock in objects.locks.iter().filter(|lock| lock.file.at() == index && lock.holder == Holder::Lease) {
        let failed = |source: std::io::Error| {
            let path = lockable_path(objects, lock.file).map(|path| path.as_path().to_owned()).unwrap_or_default();
            RebuildError::File { action: "take the lease again of", path, source }
        };
        // Under another number than the one that it is lent.
        let own = rustix::io::fcntl_dupfd_cloexec(fd, lock.fd.max(0) + 1).map_err(|error| failed(error.into()))?;
        let kind = if lock.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        let take = || fcntl(lock.fd, libc::F_SETLEASE.cast_unsigned(), kind.unsigned_abs().into());
        number::lend(own.as_raw_fd(), lock.fd, take).flatten().map_err(|error| failed(raw(error)))?;
    }
    Ok(())
}
