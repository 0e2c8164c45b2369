//! The restart, as objects see it that are rebuilt.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

use crate::file::RegularFile;
use crate::objects::Objects;
use crate::rebuild::RebuildError;
use crate::shared_memory::SharedMemory;
use crate::{FilePath, SpaceId};

/// Where a file of the job is now.
pub type Resolve<'a> = &'a dyn Fn(&FilePath) -> PathBuf;

/// What objects need of a restart to be rebuilt.
pub trait Context {
    /// All objects of the job.
    fn objects(&self) -> Objects<'_>;

    /// Where a file of the job is now.
    fn resolve(&self, path: &FilePath) -> PathBuf;

    /// Descriptors from this number on are none of the job's, as far as the limit allows.
    fn lowest(&self) -> RawFd;

    /// Whether the job is in a user namespace of its own, with one user and one group.
    fn has_user_namespace(&self) -> bool;

    /// Has the user told of something, when the job runs.
    fn note(&self, text: String);

    /// Has the user told at once what is waited for.
    fn waiting(&self, text: String);

    /// In a process that makes sockets: has the numbers noted that it has outside and inside. Sockets will be seen to be made by that
    /// process when nobody can ask it any more.
    fn note_maker(&self);

    /// Writes the pages that the image has of a space into a file of `size` bytes.
    ///
    /// # Errors
    ///
    /// When the image cannot be read, or memory is short.
    fn fill(&self, space: SpaceId, file: BorrowedFd<'_>, size: u64) -> Result<(), RebuildError>;

    /// The same for the System V shared memory `id`.
    ///
    /// # Errors
    ///
    /// As above.
    fn fill_segment(&self, object: &SharedMemory, id: i32) -> Result<(), RebuildError>;

    /// Whether a file that the job only reads is not what it was, and its former contents are known.
    fn has_former(&self, regular: &RegularFile) -> bool;

    /// Writes those contents.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or not be written.
    fn write_former(&self, regular: &RegularFile, file: &File) -> Result<(), RebuildError>;
}
