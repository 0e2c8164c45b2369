//! Files: regular files that are open, and files known by more than their path.

use serde::{Deserialize, Serialize};

use crate::{FilePath, SpaceId};

pub mod input;
mod observe;

pub use observe::{
    MappedFiles, Piece, build_id, contents, contents_of, data_ranges, identify, name_of, other_name, split_deleted,
};

mod rebuild;

pub use rebuild::{
    open_although, rebuild_attributes, rebuild_named, rebuild_place, rebuild_position, rebuild_unnamed, unnamed_in,
};

/// A regular file that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegularFile {
    /// Its path.
    pub path: FilePath,
    /// Its size in bytes at the checkpoint. What a job wrote after that is cut off on restart.
    pub size: u64,
    /// Device and inode numbers, to tell whether a file is still the same one on the same machine.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// Some description of the job's has it open for writing.
    pub written: bool,
}

/// A regular file that is open and has no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedFile {
    /// The path it had.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// What is known of it beside its contents.
    pub attributes: Attributes,
    /// Device and inode numbers: descriptions with the same pair are of one file.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// Under which number the image keeps its contents; a page's address is its byte offset.
    pub space: SpaceId,
}

/// What stat(2) tells of a file that has no name, beside its size and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// When it was last read, nanoseconds since the epoch.
    pub accessed_ns: i64,
    /// When it was last changed, nanoseconds since the epoch.
    pub modified_ns: i64,
}

/// A file that is mapped or executed, known by what stays the same from node to node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Its path.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// The ELF note `NT_GNU_BUILD_ID`; empty where there is none.
    pub build_id: Vec<u8>,
    /// It has no name any more: its path is the one it had.
    pub deleted: bool,
}
