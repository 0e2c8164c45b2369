//! Rebuilds all open file descriptions of a job in one process, before the tree grows. Other processes inherit them; no descriptor is passed.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ckpt_sys::child;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::stdio;

use super::{OpenFile, OpenFileKind};
use crate::context::Context;
use crate::directory::{self, RemovedDirectory};
use crate::file::{self, RegularFile, input};
use crate::inotify::Watched;
use crate::objects::Objects;
use crate::pidfd::PidfdState;
use crate::rebuild::{self, RebuildError, lift};
use crate::shared_memory::SharedMemoryKind;
use crate::terminal::{self, pseudo};
use crate::{
    FilePath, NsPid, epoll, eventfd, file_lock, inotify, mqueue, pidfd, pipe, program, shared_memory, signalfd, socket, sysv,
    timerfd,
};

/// The descriptors of the job's objects, in the process that made them and in all that it forked.
#[derive(Debug, Default)]
pub struct Files {
    /// By index in [`Objects::open_files`]; nothing for those that each process opens by itself.
    pub open: Vec<Option<OwnedFd>>,
    /// By index in [`Objects::shared_memory`]; nothing for System V shared memory, which has no descriptor.
    pub shared: Vec<Option<OwnedFd>>,
    /// Working directories that have been removed, by device and inode number.
    pub removed: HashMap<(u64, u64), OwnedFd>,
    /// By index in [`Objects::programs`], for reading.
    pub programs: Vec<OwnedFd>,
    /// Pseudo-terminals.
    pub terminals: pseudo::Rebuilt,
}

impl Files {
    /// An open file of the job, by its index in [`Objects::open_files`].
    #[must_use]
    pub fn get(&self, file: usize) -> Option<BorrowedFd<'_>> {
        self.open.get(file)?.as_ref().map(AsFd::as_fd)
    }
}

/// Makes all open file descriptions of the job, and what they are open on.
///
/// # Errors
///
/// When an object cannot be made as it was.
pub fn rebuild(context: &dyn Context) -> Result<Files, RebuildError> {
    let open = context.objects().open_files.iter().map(|_| None).collect();
    let files = Files { open, ..Files::default() };
    let mut builder = FilesBuilder { context, unnamed: HashMap::new(), queues: Vec::new(), sockets: None, files };
    FilesBuilder::PHASES.iter().try_for_each(|phase| phase(&mut builder))?;
    Ok(builder.files)
}

/// A step of a builder.
type Phase<B> = fn(&mut B) -> Result<(), RebuildError>;

struct FilesBuilder<'a> {
    context: &'a dyn Context,
    /// Files without a name, by device and inode number.
    unnamed: HashMap<(u64, u64), OwnedFd>,
    /// By index in [`Objects::mqueues`].
    queues: Vec<OwnedFd>,
    sockets: Option<socket::all::Rebuilt<'a>>,
    files: Files,
}

impl<'a> FilesBuilder<'a> {
    /// The order in which objects are rebuilt. Each phase needs those before it.
    const PHASES: [Phase<Self>; 13] = [
        Self::system_v,
        Self::shared_memory,
        Self::removed_directories,
        Self::programs,
        Self::message_queues,
        // These take the lowest numbers of a file system of their own.
        Self::terminals,
        Self::pipes,
        Self::sockets,
        // All others, one by one.
        Self::descriptions,
        Self::locks,
        // Permission bits: they may forbid to open a file.
        Self::modes,
        // What waits in sockets may be any file.
        Self::sockets_in_flight,
        // These wait for any file.
        Self::epoll_registrations,
    ];

    fn objects(&self) -> Objects<'a> {
        self.context.objects()
    }

    fn at(&self, path: &FilePath) -> PathBuf {
        self.context.resolve(path)
    }

    /// Moves a descriptor out of the way of the job's numbers.
    fn lift(&self, fd: OwnedFd) -> Result<OwnedFd, RebuildError> {
        lift(fd, self.context.lowest())
    }

    fn system_v(&mut self) -> Result<(), RebuildError> {
        let state = self.objects().system_v;
        sysv::prepare(state);
        state.semaphores.iter().try_for_each(sysv::rebuild_semaphores)?;
        state.queues.iter().try_for_each(sysv::rebuild_messages)
    }

    fn shared_memory(&mut self) -> Result<(), RebuildError> {
        for object in self.objects().shared_memory {
            if let SharedMemoryKind::SystemV { identity, locked, .. } = &object.kind {
                sysv::rebuild_memory(identity, object.size, *locked)?;
                self.context.fill_segment(object, identity.id)?;
                self.files.shared.push(None);
                continue;
            }
            let path = match &object.kind {
                SharedMemoryKind::Named { path, .. } | SharedMemoryKind::Unlinked { path, .. } => Some(self.at(path)),
                _ => None,
            };
            let is_new = path.as_ref().is_none_or(|path| !path.exists());
            let fd = shared_memory::rebuild(object, path.as_deref())?;
            // A file that has a name gets its contents back last of all: until then the restart may fail, and must not have
            // touched it.
            if is_new || !matches!(object.kind, SharedMemoryKind::Named { .. }) {
                self.context.fill(object.space, fd.as_fd(), object.size)?;
            }
            let fd = self.lift(fd)?;
            self.files.shared.push(Some(fd));
        }
        Ok(())
    }

    fn removed_directories(&mut self) -> Result<(), RebuildError> {
        for removed in self.objects().living().filter_map(|(_, live)| live.removed_cwd.as_ref()) {
            self.removed(removed)?;
        }
        Ok(())
    }

    /// A directory without a name: one for all who had it.
    fn removed(&mut self, removed: &RemovedDirectory) -> Result<BorrowedFd<'_>, RebuildError> {
        let key = (removed.device, removed.inode);
        if !self.files.removed.contains_key(&key) {
            let fd = self.lift(directory::rebuild_removed(&self.at(&removed.path), removed.mode)?)?;
            self.files.removed.insert(key, fd);
        }
        Ok(self.files.removed[&key].as_fd())
    }

    fn programs(&mut self) -> Result<(), RebuildError> {
        for one in self.objects().programs {
            let made = program::begin(one, &self.at(&one.path))?;
            self.context.fill(one.space, made.file(), one.size)?;
            let fd = self.lift(made.finish(one)?)?;
            self.files.programs.push(fd);
        }
        Ok(())
    }

    fn message_queues(&mut self) -> Result<(), RebuildError> {
        self.queues = self.objects().mqueues.iter().map(mqueue::rebuild).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn terminals(&mut self) -> Result<(), RebuildError> {
        self.files.terminals = pseudo::rebuild(self.context, &mut self.files.open)?;
        Ok(())
    }

    fn pipes(&mut self) -> Result<(), RebuildError> {
        let Objects { pipes, open_files, .. } = self.objects();
        for (pipe, state) in (0u32..).zip(pipes) {
            let is_end = |(_, file): &(usize, &OpenFile)| file.inherited.is_none() && file.kind == OpenFileKind::Pipe { pipe };
            let ends: Vec<usize> = open_files.iter().enumerate().filter(is_end).map(|(at, _)| at).collect();
            if ends.is_empty() {
                continue;
            }
            let flags: Vec<u32> = ends.iter().map(|&at| open_files[at].flags).collect();
            let path = state.path.as_ref().map(|path| self.at(path));
            for (at, fd) in ends.into_iter().zip(pipe::rebuild(state, path.as_deref(), &flags)?) {
                self.files.open[at] = Some(self.lift(fd)?);
            }
        }
        Ok(())
    }

    fn sockets(&mut self) -> Result<(), RebuildError> {
        self.sockets = Some(socket::all::rebuild(self.context)?);
        Ok(())
    }

    fn descriptions(&mut self) -> Result<(), RebuildError> {
        for (at, description) in self.objects().open_files.iter().enumerate() {
            if self.files.open[at].is_none()
                && let Some(fd) = self.description(description)?
            {
                self.files.open[at] = Some(self.lift(fd)?);
            }
        }
        Ok(())
    }

    fn locks(&mut self) -> Result<(), RebuildError> {
        file_lock::take_of_descriptions(self.context, &mut self.files.open)
    }

    fn modes(&mut self) -> Result<(), RebuildError> {
        let Objects { mqueues, open_files, shared_memory, .. } = self.objects();
        self.queues.iter().zip(mqueues).try_for_each(|(fd, queue)| mqueue::finish(fd, queue))?;
        for description in open_files {
            if let OpenFileKind::Deleted(deleted) = &description.kind
                && let Some(fd) = self.unnamed.get(&(deleted.device, deleted.inode))
            {
                file::rebuild_attributes(fd, deleted.path.as_path(), &deleted.attributes)?;
            }
        }
        for (object, fd) in shared_memory.iter().zip(&self.files.shared) {
            if let (SharedMemoryKind::Unlinked { path, attributes: Some(attributes) }, Some(fd)) = (&object.kind, fd) {
                file::rebuild_attributes(fd, path.as_path(), attributes)?;
            }
        }
        Ok(())
    }

    fn sockets_in_flight(&mut self) -> Result<(), RebuildError> {
        self.sockets.take().map_or(Ok(()), |sockets| sockets.fill(&mut self.files.open))
    }

    fn epoll_registrations(&mut self) -> Result<(), RebuildError> {
        epoll::register_common(self.context, &self.files.open)
    }

    /// One description; nothing for one that another phase makes, or each process by itself ([`rebuild_own`]).
    fn description(&mut self, description: &OpenFile) -> Result<Option<OwnedFd>, RebuildError> {
        let OpenFile { flags, position, inherited, is_input: _, kind } = description;
        let (flags, position) = (*flags, *position);
        if let Some(number) = inherited {
            return inherited_stream(*number, flags).map(Some);
        }
        let context = self.context;
        if input::is_replaced(description, &|path| context.resolve(path)).is_some() {
            let fd = inherited_stream(0, flags)?;
            input::go_on_in_own(description, fd.as_fd())?;
            return Ok(Some(fd));
        }
        let fd = match kind {
            OpenFileKind::Regular(regular) if context.has_former(regular) => self.former(regular, flags, position)?,
            OpenFileKind::Regular(RegularFile { path, .. })
            | OpenFileKind::Directory { path }
            | OpenFileKind::Device { path, .. } => file::rebuild_named(&self.at(path), flags, position)?,
            OpenFileKind::RemovedDirectory(removed) => {
                let fd = rebuild::reopen(self.removed(removed)?, flags)?;
                file::rebuild_position(&fd, removed.path.as_path(), position)?;
                fd
            }
            OpenFileKind::Path { path } => file::rebuild_place(&self.at(path), flags)?,
            OpenFileKind::Deleted(deleted) => {
                let (path, key) = (self.at(&deleted.path), (deleted.device, deleted.inode));
                self.unnamed(key, &path, flags, position, |context| {
                    let fd = file::rebuild_unnamed(&path, deleted.size)?;
                    context.fill(deleted.space, fd.as_fd(), deleted.size)?;
                    Ok(fd)
                })?
            }
            OpenFileKind::SharedMemory { object } => self.open_shared_memory(*object, flags, position)?,
            OpenFileKind::Epoll(_) => epoll::rebuild(flags)?,
            OpenFileKind::Eventfd(state) => eventfd::rebuild(state, flags)?,
            OpenFileKind::Timerfd(state) => timerfd::rebuild(state, flags)?,
            OpenFileKind::Signalfd(state) => signalfd::rebuild(state, flags)?,
            OpenFileKind::Inotify(_) => inotify::rebuild()?,
            OpenFileKind::Mqueue { queue } => {
                let queue = self.queues.get(*queue as usize).ok_or(RebuildError::Incomplete("a message queue that is open"))?;
                rebuild::reopen(queue, flags)?
            }
            OpenFileKind::Pidfd(PidfdState { process: None }) => pidfd_of_the_dead(flags)?,
            OpenFileKind::OutsideTerminal { path } => pseudo::outside(context, &self.files.terminals, path, flags)?,
            OpenFileKind::Pipe { .. } => return Err(RebuildError::Incomplete("a pipe that is open")),
            OpenFileKind::PtyMaster { .. } | OpenFileKind::PtySlave { .. } => {
                return Err(RebuildError::Incomplete("a terminal that is open"));
            }
            OpenFileKind::Socket { .. } | OpenFileKind::Pidfd(_) | OpenFileKind::Proc { .. } => return Ok(None),
        };
        Ok(Some(fd))
    }

    fn open_shared_memory(&self, object: u32, flags: u32, position: u64) -> Result<OwnedFd, RebuildError> {
        let missing = || RebuildError::Incomplete("shared memory that is open");
        let object = object as usize;
        if let SharedMemoryKind::Named { path, .. } = &self.objects().shared_memory.get(object).ok_or_else(missing)?.kind {
            return file::rebuild_named(&self.at(path), flags, position);
        }
        let shared = self.files.shared.get(object).and_then(Option::as_ref).ok_or_else(missing)?;
        let fd = rebuild::reopen(shared, flags)?;
        file::rebuild_position(&fd, Path::new("shared memory"), position)?;
        Ok(fd)
    }

    /// A description of a file without a name, which is made for the first of them.
    fn unnamed(
        &mut self,
        key: (u64, u64),
        path: &Path,
        flags: u32,
        position: u64,
        make: impl FnOnce(&dyn Context) -> Result<OwnedFd, RebuildError>,
    ) -> Result<OwnedFd, RebuildError> {
        if !self.unnamed.contains_key(&key) {
            self.unnamed.insert(key, make(self.context)?);
        }
        let fd = rebuild::reopen(&self.unnamed[&key], flags)?;
        file::rebuild_position(&fd, path, position)?;
        Ok(fd)
    }

    /// The contents that a file had which the job only reads, in a file without a name.
    fn former(&mut self, regular: &RegularFile, flags: u32, position: u64) -> Result<OwnedFd, RebuildError> {
        let path = self.at(&regular.path);
        self.unnamed((regular.device, regular.inode), &path, flags, position, |context| {
            let file = File::from(file::rebuild_unnamed(&path, 0)?);
            context.write_former(regular, &file)?;
            Ok(file.into())
        })
    }
}

/// A standard descriptor of this process.
///
/// # Panics
///
/// For a number above 2.
#[must_use]
pub fn standard(number: u8) -> BorrowedFd<'static> {
    match number {
        0 => stdio::stdin(),
        1 => stdio::stdout(),
        2 => stdio::stderr(),
        other => panic!("{other} is no standard descriptor"),
    }
}

/// The launcher's own input and output are the restart's own now.
fn inherited_stream(number: u8, flags: u32) -> Result<OwnedFd, RebuildError> {
    if number > 2 {
        return Err(RebuildError::Incomplete("a standard stream"));
    }
    let own = standard(number);
    if let Some(fd) = pseudo::with_flags(own, flags) {
        return Ok(fd);
    }
    match rustix::io::fcntl_dupfd_cloexec(own, 0) {
        // The restart was started with it closed.
        Err(Errno::BADF) => file::rebuild_named(Path::new("/dev/null"), libc::O_RDWR.cast_unsigned(), 0),
        other => other.map_err(RebuildError::call(format!("duplicate descriptor {number}"))),
    }
}

/// A pidfd of a process that has ended and been waited for.
fn pidfd_of_the_dead(flags: u32) -> Result<OwnedFd, RebuildError> {
    let child = child::spawn(0, None, || 0).map_err(RebuildError::raw("make a process that ends"))?;
    let fd = pidfd::rebuild(NsPid(child), flags);
    waitpid(Pid::from_raw(child), WaitOptions::empty()).map_err(RebuildError::call("wait for a process that ends"))?;
    fd
}

/// A file of `/proc/PID` of a process that is gone: whoever reads it is told so (`ESRCH`). Nothing for another path.
fn proc_of_the_dead(path: &Path, description: &OpenFile) -> Option<Result<OwnedFd, RebuildError>> {
    let mut parts = path.strip_prefix("/proc").ok()?.components();
    parts.next()?.as_os_str().to_str()?.parse::<u32>().ok()?;
    let file = parts.as_path();
    // Until it is waited for, a process that has ended has its directory.
    let child = child::spawn(0, None, || 0).map_err(RebuildError::raw("make a process that ends"));
    Some(child.and_then(|child| {
        let open =
            |file: &Path| file::rebuild_named(&Path::new("/proc").join(child.to_string()).join(file), description.flags, 0);
        // Some files cannot be opened of one that has ended.
        let opened = open(file).or_else(|_| open(Path::new("stat")));
        waitpid(Pid::from_raw(child), WaitOptions::empty()).map_err(RebuildError::call("wait for a process that ends"))?;
        opened
    }))
}

/// Opens a file of `/proc` or a process, which are there only when the processes are. In the process `pid`, which has it.
///
/// # Errors
///
/// When it is not there, or `description` is of another kind.
pub fn rebuild_own(description: &OpenFile, pid: NsPid) -> Result<OwnedFd, RebuildError> {
    match &description.kind {
        OpenFileKind::Proc { path } => {
            let path = path.as_path();
            // By the name that works where this namespace's own `/proc` could not be mounted, too.
            let own = path.strip_prefix(format!("/proc/{pid}")).map(|rest| Path::new("/proc/self").join(rest));
            match file::rebuild_named(own.as_deref().unwrap_or(path), description.flags, description.position) {
                Err(error) if error.is_missing() => proc_of_the_dead(path, description).unwrap_or(Err(error)),
                opened => opened,
            }
        }
        OpenFileKind::Pidfd(PidfdState { process: Some(process) }) => pidfd::rebuild(*process, description.flags),
        _ => Err(RebuildError::Incomplete("a file that is open")),
    }
}

/// What must stay open for [`arm`]: what is armed, and files without a name that are watched. Indices in [`Objects::open_files`].
#[must_use]
pub fn needed_to_arm(objects: Objects<'_>) -> Vec<usize> {
    let mut needed: Vec<usize> = file_lock::leased(objects).collect();
    for (at, file) in objects.open_files.iter().enumerate() {
        match (&file.kind, file.inherited) {
            (OpenFileKind::Timerfd(_), None) | (OpenFileKind::PtyMaster { .. }, _) => needed.push(at),
            (OpenFileKind::Inotify(state), None) => {
                needed.push(at);
                needed.extend(state.watches.iter().filter_map(|watch| match watch.target {
                    Watched::File(file) => Some(file.at()),
                    Watched::Path(_) => None,
                }));
            }
            _ => (),
        }
    }
    needed
}

/// Sets timers, watches, seals and leases: everything is there, and the job goes on at once.
///
/// # Errors
///
/// When one cannot be set.
pub fn arm(context: &dyn Context, files: &Files) -> Result<(), RebuildError> {
    let objects = context.objects();
    for (object, fd) in objects.shared_memory.iter().zip(&files.shared) {
        if let (SharedMemoryKind::Memfd { seals: seals @ 1.., .. }, Some(fd)) = (&object.kind, fd) {
            shared_memory::seal(fd, *seals)?;
        }
    }
    for (at, OpenFile { flags, kind, inherited, .. }) in objects.open_files.iter().enumerate() {
        let Some(fd) = files.get(at) else { continue };
        match (kind, inherited) {
            (OpenFileKind::Timerfd(state), None) => timerfd::start(fd, state)?,
            (OpenFileKind::PtyMaster { pty, .. }, _) => {
                let state = objects.terminals.ptys.get(*pty as usize).and_then(|pty| pty.open.as_ref());
                state.map_or(Ok(()), |state| terminal::seal(fd, state))?;
            }
            (OpenFileKind::Inotify(state), None) => {
                inotify::watch(fd, state, *flags, |watched| match watched {
                    Watched::Path(path) => context.resolve(path),
                    Watched::File(file) => files.get(file.at()).map(rebuild::own_fd_path).unwrap_or_default(),
                })?;
                if state.pending > 0 {
                    context
                        .note("inotify events that the job had not read are lost; it reads IN_Q_OVERFLOW in their place".into());
                }
            }
            _ => (),
        }
    }
    file_lock::leased(objects).try_for_each(|at| files.get(at).map_or(Ok(()), |fd| file_lock::take_leases(objects, fd, at)))
}
