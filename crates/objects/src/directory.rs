//! Directories that were removed while somebody was in them or had them open: they have no name, are empty, and nothing can be made in them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::FilePath;
use crate::file::split_deleted;
use crate::rebuild::RebuildError;

/// Tells a directory from another one that has its path: on another machine, or after the first was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryIdentity {
    /// Its inode number, which every machine sees that has the file system; 0 when it could not be read.
    inode: u64,
    /// When it was made, nanoseconds since the epoch, since inode numbers are used again; 0 where the file system does not tell.
    born_ns: i64,
}

impl DirectoryIdentity {
    /// That of the directory at `path`; nothing that is like another where there is none.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let Ok(stat) = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::BTIME) else { return Self::default() };
        let is_born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let born_ns = if is_born { stat.stx_btime.tv_sec * 1_000_000_000 + i64::from(stat.stx_btime.tv_nsec) } else { 0 };
        Self { inode: stat.stx_ino, born_ns }
    }

    /// Whether both may be the same directory: what one of them does not know does not tell them apart.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let alike = |a: i128, b: i128| a == 0 || b == 0 || a == b;
        alike(self.inode.into(), other.inode.into()) && alike(self.born_ns.into(), other.born_ns.into())
    }
}

/// A directory that has been removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemovedDirectory {
    /// The path it had.
    pub path: FilePath,
    /// Permission bits.
    pub mode: u32,
    /// Device and inode numbers: who has the same pair is in the same directory.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
}

/// What a link of `/proc` to a directory leads to, if that has been removed. `through` is the link's own path.
#[must_use]
pub fn observe_removed(link: &FilePath, through: &Path) -> Option<RemovedDirectory> {
    let meta = std::fs::metadata(through).ok().filter(|meta| meta.nlink() == 0)?;
    Some(RemovedDirectory { path: split_deleted(link).0, mode: meta.mode() & 0o7777, device: meta.dev(), inode: meta.ino() })
}

/// Makes a directory where `path` was, with what of its parents is missing, opens it, and removes what was made; in `/tmp` where that is not
/// allowed. The descriptor is open for reading.
///
/// # Errors
/// No such directory can be made in `/tmp` either, or not be opened.
pub fn rebuild_removed(path: &Path, mode: u32) -> Result<OwnedFd, RebuildError> {
    let temporary = PathBuf::from("/tmp").join(path.file_name().unwrap_or_default());
    make_and_remove(path, mode)
        .or_else(|_| make_and_remove(&temporary, mode))
        .map_err(RebuildError::file("make a removed directory like", path))
}

fn make_and_remove(path: &Path, mode: u32) -> Result<OwnedFd, io::Error> {
    let mut made = Vec::new();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
    let result = make_all(path, &missing, &mut made).and_then(|()| {
        let own = made.last().ok_or(Errno::NOENT)?;
        let fd = rustix::fs::open(own, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fchmod(fd.as_fd(), Mode::from_raw_mode(mode))?;
        Ok(fd)
    });
    for directory in made.iter().rev() {
        // Somebody else may use a parent meanwhile: then it stays.
        let _ = rustix::fs::rmdir(directory);
    }
    Ok(result?)
}

/// Makes the directory, under another name where its own is taken; notes what was made.
fn make_all(path: &Path, missing: &[&Path], made: &mut Vec<PathBuf>) -> Result<(), Errno> {
    for parent in missing.iter().rev() {
        rustix::fs::mkdir(*parent, Mode::RWXU)?;
        made.push(parent.to_path_buf());
    }
    for attempt in 0..100 {
        let name = match attempt {
            0 => path.to_owned(),
            _ => path.with_extension(format!("ckpt-removed-{}-{attempt}", std::process::id())),
        };
        match rustix::fs::mkdir(&name, Mode::RWXU) {
            Err(Errno::EXIST) => (),
            other => {
                other?;
                made.push(name);
                return Ok(());
            }
        }
    }
    Err(Errno::EXIST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_directory_is_where_it_was_and_leaves_nothing() {
        let base = std::env::temp_dir().join(format!("ckpt-removed-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let path = base.join("outer/inner");
        let fd = rebuild_removed(&path, 0o751).unwrap();
        let through = crate::rebuild::own_fd_path(fd.as_fd());
        let link = FilePath::from(std::fs::read_link(&through).unwrap());
        let seen = observe_removed(&link, &through).unwrap();
        assert_eq!((seen.path.as_path(), seen.mode), (path.as_path(), 0o751));
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0);
        // Its name has been taken meanwhile.
        std::fs::create_dir_all(&path).unwrap();
        let other = rebuild_removed(&path, 0o700).unwrap();
        assert_eq!(rustix::fs::fstat(&other).unwrap().st_nlink, 0);
        assert_eq!(observe_removed(&FilePath::from(path.as_path()), &path), None);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
