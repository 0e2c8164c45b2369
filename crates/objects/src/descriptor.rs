//! Descriptor tables: which number of which process refers to which open file description.

use serde::{Deserialize, Serialize};

use crate::FileIndex;

mod observe;

pub(crate) use observe::see;
pub use observe::{Descriptions, SeenDescriptor, descriptors, info_field, is_own};

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdEntry {
    /// Its number.
    pub fd: i32,
    /// Index into `JobState::open_files`.
    pub file: FileIndex,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
}
