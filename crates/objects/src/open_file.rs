//! Open file descriptions, of whatever kind: the one place where the kind decides what is done.
//!
//! | verb | when |
//! |---|---|
//! | [`needs`] | before anything is made: the files that a restart must find |
//! | [`rebuild`] | once, in the process that makes all of them, phase by phase |
//! | [`rebuild_own`] | in each process of the job, when all are there: what can be opened only then |
//! | [`arm`] | last of all: what acts by itself once it is set |
//! | [`describe`] | for people |

use serde::{Deserialize, Serialize};

use crate::FilePath;
use crate::directory::RemovedDirectory;
use crate::epoll::EpollState;
use crate::eventfd::EventfdState;
use crate::file::{DeletedFile, RegularFile};
use crate::inotify::InotifyState;
use crate::pidfd::PidfdState;
use crate::signalfd::SignalfdState;
use crate::timerfd::TimerfdState;

mod check;
mod describe;
mod rebuild;

pub use check::{Need, lockable_path, needs};
pub use describe::describe;
pub use rebuild::{Files, arm, needed_to_arm, rebuild, rebuild_own, standard};

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

impl OpenFile {
    /// The regular file with a name that it is open on, if it is.
    #[must_use]
    pub fn regular(&self) -> Option<&RegularFile> {
        match &self.kind {
            OpenFileKind::Regular(regular) => Some(regular),
            _ => None,
        }
    }

    /// The socket that it is, by its index in [`crate::Objects::sockets`], unless the restart's own stands in.
    #[must_use]
    pub fn socket(&self) -> Option<u32> {
        match self.kind {
            OpenFileKind::Socket { socket } if self.inherited.is_none() => Some(socket),
            _ => None,
        }
    }

    /// Whether each process that has it opens it by itself, or is the only one who can say what it waits for.
    #[must_use]
    pub fn is_of_one_process(&self) -> bool {
        self.inherited.is_none()
            && match &self.kind {
                OpenFileKind::Signalfd(_) | OpenFileKind::Proc { .. } => true,
                OpenFileKind::Pidfd(pidfd) => pidfd.process.is_some(),
                _ => false,
            }
    }
}

impl OpenFileKind {
    /// Its path, if a process uses the directory that it is in by having it open.
    #[must_use]
    pub fn used_path(&self) -> Option<&FilePath> {
        match self {
            Self::Regular(RegularFile { path, .. }) | Self::Directory { path } | Self::Path { path } => Some(path),
            _ => None,
        }
    }
}
