//! Pipes and named pipes, and the bytes in them.

use serde::{Deserialize, Serialize};

use crate::FilePath;

mod rebuild;

pub use rebuild::rebuild;

mod observe;

pub use observe::Observer;

/// A pipe, apart from the open file descriptions that are its ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeState {
    /// The path of a named pipe; nothing for one made with `pipe`, or whose name has been removed: that comes back as one without
    /// a name.
    pub path: Option<FilePath>,
    /// `F_GETPIPE_SZ`, in bytes.
    pub capacity: u32,
    /// What has been written and not yet read, by packets: one for a plain pipe, each write of its own for `O_DIRECT`.
    pub packets: Vec<Vec<u8>>,
}
