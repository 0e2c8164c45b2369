//! Who a process or thread runs as.

use serde::{Deserialize, Serialize};

/// Who a process runs as: real, effective, saved and file system ids, as `/proc/PID/status` gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    /// Real, effective, saved, file system.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Inheritable, permitted, effective, bounding, ambient capabilities.
    pub capabilities: [u64; 5],
    /// `PR_GET_SECUREBITS`.
    pub securebits: u32,
}
