//! Inotify instances: files and directories that are watched (inotify(7)).
//!
//! The kernel keeps inodes, not paths: a watched file is searched for, and refused if it cannot be found.
//!
//! Events that were not yet read cannot be put into a new instance. In their place it has one `IN_Q_OVERFLOW`, by which the kernel
//! itself says that events were lost: a program then looks for itself. What others do to the files while the job is down is not
//! reported, as to a program that starts later.

use serde::{Deserialize, Serialize};

use crate::{FileIndex, FilePath};

mod observe;
mod rebuild;
mod search;

pub use observe::observe;
pub use rebuild::{rebuild, watch};
pub use search::Search;

/// An inotify instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InotifyState {
    /// What it watches.
    pub watches: Vec<Watch>,
    /// Bytes of events that were not yet read.
    pub pending: u64,
}

/// What `inotify_add_watch` made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Its number.
    pub wd: i32,
    /// `IN_*`.
    pub mask: u32,
    /// What it watches.
    pub target: Watched,
}

/// A file or directory that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watched {
    /// One that has a name.
    Path(FilePath),
    /// One whose name is gone, and that the job has open: index into `JobState::open_files`.
    File(FileIndex),
}
