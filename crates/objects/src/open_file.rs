//! Open file descriptions, of whatever kind: the one place where the kind decides what is done.
//!
//! | verb | when |
//! |---|---|
//! | [`needs`] | before anything is made: the files that a restart must find |
//! | [`rebuild`] | once, in the process that makes all of them, phase by phase |
//! | [`rebuild_own`] | in each process of the job, when all are there: what can be opened only then |
//! | [`arm`] | last of all: what acts by itself once it is set |
//! | [`describe`] | for people |

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::directory::RemovedDirectory;
use crate::epoll::EpollState;
use crate::eventfd::EventfdState;
use crate::file::{DeletedFile, RegularFile};
use crate::inotify::{InotifyState, Watched};
use crate::objects::Objects;
use crate::pidfd::PidfdState;
use crate::signalfd::SignalfdState;
use crate::timerfd::TimerfdState;
use crate::{Bytes, FilePath};

mod rebuild;

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

    /// The socket that it is, by its index in [`Objects::sockets`], unless the restart's own stands in.
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
    /// Its path, if a lock can be taken of it by that.
    #[must_use]
    pub fn path<'a>(&'a self, objects: Objects<'a>) -> Option<&'a FilePath> {
        match self {
            Self::Regular(regular) => Some(&regular.path),
            Self::Directory { path } => Some(path),
            Self::Pipe { pipe } => objects.pipes.get(*pipe as usize)?.path.as_ref(),
            _ => None,
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

/// A file that a restart must find by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// A regular file, of at least so many bytes. What is missing is not made by anybody else.
    File(&'a FilePath, u64),
    /// Anything, a symbolic link too.
    Place(&'a FilePath),
    /// A named pipe.
    Fifo(&'a FilePath),
    /// Anything, for an inotify watch.
    Watched(&'a FilePath),
}

/// What must be there for a description to be rebuilt.
#[must_use]
pub fn needs<'a>(objects: Objects<'a>, file: &'a OpenFile) -> Vec<Need<'a>> {
    match &file.kind {
        OpenFileKind::Regular(regular) => vec![Need::File(&regular.path, regular.size)],
        OpenFileKind::Directory { path } | OpenFileKind::Path { path } => vec![Need::Place(path)],
        OpenFileKind::Pipe { pipe } => {
            let path = objects.pipes.get(*pipe as usize).and_then(|pipe| pipe.path.as_ref());
            path.map(Need::Fifo).into_iter().collect()
        }
        OpenFileKind::Inotify(inotify) => {
            let paths = inotify.watches.iter().filter_map(|watch| match &watch.target {
                Watched::Path(path) => Some(Need::Watched(path)),
                Watched::File(_) => None,
            });
            paths.collect()
        }
        OpenFileKind::Device { .. }
        | OpenFileKind::PtyMaster { .. }
        | OpenFileKind::PtySlave { .. }
        | OpenFileKind::OutsideTerminal { .. }
        | OpenFileKind::Deleted(_)
        | OpenFileKind::RemovedDirectory(_)
        | OpenFileKind::SharedMemory { .. }
        | OpenFileKind::Proc { .. }
        | OpenFileKind::Epoll(_)
        | OpenFileKind::Eventfd(_)
        | OpenFileKind::Timerfd(_)
        | OpenFileKind::Signalfd(_)
        | OpenFileKind::Socket { .. }
        | OpenFileKind::Mqueue { .. }
        | OpenFileKind::Pidfd(_) => Vec::new(),
    }
}

/// A description in a few words. Names in it are as the job gave them: a terminal may take them for control sequences.
#[must_use]
pub fn describe(objects: Objects<'_>, file: &OpenFile) -> String {
    if let Some(number) = file.inherited {
        let stream = ["standard input", "standard output", "standard error"].get(usize::from(number));
        return format!("the launcher's {}", stream.unwrap_or(&"own descriptor"));
    }
    let position = file.position;
    match &file.kind {
        OpenFileKind::Regular(regular) => format!("{}, at {position} of {} bytes", regular.path, regular.size),
        OpenFileKind::Deleted(deleted) => format!("{} (deleted), at {position} of {} bytes", deleted.path, deleted.size),
        OpenFileKind::RemovedDirectory(removed) => format!("removed directory {}", removed.path),
        OpenFileKind::Directory { path } => format!("directory {path}"),
        OpenFileKind::Device { path, .. } => format!("device {path}"),
        OpenFileKind::Pipe { pipe: number } => match objects.pipes.get(*number as usize) {
            Some(pipe) => {
                let bytes: usize = pipe.packets.iter().map(Vec::len).sum();
                let path = pipe.path.as_ref().map_or("pipe".to_owned(), |path| format!("named pipe {path}"));
                format!("{path} [{number}], {bytes} bytes in it")
            }
            None => format!("pipe [{number}]"),
        },
        OpenFileKind::SharedMemory { object } => match objects.shared_memory.get(*object as usize) {
            Some(memory) => format!("shared memory {} [{object}], {}", memory.kind, Bytes(memory.size)),
            None => format!("shared memory [{object}]"),
        },
        OpenFileKind::Path { path } => format!("place {path}"),
        OpenFileKind::Proc { path } => path.to_string(),
        OpenFileKind::Epoll(epoll) => format!("epoll instance, {} registrations", epoll.registrations.len()),
        OpenFileKind::Eventfd(eventfd) => {
            format!("eventfd, count {}{}", eventfd.count, if eventfd.semaphore { ", semaphore" } else { "" })
        }
        OpenFileKind::Timerfd(timer) => {
            let mut text = "timerfd".to_owned();
            if timer.remaining_ns > 0 {
                let left = humantime::format_duration(Duration::from_millis(timer.remaining_ns / 1_000_000));
                let _ = write!(text, ", {left} left");
            }
            format!("{text}, {} expirations not read", timer.ticks)
        }
        OpenFileKind::Signalfd(signalfd) => format!("signalfd, {} signals", signalfd.mask.count_ones()),
        OpenFileKind::Inotify(inotify) => {
            format!("inotify instance, {} watches, {} bytes not read", inotify.watches.len(), inotify.pending)
        }
        OpenFileKind::PtyMaster { pty, .. } => format!("master of pseudo-terminal {}", pty_name(objects, *pty)),
        OpenFileKind::PtySlave { pty, hung_up, .. } => {
            format!("pseudo-terminal {}{}", pty_name(objects, *pty), if *hung_up { ", hung up" } else { "" })
        }
        OpenFileKind::OutsideTerminal { path } => format!("the launcher's terminal, as {path}"),
        OpenFileKind::Socket { socket } => match objects.sockets.get(*socket as usize) {
            Some(socket) => socket.summary(),
            None => format!("socket [{socket}]"),
        },
        OpenFileKind::Mqueue { queue } => {
            let queue = objects.mqueues.get(*queue as usize);
            let name = queue.map_or_else(String::new, |queue| queue.name.to_string());
            format!("POSIX message queue {name}, {} messages", queue.map_or(0, |queue| queue.messages.len()))
        }
        OpenFileKind::Pidfd(pidfd) => match pidfd.process {
            Some(pid) => format!("pidfd of process {pid}"),
            None => "pidfd of a process that has ended".to_owned(),
        },
    }
}

fn pty_name(objects: Objects<'_>, pty: u32) -> String {
    let number = objects.terminals.ptys.get(pty as usize).and_then(|pty| pty.number);
    number.map_or_else(|| "without a number".to_owned(), |number| number.to_string())
}
