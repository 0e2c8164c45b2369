//! Open file descriptions. Only this module distinguishes their kinds.
//!
//! | verb | when |
//! |---|---|
//! | [`Observer::observe`] | in a checkpoint, while the job is frozen |
//! | [`needs`] | before a restart changes anything: the files that it must find |
//! | [`rebuild`] | once, in the process that opens all of them, phase by phase |
//! | [`rebuild_own`] | in each process of the job: files that need the job's processes |
//! | [`arm`] | last: timers, watches, seals and leases |
//! | [`describe`] | for people |

use serde::{Deserialize, Serialize};

use crate::FilePath;
use crate::directory::RemovedDirectory;
use crate::epoll::{EpollState, Registration};
use crate::eventfd::EventfdState;
use crate::file::{DeletedFile, RegularFile};
use crate::inotify::InotifyState;
use crate::pidfd::PidfdState;
use crate::signalfd::SignalfdState;
use crate::terminal;
use crate::timerfd::TimerfdState;

mod check;
mod describe;
mod observe;
mod rebuild;

pub use check::{Need, lockable_path, needs};
pub use describe::describe;
pub use observe::{Observer, OpenFileError, Surroundings};
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
        self.inherited.is_none() && (matches!(self.kind, OpenFileKind::Signalfd(_)) || self.kind.needs_process())
    }

    /// What an epoll instance of the job's own waits for, if it is one.
    #[must_use]
    pub fn epoll(&self) -> Option<&EpollState> {
        match &self.kind {
            OpenFileKind::Epoll(epoll) if self.inherited.is_none() => Some(epoll),
            _ => None,
        }
    }

    /// What it is of a terminal, if it is open on one.
    #[must_use]
    pub fn terminal(&self) -> Option<terminal::End> {
        match &self.kind {
            OpenFileKind::PtyMaster { pty, path } => Some(terminal::End::Master { pty: *pty, path: path.clone() }),
            &OpenFileKind::PtySlave { pty, hung_up, by_dev_tty } => Some(terminal::End::Slave { pty, hung_up, by_dev_tty }),
            OpenFileKind::OutsideTerminal { path } => Some(terminal::End::Outside { path: path.clone() }),
            _ => None,
        }
    }
}

impl From<terminal::End> for OpenFileKind {
    fn from(end: terminal::End) -> Self {
        match end {
            terminal::End::Master { pty, path } => Self::PtyMaster { pty, path },
            terminal::End::Slave { pty, hung_up, by_dev_tty } => Self::PtySlave { pty, hung_up, by_dev_tty },
            terminal::End::Outside { path } => Self::OutsideTerminal { path },
        }
    }
}

impl OpenFileKind {
    /// Whether it can be opened only when a process of the job is there.
    fn needs_process(&self) -> bool {
        matches!(self, Self::Proc { .. } | Self::Pidfd(PidfdState { process: Some(_) }))
    }

    /// Whether a restart can bring back what is left to read of it: of a file always, of a pipe when nobody writes to it any more.
    #[must_use]
    pub fn is_lasting_input(&self, has_ended: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Regular(_) | Self::Deleted(_) | Self::SharedMemory { .. } => true,
            Self::Pipe { .. } => has_ended(),
            _ => false,
        }
    }

    /// The registrations of an epoll instance.
    pub fn registrations_mut(&mut self) -> &mut [Registration] {
        match self {
            Self::Epoll(epoll) => &mut epoll.registrations,
            _ => &mut [],
        }
    }

    /// Its path, if a process uses the directory that it is in by having it open.
    #[must_use]
    pub fn used_path(&self) -> Option<&FilePath> {
        match self {
            Self::Regular(RegularFile { path, .. }) | Self::Directory { path } | Self::Path { path } => Some(path),
            _ => None,
        }
    }
}
