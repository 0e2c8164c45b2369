//! Opens files again, at their former offsets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Attributes;
use crate::rebuild::{self, RebuildError};

/// Opens a file, directory or device by its path, at its offset. Nothing is created or truncated.
///
/// # Errors
/// It cannot be opened, or its offset not be set.
pub fn rebuild_named(path: &Path, flags: u32, position: u64) -> Result<OwnedFd, RebuildError> {
    let fd = open_although(path, rebuild::open_flags(flags)).map_err(RebuildError::open(path))?;
    rebuild_position(&fd, path, position)?;
    Ok(fd)
}

/// Opens a file whose permissions may have been taken away since it was opened, or when it was made (`open(…, O_CREAT | O_WRONLY, 0444)`): its owner gives
/// them to himself for a moment.
///
/// # Errors
///
/// As open(2).
pub fn open_although(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let mode = Mode::from_raw_mode(rustix::fs::fstat(&file)?.st_mode & 0o7777);
            let through = rebuild::own_fd_path(file.as_fd());
            rustix::fs::chmod(&through, mode | Mode::RUSR | Mode::WUSR).map_err(|_| Errno::ACCESS)?;
            let opened = rustix::fs::open(&through, flags - OFlags::NOFOLLOW, Mode::empty());
            rustix::fs::chmod(&through, mode)?;
            opened
        }
        other => other,
    }
}

/// Opens a place in the file system (`O_PATH`).
///
/// # Errors
/// There is nothing by this name, or a directory above it may not be searched.
pub fn rebuild_place(path: &Path, flags: u32) -> Result<OwnedFd, RebuildError> {
    let kept = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let flags = (OFlags::from_bits_retain(flags) & kept) | OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(RebuildError::open(path))
}

/// Sets the offset of an open file description. One that cannot seek has none to set.
///
/// # Errors
/// The offset is none that the file can have.
pub fn rebuild_position(fd: impl AsFd, path: &Path, position: u64) -> Result<(), RebuildError> {
    if position == 0 {
        return Ok(());
    }
    match rustix::fs::seek(fd, SeekFrom::Start(position)) {
        Ok(_) | Err(Errno::SPIPE) => Ok(()),
        Err(error) => Err(RebuildError::file("seek in", path)(error)),
    }
}

/// A file without a name, of `size` zero bytes, open for reading and writing, in the directory where `path` was; or in `/tmp` or
/// in memory, where that does not allow it. Only its owner may open it, until [`rebuild_attributes`] says otherwise.
///
/// # Errors
/// There is no room for it, or no descriptor is left.
pub fn rebuild_unnamed(path: &Path, size: u64) -> Result<OwnedFd, RebuildError> {
    let directories = [path.parent().map(Path::to_path_buf), Some(PathBuf::from("/tmp"))];
    let fd = match directories.into_iter().flatten().find_map(|directory| unnamed_in(&directory).ok()) {
        Some(fd) => fd,
        None => rustix::fs::memfd_create(c"deleted", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|error| RebuildError::Memory { size, source: error.into() })?,
    };
    rustix::fs::ftruncate(&fd, size).map_err(RebuildError::file("give its size to the deleted file", path))?;
    Ok(fd)
}

/// Gives a file made by [`rebuild_unnamed`] its owner, permission bits and times: once every description of it has been opened, which the bits may
/// forbid, and filled, which changes the times.
///
/// # Errors
/// The file system refuses them.
pub fn rebuild_attributes(fd: impl AsFd, path: &Path, attributes: &Attributes) -> Result<(), RebuildError> {
    let (uid, gid) = attributes.owner;
    // Only root can give it to another user. Whoever else restarts a job may have no right to a group that it had.
    let _ = rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let mode = Mode::from_raw_mode(attributes.mode & 0o7777);
    rustix::fs::fchmod(&fd, mode).map_err(RebuildError::file("set the mode of", path))?;
    let times = Timestamps { last_access: timespec(attributes.accessed_ns), last_modification: timespec(attributes.modified_ns) };
    rustix::fs::futimens(&fd, &times).map_err(RebuildError::file("set the times of", path))
}

fn timespec(ns: i64) -> Timespec {
    Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
}

/// A file without a name in a directory, or rather in its file system, open for reading and writing.
///
/// # Errors
///
/// When the directory does not allow it.
pub fn unnamed_in(directory: &Path) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        // The file system has no such files: a name that nobody else has is given and taken away again.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let at = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            unlinked_in(at.as_fd(), mode)
        }
        other => other,
    }
}

fn unlinked_in(directory: BorrowedFd<'_>, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    for attempt in 0..100 {
        let name = format!(".ckpt-deleted-{}-{attempt}", rustix::process::getpid());
        match rustix::fs::openat(directory, &name, flags, mode) {
            Ok(fd) => {
                rustix::fs::unlinkat(directory, &name, AtFlags::empty())?;
                return Ok(fd);
            }
            Err(Errno::EXIST) => (),
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ckpt-file-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_file_is_opened_at_its_offset_and_not_touched() {
        let path = scratch("offset");
        std::fs::write(&path, b"0123456789").unwrap();
        // As recorded of a file that was opened with O_CREAT and O_TRUNC; those must do nothing now.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::EXCL;
        let fd = rebuild_named(&path, flags.bits(), 4).unwrap();
        let mut buffer = [0; 3];
        rustix::io::read(&fd, &mut buffer).unwrap();
        assert_eq!(&buffer, b"456");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(rebuild_named(&path, flags.bits(), 4), Err(RebuildError::Open { .. })));
    }

    #[test]
    fn a_deleted_file_has_no_name_and_its_size() {
        let directory = scratch("deleted");
        std::fs::create_dir_all(&directory).unwrap();
        let fd = rebuild_unnamed(&directory.join("gone"), 5000).unwrap();
        let own = rustix::fs::fstat(&fd).unwrap();
        let owner = (own.st_uid, own.st_gid);
        let attributes = Attributes { mode: 0o440, owner, accessed_ns: 2_000_000_007, modified_ns: -999_999_999 };
        rebuild_attributes(&fd, &directory, &attributes).unwrap();
        let stat = rustix::fs::fstat(&fd).unwrap();
        assert_eq!((stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec), (2, 7, -1, 1));
        assert_eq!((stat.st_size, stat.st_nlink, stat.st_mode & 0o7777), (5000, 0, 0o440));
        // As of one that had been opened with O_NOFOLLOW.
        let other = rebuild::reopen(&fd, (OFlags::RDONLY | OFlags::NOFOLLOW).bits()).unwrap();
        assert_eq!(rustix::fs::fstat(&other).unwrap().st_ino, stat.st_ino);
        let unlinked = unlinked_in(std::fs::File::open(&directory).unwrap().as_fd(), Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(rustix::fs::fstat(&unlinked).unwrap().st_nlink, 0);
        std::fs::remove_dir(&directory).unwrap();
    }
}
