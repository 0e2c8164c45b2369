//! Regular files that a job has open, or mapped shared, when it is frozen: which ones they are, and the contents of those that
//! are small. And named pipes.
//!
//! A restart opens files by their paths. The job itself, or somebody else, may have deleted, replaced or rewritten them since;
//! with what is kept here it has them again. What is done when is drawn in `docs/restart.md`. Files without a name are
//! [`crate::file::DeletedFile`]s.

use serde::{Deserialize, Serialize};

use crate::saved_file::SavedFile;

mod observe;
mod rebuild;

pub use observe::{Candidate, Held, are_watched, capture, named_pipe, own_directories};
pub use rebuild::{Standing, named_in, place_beside};

/// A regular file of the job's, or a named pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Its path, what is to be made again of it, and the number of its contents' space, where they are held.
    pub file: SavedFile,
    /// Who it is.
    pub identity: FileNumber,
    /// The job may write to it: a restart brings it back. What is only read is left alone.
    pub written: bool,
    /// So many of the directories that it is in have been made since the launch, the innermost first.
    pub own_directories: u32,
    /// The image holds its contents; not those of large ones. A named pipe has none.
    pub held: bool,
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
