//! System V IPC of a frozen job.
//!
//! A process holds no handle of a semaphore or a message queue, and shared memory may be attached by nobody for a while: whose an object is must be
//! concluded. In an IPC namespace of the job's own, which a restart makes, everything is the job's. In the machine's, the job's is what was made since the coordinator
//! began, by one of the job's users, and not by a process outside of the job that still lives. To take in too much does no harm: at a restart it is
//! there, and nobody uses it. What others made, but the job uses as far as can be seen, is refused by name.
//!
//! Nothing is changed by looking, but for three notes that the kernel makes: of shared memory that nobody has attached as a whole, when and by whom it was attached last (it must be,
//! to be read); and of semaphores, that the end of a process that was asked counts as an operation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use ckpt_objects::FilePath;
use ckpt_objects::file::Piece;
use ckpt_objects::observe::{ObserveError, read_proc_link};
use ckpt_objects::sysv::{self, LIMITS, MessageQueue, Probe, Row, SemaphoreSet, SystemV, Undo, parse_table};
use ckpt_sys::sysv::{GETALL, GETPID, IPC_NOWAIT, IPC_STAT, Kind, MSG_COPY, MSG_QBYTES_AT, SHM_RDONLY, SemaphoreOperation};
use ckpt_wire::{PAGE_SIZE, SLOT_DATA};

use crate::calls::Arg;
use crate::freeze::{Frozen, FrozenProcess};
use crate::survey::{damaged, refuse};

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Semaphores, Kind::Messages];

/// What there was in this namespace when the coordinator began: ids by kind.
static BEFORE: OnceLock<[BTreeSet<i32>; 3]> = OnceLock::new();

/// Notes what is there that cannot be the job's: to be called before the job is started.
pub fn note_before() {
    BEFORE.get_or_init(|| {
        KINDS.map(|kind| {
            let text = std::fs::read_to_string(table_path(kind)).unwrap_or_default();
            parse_table(kind, &text).into_iter().map(|row| row.identity.id).collect()
        })
    });
}

fn table_path(kind: Kind) -> String {
    format!("/proc/sysvipc/{}", sysv::table(kind).0)
}

/// The objects that the job can reach, by kind and id.
pub struct Ipc<'a> {
    frozen: &'a Frozen,
    /// The namespace is that of this process.
    shared: bool,
    ours: [BTreeMap<i32, Row>; 3],
    foreign: [Vec<Row>; 3],
}

/// Whether an object has been removed: one of the job's is not, while it is frozen, but one that only looked like it may be.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIDRM))
}

impl<'a> Ipc<'a> {
    /// Looks at what there is.
    pub fn look(frozen: &'a Frozen) -> Result<Self, ObserveError> {
        let mut ipc = Self { frozen, shared: true, ours: Default::default(), foreign: Default::default() };
        let Some(first) = frozen.processes.first() else { return Ok(ipc) };
        let namespace = |process: &FrozenProcess| read_proc_link(process.live, "ns/ipc");
        let theirs = namespace(first)?;
        for process in &frozen.processes {
            if namespace(process)? != theirs {
                let what = "is in another IPC namespace than the rest of the job".into();
                return Err(refuse(process, what, "end it before a checkpoint"));
            }
        }
        ipc.shared = std::fs::read_link("/proc/self/ns/ipc").is_ok_and(|own| FilePath::from(own.as_path()) == theirs);
        for (i, kind) in KINDS.into_iter().enumerate() {
            for row in parse_table(kind, &ipc.read(&table_path(kind))?) {
                if ipc.is_ours(i, &row) {
                    ipc.ours[i].insert(row.identity.id, row);
                } else {
                    ipc.foreign[i].push(row);
                }
            }
        }
        ipc.refuse_foreign()?;
        Ok(ipc)
    }

    /// Reads a file that tells of the job's namespace.
    fn read(&self, path: &str) -> Result<String, ObserveError> {
        let text = if self.shared { std::fs::read_to_string(path) } else { self.door()?.read_for_us(path) };
        match text {
            // A kernel without System V IPC.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other.map_err(|source| ObserveError::Read {
                pid: self.frozen.processes[0].pid,
                path: PathBuf::from(path),
                source,
            }),
        }
    }

    /// A process that can be asked to make system calls.
    fn door(&self) -> Result<&'a FrozenProcess, ObserveError> {
        self.frozen.processes.iter().find(|process| process.makes_calls()).ok_or_else(|| {
            let what = "has a filter of system calls (seccomp), so that its System V IPC cannot be looked at".into();
            refuse(&self.frozen.processes[0], what, "remove what is in /proc/sysvipc before a checkpoint")
        })
    }

    fn is_ours(&self, kind: usize, row: &Row) -> bool {
        if !self.shared {
            return true;
        }
        BEFORE.get().is_some_and(|before| !before[kind].contains(&row.identity.id))
            && self.is_user(row.identity.cuid)
            && !self.is_used_by_others(KINDS[kind], row)
    }

    /// Whether a process outside of the job has made an object, or, where the kernel does not tell who did, used it last while no process of
    /// the job has: then it is another job's, of the same user.
    fn is_used_by_others(&self, kind: Kind, row: &Row) -> bool {
        let users = match kind {
            Kind::Memory => row.pids.iter().take(1).copied().collect(),
            Kind::Semaphores => {
                (0..row.size.min(64)).filter_map(|number| self.semaphore_user(row.identity.id, number as u16).ok()).collect()
            }
            Kind::Messages => row.pids.clone(),
        };
        users.iter().any(|pid| self.is_outside(*pid)) && !users.iter().any(|pid| self.is_member(*pid))
    }

    /// Whether a process of the job runs as this user.
    pub fn is_user(&self, uid: u32) -> bool {
        let mut users = self.frozen.processes.iter().filter_map(|process| process.status.credentials(0).ok());
        users.any(|who| who.uids.contains(&uid))
    }

    fn is_member(&self, pid: i32) -> bool {
        self.frozen.processes.iter().any(|process| process.pid.0 == pid)
    }

    /// Whether a process lives that is none of the job's.
    fn is_outside(&self, pid: i32) -> bool {
        pid > 0 && !self.is_member(pid) && std::fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    }

    /// What others made must not be used by the job, as far as can be seen.
    fn refuse_foreign(&self) -> Result<(), ObserveError> {
        let used = |row: &Row, pid: i32| (self.is_member(pid)).then_some((row.identity.id, pid));
        let queues = self.foreign[2].iter().find_map(|row| row.pids.iter().find_map(|pid| used(row, *pid)));
        if let Some((id, pid)) = queues {
            return Err(self.not_ours(Kind::Messages, id, Some(pid)));
        }
        for row in self.foreign[1].iter().filter(|row| row.operated > 0 || row.size > 0) {
            // To read who used it is not always allowed; whoever may not has hardly used it.
            let users = (0..row.size.min(64)).filter_map(|number| self.semaphore_user(row.identity.id, number as u16).ok());
            if let Some(pid) = users.into_iter().find(|pid| self.frozen.processes.iter().any(|process| process.ns_pid.0 == *pid))
            {
                return Err(self.not_ours(Kind::Semaphores, row.identity.id, Some(pid)));
            }
        }
        Ok(())
    }

    fn not_ours(&self, kind: Kind, id: i32, pid: Option<i32>) -> ObserveError {
        let process =
            self.frozen.processes.iter().find(|process| pid.is_some_and(|pid| process.pid.0 == pid || process.ns_pid.0 == pid));
        let what = format!("uses {} (id {id}) that was not made by the job", sysv::table(kind).1);
        refuse(
            process.unwrap_or(&self.frozen.processes[0]),
            what,
            "have the job make its own, or end that use before a checkpoint",
        )
    }

    fn semaphore_user(&self, id: i32, number: u16) -> Result<i32, ObserveError> {
        let args = [id.into(), u32::from(number).into(), GETPID.into(), 0.into()];
        let pid = self.call(Kind::Semaphores, id, self.door()?, libc::SYS_semctl, &args)?;
        Ok(i32::try_from(pid).unwrap_or(0))
    }

    /// A call about an object; an error says which object.
    fn call(&self, kind: Kind, id: i32, process: &FrozenProcess, number: i64, args: &[Arg]) -> Result<u64, ObserveError> {
        process.call(number, args).map_err(|error| self.unreadable(kind, id, process, &error))
    }

    fn unreadable(&self, kind: Kind, id: i32, process: &FrozenProcess, error: &io::Error) -> ObserveError {
        let what = format!("has {} (id {id}) that cannot be looked at ({error})", sysv::table(kind).1);
        refuse(process, what, "allow its owner to read it, or remove it before a checkpoint")
    }

    /// The shared memory that a process has attached, if it is the job's.
    pub fn memory(&self, process: &FrozenProcess, id: u64) -> Result<&Row, ObserveError> {
        i32::try_from(id)
            .ok()
            .and_then(|id| self.ours[0].get(&id))
            .ok_or_else(|| self.not_ours(Kind::Memory, i32::try_from(id).unwrap_or(-1), Some(process.pid.0)))
    }

    /// All shared memory of the job's.
    pub fn all_memory(&self) -> impl Iterator<Item = &Row> {
        self.ours[0].values()
    }

    /// Shared memory that somebody outside of the job has attached too.
    pub fn shared_with_others(&self, row: &Row) -> ObserveError {
        let what =
            format!("has System V shared memory (id {}) that a process outside of the job has attached too", row.identity.id);
        refuse(&self.frozen.processes[0], what, "end that use before a checkpoint")
    }

    /// Reads shared memory that no process of the job maps as a whole; nothing when it is gone by now.
    pub fn contents(&self, row: &Row) -> Result<Option<Vec<Piece>>, ObserveError> {
        let (id, door) = (row.identity.id, self.door()?);
        let call = |number: i64, args: &[Arg]| self.call(Kind::Memory, id, door, number, args);
        let at = match door.call(libc::SYS_shmat, &[id.into(), 0.into(), SHM_RDONLY.into()]) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other.map_err(|error| self.unreadable(Kind::Memory, id, door, &error))?,
        };
        // In the window: the two `struct iovec` of process_vm_readv(2), and on the next page the bytes.
        let room = SLOT_DATA - PAGE_SIZE;
        let process = door.memory.process().map_err(|error| damaged(door, error))?;
        let window = process.control_start + door.memory.window();
        let mut pieces = Vec::new();
        let outcome = (0..row.size).step_by(room).try_for_each(|offset| {
            let len = (row.size - offset).min(room as u64);
            let vectors = [window + PAGE_SIZE as u64, len, at.wrapping_add(offset), len];
            door.memory.put(&vectors.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>());
            let args = [door.ns_pid.0.into(), Arg::Window(0), 1.into(), Arg::Window(16), 1.into(), 0.into()];
            call(libc::SYS_process_vm_readv, &args)?;
            let bytes = door.memory.get(PAGE_SIZE + len as usize).split_off(PAGE_SIZE);
            if bytes.iter().any(|byte| *byte != 0) {
                pieces.push(Piece { offset, bytes });
            }
            Ok(())
        });
        call(libc::SYS_shmdt, &[Arg::Number(at)])?;
        outcome.map(|()| Some(pieces))
    }

    /// Whether the job has any of it.
    fn is_empty(&self) -> bool {
        self.ours.iter().all(BTreeMap::is_empty)
    }

    /// Semaphores, message queues, limits, which POSIX message queues have too.
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
            semaphores: self.ours[1].values().filter_map(|row| self.semaphores(row).transpose()).collect::<Result<_, _>>()?,
            queues: self.ours[2].values().filter_map(|row| self.messages(row).transpose()).collect::<Result<_, _>>()?,
            limits,
        })
    }

    fn semaphores(&self, row: &Row) -> Result<Option<SemaphoreSet>, ObserveError> {
        let (id, door) = (row.identity.id, self.door()?);
        match door.call(libc::SYS_semctl, &[id.into(), 0.into(), GETALL.into(), Arg::Window(0)]) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other.map_err(|error| self.unreadable(Kind::Semaphores, id, door, &error))?,
        };
        let bytes = door.memory.get(usize::try_from(row.size).unwrap_or(usize::MAX).saturating_mul(2));
        let values = bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
        let users = (0..row.size).map(|number| self.semaphore_user(id, number as u16)).collect::<Result<_, _>>()?;
        Ok(Some(SemaphoreSet { identity: row.identity.clone(), values, users, operated: row.operated > 0 }))
    }

    fn messages(&self, row: &Row) -> Result<Option<MessageQueue>, ObserveError> {
        let (id, door) = (row.identity.id, self.door()?);
        let call = |number: i64, args: &[Arg]| self.call(Kind::Messages, id, door, number, args);
        match door.call(libc::SYS_msgctl, &[id.into(), IPC_STAT.into(), Arg::Window(0)]) {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other.map_err(|error| self.unreadable(Kind::Messages, id, door, &error))?,
        };
        let status = door.memory.get(MSG_QBYTES_AT + 8);
        let capacity = status[MSG_QBYTES_AT..].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let mut messages = Vec::new();
        for number in 0..row.size {
            let flags = MSG_COPY | u32::from(IPC_NOWAIT);
            let args = [id.into(), Arg::Window(0), (SLOT_DATA - 8).into(), Arg::Number(number), flags.into()];
            let len = call(libc::SYS_msgrcv, &args)?;
            messages.push(door.memory.get((len as usize).saturating_add(8)));
        }
        Ok(Some(MessageQueue { identity: row.identity.clone(), capacity, messages }))
    }

    /// What the end of a process adds to semaphores.
    pub fn undo(&self, process: &FrozenProcess, system_v: &SystemV) -> Result<Vec<Undo>, ObserveError> {
        let mut found = Vec::new();
        for set in system_v.semaphores.iter().filter(|set| set.operated) {
            let id = set.identity.id;
            if !process.makes_calls() {
                let what = format!(
                    "has a filter of system calls (seccomp), so that what its end adds to semaphores (id {id}) cannot be asked"
                );
                return Err(refuse(process, what, "remove the semaphores before a checkpoint"));
            }
            for (number, &value) in (0u16..).zip(&set.values) {
                let is_less = |list: &[SemaphoreOperation]| {
                    let words = list.iter().flat_map(|step| [step.number, step.change.cast_unsigned(), step.flags]);
                    process.memory.put(&words.flat_map(u16::to_ne_bytes).collect::<Vec<u8>>());
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
                    Err(error) => return Err(self.unreadable(Kind::Semaphores, id, process, &error)),
                }
            }
        }
        Ok(found)
    }
}
