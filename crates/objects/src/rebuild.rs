//! Shared parts of rebuilding: the error, and opening a file description once more.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use ckpt_sys::raw::Errno;
use rustix::fs::{Mode, OFlags};

/// Moves a descriptor out of the way of the job's numbers.
///
/// # Errors
///
/// When the limit on open files does not allow it.
pub fn lift(fd: impl AsFd, lowest: RawFd) -> Result<OwnedFd, RebuildError> {
    rustix::io::fcntl_dupfd_cloexec(&fd, lowest)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&fd, 3))
        .map_err(RebuildError::call("hold all files of the job open at once (raise the hard limit on open files, ulimit -Hn)"))
}

/// A descriptor of what one is open on that this process has by its number only.
///
/// # Errors
///
/// When it is not open.
pub fn copy_of(number: RawFd) -> Result<OwnedFd, RebuildError> {
    let what = || format!("duplicate descriptor {number}");
    let place = placeholder().map_err(RebuildError::call(what()))?;
    ckpt_sys::number::give(number, place.as_raw_fd(), true).map_err(RebuildError::raw(what()))?;
    Ok(place)
}

/// A descriptor that only has a number, for something that a child is to give it.
///
/// # Errors
/// No descriptor is left.
pub fn placeholder() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Why an object of the job cannot be made anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// A file cannot be opened the way the job had it open.
    #[error("cannot open {path}: {source}; bring it back, or give --map OLD=NEW where it has moved", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was opened, but not brought into the state that it had.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    File {
        /// What failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pipe cannot be made as it was.
    #[error("cannot {action} a pipe of {capacity} bytes: {source}; see fs.pipe-max-size and fs.pipe-user-pages-soft")]
    Pipe {
        /// What failed.
        action: &'static str,
        /// The capacity it had.
        capacity: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes that were in a pipe do not fit into its like.
    #[error("a pipe of {capacity} bytes does not hold the {bytes} bytes that were in it")]
    PipeTooSmall {
        /// The capacity it had.
        capacity: u32,
        /// What it must hold.
        bytes: usize,
    },
    /// A call for an object without a path failed.
    #[error("cannot {what}: {source}")]
    Call {
        /// What was to be done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The image lacks something that every image has.
    #[error("the image says nothing of {0}; it is of another release, or damaged")]
    Incomplete(&'static str),
    /// The contents of an object cannot be read from the image, or not be given to it.
    #[error(transparent)]
    Contents(Box<dyn std::error::Error + Send + Sync>),
    /// An object of System V IPC cannot be made.
    #[error("cannot make {what} with its number {id}: {source}; see kernel.shmmax, kernel.sem and kernel.msgmnb")]
    Ipc {
        /// What it is.
        what: &'static str,
        /// Its number.
        id: i32,
        /// What the system said.
        source: io::Error,
    },
    /// Shared memory cannot be made.
    #[error("cannot make shared memory of {size} bytes: {source}")]
    Memory {
        /// Bytes.
        size: u64,
        /// What the system said.
        source: io::Error,
    },
}

impl RebuildError {
    /// Whether there is nothing by the name of a file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Open { source, .. } if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)))
    }

    /// For `map_err`: a file that could not be opened.
    pub fn open<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self::Open { path: path.to_owned(), source: error.into() }
    }

    /// For `map_err`: a call.
    pub fn call<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::Call { what: what.into(), source: error.into() }
    }

    /// For `map_err`: a raw system call.
    pub fn raw(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |Errno(errno)| Self::Call { what: what.into(), source: io::Error::from_raw_os_error(errno) }
    }

    /// For `map_err`: something that failed with an open file.
    pub fn file<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self::File { action, path: path.to_owned(), source: error.into() }
    }
}

/// The flags of `recorded` that `open` may be given when nothing is to be created, truncated or made a controlling terminal.
#[must_use]
pub fn open_flags(recorded: u32) -> OFlags {
    // `__O_TMPFILE` (include/uapi/asm-generic/fcntl.h); with O_DIRECTORY it means to make a file.
    const TMPFILE: u32 = 0o20_000_000;
    let mut flags = recorded & !TMPFILE;
    if recorded & TMPFILE != 0 {
        flags &= !OFlags::DIRECTORY.bits();
    }
    let never = OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC | OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned());
    (OFlags::from_bits_retain(flags) & !never) | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// The path that opens what a descriptor of this process refers to.
#[must_use]
pub fn own_fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A new open file description of what `fd` is open on: for pipes and files without a name.
///
/// # Errors
/// Its mode forbids to open it so.
pub fn reopen(fd: impl AsFd, flags: u32) -> Result<OwnedFd, RebuildError> {
    let path = own_fd_path(fd.as_fd());
    // Opening a pipe takes no O_DIRECT; setting it afterwards does.
    let packets = OFlags::DIRECT.bits();
    let pipe = rustix::fs::fstat(fd.as_fd())
        .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo)
        .map_err(RebuildError::file("examine", &path))?;
    let first = if pipe { flags & !packets } else { flags };
    // What is opened is behind a link, which a recorded O_NOFOLLOW would forbid.
    let flags_now = open_flags(first) & !OFlags::NOFOLLOW;
    let new = rustix::fs::open(&path, flags_now, Mode::empty()).map_err(RebuildError::open(&path))?;
    if first != flags {
        rustix::fs::fcntl_getfl(&new)
            .and_then(|have| rustix::fs::fcntl_setfl(&new, have | OFlags::DIRECT))
            .map_err(RebuildError::file("set the packet mode of", &path))?;
    }
    Ok(new)
}
