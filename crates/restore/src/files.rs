//! Every open file description of the whole job, made once, in one process, before the tree grows: all others inherit them, and
//! each takes what is its own ([`crate::descriptors`]). No descriptor is ever passed.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use ckpt_objects::directory::{self, RemovedDirectory};
use ckpt_objects::file::{self, OpenFile, OpenFileKind, RegularFile};
use ckpt_objects::inotify::Watched;
use ckpt_objects::pidfd::PidfdState;
use ckpt_objects::process::Life;
use ckpt_objects::rebuild::{self, RebuildError};
use ckpt_objects::shared_memory::{self, SharedMemory, SharedMemoryKind};
use ckpt_objects::{FilePath, NsPid, epoll, eventfd, inotify, mqueue, pidfd, pipe, signalfd, sysv, timerfd};
use ckpt_sys::fork::{Fork, fork};
use rustix::process::Resource;

use crate::contents::Stored;
use crate::epolls;
use crate::error::ProcessError;
use crate::input;
use crate::locks;
use crate::memory;
use crate::restart::Restart;
use crate::sockets;
use crate::terminals;

/// The descriptors of the job's objects, in the process that made them and in all that it forked.
#[derive(Debug, Default)]
pub struct Files {
    /// By index in [`ckpt_session::JobState::open_files`]; nothing for those that each process opens by itself.
    pub open: Vec<Option<RawFd>>,
    /// By index in [`ckpt_session::JobState::shared_memory`].
    pub shared: Vec<RawFd>,
    /// Shared memory that is to be sealed when everybody has mapped it, and how.
    pub seals: Vec<(RawFd, u32)>,
    /// Working directories that have been removed, by device and inode number.
    pub removed: HashMap<(u64, u64), RawFd>,
    /// Timers and watches that are to be set when everything is there: their descriptors, and indices as in `open`.
    pub unset: Vec<(RawFd, usize)>,
    /// Pseudo-terminals.
    pub terminals: terminals::Built,
}

/// Makes them all.
pub fn build(restart: &Restart<'_>) -> Result<Files, ProcessError> {
    Builder { restart, unnamed: HashMap::new(), queues: Vec::new(), files: Files::default() }.build()
}

struct Builder<'a> {
    restart: &'a Restart<'a>,
    /// Files without a name, by device and inode number.
    unnamed: HashMap<(u64, u64), OwnedFd>,
    /// Message queues, by index in [`ckpt_session::JobState::mqueues`].
    queues: Vec<OwnedFd>,
    files: Files,
}

impl Builder<'_> {
    fn build(mut self) -> Result<Files, ProcessError> {
        let job = self.restart.job;
        sysv::prepare(&job.system_v);
        for set in &job.system_v.semaphores {
            sysv::rebuild_semaphores(set)?;
        }
        for queue in &job.system_v.queues {
            sysv::rebuild_messages(queue)?;
        }
        for object in &job.shared_memory {
            if let SharedMemoryKind::SystemV { identity, locked, .. } = &object.kind {
                sysv::rebuild_memory(identity, object.size, *locked)?;
                self.fill_segment(object, identity.id)?;
                self.files.shared.push(-1);
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
                self.fill(object.space, &fd, object.size)?;
            }
            let fd = self.lift(fd)?;
            if let SharedMemoryKind::Memfd { seals: seals @ 1.., .. } = object.kind {
                self.files.seals.push((fd, seals));
            }
            self.files.shared.push(fd);
        }
        for process in &job.processes {
            if let Life::Alive(live) = &process.life
                && let Some(removed) = &live.removed_cwd
            {
                self.removed(removed)?;
            }
        }
        self.queues = job.mqueues.iter().map(mqueue::rebuild).collect::<Result<_, _>>()?;
        let mut open: Vec<Option<RawFd>> = vec![None; job.open_files.len()];
        let (restart, lowest) = (self.restart, self.restart.lowest);
        terminals::build(restart, &mut self.files, &mut open, |fd| lift(fd.as_fd(), lowest).map(IntoRawFd::into_raw_fd))?;
        self.build_pipes(&mut open)?;
        let sockets = sockets::build(self.restart, &mut open)?;
        for (i, description) in job.open_files.iter().enumerate() {
            if open[i].is_none() {
                open[i] = match self.description(description)? {
                    Some(fd) => Some(self.lift(fd)?),
                    None => None,
                };
            }
            if let (OpenFileKind::Timerfd(_) | OpenFileKind::Inotify(_), None, Some(fd)) =
                (&description.kind, description.inherited, open[i])
            {
                self.files.unset.push((fd, i));
            }
        }
        locks::take_of_descriptions(restart, &mut open, |fd| lift(fd, lowest).map(IntoRawFd::into_raw_fd))?;
        self.files.unset.extend(locks::leased(job).filter_map(|index| Some((open.get(index).copied()??, index))));
        for (fd, queue) in self.queues.iter().zip(&job.mqueues) {
            mqueue::finish(fd, queue)?;
        }
        self.set_modes()?;
        sockets.fill(&open)?;
        epolls::register_common(self.restart, &open)?;
        self.files.open = open;
        Ok(self.files)
    }

    fn at(&self, path: &FilePath) -> PathBuf {
        self.restart.paths.resolve(path)
    }

    fn fill(&self, space: u32, fd: &OwnedFd, size: u64) -> Result<(), ProcessError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(memory::fill_object(self.restart.reader, space, fd, size, threads, &self.restart.control.filled)?)
    }

    fn fill_segment(&self, object: &SharedMemory, id: i32) -> Result<(), ProcessError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(memory::fill_segment(self.restart.reader, object, id, threads, &self.restart.control.filled)?)
    }

    /// Moves a descriptor out of the way of the job's numbers.
    fn lift(&self, fd: OwnedFd) -> Result<RawFd, ProcessError> {
        lift(fd.as_fd(), self.restart.lowest).map(IntoRawFd::into_raw_fd)
    }

    fn build_pipes(&mut self, open: &mut [Option<RawFd>]) -> Result<(), ProcessError> {
        let job = self.restart.job;
        for (i, state) in job.pipes.iter().enumerate() {
            let ends: Vec<usize> = job
                .open_files
                .iter()
                .enumerate()
                .filter(|(_, file)| file.inherited.is_none() && file.kind == OpenFileKind::Pipe { pipe: i as u32 })
                .map(|(at, _)| at)
                .collect();
            if ends.is_empty() {
                continue;
            }
            let flags: Vec<u32> = ends.iter().map(|&at| job.open_files[at].flags).collect();
            let path = state.path.as_ref().map(|path| self.at(path));
            for (at, fd) in ends.into_iter().zip(pipe::rebuild(state, path.as_deref(), &flags)?) {
                open[at] = Some(self.lift(fd)?);
            }
        }
        Ok(())
    }

    fn description(&mut self, description: &OpenFile) -> Result<Option<OwnedFd>, ProcessError> {
        let OpenFile { flags, position, inherited, is_input: _, kind } = description;
        if let Some(number) = inherited {
            return self.inherited(*number, *flags).map(Some);
        }
        if input::is_replaced(description, self.restart.paths).is_some() {
            let fd = self.inherited(0, *flags)?;
            input::go_on_in_own(description, fd.as_fd())?;
            return Ok(Some(fd));
        }
        Ok(Some(match kind {
            OpenFileKind::Regular(regular) => match self.restart.reads.get(&regular.path) {
                Some(stored) => self.former(stored, regular, *flags, *position)?,
                None => file::rebuild_named(&self.at(&regular.path), *flags, *position)?,
            },
            OpenFileKind::Directory { path } => file::rebuild_named(&self.at(path), *flags, *position)?,
            OpenFileKind::RemovedDirectory(removed) => {
                // SAFETY: the descriptor is open, and stays so as long as this process builds.
                let fd = rebuild::reopen(unsafe { BorrowedFd::borrow_raw(self.removed(removed)?) }, *flags)?;
                file::rebuild_position(&fd, removed.path.as_path(), *position)?;
                fd
            }
            OpenFileKind::Device { path, .. } => file::rebuild_named(&self.at(path), *flags, *position)?,
            OpenFileKind::Path { path } => file::rebuild_place(&self.at(path), *flags)?,
            OpenFileKind::Deleted(deleted) => {
                let path = self.at(&deleted.path);
                let key = (deleted.device, deleted.inode);
                if !self.unnamed.contains_key(&key) {
                    let fd = file::rebuild_unnamed(&path, deleted.size)?;
                    self.fill(deleted.space, &fd, deleted.size)?;
                    self.unnamed.insert(key, fd);
                }
                let fd = rebuild::reopen(&self.unnamed[&key], *flags)?;
                file::rebuild_position(&fd, &path, *position)?;
                fd
            }
            OpenFileKind::SharedMemory { object } => {
                let index = *object as usize;
                let shared = self.files.shared.get(index).ok_or(ProcessError::Incomplete("shared memory that is open"))?;
                let named = match &self.restart.job.shared_memory[index].kind {
                    SharedMemoryKind::Named { path, .. } => Some(self.at(path)),
                    _ => None,
                };
                match named {
                    Some(path) => file::rebuild_named(&path, *flags, *position)?,
                    None => {
                        // SAFETY: the descriptor is open, and stays so as long as this process builds.
                        let shared = unsafe { BorrowedFd::borrow_raw(*shared) };
                        let fd = rebuild::reopen(shared, *flags)?;
                        file::rebuild_position(&fd, Path::new("shared memory"), *position)?;
                        fd
                    }
                }
            }
            OpenFileKind::Pipe { .. } => return Err(ProcessError::Incomplete("a pipe that is open")),
            OpenFileKind::Socket { .. } => return Err(ProcessError::Incomplete("a socket that is open")),
            OpenFileKind::Epoll(_) => epoll::rebuild(*flags)?,
            OpenFileKind::Eventfd(state) => eventfd::rebuild(state, *flags)?,
            OpenFileKind::Timerfd(state) => timerfd::rebuild(state, *flags)?,
            OpenFileKind::Signalfd(state) => signalfd::rebuild(state, *flags)?,
            OpenFileKind::Inotify(_) => inotify::rebuild()?,
            OpenFileKind::Mqueue { queue } => {
                let queue = self.queues.get(*queue as usize).ok_or(ProcessError::Incomplete("a message queue that is open"))?;
                rebuild::reopen(queue, *flags)?
            }
            OpenFileKind::Pidfd(PidfdState { process: None }) => pidfd_of_the_dead(*flags)?,
            OpenFileKind::OutsideTerminal { path } => terminals::outside(self.restart, &self.files, path, *flags)?,
            OpenFileKind::PtyMaster { .. } | OpenFileKind::PtySlave { .. } => {
                return Err(ProcessError::Incomplete("a terminal that is open"));
            }
            OpenFileKind::Pidfd(_) | OpenFileKind::Proc { .. } => return Ok(None),
        }))
    }

    /// The contents that a file had which the job only reads, in a file without a name: one for all who have it open.
    fn former(&mut self, stored: &Stored, regular: &RegularFile, flags: u32, position: u64) -> Result<OwnedFd, ProcessError> {
        let path = self.at(&regular.path);
        let key = (regular.device, regular.inode);
        if !self.unnamed.contains_key(&key) {
            let fd = file::rebuild_unnamed(&path, 0)?;
            let file = File::from(fd);
            stored.write(self.restart.reader, &file, &path).map_err(RebuildError::file("write the former contents of", &path))?;
            self.unnamed.insert(key, file.into());
        }
        let fd = rebuild::reopen(&self.unnamed[&key], flags)?;
        file::rebuild_position(&fd, &path, position)?;
        Ok(fd)
    }

    /// A directory without a name: one for all who had it.
    fn removed(&mut self, removed: &RemovedDirectory) -> Result<RawFd, ProcessError> {
        let key = (removed.device, removed.inode);
        if let Some(&known) = self.files.removed.get(&key) {
            return Ok(known);
        }
        let fd = self.lift(directory::rebuild_removed(&self.at(&removed.path), removed.mode)?)?;
        self.files.removed.insert(key, fd);
        Ok(fd)
    }

    /// The launcher's own input and output are the restart's own now.
    fn inherited(&self, number: u8, flags: u32) -> Result<OwnedFd, ProcessError> {
        // SAFETY: only borrowed for as long as it takes to duplicate it, which fails where it is not open.
        let own = unsafe { BorrowedFd::borrow_raw(RawFd::from(number)) };
        if let Some(fd) = terminals::with_flags(own, flags) {
            return Ok(fd);
        }
        match rustix::io::fcntl_dupfd_cloexec(own, 0) {
            Ok(fd) => Ok(fd),
            // The restart was started with it closed.
            Err(rustix::io::Errno::BADF) => Ok(file::rebuild_named(Path::new("/dev/null"), libc::O_RDWR.cast_unsigned(), 0)?),
            Err(error) => Err(ProcessError::call(format!("duplicate descriptor {number}"))(error)),
        }
    }

    /// Files without a name get their permission bits last: these may forbid to open them.
    fn set_modes(&self) -> Result<(), RebuildError> {
        for description in &self.restart.job.open_files {
            if let OpenFileKind::Deleted(deleted) = &description.kind
                && let Some(fd) = self.unnamed.get(&(deleted.device, deleted.inode))
            {
                file::rebuild_mode(fd, deleted.path.as_path(), deleted.mode)?;
            }
        }
        for (object, &fd) in self.restart.job.shared_memory.iter().zip(&self.files.shared) {
            if let SharedMemoryKind::Unlinked { path, mode } = &object.kind {
                // SAFETY: the descriptor is open, and stays so as long as this process builds.
                file::rebuild_mode(unsafe { BorrowedFd::borrow_raw(fd) }, path.as_path(), *mode)?;
            }
        }
        Ok(())
    }
}

/// A pidfd of a process that has ended and been waited for.
fn pidfd_of_the_dead(flags: u32) -> Result<OwnedFd, ProcessError> {
    // SAFETY: this process has one thread; the child ends at once.
    let child = match unsafe { fork(0, None) }.map_err(ProcessError::raw("make a process that ends"))? {
        // SAFETY: ends the child without running what the restart registered for its own end.
        Fork::Child => unsafe { libc::_exit(0) },
        Fork::Parent(child) => child,
    };
    let fd = pidfd::rebuild(NsPid(child), flags);
    rustix::process::waitpid(rustix::process::Pid::from_raw(child), rustix::process::WaitOptions::empty())
        .map_err(ProcessError::call("wait for a process that ends"))?;
    Ok(fd?)
}

/// Sets timers and watches that [`build`] made: everything is there, and the job goes on at once. `fd` is the one of
/// `files.unset`.
pub fn set(restart: &Restart<'_>, files: &Files, fd: BorrowedFd<'_>, index: usize) -> Result<(), RebuildError> {
    let OpenFile { flags, kind, .. } = &restart.job.open_files[index];
    match kind {
        OpenFileKind::Timerfd(state) => timerfd::start(fd, state),
        OpenFileKind::PtyMaster { .. } => terminals::seal(restart.job, fd, index),
        OpenFileKind::Inotify(state) => inotify::watch(fd, state, *flags, |watched| match watched {
            Watched::Path(path) => restart.paths.resolve(path),
            Watched::File(file) => {
                let open = files.open.get(*file as usize).copied().flatten();
                PathBuf::from(format!("/proc/self/fd/{}", open.unwrap_or(-1)))
            }
        }),
        _ => Ok(()),
    }?;
    locks::take_leases(restart.job, fd, index)
}

/// The descriptors that [`set`] uses beside those of `files.unset`: of files whose names are gone, and that are watched.
pub fn watched(restart: &Restart<'_>, files: &Files) -> Vec<RawFd> {
    let instances = files.unset.iter().filter_map(|(_, index)| match &restart.job.open_files[*index].kind {
        OpenFileKind::Inotify(state) => Some(&state.watches),
        _ => None,
    });
    instances
        .flatten()
        .filter_map(|watch| match watch.target {
            Watched::File(file) => files.open.get(file as usize).copied().flatten(),
            Watched::Path(_) => None,
        })
        .collect()
}

/// A duplicate of `fd` with a number of at least `lowest`, where the limit allows.
pub fn lift(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd, ProcessError> {
    rustix::io::fcntl_dupfd_cloexec(fd, lowest)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(fd, 3))
        .map_err(ProcessError::call("hold all files of the job open at once (raise the hard limit on open files, ulimit -Hn)"))
}

/// Raises the limit on descriptors as far as it goes; gives the first number above all of the job's, if the job's leave enough
/// room.
pub fn raise_limit(restart: &Restart<'_>) -> RawFd {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    let highest = restart
        .job
        .processes
        .iter()
        .filter_map(|process| match &process.life {
            Life::Alive(live) => live.descriptors.iter().map(|entry| entry.fd).max(),
            Life::Zombie { .. } => None,
        })
        .max()
        .unwrap_or(2);
    let needed = restart.job.open_files.len() + restart.job.shared_memory.len() + 64;
    let room = limit.maximum.is_none_or(|maximum| maximum > highest.unsigned_abs() as u64 + needed as u64);
    if room { highest + 1 } else { 3 }
}

/// Takes a file over by its number, to close it when done.
///
/// # Safety
/// The number must be open, and nobody else may close it.
pub unsafe fn take(fd: RawFd) -> File {
    // SAFETY: the caller's promise.
    unsafe { File::from_raw_fd(fd) }
}
