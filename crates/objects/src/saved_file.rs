//! Files that the user wants in the image (`--save-files PATTERN`): small scratch files that the next machine does not have.
//!
//! Contents are those of the freeze: they are cloned or copied while the job stands still, and go into the image when it runs
//! again. A restart makes what is missing, and brings back in place what has changed.
//!
//! The same is kept, without being asked for, of small directories that the job has made and works in; of those a restart only
//! makes what is missing.

use serde::{Deserialize, Serialize};

use crate::FilePath;

mod observe;
mod rebuild;

pub use observe::{Captured, Kept, LIMIT, MOST_FILES, SaveError, capture, find, find_in, full_pattern};
pub use rebuild::{rebuild_directory, rebuild_file, rebuild_owner_mode_and_time, rebuild_time, set_aside, was_set_aside};

/// Something that has a name in a file system, and is kept in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its path, without symbolic links in its directories.
    pub path: FilePath,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// What it is.
    pub kind: SavedKind,
}

/// What a saved file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedKind {
    /// A regular file.
    Regular {
        /// Bytes, holes included.
        size: u64,
        /// Under which number the image keeps its contents; a page's address is its byte offset, and what has no page is a hole.
        space: u32,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: FilePath,
    },
    /// A directory. What is in it is saved for itself.
    Directory,
    /// A named pipe.
    Fifo,
}

impl SavedKind {
    /// In words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Regular { .. } => "a regular file",
            Self::Link { .. } => "a symbolic link",
            Self::Directory => "a directory",
            Self::Fifo => "a named pipe",
        }
    }

    /// Whether a file in the file system is of this kind.
    #[must_use]
    pub fn is_that_of(&self, kind: std::fs::FileType) -> bool {
        use std::os::unix::fs::FileTypeExt;
        match self {
            Self::Regular { .. } => kind.is_file(),
            Self::Link { .. } => kind.is_symlink(),
            Self::Directory => kind.is_dir(),
            Self::Fifo => kind.is_fifo(),
        }
    }
}
