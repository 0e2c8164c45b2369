//! What each open file description of a job is open on: the one place where a kind is chosen.

use std::collections::{HashMap, HashSet};
use std::io;

use super::{OpenFile, OpenFileKind};
use crate::descriptor::{SeenDescriptor, is_own};
use crate::file::{DeletedFile, Piece, RegularFile, contents, name_of, other_name};
use crate::observe::ObserveError;
use crate::shared_memory::{self, MemoryFile, SharedMemoryError};
use crate::socket::Sockets;
use crate::{
    FileId, FileIndex, FilePath, HostPid, NsPid, SpaceId, Spaces, device, directory, epoll, event, eventfd, inotify, mqueue,
    pidfd, pipe, signalfd, terminal, timerfd,
};

/// Why a description is not kept.
#[derive(Debug, thiserror::Error)]
pub enum OpenFileError {
    /// It is open on something that this engine does not keep, named here.
    #[error("{0}")]
    Refused(String),
    /// An error of this program.
    #[error(transparent)]
    Internal(#[from] ObserveError),
}

impl OpenFileError {
    fn refused(what: impl ToString) -> Self {
        Self::Refused(what.to_string())
    }
}

impl From<SharedMemoryError> for OpenFileError {
    fn from(error: SharedMemoryError) -> Self {
        match error {
            SharedMemoryError::Internal(error) => Self::Internal(error),
            error => Self::refused(error),
        }
    }
}

/// The job that has the descriptions, and its objects that were observed before.
pub struct Surroundings<'a> {
    /// All its descriptions.
    pub descriptions: &'a [SeenDescriptor],
    /// All its processes.
    pub processes: Vec<HostPid>,
    /// Gives the job's number of one of them.
    pub number: &'a dyn Fn(HostPid) -> Option<NsPid>,
    /// Whether one of them runs as this user.
    pub is_user: &'a dyn Fn(u32) -> bool,
    /// The signal of checkpoints.
    pub signal: i32,
    /// Descriptions of terminals.
    pub terminals: HashMap<FileIndex, terminal::End>,
    /// Its sockets.
    pub sockets: &'a Sockets,
    /// Its shared memory.
    pub shared: &'a mut shared_memory::Observer,
    /// The spaces that are not in use.
    pub spaces: &'a mut Spaces,
}

/// What descriptions share.
#[derive(Default)]
pub struct Observer {
    /// Pipes.
    pub pipes: pipe::Observer,
    /// POSIX message queues.
    pub mqueues: mqueue::Observer,
    /// Contents of files without a name.
    pub contents: Vec<(SpaceId, Vec<Piece>)>,
}

impl Observer {
    /// Observes all descriptions, in their order.
    ///
    /// # Errors
    ///
    /// The first description that is not kept, and why.
    pub fn observe<'a>(&mut self, mut job: Surroundings<'a>) -> Result<Vec<OpenFile>, (&'a SeenDescriptor, OpenFileError)> {
        let mut files = Vec::new();
        for (at, descriptor) in job.descriptions.iter().enumerate() {
            let inherited = (0..3u8).find(|fd| is_own(descriptor, i32::from(*fd)));
            let socket = job.sockets.of_file(at.into()).map(|socket| OpenFileKind::Socket { socket });
            let known = job.terminals.remove(&at.into()).map(OpenFileKind::from).or(socket);
            let kind = match known.map_or_else(|| self.kind(descriptor, &mut job), Ok) {
                // The launcher's own need not be understood: a restart replaces it.
                Err(_) if inherited.is_some() => OpenFileKind::Device { path: descriptor.link.clone(), rdev: descriptor.rdev },
                other => other.map_err(|error| (descriptor, error))?,
            };
            let SeenDescriptor { flags, position, .. } = *descriptor;
            files.push(OpenFile { flags, position, inherited, is_input: false, kind });
        }
        refuse_in_flight(&job, &files)?;
        mark_written(job.descriptions, &mut files);
        Ok(files)
    }

    fn kind(&mut self, descriptor: &SeenDescriptor, job: &mut Surroundings<'_>) -> Result<OpenFileKind, OpenFileError> {
        let link = &descriptor.link;
        let (path, deleted) = name_of(link, descriptor.inode);
        if let Some(kind) = event::kind(link) {
            return event_descriptor(descriptor, kind, job);
        }
        if descriptor.flags & libc::O_PATH as u32 != 0 {
            return Ok(OpenFileKind::Path { path });
        }
        let kind = descriptor.mode & libc::S_IFMT;
        if path.0.starts_with(b"/proc/") && matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
            return Ok(OpenFileKind::Proc { path });
        }
        Ok(match kind {
            libc::S_IFREG if descriptor.is_queue() => {
                OpenFileKind::Mqueue { queue: self.mqueues.see(descriptor, job.is_user).map_err(OpenFileError::refused)? }
            }
            libc::S_IFREG => match job.shared.see_file(descriptor, &path, deleted, job.spaces)? {
                Some(MemoryFile::Object(object)) => OpenFileKind::SharedMemory { object },
                Some(MemoryFile::Named(path)) => named(descriptor, path),
                None if !deleted && descriptor.links > 0 => named(descriptor, path),
                None if let Some(path) = other_name(descriptor, &path, job.descriptions) => named(descriptor, path),
                None => self.deleted(descriptor, path, job.spaces.take())?,
            },
            libc::S_IFDIR => match directory::observe_removed(link, &descriptor.through()) {
                Some(removed) => OpenFileKind::RemovedDirectory(removed),
                None => OpenFileKind::Directory { path },
            },
            libc::S_IFCHR if !device::is_stateless(descriptor.rdev, descriptor.flags) => {
                return Err(OpenFileError::Refused(format!("the device {path}, whose state the kernel does not show")));
            }
            libc::S_IFCHR | libc::S_IFBLK => OpenFileKind::Device { path, rdev: descriptor.rdev },
            libc::S_IFIFO => {
                let pipe = self.pipes.see(descriptor, job.descriptions).map_err(|error| unreadable(descriptor, &error))?;
                OpenFileKind::Pipe { pipe }
            }
            libc::S_IFSOCK => return Err(OpenFileError::refused("a socket")),
            _ => return Err(OpenFileError::refused(link)),
        })
    }

    /// A file without a name. Its contents go into the image.
    fn deleted(&mut self, descriptor: &SeenDescriptor, path: FilePath, space: SpaceId) -> Result<OpenFileKind, OpenFileError> {
        let SeenDescriptor { device, inode, size, .. } = *descriptor;
        let pieces = contents(&descriptor.through(), size).map_err(|error| unreadable(descriptor, &error))?;
        self.contents.push((space, pieces));
        Ok(OpenFileKind::Deleted(DeletedFile { path, size, attributes: descriptor.attributes(), device, inode, space }))
    }
}

fn named(descriptor: &SeenDescriptor, path: FilePath) -> OpenFileKind {
    let SeenDescriptor { device, inode, size, .. } = *descriptor;
    OpenFileKind::Regular(RegularFile { path, size, device, inode, written: false })
}

/// A file of the kernel's own, of a kind that its link names.
fn event_descriptor(descriptor: &SeenDescriptor, kind: &str, job: &Surroundings<'_>) -> Result<OpenFileKind, OpenFileError> {
    let state = match kind {
        "eventpoll" => epoll::observe(descriptor, job.descriptions).map(OpenFileKind::Epoll),
        "eventfd" => eventfd::observe(descriptor).map(OpenFileKind::Eventfd),
        "timerfd" => timerfd::observe(descriptor).map(OpenFileKind::Timerfd),
        "signalfd" => signalfd::observe(descriptor, job.signal).map(OpenFileKind::Signalfd),
        "inotify" => {
            let mut search = inotify::Search::new(job.processes.clone(), job.descriptions);
            inotify::observe(descriptor, &mut search).map(OpenFileKind::Inotify)
        }
        "pidfd" => pidfd::observe(descriptor, job.number).map(OpenFileKind::Pidfd),
        other => return Err(OpenFileError::refused(event::describe(other))),
    };
    state.map_err(OpenFileError::refused)
}

/// Refuses sockets with files in flight that only a process of the job can open, once it is there.
fn refuse_in_flight<'a>(job: &Surroundings<'a>, files: &[OpenFile]) -> Result<(), (&'a SeenDescriptor, OpenFileError)> {
    let needs_process = |at: FileIndex| files.get(at.at()).is_some_and(|file| file.kind.needs_process());
    let holders: HashSet<u32> =
        job.sockets.in_flight().filter(|(_, file)| needs_process(*file)).map(|(socket, _)| socket).collect();
    let mut seen = job.descriptions.iter().enumerate();
    match seen.find(|(at, _)| job.sockets.of_file((*at).into()).is_some_and(|socket| holders.contains(&socket))) {
        Some((_, holder)) => Err((holder, OpenFileError::refused("a socket with a pidfd or a file of /proc in flight"))),
        None => Ok(()),
    }
}

/// Marks regular files that any description of the job's has open for writing.
fn mark_written(seen: &[SeenDescriptor], files: &mut [OpenFile]) {
    let is_writer = |descriptor: &&SeenDescriptor| descriptor.flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32;
    let written: HashSet<FileId> = seen.iter().filter(is_writer).map(SeenDescriptor::id).collect();
    for file in files {
        if let OpenFileKind::Regular(regular) = &mut file.kind {
            regular.written = written.contains(&FileId { device: regular.device, inode: regular.inode });
        }
    }
}

fn unreadable(descriptor: &SeenDescriptor, error: &io::Error) -> OpenFileError {
    OpenFileError::Refused(format!("{} (which cannot be read: {error})", descriptor.link))
}
