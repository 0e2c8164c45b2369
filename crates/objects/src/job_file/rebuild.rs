//! Making files again, and giving them what they had.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, mknodat, utimensat,
};
use rustix::io::Errno;

use super::{FileKind, FileState};

/// Makes a directory that only its owner may enter, until [`rebuild_attributes`] says otherwise.
///
/// # Errors
///
/// When it cannot be made, or is there.
pub fn rebuild_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Makes a file where there is none: a regular one is empty, and given back open for writing, to be filled.
///
/// # Errors
///
/// When it cannot be made, or is there.
pub fn rebuild_file(state: &FileState, path: &Path) -> io::Result<Option<File>> {
    match &state.kind {
        FileKind::Regular { .. } => {
            return File::options().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path).map(Some);
        }
        FileKind::Directory => rebuild_directory(path)?,
        FileKind::Link { target } => symlink(target.as_path(), path)?,
        FileKind::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
        FileKind::Socket => mknodat(CWD, path, FileType::Socket, Mode::RUSR | Mode::WUSR, 0)?,
        FileKind::Device => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(None)
}

/// Gives a file its owner, permissions and time. What this user may not set stays as it is. Call it last: the permissions may forbid
/// writing, and writing changes the time.
///
/// # Errors
///
/// When the file system fails.
pub fn rebuild_attributes(state: &FileState, path: &Path) -> io::Result<()> {
    // Only root may give files away; without that they are the user's own, as whatever else the job writes.
    let owner = (Some(Uid::from_raw(state.uid)), Some(Gid::from_raw(state.gid)));
    as_allowed(chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
    if !matches!(state.kind, FileKind::Link { .. }) {
        as_allowed(chmodat(CWD, path, Mode::from_raw_mode(state.mode), AtFlags::empty()))?;
    }
    rebuild_time(state, path)
}

/// Gives a file its modification time. Where this user may not set it, it stays as it is.
///
/// # Errors
///
/// When the file system fails.
pub fn rebuild_time(state: &FileState, path: &Path) -> io::Result<()> {
    let last_modification =
        Timespec { tv_sec: state.mtime_ns.div_euclid(1_000_000_000), tv_nsec: state.mtime_ns.rem_euclid(1_000_000_000) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    as_allowed(utimensat(CWD, path, &Timestamps { last_access, last_modification }, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(())
}

fn as_allowed(result: Result<(), Errno>) -> Result<(), Errno> {
    if matches!(result, Err(Errno::PERM | Errno::INVAL)) { Ok(()) } else { result }
}

#[cfg(test)]
mod tests {
    use super::super::{Contents, FileNumber};
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn every_kind_is_made_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [
            FileKind::Directory,
            FileKind::Regular { size: 0, contents: Contents::Unknown },
            FileKind::Link { target: Path::new("nowhere").into() },
            FileKind::Fifo,
            FileKind::Socket,
        ];
        for (at, kind) in kinds.into_iter().enumerate() {
            let path = dir.path().join(at.to_string());
            let identity = FileNumber { device: 0, inode: 0, born_ns: 0 };
            let mtime_ns = 1_500_000_000_123_456_789;
            let state = FileState { identity, mode: 0o640, uid: 1, gid: 1, mtime_ns, ctime_ns: 0, kind };
            rebuild_file(&state, &path).unwrap();
            rebuild_attributes(&state, &path).unwrap();
            let made = super::super::look(&path).unwrap().unwrap();
            let meta = path.symlink_metadata().unwrap();
            assert!(state.kind.is_like(&made.kind), "{}", state.kind.name());
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_500_000_000, 123_456_789), "{}", state.kind.name());
            assert!(meta.is_symlink() || meta.mode() & 0o7777 == 0o640, "{}", state.kind.name());
            assert!(rebuild_file(&state, &path).is_err(), "{} is not made twice", state.kind.name());
        }
    }
}
