//! Files by their names: how each path that the job has touched was at the checkpoint, and what is kept of its contents, so that
//! a restart brings it back.
//!
//! Which paths those are the job's own list says ([`crate::touched`]); files that `--save-files` names and files that the job only
//! reads are treated alike. What is done when is drawn in `docs/restart.md`. Files without a name are
//! [`crate::file::DeletedFile`]s.

use serde::{Deserialize, Serialize};

use crate::{FilePath, SpaceId};

mod observe;
mod patterns;
mod rebuild;

pub use observe::{Hashed, StageError, Staged, StagedPart, Stager, are_watched, look, open_to_read};
pub use patterns::{LIMIT, MOST_FILES, SaveError, find, full_pattern};
pub use rebuild::{rebuild_attributes, rebuild_directory, rebuild_file, rebuild_time};

/// All files of a job by their names, and where its list goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFiles {
    /// The directory of the job's list; empty where it has none.
    pub dir: FilePath,
    /// The segment of the list that began at this checkpoint.
    pub segment: u64,
    /// Bytes of the log of the segment before that this checkpoint has taken into account.
    pub log_end: u64,
    /// The files, by path.
    pub files: Vec<JobFile>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFile {
    /// The path, absolute, without symbolic links in its directories as far as that is known.
    pub path: FilePath,
    /// Why it is kept.
    pub role: Role,
    /// How it is; nothing where nothing is at the path.
    pub state: Option<FileState>,
}

/// Why the image says how a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// The job only reads it, and has it open. A restart leaves what is at the path, and gives the job the contents that it had.
    Read,
    /// The job has touched it. A restart brings it back.
    Touched,
    /// `--save-files` names it: likewise, and without its contents there is no checkpoint.
    Named,
}

/// How a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Who it is.
    pub identity: FileNumber,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Status change time, nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    Regular {
        /// Bytes, holes included.
        size: u64,
        /// What is known of its contents.
        contents: Contents,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: FilePath,
    },
    /// A directory. What is in it is kept for itself.
    Directory,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A device.
    Device,
}

/// What an image knows of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contents {
    /// The image holds them in the space of this number: a page's address is its byte offset, and what has no page is a hole.
    Held(SpaceId),
    /// Their XXH3 hash of 128 bits. They are in the file, or were kept by the job's agents when it was about to change it.
    Hashed(u128),
    /// Nothing: they could not be read, or not without the job standing still for too long.
    Unknown,
}

/// Tells a file from another one that has its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileNumber {
    /// `st_dev`, which is not the same on every machine that sees the file system.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// When it was made, nanoseconds since the epoch, since inode numbers are used again at once; 0 where the file system does
    /// not tell.
    pub born_ns: i64,
}

impl FileNumber {
    /// Whether both are one file, as far as is known. Devices are numbered otherwise on each machine, and tell only where nothing
    /// else does.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let born = match (self.born_ns, other.born_ns) {
            (0, _) | (_, 0) => self.device == other.device,
            (born, is) => born == is,
        };
        self.inode == other.inode && born
    }
}

impl From<ckpt_wire::touched::Identity> for FileNumber {
    fn from(identity: ckpt_wire::touched::Identity) -> Self {
        Self { device: identity.device, inode: identity.inode, born_ns: identity.born_ns }
    }
}

impl From<FileNumber> for ckpt_wire::touched::Identity {
    fn from(number: FileNumber) -> Self {
        Self { device: number.device, inode: number.inode, born_ns: number.born_ns }
    }
}

impl FileState {
    /// Whether nothing has been done to a file since it was like this.
    #[must_use]
    pub fn is_unchanged(&self, now: &Self) -> bool {
        let same_size = match (&self.kind, &now.kind) {
            (FileKind::Regular { size, .. }, FileKind::Regular { size: is, .. }) => size == is,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        };
        same_size && self.identity.is(&now.identity) && self.mtime_ns == now.mtime_ns && self.ctime_ns == now.ctime_ns
    }

    /// Bytes of a regular file; 0 of any other.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.kind {
            FileKind::Regular { size, .. } => size,
            _ => 0,
        }
    }

    /// What is known of the contents of a regular file.
    #[must_use]
    pub fn contents(&self) -> Option<Contents> {
        match self.kind {
            FileKind::Regular { contents, .. } => Some(contents),
            _ => None,
        }
    }

    /// Says what is known of the contents of a regular file.
    pub fn set_contents(&mut self, known: Contents) {
        if let FileKind::Regular { contents, .. } = &mut self.kind {
            *contents = known;
        }
    }
}

impl FileKind {
    /// In words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Regular { .. } => "a regular file",
            Self::Link { .. } => "a symbolic link",
            Self::Directory => "a directory",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
        }
    }

    /// Whether both are of one kind, whatever is in them.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_used_again_is_another_file() {
        let one = FileNumber { device: 1, inode: 2, born_ns: 3 };
        assert!(one.is(&FileNumber { device: 9, ..one }) && !one.is(&FileNumber { born_ns: 4, ..one }));
        assert!(one.is(&FileNumber { born_ns: 0, ..one }) && !one.is(&FileNumber { born_ns: 0, device: 9, ..one }));
    }
}
