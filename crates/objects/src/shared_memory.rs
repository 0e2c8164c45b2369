//! Shared memory: an object that several mappings, in one process or several, show the same pages of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::file::Attributes;
use crate::{FilePath, SpaceId, sysv};

mod observe;
mod rebuild;

pub use observe::{MemoryFile, Observer, SharedMemoryError};
pub use rebuild::{rebuild, seal};

/// A shared memory object whose contents the image holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SharedMemory {
    /// Under which number the image keeps its pages; a page's address is its byte offset in the object.
    pub space: SpaceId,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: SharedMemoryKind,
}

/// The kinds of shared memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedMemoryKind {
    /// `MAP_SHARED | MAP_ANONYMOUS`, shared over `fork`.
    Anonymous,
    /// memfd_create(2).
    Memfd {
        /// Its name, without the kernel's `memfd:`.
        name: FilePath,
        /// `F_GET_SEALS`; not known (0) when no descriptor of it is open.
        seals: u32,
        /// Permission bits; not known (0) when no descriptor of it is open.
        mode: u32,
    },
    /// A file with a name that is mapped shared and writable; its mapped pages are written back to it on restart.
    /// On a memory file system (`/dev/shm`) it is made anew where it is gone.
    Named {
        /// Its path.
        path: FilePath,
        /// Permission bits.
        mode: u32,
        /// User and group.
        owner: (u32, u32),
        /// It lies on a tmpfs.
        in_memory: bool,
    },
    /// System V shared memory.
    SystemV {
        /// What it is called, and whose it is.
        identity: sysv::Identity,
        /// It was removed, and goes when nobody has it attached any more.
        removed: bool,
        /// Locked in memory as a whole (`SHM_LOCK`).
        locked: bool,
    },
    /// A file that has no name any more.
    Unlinked {
        /// The path it had.
        path: FilePath,
        /// What is known of it; nothing when no descriptor of it is open.
        attributes: Option<Attributes>,
    },
}

impl fmt::Display for SharedMemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("without a name"),
            Self::Memfd { name, .. } => write!(f, "memfd:{name}"),
            Self::Named { path, .. } => path.fmt(f),
            Self::SystemV { identity, .. } => write!(f, "System V, id {}", identity.id),
            Self::Unlinked { path, .. } => write!(f, "{path} (deleted)"),
        }
    }
}
