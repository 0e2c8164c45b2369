//! The open file descriptions of all processes, each once: what each is open on, and the locks that were set through it.

use std::collections::HashSet;

use ckpt_objects::descriptor::{Descriptions, FdEntry, SeenDescriptor, descriptors, is_own};
use ckpt_objects::file::{DeletedFile, Piece, RegularFile, contents, name_of};
use ckpt_objects::file_lock::Locks;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::open_file::{OpenFile, OpenFileKind};
use ckpt_objects::pidfd::PidfdState;
use ckpt_objects::process::group_session_and_terminal;
use ckpt_objects::shared_memory::{self, SharedMemoryError};
use ckpt_objects::signalling::{self, Signalling};
use ckpt_objects::socket::observe::Surroundings;
use ckpt_objects::socket::{self, Sockets};
use ckpt_objects::subject::Subject;
use ckpt_objects::terminal::{self, Group};
use ckpt_objects::{
    FileId, FileIndex, NsPid, SpaceId, Spaces, device, directory, epoll, event, eventfd, inotify, mqueue, pidfd, pipe, signalfd,
    sysv, timerfd,
};

use super::job::Job;
use crate::frozen::FrozenProcess;

/// What the descriptors of all processes are open on.
#[derive(Default)]
pub struct OpenFiles {
    pub descriptions: Descriptions,
    pub locks: Locks,
    pub pipes: pipe::Observer,
    pub mqueues: mqueue::Observer,
    pub sockets: Sockets,
    pub terminals: terminal::Observer,
    /// Contents of files without a name.
    pub contents: Vec<(SpaceId, Vec<Piece>)>,
}

/// What else is joined with open files.
pub struct Others<'a> {
    pub ipc: &'a sysv::Observer<'a, FrozenProcess>,
    pub shared: &'a mut shared_memory::Observer,
    pub spaces: &'a mut Spaces,
}

impl OpenFiles {
    /// The descriptors of a process, and the locks that it has set.
    pub fn descriptors(&mut self, job: &Job<'_>, process: &FrozenProcess) -> Result<Vec<FdEntry>, ObserveError> {
        let mut entries = Vec::new();
        for mut descriptor in descriptors(process.live, process.agent_socket)? {
            if descriptor.may_not_close_on_exec()
                && let Ok(flags) = process.call(libc::SYS_fcntl, &[descriptor.fd.into(), libc::F_GETFD.into(), 0.into()])
            {
                descriptor.close_on_exec = flags & libc::FD_CLOEXEC as u64 != 0;
            }
            let locked = descriptor.info.windows(5).any(|word| word == b"lock:").then(|| descriptor.clone());
            let entry = self.descriptions.entry(descriptor);
            if let Some(descriptor) = locked {
                let seen = self.locks.see(process.ns_pid, entry, &descriptor.info);
                seen.map_err(|error| job.frozen.refuse_descriptor(&descriptor, error))?;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Looks at all sockets, and adds files that are only in flight between them to the descriptions.
    pub fn observe_sockets(&mut self, job: &Job<'_>) -> Result<(), ObserveError> {
        let number = job.peers();
        let cwds =
            job.frozen.processes.iter().filter_map(|process| std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok());
        let mut bases: Vec<_> = cwds.chain([job.info.launch_dir.as_path().to_owned()]).collect();
        bases.sort();
        bases.dedup();
        let surroundings = Surroundings { pid: &number, strict: job.info.settings.strict, bases: &bases };
        let sockets = socket::observe::observe(&mut self.descriptions, &surroundings);
        self.sockets = sockets.map_err(|(descriptor, error)| match job.frozen.refuse_descriptor(&descriptor, &error) {
            ObserveError::Refused { pid, name, what, .. } if error.passes() => ObserveError::Passing { pid, name, what },
            ObserveError::Refused { pid, name, what, .. } => ObserveError::Refused { pid, name, what, remedy: error.remedy() },
            other => other,
        })?;
        Ok(())
    }

    /// Looks at all terminals, which tell of many descriptions and processes at once. Gives the processes that have a controlling one.
    pub fn observe_terminals(
        &mut self,
        job: &Job<'_>,
        before: Option<&terminal::Settings>,
    ) -> Result<HashSet<NsPid>, ObserveError> {
        let groups = job.frozen.processes.iter().map(|process| {
            let (group, session, terminal) = group_session_and_terminal(process.live)?;
            let (own_group, own_session) = job.group_and_session(&process.status);
            Ok(Group { pid: process.live, host: (session, group), own: (own_session, own_group), terminal })
        });
        let groups = groups.collect::<Result<Vec<_>, ObserveError>>()?;
        let seen = self.descriptions.all();
        self.terminals = terminal::Observer::observe(seen, &groups, before).map_err(|(at, error)| {
            match (at.and_then(|at| seen.get(at.at())), job.frozen.processes.first()) {
                (Some(descriptor), _) => job.frozen.refuse_descriptor(descriptor, error),
                (None, Some(first)) => first
                    .refuse(format!("or another is controlled by {error}"), "end the program that uses it before a checkpoint"),
                (None, None) => ObserveError::Internal("a terminal of a job without processes"),
            }
        })?;
        let controlled = job.frozen.processes.iter().filter(|process| self.terminals.controlled.contains(&process.live));
        Ok(controlled.map(|process| process.ns_pid).collect())
    }

    /// What each description is open on, by its index.
    pub fn observe(&mut self, job: &Job<'_>, mut others: Others<'_>) -> Result<Vec<OpenFile>, ObserveError> {
        let seen = self.descriptions.all().to_vec();
        let mut files = Vec::new();
        for (at, descriptor) in seen.iter().enumerate() {
            let at = FileIndex::from(at);
            let inherited = (0..3u8).find(|fd| is_own(descriptor, i32::from(*fd)));
            let terminal = self.terminals.kinds.remove(&at);
            let socket = self.sockets.of_file(at).map(|socket| OpenFileKind::Socket { socket });
            let kind = match terminal.or(socket).map_or_else(|| self.kind(job, descriptor, &mut others), Ok) {
                // What is the launcher's own need not be understood: it is replaced.
                Err(_) if inherited.is_some() => OpenFileKind::Device { path: descriptor.link.clone(), rdev: descriptor.rdev },
                other => other?,
            };
            let SeenDescriptor { flags, position, .. } = *descriptor;
            files.push(OpenFile { flags, position, inherited, is_input: false, kind });
        }
        self.refuse_in_flight(job, &files)?;
        mark_written(&seen, &mut files);
        Ok(files)
    }

    /// Refuses files in flight that only a process of the job can open, when it is there again.
    fn refuse_in_flight(&self, job: &Job<'_>, files: &[OpenFile]) -> Result<(), ObserveError> {
        for (socket, file) in self.sockets.in_flight() {
            let kind = files.get(file.at()).map(|file| &file.kind);
            if matches!(kind, Some(OpenFileKind::Proc { .. } | OpenFileKind::Pidfd(PidfdState { process: Some(_) }))) {
                let mut seen = self.descriptions.all().iter().enumerate();
                let holder = seen.find(|(at, _)| self.sockets.of_file((*at).into()) == Some(socket));
                let (_, holder) = holder.ok_or(ObserveError::Internal("a socket that is no open file"))?;
                return Err(job.frozen.refuse_descriptor(holder, "a socket with a pidfd or a file of /proc in flight"));
            }
        }
        Ok(())
    }

    /// What a description is open on, where that is told by itself. The only place where a kind is chosen.
    fn kind(
        &mut self,
        job: &Job<'_>,
        descriptor: &SeenDescriptor,
        others: &mut Others<'_>,
    ) -> Result<OpenFileKind, ObserveError> {
        let link = &descriptor.link;
        let (path, deleted) = name_of(link, descriptor.inode);
        if let Some(kind) = event::kind(link) {
            return self.event_descriptor(job, descriptor, kind);
        }
        if descriptor.flags & libc::O_PATH as u32 != 0 {
            return Ok(OpenFileKind::Path { path });
        }
        let kind = descriptor.mode & libc::S_IFMT;
        if path.0.starts_with(b"/proc/") && matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
            return Ok(OpenFileKind::Proc { path });
        }
        let refuse = |what: &dyn std::fmt::Display| job.frozen.refuse_descriptor(descriptor, what);
        match kind {
            libc::S_IFREG if descriptor.is_queue() => {
                let queue = self.mqueues.see(descriptor, |uid| others.ipc.is_user(uid)).map_err(|error| refuse(&error))?;
                Ok(OpenFileKind::Mqueue { queue })
            }
            libc::S_IFREG => match others.shared.see_file(descriptor, &path, deleted, others.spaces) {
                Ok(Some(kind)) => Ok(kind),
                Ok(None) if !deleted && descriptor.links > 0 => {
                    let SeenDescriptor { device, inode, size, .. } = *descriptor;
                    Ok(OpenFileKind::Regular(RegularFile { path, size, device, inode, written: false }))
                }
                Ok(None) => {
                    let SeenDescriptor { device, inode, size, .. } = *descriptor;
                    let (space, mode) = (others.spaces.take(), descriptor.mode & 0o7777);
                    let pieces =
                        contents(&descriptor.through(), size).map_err(|error| refuse(&unreadable(descriptor, &error)))?;
                    self.contents.push((space, pieces));
                    Ok(OpenFileKind::Deleted(DeletedFile { path, size, mode, device, inode, space }))
                }
                Err(SharedMemoryError::Internal(error)) => Err(error),
                Err(error) => Err(refuse(&error)),
            },
            libc::S_IFDIR => Ok(match directory::observe_removed(link, &descriptor.through()) {
                Some(removed) => OpenFileKind::RemovedDirectory(removed),
                None => OpenFileKind::Directory { path },
            }),
            libc::S_IFCHR if !device::is_stateless(descriptor.rdev, descriptor.flags) => {
                Err(refuse(&format_args!("the device {path}, whose state the kernel does not show")))
            }
            libc::S_IFCHR | libc::S_IFBLK => Ok(OpenFileKind::Device { path, rdev: descriptor.rdev }),
            libc::S_IFIFO => {
                let seen = self.pipes.see(descriptor, self.descriptions.all());
                Ok(OpenFileKind::Pipe { pipe: seen.map_err(|error| refuse(&unreadable(descriptor, &error)))? })
            }
            libc::S_IFSOCK => Err(refuse(&"a socket")),
            _ => Err(refuse(link)),
        }
    }

    /// A file of the kernel's own, of a kind that its link names.
    fn event_descriptor(&self, job: &Job<'_>, descriptor: &SeenDescriptor, kind: &str) -> Result<OpenFileKind, ObserveError> {
        let descriptions = self.descriptions.all();
        let state = match kind {
            "eventpoll" => epoll::observe(descriptor, descriptions).map(OpenFileKind::Epoll),
            "eventfd" => eventfd::observe(descriptor).map(OpenFileKind::Eventfd),
            "timerfd" => timerfd::observe(descriptor).map(OpenFileKind::Timerfd),
            "signalfd" => signalfd::observe(descriptor, job.info.signal).map(OpenFileKind::Signalfd),
            "inotify" => {
                let processes = job.frozen.processes.iter().map(|process| process.pid).collect();
                inotify::observe(descriptor, &mut inotify::Search::new(processes, descriptions)).map(OpenFileKind::Inotify)
            }
            "pidfd" => pidfd::observe(descriptor, |pid| job.number(pid)).map(OpenFileKind::Pidfd),
            other => return Err(job.frozen.refuse_descriptor(descriptor, event::describe(other))),
        };
        state.map_err(|error| job.frozen.refuse_descriptor(descriptor, error))
    }

    /// Descriptions that send signals. Those of the launcher are replaced.
    pub fn signalling(&self, job: &Job<'_>, open_files: &[OpenFile]) -> Result<Vec<Signalling>, ObserveError> {
        let mut all = Vec::new();
        for ((at, descriptor), open) in self.descriptions.all().iter().enumerate().zip(open_files) {
            let Some(owner) = job.frozen.owner(descriptor).filter(|_| open.inherited.is_none()) else { continue };
            let found = signalling::observe(at.into(), owner.ns_pid, descriptor, |kind, host| job.signalled(kind, host));
            all.extend(found.map_err(|error| job.frozen.refuse_descriptor(descriptor, error))?);
        }
        Ok(all)
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

fn unreadable(descriptor: &SeenDescriptor, error: &std::io::Error) -> String {
    format!("{} (which cannot be read: {error})", descriptor.link)
}
