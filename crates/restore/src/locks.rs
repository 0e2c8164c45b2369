//! File locks, leases and signal-driven I/O, taken again.
//!
//! 1. [`check`], beforehand and outside of the new namespaces, where it can be seen who has a lock that the job needs.
//! 2. [`take_of_descriptions`], in the process that builds all files: OFD locks and flock(2).
//! 3. [`record_locks`] and [`signals`], operations of each process of the job: POSIX locks, which belong to processes and go when any
//!    descriptor of the file is closed, and owners of signals, who must be there.
//! 4. [`take_leases`], last of all: to open a file, as a restart does, would break a lease of it.

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use ckpt_objects::NsPid;
use ckpt_objects::file::OpenFileKind;
use ckpt_objects::file_lock::{self, FileLock, Holder, Standing, held};
use ckpt_objects::rebuild::RebuildError;
use ckpt_session::JobState;
use linux_raw_sys::general as nr;

use crate::epolls;
use crate::error::{ProcessError, RestoreError};
use crate::paths::PathMap;
use crate::restart::Restart;
use crate::restorer::{Check, Operations, Region, RegionFull, Step};

/// How long locks of a job that was killed a moment ago may still be there.
const STALE: Duration = Duration::from_secs(2);

/// The file of a lock, if it has a name.
fn path_of<'a>(job: &'a JobState, lock: &FileLock) -> Option<&'a ckpt_objects::FilePath> {
    match &job.open_files.get(lock.file as usize)?.kind {
        OpenFileKind::Regular(regular) => Some(&regular.path),
        OpenFileKind::Directory { path } => Some(path),
        OpenFileKind::Pipe { pipe } => job.pipes.get(*pipe as usize)?.path.as_ref(),
        _ => None,
    }
}

/// Whether somebody else has a lock that the job needs.
pub fn check(job: &JobState, paths: &PathMap) -> Result<(), RestoreError> {
    if job.locks.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        let standing = held(&std::fs::read_to_string("/proc/locks").unwrap_or_default());
        match job.locks.iter().find_map(|lock| forbidden(job, paths, lock, &standing)) {
            None => return Ok(()),
            Some(_) if begun.elapsed() < STALE => std::thread::sleep(Duration::from_millis(20)),
            Some(error) => return Err(error),
        }
    }
}

fn forbidden(job: &JobState, paths: &PathMap, lock: &FileLock, standing: &[Standing]) -> Option<RestoreError> {
    let path = paths.resolve(path_of(job, lock)?);
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
    Some(RestoreError::Locked { path, who })
}

/// A descriptor that this restart was started with, and by which whoever started it has locked this file: as it was when the job was
/// launched.
fn inherited_flock(device: u64, inode: u64) -> Option<RawFd> {
    let numbers = std::fs::read_dir("/proc/self/fd").ok()?;
    numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok()).find(|fd| {
        let is_file =
            std::fs::metadata(format!("/proc/self/fd/{fd}")).is_ok_and(|meta| (meta.dev(), meta.ino()) == (device, inode));
        is_file && std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).is_ok_and(|info| info.contains(": FLOCK "))
    })
}

/// Takes the locks that belong to descriptions. `open` are all files of the job.
pub fn take_of_descriptions(
    restart: &Restart<'_>,
    open: &mut [Option<RawFd>],
    lift: impl Fn(BorrowedFd<'_>) -> Result<RawFd, ProcessError>,
) -> Result<(), ProcessError> {
    let job = restart.job;
    for lock in job.locks.iter().filter(|lock| matches!(lock.holder, Holder::Description | Holder::Flock)) {
        let place = open.get_mut(lock.file as usize).ok_or(ProcessError::Incomplete("a file that is locked"))?;
        let Some(fd) = *place else { continue };
        // SAFETY: the files of the job are open in the process that builds them.
        let own = unsafe { BorrowedFd::borrow_raw(fd) };
        match file_lock::rebuild(own, lock) {
            Ok(()) => (),
            Err(error) => {
                let meta =
                    std::fs::metadata(format!("/proc/self/fd/{fd}")).map_err(ProcessError::call("examine a locked file"))?;
                match inherited_flock(meta.dev(), meta.ino()).filter(|_| lock.holder == Holder::Flock) {
                    // SAFETY: it has just been seen to be open.
                    Some(inherited) => *place = Some(lift(unsafe { BorrowedFd::borrow_raw(inherited) })?),
                    None => return Err(cannot(job, lock)(error)),
                }
            }
        }
    }
    Ok(())
}

fn cannot(job: &JobState, lock: &FileLock) -> impl FnOnce(std::io::Error) -> ProcessError {
    let what = if lock.holder == Holder::Lease { "lease" } else { "lock" };
    ProcessError::call(match path_of(job, lock) {
        Some(path) => format!("take its {what} of {path} again; see /proc/locks for who has one"),
        None => format!("take its {what} of a file without a name again"),
    })
}

/// Descriptions that have leases: their indices in [`JobState::open_files`].
pub fn leased(job: &JobState) -> impl Iterator<Item = usize> + '_ {
    job.locks.iter().filter(|lock| lock.holder == Holder::Lease).map(|lock| lock.file as usize)
}

/// Takes the lease that description `index` had.
pub fn take_leases(job: &JobState, fd: BorrowedFd<'_>, index: usize) -> Result<(), RebuildError> {
    for lock in job.locks.iter().filter(|lock| lock.file as usize == index && lock.holder == Holder::Lease) {
        let failed = |source: std::io::Error| {
            let path = path_of(job, lock).map(|path| path.as_path().to_owned()).unwrap_or_default();
            RebuildError::File { action: "take the lease again of", path, source }
        };
        // Under another number than the one that it is lent.
        let own = rustix::io::fcntl_dupfd_cloexec(fd, lock.fd.max(0) + 1).map_err(|error| failed(error.into()))?;
        let taken = epolls::with_number(&own, lock.fd, |fd| Ok(file_lock::rebuild(fd, lock)));
        taken.map_err(std::io::Error::from).and_then(|taken| taken).map_err(failed)?;
    }
    Ok(())
}

/// Adds the operations by which a process takes its POSIX locks.
pub fn record_locks(job: &JobState, pid: NsPid, region: &mut Region, list: &mut Operations) -> Result<(), RegionFull> {
    const F_SETLK: u64 = 6;
    for lock in &job.locks {
        if lock.holder == Holder::Process(pid) {
            let record = region.put_words(&file_lock::record(lock))?;
            let fd = u64::from(lock.fd.cast_unsigned());
            list.call(Step::FileLock, Check::Success, nr::__NR_fcntl, &[fd, F_SETLK, record]);
        }
    }
    Ok(())
}

/// Adds the operations by which a process sets whom its descriptions send signals.
pub fn signals(job: &JobState, pid: NsPid, region: &mut Region, list: &mut Operations) -> Result<(), RegionFull> {
    const F_SETFL: u64 = 4;
    const F_SETSIG: u64 = 10;
    const F_SETOWN_EX: u64 = 15;
    for one in job.signalling.iter().filter(|one| one.pid == pid) {
        let fd = u64::from(one.fd.cast_unsigned());
        if one.signal != 0 {
            let signal = u64::from(one.signal.cast_unsigned());
            list.call(Step::Owner, Check::Success, nr::__NR_fcntl, &[fd, F_SETSIG, signal]);
        }
        if let Some((kind, owner)) = one.owner {
            let owner = region.put(&[kind.to_ne_bytes(), owner.0.to_ne_bytes()].concat())?;
            // A thread of another process may not be there yet.
            list.call(Step::Owner, Check::Report, nr::__NR_fcntl, &[fd, F_SETOWN_EX, owner]);
        }
        let flags = job.open_files.get(one.file as usize).map_or(0, |file| file.flags);
        if one.on {
            list.call(Step::Owner, Check::Success, nr::__NR_fcntl, &[fd, F_SETFL, flags.into()]);
        }
    }
    Ok(())
}
