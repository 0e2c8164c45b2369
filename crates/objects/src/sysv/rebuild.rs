//! Rebuilds System V IPC, in a namespace of the job's own.

use std::io;

use ckpt_sys::raw::Errno;
use ckpt_sys::sysv::{self, IPC_NOWAIT, IPC_PRIVATE, Kind, SEM_MOST, SEM_UNDO, SemaphoreOperation};

use super::{Identity, LIMITS, MessageQueue, SemaphoreSet, SystemV, Undo, table};
use crate::rebuild::RebuildError;

/// Gives the namespace the limits of the old one. Where that is not allowed, an object that needs them says so.
pub fn prepare(state: &SystemV) {
    for (name, value) in state.limits.iter().filter(|(name, _)| LIMITS.contains(&name.as_str())) {
        let path = format!("/proc/sys/{name}");
        if std::fs::read_to_string(&path).is_ok_and(|own| own.trim() != value) {
            let _ = std::fs::write(path, value);
        }
    }
}

fn failed(kind: Kind, id: i32) -> impl FnOnce(Errno) -> RebuildError {
    move |Errno(errno)| RebuildError::Ipc { what: table(kind).1, id, source: io::Error::from_raw_os_error(errno) }
}

fn create(kind: Kind, identity: &Identity, key: i32, size: u64) -> Result<(), RebuildError> {
    let (name, what) = table(kind);
    let id = identity.id;
    let wanted = std::fs::write(format!("/proc/sys/kernel/{name}_next_id"), id.to_string());
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let made = sysv::as_creator(own, (identity.cuid, identity.cgid), || sysv::create(kind, key, size, identity.mode))
        .and_then(|made| made)
        .map_err(failed(kind, id))?;
    if made == id {
        return Ok(());
    }
    let source = wanted.err().unwrap_or_else(|| io::Error::other("the number is taken"));
    Err(RebuildError::Ipc { what, id, source })
}

/// Makes shared memory of so many bytes, empty.
///
/// # Errors
/// Memory of that size is not allowed (`kernel.shmmax`, `kernel.shmall`).
pub fn rebuild_memory(identity: &Identity, size: u64, locked: bool) -> Result<(), RebuildError> {
    create(Kind::Memory, identity, identity.key, size)?;
    if locked {
        // It is about speed and secrecy; a limit may forbid it here.
        let _ = sysv::lock_memory(identity.id);
    }
    set_owner(Kind::Memory, identity, 0)
}

fn set_owner(kind: Kind, identity: &Identity, queue_bytes: u64) -> Result<(), RebuildError> {
    let Identity { id, uid, gid, mode, cuid, cgid, .. } = *identity;
    let give_to = |uid, gid| sysv::set_owner(kind, id, uid, gid, mode, queue_bytes);
    let mut given = give_to(uid, gid);
    // A user namespace has no other users. Whoever made it may do all that the owner may.
    if given == Err(Errno(libc::EINVAL)) {
        given = give_to(cuid, cgid);
    }
    given.map_err(failed(kind, id))
}

/// Makes a set of semaphores with their values.
///
/// # Errors
/// A set of that size is not allowed (`kernel.sem`).
pub fn rebuild_semaphores(set: &SemaphoreSet) -> Result<(), RebuildError> {
    let SemaphoreSet { identity, values, .. } = set;
    create(Kind::Semaphores, identity, identity.key, values.len() as u64)?;
    if values.iter().any(|&value| value > 0) || set.users.iter().any(|&user| user != 0) {
        for (number, &value) in (0..).zip(values) {
            sysv::set_semaphore(identity.id, number, value).map_err(failed(Kind::Semaphores, identity.id))?;
        }
    }
    if set.operated && !values.is_empty() {
        nothing(identity.id, 0, values[0]).map_err(failed(Kind::Semaphores, identity.id))?;
    }
    set_owner(Kind::Semaphores, identity, 0)
}

/// Changes a semaphore and changes it back.
fn nothing(id: i32, number: u16, value: u16) -> Result<(), Errno> {
    let change = if i32::from(value) < SEM_MOST { 1 } else { -1 };
    let step = |change| SemaphoreOperation { number, change, flags: IPC_NOWAIT };
    sysv::operate(id, &[step(change), step(-change)])
}

/// Bytes of a message's type.
const TYPE_LEN: u64 = 8;

/// Makes a message queue with its messages.
///
/// # Errors
/// A queue of that size is not allowed (`kernel.msgmnb`).
pub fn rebuild_messages(queue: &MessageQueue) -> Result<(), RebuildError> {
    let MessageQueue { identity, capacity, messages } = queue;
    create(Kind::Messages, identity, if identity.key == 0 { IPC_PRIVATE } else { identity.key }, 0)?;
    // Its owner may have lowered the capacity below what was in it. The types of the messages are not counted, but no more messages than bytes are let in.
    let bytes: u64 = messages.iter().map(|message| (message.len() as u64).saturating_sub(TYPE_LEN)).sum();
    let bytes = bytes.max(messages.len() as u64);
    let failed = || failed(Kind::Messages, identity.id);
    let room = bytes.max(*capacity).max(1);
    if let Err(error) = sysv::set_owner(Kind::Messages, identity.id, identity.cuid, identity.cgid, 0o600, room)
        && bytes > *capacity
    {
        return Err(failed()(error));
    }
    for message in messages {
        sysv::send(identity.id, message).map_err(failed())?;
    }
    set_owner(Kind::Messages, identity, *capacity)
}

/// Has the calling process's end add what it is to, without changing the semaphores now.
///
/// # Errors
/// A set is gone, or a value out of range.
pub fn rebuild_undo(undo: &[Undo]) -> Result<(), RebuildError> {
    for &Undo { id, number, change } in undo {
        let error = || failed(Kind::Semaphores, id);
        let value = i32::from(sysv::semaphore(id, number).map_err(error())?);
        let change = i32::from(change);
        let step = |change: i32, flags: u16| SemaphoreOperation { number, change: change as i16, flags: flags | IPC_NOWAIT };
        // To zero first, so that any change has room. What is done with SEM_UNDO is what its undoing takes back.
        let mut list = Vec::new();
        let mut now = value;
        let mut go = |by: i32, flags: u16| {
            if by != 0 {
                list.push(step(by, flags));
                now += by;
            }
        };
        if change < 0 {
            go(-value, 0);
            // In two parts where one would not fit into the number of a step.
            go(-(change / 2), SEM_UNDO);
            go(change / 2, 0);
            go(-(change - change / 2), SEM_UNDO);
            go(change - change / 2, 0);
            go(value, 0);
        } else {
            go(-value, 0);
            go(change, 0);
            go(-change, SEM_UNDO);
            go(value, 0);
        }
        if change != 0 {
            sysv::operate(id, &list).map_err(error())?;
        }
    }
    Ok(())
}

/// Makes the calling process, whose number is `pid`, the one that used its semaphores last.
///
/// # Errors
/// As for [`rebuild_undo`].
pub fn rebuild_users(sets: &[SemaphoreSet], pid: i32) -> Result<(), RebuildError> {
    for set in sets {
        let id = set.identity.id;
        for ((number, &user), &value) in (0u16..).zip(&set.users).zip(&set.values) {
            if user == pid {
                let done = if set.operated { nothing(id, number, value) } else { sysv::set_semaphore(id, number, value) };
                done.map_err(failed(Kind::Semaphores, id))?;
            }
        }
    }
    Ok(())
}
