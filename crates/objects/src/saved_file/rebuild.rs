//! Making saved files again, and giving them what they had.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, mknodat,
    renameat_with, utimensat,
};
use rustix::io::Errno;

use super::{SavedFile, SavedKind};

/// How the names of files that were set aside go on, after a dot and their own.
const ASIDE: &[u8] = b".after-checkpoint-";

/// Makes a directory that only its owner may enter, until [`rebuild_owner_mode_and_time`] says otherwise.
///
/// # Errors
///
/// When it cannot be made, or is there.
pub fn rebuild_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Makes a saved file where there is none: a regular one is empty, and given back open for writing, to be filled.
///
/// # Errors
///
/// When it cannot be made, or is there.
pub fn rebuild_file(saved: &SavedFile, path: &Path) -> io::Result<Option<File>> {
    match &saved.kind {
        SavedKind::Regular { .. } => {
            return File::options().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path).map(Some);
        }
        SavedKind::Directory => rebuild_directory(path)?,
        SavedKind::Link { target } => symlink(target.as_path(), path)?,
        SavedKind::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
    }
    Ok(None)
}

/// Gives a file its owner, permissions and time, as far as whoever restarts the job may. To be done last: permissions may forbid to write it, and
/// writing changes the time.
///
/// # Errors
///
/// When the file system fails.
pub fn rebuild_owner_mode_and_time(saved: &SavedFile, path: &Path) -> io::Result<()> {
    // Only root may give files away; without that they are the user's own, as whatever else the job writes.
    let owner = (Some(Uid::from_raw(saved.uid)), Some(Gid::from_raw(saved.gid)));
    as_allowed(chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
    if !matches!(saved.kind, SavedKind::Link { .. }) {
        as_allowed(chmodat(CWD, path, Mode::from_raw_mode(saved.mode), AtFlags::empty()))?;
    }
    rebuild_time(saved, path)
}

/// Gives a file its modification time, as far as whoever restarts the job may.
///
/// # Errors
///
/// When the file system fails.
pub fn rebuild_time(saved: &SavedFile, path: &Path) -> io::Result<()> {
    let last_modification =
        Timespec { tv_sec: saved.mtime_ns.div_euclid(1_000_000_000), tv_nsec: saved.mtime_ns.rem_euclid(1_000_000_000) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    as_allowed(utimensat(CWD, path, &Timestamps { last_access, last_modification }, AtFlags::SYMLINK_NOFOLLOW))?;
    Ok(())
}

fn as_allowed(result: Result<(), Errno>) -> Result<(), Errno> {
    if matches!(result, Err(Errno::PERM | Errno::INVAL)) { Ok(()) } else { result }
}

/// Gives a file another name in its directory, which no pattern of a saved file matches; gives that name.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn set_aside(path: &Path, generation: u64) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let base = [b".", name.as_bytes(), ASIDE, generation.to_string().as_bytes()].concat();
    for attempt in 0..1000 {
        let mut aside = base.clone();
        if attempt > 0 {
            aside.extend_from_slice(format!(".{attempt}").as_bytes());
        }
        let aside = path.with_file_name(OsString::from_vec(aside));
        match renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(aside),
            Err(Errno::EXIST) => (),
            // A file system that cannot promise it (NFS).
            Err(Errno::INVAL) if aside.symlink_metadata().is_err() => {
                std::fs::rename(path, &aside)?;
                return Ok(aside);
            }
            Err(Errno::INVAL) => (),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Whether a name is one that [`set_aside`] has given.
#[must_use]
pub fn was_set_aside(path: &Path) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    name.starts_with(b".") && name.windows(ASIDE.len()).any(|window| window == ASIDE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn every_kind_is_made_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [
            SavedKind::Directory,
            SavedKind::Regular { size: 0, space: 0 },
            SavedKind::Link { target: Path::new("nowhere").into() },
            SavedKind::Fifo,
        ];
        for (at, kind) in kinds.into_iter().enumerate() {
            let path = dir.path().join(at.to_string());
            let saved =
                SavedFile { path: path.as_path().into(), mode: 0o640, uid: 1, gid: 1, mtime_ns: 1_500_000_000_123_456_789, kind };
            rebuild_file(&saved, &path).unwrap();
            rebuild_owner_mode_and_time(&saved, &path).unwrap();
            let meta = path.symlink_metadata().unwrap();
            assert!(saved.kind.is_that_of(meta.file_type()), "{}", saved.kind.name());
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_500_000_000, 123_456_789), "{}", saved.kind.name());
            assert!(meta.is_symlink() || meta.mode() & 0o7777 == 0o640, "{}", saved.kind.name());
            assert!(rebuild_file(&saved, &path).is_err(), "{} is not made twice", saved.kind.name());
        }
    }

    #[test]
    fn what_is_set_aside_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut asides = Vec::new();
        for contents in ["one", "two"] {
            std::fs::write(&path, contents).unwrap();
            let aside = set_aside(&path, 7).unwrap();
            assert!(was_set_aside(&aside) && !path.exists());
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), contents);
            asides.push(aside);
        }
        assert_eq!(std::fs::read_to_string(&asides[0]).unwrap(), "one");
        assert!(!was_set_aside(&path));
    }
}
