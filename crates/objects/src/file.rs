//! Files: open file descriptions of regular files, directories and devices, and files known by more than their path.

use serde::{Deserialize, Serialize};

use crate::directory::RemovedDirectory;
use crate::epoll::EpollState;
use crate::eventfd::EventfdState;
use crate::inotify::InotifyState;
use crate::pidfd::PidfdState;
use crate::signalfd::SignalfdState;
use crate::timerfd::TimerfdState;
use crate::{FilePath, SpaceId};

mod observe;

pub use observe::{MappedFiles, Piece, build_id, contents, contents_of, data_ranges, identify, name_of, split_deleted};

mod rebuild;

pub use rebuild::{open_although, rebuild_mode, rebuild_named, rebuild_place, rebuild_position, rebuild_unnamed, unnamed_in};

/// An open file description: what `open` makes, and `dup` and `fork` share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenFile {
    /// Access mode and status flags (`O_*`) as `/proc/PID/fdinfo` gives them, without `O_CLOEXEC`.
    pub flags: u32,
    /// File offset in bytes.
    pub position: u64,
    /// It is the launcher's own standard input (0), output (1) or error (2): a restart uses its own in its place.
    pub inherited: Option<u8>,
    /// It was the launcher's own standard input, and comes back as any other file of the job. Where a restart does not find the file,
    /// its own standard input stands in.
    pub is_input: bool,
    /// What it is open on.
    pub kind: OpenFileKind,
}

impl OpenFile {
    /// Whether it is the launcher's standard input, and a pipe that somebody outside of the job writes to.
    #[must_use]
    pub fn is_outside_input(&self) -> bool {
        self.inherited == Some(0) && matches!(self.kind, OpenFileKind::Pipe { .. })
    }
}

/// What an open file description is open on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenFileKind {
    /// A regular file that has a name.
    Regular(RegularFile),
    /// A regular file whose name is gone: the image holds its contents.
    Deleted(DeletedFile),
    /// A directory.
    Directory {
        /// Its path.
        path: FilePath,
    },
    /// A character or block device.
    Device {
        /// Its path.
        path: FilePath,
        /// `st_rdev`.
        rdev: u64,
    },
    /// An end of a pipe, or a named pipe.
    Pipe {
        /// Index into `JobState::pipes`.
        pipe: u32,
    },
    /// Shared memory that has no name in a file system (memfd), or whose name is gone.
    SharedMemory {
        /// Index into `JobState::shared_memory`.
        object: u32,
    },
    /// A directory that has been removed.
    RemovedDirectory(RemovedDirectory),
    /// Opened with `O_PATH`: a place in the file system, not an open file.
    Path {
        /// Its path.
        path: FilePath,
    },
    /// A file of the job's `/proc`, which must be opened when its processes are there, by one that has it.
    Proc {
        /// Its path, which begins with `/proc`.
        path: FilePath,
    },
    /// An epoll instance.
    Epoll(EpollState),
    /// An eventfd.
    Eventfd(EventfdState),
    /// A timerfd.
    Timerfd(TimerfdState),
    /// A signalfd.
    Signalfd(SignalfdState),
    /// An inotify instance.
    Inotify(InotifyState),
    /// The master of a pseudo-terminal.
    PtyMaster {
        /// Index into [`crate::terminal::Terminals::ptys`].
        pty: u32,
        /// The path that it was opened by.
        path: FilePath,
    },
    /// The slave of a pseudo-terminal.
    PtySlave {
        /// Index into [`crate::terminal::Terminals::ptys`].
        pty: u32,
        /// It was hung up: reads give the end of the file, writes an error.
        hung_up: bool,
        /// It was opened as `/dev/tty`.
        by_dev_tty: bool,
    },
    /// The terminal that the job was launched on.
    OutsideTerminal {
        /// The path that it was opened by.
        path: FilePath,
    },
    /// A socket.
    Socket {
        /// Index into `JobState::sockets`.
        socket: u32,
    },
    /// A POSIX message queue.
    Mqueue {
        /// Index into `JobState::mqueues`.
        queue: u32,
    },
    /// A pidfd, which must be opened when its process is there, by each process that has it.
    Pidfd(PidfdState),
}

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
    /// Permission bits.
    pub mode: u32,
    /// Device and inode numbers: descriptions with the same pair are of one file.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// Under which number the image keeps its contents; a page's address is its byte offset.
    pub space: SpaceId,
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
