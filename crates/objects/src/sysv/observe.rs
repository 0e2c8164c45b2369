//! Observing System V IPC of a frozen job.
//!
//! A process holds no handle of a semaphore or a message queue, and shared memory may be attached by nobody for a while. So it must be
//! concluded which objects are the job's:
//!
//! - in an IPC namespace of the job's own, which a restart makes: all of them;
//! - in the machine's: those that were made since the coordinator began, by one of the job's users, and not by a process outside of the
//!   job that still lives. An extra object does no harm: it exists after a restart, unused.
//!
//! An object that others made, and that the job uses as far as can be seen, is refused by name.
//!
//! Observing changes nothing but three notes of the kernel: when and by whom shared memory was attached last, if nobody has attached all
//! of it (it must be attached to be read); and that the end of a process which was asked counts as an operation on semaphores.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use ckpt_sys::sysv::{GETALL, GETPID, IPC_NOWAIT, IPC_STAT, Kind, MSG_COPY, MSG_QBYTES_AT, SHM_RDONLY, SemaphoreOperation};
use ckpt_wire::{PAGE_SIZE, SLOT_DATA};

use super::table::{Row, parse_table};
use super::{LIMITS, MessageQueue, Probe, SemaphoreSet, SystemV, Undo, table};
use crate::file::Piece;
use crate::observe::{ObserveError, read_proc_link};
use crate::subject::{Arg, Subject};
use crate::{FilePath, NsPid};

/// How many semaphores of a set are asked who used them last, to learn whose the set is.
const ASKED: u64 = 64;

/// Something for each kind of object.
#[derive(Clone, Debug, Default)]
struct ByKind<T> {
    memory: T,
    semaphores: T,
    messages: T,
}

impl<T> ByKind<T> {
    fn of(&self, kind: Kind) -> &T {
        match kind {
            Kind::Memory => &self.memory,
            Kind::Semaphores => &self.semaphores,
            Kind::Messages => &self.messages,
        }
    }

    fn try_from_fn<E>(mut make: impl FnMut(Kind) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { memory: make(Kind::Memory)?, semaphores: make(Kind::Semaphores)?, messages: make(Kind::Messages)? })
    }
}

/// The objects that were in this namespace before the job: they cannot be the job's.
#[derive(Clone, Debug, Default)]
pub struct EarlierIds(ByKind<BTreeSet<i32>>);

impl EarlierIds {
    /// Those of now: to be called before the job is started.
    #[must_use]
    pub fn observe() -> Self {
        let ids = |kind| {
            let text = std::fs::read_to_string(table_path(kind)).unwrap_or_default();
            parse_table(kind, &text).into_iter().map(|row| row.identity.id).collect()
        };
        Self(ByKind { memory: ids(Kind::Memory), semaphores: ids(Kind::Semaphores), messages: ids(Kind::Messages) })
    }
}

fn table_path(kind: Kind) -> String {
    format!("/proc/sysvipc/{}", table(kind).0)
}

/// The objects of one kind that the job can reach.
#[derive(Debug, Default)]
struct Objects {
    ours: BTreeMap<i32, Row>,
    foreign: Vec<Row>,
}

/// System V IPC as a frozen job's processes see it.
pub struct Observer<'a, S> {
    processes: &'a [S],
    /// The job is in this process's IPC namespace.
    is_machines: bool,
    objects: ByKind<Objects>,
}

/// Whether an object has been removed: one of the job's is not, while it is frozen, but one that only looked like it may be.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIDRM))
}

impl<'a, S: Subject> Observer<'a, S> {
    /// Looks at what there is.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at, the processes are in several IPC namespaces, or the job uses what is not its own.
    pub fn observe(processes: &'a [S], earlier: &EarlierIds) -> Result<Self, ObserveError> {
        let mut observer = Self { processes, is_machines: true, objects: ByKind::default() };
        let Some(first) = processes.first() else { return Ok(observer) };
        let theirs = read_proc_link(first.live(), "ns/ipc")?;
        for process in processes {
            if read_proc_link(process.live(), "ns/ipc")? != theirs {
                let what = "is in another IPC namespace than the rest of the job";
                return Err(process.refuse(what, "end it before a checkpoint"));
            }
        }
        observer.is_machines = std::fs::read_link("/proc/self/ns/ipc").is_ok_and(|own| FilePath::from(own.as_path()) == theirs);
        observer.objects = ByKind::try_from_fn(|kind| observer.look(kind, earlier))?;
        observer.refuse_foreign()?;
        Ok(observer)
    }

    fn look(&self, kind: Kind, earlier: &EarlierIds) -> Result<Objects, ObserveError> {
        let mut found = Objects::default();
        for row in parse_table(kind, &self.read(&table_path(kind))?) {
            if self.is_ours(kind, &row, earlier) {
                found.ours.insert(row.identity.id, row);
            } else {
                found.foreign.push(row);
            }
        }
        Ok(found)
    }

    fn first(&self) -> Result<&'a S, ObserveError> {
        self.processes.first().ok_or(ObserveError::Internal("System V IPC of a job without processes"))
    }

    /// Reads a file that tells of the job's namespace.
    fn read(&self, path: &str) -> Result<String, ObserveError> {
        let text = if self.is_machines { std::fs::read_to_string(path) } else { self.asked()?.read_file(path) };
        match text {
            // A kernel without System V IPC.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => {
                let pid = self.first()?.pid();
                other.map_err(|source| ObserveError::Read { pid, path: PathBuf::from(path), source })
            }
        }
    }

    /// A process that can be asked to make system calls.
    fn asked(&self) -> Result<&'a S, ObserveError> {
        match self.processes.iter().find(|process| process.makes_calls()) {
            Some(process) => Ok(process),
            None => Err(self.first()?.refuse(
                "has a filter of system calls (seccomp), so that its System V IPC cannot be looked at",
                "remove what is in /proc/sysvipc before a checkpoint",
            )),
        }
    }

    fn is_ours(&self, kind: Kind, row: &Row, earlier: &EarlierIds) -> bool {
        let is_new = !earlier.0.of(kind).contains(&row.identity.id);
        !self.is_machines || is_new && self.is_user(row.identity.cuid) && !self.is_used_by_others(kind, row)
    }

    /// Whether a process outside of the job has made an object, or, where the kernel does not tell who did, used it last while no process of
    /// the job has: then it is another job's, of the same user.
    fn is_used_by_others(&self, kind: Kind, row: &Row) -> bool {
        let users: Vec<i32> = match kind {
            Kind::Memory => row.pids.iter().take(1).copied().collect(),
            Kind::Semaphores => self.semaphore_users(row).map(|user| user.0).collect(),
            Kind::Messages => row.pids.clone(),
        };
        users.iter().any(|pid| self.is_outside(*pid)) && !users.iter().any(|pid| self.is_member(*pid))
    }

    /// Whether a process of the job runs as this user.
    pub fn is_user(&self, uid: u32) -> bool {
        let mut users = self.processes.iter().filter_map(|process| process.status().credentials(0).ok());
        users.any(|who| who.uids.contains(&uid))
    }

    fn is_member(&self, pid: i32) -> bool {
        self.processes.iter().any(|process| process.pid().0 == pid)
    }

    /// Whether a process lives that is none of the job's.
    fn is_outside(&self, pid: i32) -> bool {
        pid > 0 && !self.is_member(pid) && std::fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    }

    /// What others made must not be used by the job, as far as can be seen.
    fn refuse_foreign(&self) -> Result<(), ObserveError> {
        for row in &self.objects.messages.foreign {
            if let Some(user) = self.processes.iter().find(|process| row.pids.contains(&process.pid().0)) {
                return Err(not_ours(user, Kind::Messages, row.identity.id));
            }
        }
        for row in self.objects.semaphores.foreign.iter().filter(|row| row.operated > 0 || row.size > 0) {
            let users: Vec<NsPid> = self.semaphore_users(row).collect();
            if let Some(user) = self.processes.iter().find(|process| users.contains(&process.ns_pid())) {
                return Err(not_ours(user, Kind::Semaphores, row.identity.id));
            }
        }
        Ok(())
    }

    /// The processes that used the semaphores of a set last. Reading that is not always allowed; a job that may not has hardly used them.
    fn semaphore_users(&self, row: &Row) -> impl Iterator<Item = NsPid> {
        (0..row.size.min(ASKED)).filter_map(|number| self.semaphore_user(row.identity.id, number as u16).ok())
    }

    /// The process that used a semaphore last, as the job sees it.
    fn semaphore_user(&self, id: i32, number: u16) -> Result<NsPid, ObserveError> {
        let args = [id.into(), u32::from(number).into(), GETPID.into(), 0.into()];
        let pid = call(Kind::Semaphores, id, self.asked()?, libc::SYS_semctl, &args)?;
        Ok(NsPid(i32::try_from(pid).unwrap_or(0)))
    }

    /// The shared memory that a process has attached, if it is the job's.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn memory(&self, process: &S, id: u64) -> Result<&Row, ObserveError> {
        let id = i32::try_from(id).unwrap_or(-1);
        self.objects.memory.ours.get(&id).ok_or_else(|| not_ours(process, Kind::Memory, id))
    }

    /// All shared memory of the job's.
    pub fn all_memory(&self) -> impl Iterator<Item = &Row> {
        self.objects.memory.ours.values()
    }

    /// The error for shared memory that a process outside of the job has attached too.
    pub fn is_shared_with_others(&self, row: &Row) -> ObserveError {
        let what =
            format!("has System V shared memory (id {}) that a process outside of the job has attached too", row.identity.id);
        self.first().map_or_else(|error| error, |process| process.refuse(what, "end that use before a checkpoint"))
    }

    /// Reads shared memory that no process of the job maps as a whole; nothing when it is gone by now.
    ///
    /// # Errors
    ///
    /// When no process of the job may read it.
    pub fn contents(&self, row: &Row) -> Result<Option<Vec<Piece>>, ObserveError> {
        let (id, asked) = (row.identity.id, self.asked()?);
        let ask = |number: i64, args: &[Arg]| call(Kind::Memory, id, asked, number, args);
        let at = match asked.call(libc::SYS_shmat, &[id.into(), 0.into(), SHM_RDONLY.into()]) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other.map_err(|error| unreadable(Kind::Memory, id, asked, &error))?,
        };
        // In the window: the two `struct iovec` of process_vm_readv(2), and on the next page the bytes.
        let room = SLOT_DATA - PAGE_SIZE;
        let window = asked.window().map_err(|error| unreadable(Kind::Memory, id, asked, &error))?;
        let mut pieces = Vec::new();
        let outcome = (0..row.size).step_by(room).try_for_each(|offset| {
            let len = (row.size - offset).min(room as u64);
            let vectors = [window + PAGE_SIZE as u64, len, at.wrapping_add(offset), len];
            asked.put(&vectors.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>());
            let args = [asked.ns_pid().0.into(), Arg::Window(0), 1.into(), Arg::Window(16), 1.into(), 0.into()];
            ask(libc::SYS_process_vm_readv, &args)?;
            let bytes = asked.get(PAGE_SIZE + len as usize).split_off(PAGE_SIZE);
            if bytes.iter().any(|byte| *byte != 0) {
                pieces.push(Piece { offset, bytes });
            }
            Ok(())
        });
        ask(libc::SYS_shmdt, &[Arg::Number(at)])?;
        outcome.map(|()| Some(pieces))
    }

    /// Whether the job has any of it.
    fn is_empty(&self) -> bool {
        let ByKind { memory, semaphores, messages } = &self.objects;
        [memory, semaphores, messages].iter().all(|objects| objects.ours.is_empty())
    }

    /// Semaphores, message queues, and the limits, which POSIX message queues (`limits_matter`) have too.
    ///
    /// # Errors
    ///
    /// When no process of the job may read them.
    pub fn system_v(&self, limits_matter: bool) -> Result<SystemV, ObserveError> {
        if self.is_empty() && !limits_matter {
            return Ok(SystemV::default());
        }
        let mut limits = Vec::new();
        for name in LIMITS {
            let value = self.read(&format!("/proc/sys/{name}"))?;
            if !value.is_empty() {
                limits.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Ok(SystemV {
            semaphores: self
                .objects
                .semaphores
                .ours
                .values()
                .filter_map(|row| self.semaphores(row).transpose())
                .collect::<Result<_, _>>()?,
            queues: self
                .objects
                .messages
                .ours
                .values()
                .filter_map(|row| self.messages(row).transpose())
                .collect::<Result<_, _>>()?,
            limits,
        })
    }

    fn semaphores(&self, row: &Row) -> Result<Option<SemaphoreSet>, ObserveError> {
        let (id, asked) = (row.identity.id, self.asked()?);
        match asked.call(libc::SYS_semctl, &[id.into(), 0.into(), GETALL.into(), Arg::Window(0)]) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other.map_err(|error| unreadable(Kind::Semaphores, id, asked, &error))?,
        };
        let bytes = asked.get(usize::try_from(row.size).unwrap_or(usize::MAX).saturating_mul(2));
        let values = bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        let users =
            (0..row.size).map(|number| Ok(self.semaphore_user(id, number as u16)?.0)).collect::<Result<_, ObserveError>>()?;
        Ok(Some(SemaphoreSet { identity: row.identity.clone(), values, users, operated: row.operated > 0 }))
    }

    fn messages(&self, row: &Row) -> Result<Option<MessageQueue>, ObserveError> {
        let (id, asked) = (row.identity.id, self.asked()?);
        let ask = |number: i64, args: &[Arg]| call(Kind::Messages, id, asked, number, args);
        match asked.call(libc::SYS_msgctl, &[id.into(), IPC_STAT.into(), Arg::Window(0)]) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other.map_err(|error| unreadable(Kind::Messages, id, asked, &error))?,
        };
        let status = asked.get(MSG_QBYTES_AT + 8);
        let capacity = status[MSG_QBYTES_AT..].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let mut messages = Vec::new();
        for number in 0..row.size {
            let flags = MSG_COPY | u32::from(IPC_NOWAIT);
            let args = [id.into(), Arg::Window(0), (SLOT_DATA - 8).into(), Arg::Number(number), flags.into()];
            let len = ask(libc::SYS_msgrcv, &args)?;
            messages.push(asked.get((len as usize).saturating_add(8)));
        }
        Ok(Some(MessageQueue { identity: row.identity.clone(), capacity, messages }))
    }

    /// What the end of a process adds to semaphores.
    ///
    /// # Errors
    ///
    /// When the process cannot be asked.
    pub fn undo(&self, process: &S, system_v: &SystemV) -> Result<Vec<Undo>, ObserveError> {
        let mut found = Vec::new();
        for set in system_v.semaphores.iter().filter(|set| set.operated) {
            let id = set.identity.id;
            if !process.makes_calls() {
                let what = format!(
                    "has a filter of system calls (seccomp), so that what its end adds to semaphores (id {id}) cannot be asked"
                );
                return Err(process.refuse(what, "remove the semaphores before a checkpoint"));
            }
            for (number, &value) in (0u16..).zip(&set.values) {
                let is_less = |list: &[SemaphoreOperation]| {
                    let words = list.iter().flat_map(|step| [step.number, step.change.cast_unsigned(), step.flags]);
                    process.put(&words.flat_map(u16::to_ne_bytes).collect::<Vec<u8>>());
                    match process.call(libc::SYS_semop, &[id.into(), Arg::Window(0), list.len().into()]) {
                        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => Ok(true),
                        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
                        other => Err(other.err().unwrap_or_else(|| io::Error::other("it was changed meanwhile"))),
                    }
                };
                match (Probe { number, value }).find(is_less) {
                    Ok(0) => (),
                    Ok(change) => found.push(Undo { id, number, change }),
                    // Who may not change it has not changed it.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied || is_gone(&error) => (),
                    Err(error) => return Err(unreadable(Kind::Semaphores, id, process, &error)),
                }
            }
        }
        Ok(found)
    }
}

/// A call about an object; an error says which object.
fn call<S: Subject>(kind: Kind, id: i32, process: &S, number: i64, args: &[Arg]) -> Result<u64, ObserveError> {
    process.call(number, args).map_err(|error| unreadable(kind, id, process, &error))
}

fn unreadable<S: Subject>(kind: Kind, id: i32, process: &S, error: &io::Error) -> ObserveError {
    let what = format!("has {} (id {id}) that cannot be looked at ({error})", table(kind).1);
    process.refuse(what, "allow its owner to read it, or remove it before a checkpoint")
}

fn not_ours<S: Subject>(process: &S, kind: Kind, id: i32) -> ObserveError {
    let what = format!("uses {} (id {id}) that was not made by the job", table(kind).1);
    process.refuse(what, "have the job make its own, or end that use before a checkpoint")
}
