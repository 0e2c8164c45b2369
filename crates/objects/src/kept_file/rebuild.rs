//! Finding kept files again.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use super::observe::nanoseconds;
use super::{FileNumber, KeptFile};

/// What is at the path of a kept file now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// That file.
    Same {
        /// `st_size`.
        size: u64,
    },
    /// Something else.
    Other {
        /// `st_size` of a regular file.
        size: Option<u64>,
    },
    /// Nothing.
    Gone,
}

impl FileNumber {
    /// That of a file, by what statx(2) says of it.
    #[must_use]
    pub fn from_statx(stat: &Statx) -> Self {
        let is_born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born_ns: if is_born { nanoseconds(stat.stx_btime) } else { 0 },
        }
    }

    /// Whether both are one file, as far as is known. Devices are numbered otherwise on each machine, and tell only where nothing else does.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let born = match (self.born_ns, other.born_ns) {
            (0, _) | (_, 0) => self.device == other.device,
            (born, is) => born == is,
        };
        self.inode == other.inode && born
    }
}

impl KeptFile {
    /// What is at a path now, where this file should be.
    ///
    /// # Errors
    ///
    /// When that cannot be seen.
    pub fn standing(&self, path: &Path) -> std::io::Result<Standing> {
        let stat = match statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::BTIME) {
            Ok(stat) => stat,
            // A symbolic link that leads nowhere is something.
            Err(rustix::io::Errno::NOENT) if path.symlink_metadata().is_ok() => return Ok(Standing::Other { size: None }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Standing::Gone),
            Err(error) => return Err(error.into()),
        };
        if u32::from(stat.stx_mode) & libc::S_IFMT != libc::S_IFREG {
            return Ok(Standing::Other { size: None });
        }
        match FileNumber::from_statx(&stat).is(&self.identity) {
            true => Ok(Standing::Same { size: stat.stx_size }),
            false => Ok(Standing::Other { size: Some(stat.stx_size) }),
        }
    }
}

/// The name that a file has in a directory now; nothing where it is not there, or cannot be told from another for certain.
#[must_use]
pub fn named_in(directory: &Path, number: &FileNumber) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    let candidates = entries.filter(|entry| entry.ino() == number.inode).map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME);
        stat.is_ok_and(|stat| {
            let found = FileNumber::from_statx(&stat);
            found.born_ns != 0 && stat.stx_nlink == 1 && found.is(number)
        })
    };
    candidates.into_iter().find(is_it)
}

/// Where a file is made when something else has its name: beside that, or in another directory; it is hidden, and no pattern of a saved file matches it.
#[must_use]
pub fn place_beside(path: &Path, directory: &Path, generation: u64) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    // Names may be 255 bytes long.
    let name = &name.as_bytes()[..name.len().min(200)];
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(std::ffi::OsStr::from_bytes(name));
    hidden.push(format!(".at-checkpoint-{generation}-{}", std::process::id()));
    directory.join(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(path: &Path) -> FileNumber {
        FileNumber::from_statx(&statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::BTIME).unwrap())
    }

    #[test]
    fn a_file_is_found_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::write(&old, "contents").unwrap();
        let file = number(&old);
        std::fs::rename(&old, &new).unwrap();
        std::fs::write(&old, "another").unwrap();
        assert!(!number(&old).is(&file) && number(&new).is(&file));
        if file.born_ns != 0 {
            assert_eq!(named_in(dir.path(), &file), Some(new.clone()));
            // Whose name the job used is not known then.
            std::fs::hard_link(&new, dir.path().join("third")).unwrap();
            assert_eq!(named_in(dir.path(), &file), None);
        }
    }

    #[test]
    fn a_number_that_is_used_again_is_another_file() {
        let one = FileNumber { device: 1, inode: 2, born_ns: 3 };
        assert!(one.is(&FileNumber { device: 9, ..one }) && !one.is(&FileNumber { born_ns: 4, ..one }));
        assert!(one.is(&FileNumber { born_ns: 0, ..one }) && !one.is(&FileNumber { born_ns: 0, device: 9, ..one }));
    }
}
