//! System V IPC: shared memory, semaphores, message queues (sysvipc(7)).

use linux_raw_sys::errno::EINVAL;
use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// `IPC_PRIVATE`.
pub const IPC_PRIVATE: i32 = 0;
/// `IPC_CREAT | IPC_EXCL`.
const CREATE: u32 = 0o1000 | 0o2000;
/// Command numbers (include/uapi/linux/ipc.h, shm.h, sem.h, msg.h).
pub const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
/// See [`IPC_RMID`].
pub const IPC_STAT: u32 = 2;
const SHM_LOCK: u32 = 11;
/// See [`IPC_RMID`].
pub const GETPID: u32 = 11;
/// See [`IPC_RMID`].
pub const GETALL: u32 = 13;
const SETVAL: u32 = 16;
/// `IPC_NOWAIT`.
pub const IPC_NOWAIT: u16 = 0o4000;
/// `SEM_UNDO`.
pub const SEM_UNDO: u16 = 0x1000;
/// `MSG_COPY` (Linux 3.8, `CONFIG_CHECKPOINT_RESTORE`).
pub const MSG_COPY: u32 = 0o40000;
/// `SHM_RDONLY`.
pub const SHM_RDONLY: u32 = 0o10000;
/// `SHM_EXEC`.
pub const SHM_EXEC: u32 = 0o100_000;
/// The largest value of a semaphore, and of what SEM_UNDO undoes (`SEMVMX`, `SEMAEM`).
pub const SEM_MOST: i32 = 32767;
/// Byte offset of `msg_qbytes` in `struct msqid64_ds`: behind the permissions, three times, and two counts.
pub const MSG_QBYTES_AT: usize = 48 + 5 * 8;
/// Bytes of the largest of `struct shmid64_ds`, `semid64_ds`, `msqid64_ds`.
const DS_WORDS: usize = 16;

/// The three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shared memory.
    Memory,
    /// Semaphores.
    Semaphores,
    /// Message queues.
    Messages,
}

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SemaphoreOperation {
    /// Which of the set.
    pub number: u16,
    /// What is added.
    pub change: i16,
    /// [`IPC_NOWAIT`], [`SEM_UNDO`].
    pub flags: u16,
}

/// Makes an object: of `size` bytes of shared memory, or so many semaphores. Fails where there is one of that key.
///
/// # Errors
/// `EEXIST` where there is one of this key; `EINVAL`, `ENOSPC`, `ENOMEM` beyond the limits.
pub fn create(kind: Kind, key: i32, size: u64, mode: u32) -> Result<i32, Errno> {
    let flags = CREATE | mode & 0o777;
    // SAFETY: these take numbers only.
    let id = unsafe {
        match kind {
            Kind::Memory => syscall!(nr::__NR_shmget, key, size, flags),
            Kind::Semaphores => syscall!(nr::__NR_semget, key, size, flags),
            Kind::Messages => syscall!(nr::__NR_msgget, key, flags),
        }
    }?;
    Ok(id as i32)
}

/// Sets owner and permissions, and for a message queue how many bytes it takes (0: as it is).
///
/// # Errors
/// `EPERM` where the caller neither owns it nor has `CAP_SYS_ADMIN`.
pub fn set_owner(kind: Kind, id: i32, uid: u32, gid: u32, mode: u32, queue_bytes: u64) -> Result<(), Errno> {
    let mut ds = [0u64; DS_WORDS];
    // struct ipc64_perm: key, uid, gid, cuid, cgid, mode.
    ds[0] = u64::from(uid) << 32;
    ds[1] = u64::from(gid);
    ds[2] = u64::from(mode & 0o777) << 32;
    if kind == Kind::Messages {
        ds[MSG_QBYTES_AT / 8] = queue_bytes;
    }
    // SAFETY: the structure is as large as the largest of the three, and is only read.
    unsafe {
        match kind {
            Kind::Memory => syscall!(nr::__NR_shmctl, id, IPC_SET, ds.as_ptr()),
            Kind::Semaphores => syscall!(nr::__NR_semctl, id, 0, IPC_SET, ds.as_ptr()),
            Kind::Messages => syscall!(nr::__NR_msgctl, id, IPC_SET, ds.as_ptr()),
        }
    }
    .map(|_| ())
}

/// Marks shared memory to be removed when nobody has it attached any more.
///
/// # Errors
/// `EPERM` where the caller neither owns it nor has `CAP_SYS_ADMIN`.
pub fn remove_memory(id: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_shmctl, id, IPC_RMID, 0) }.map(|_| ())
}

/// `SHM_LOCK`.
///
/// # Errors
/// `EPERM`, `ENOMEM` beyond `RLIMIT_MEMLOCK`.
pub fn lock_memory(id: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_shmctl, id, SHM_LOCK, 0) }.map(|_| ())
}

/// Attaches shared memory at an address where nothing is mapped (`EINVAL` where something is), or, given 0, anywhere.
///
/// # Errors
/// `EINVAL` where something is mapped there, `EACCES` without the permission.
pub fn attach(id: i32, at: u64, flags: u32) -> Result<u64, Errno> {
    // SAFETY: without SHM_REMAP nothing that is mapped is replaced.
    unsafe { syscall!(nr::__NR_shmat, id, at, flags) }
}

/// Detaches it again.
///
/// # Errors
/// `EINVAL` where no shared memory begins there.
///
/// # Safety
/// Nothing may use that memory any more.
pub unsafe fn detach(at: u64) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { syscall!(nr::__NR_shmdt, at) }.map(|_| ())
}

/// Sets one semaphore.
///
/// # Errors
/// `EACCES` without the permission, `EINVAL` for a number that the set does not have, `ERANGE` for a value beyond [`SEM_MOST`].
pub fn set_semaphore(id: i32, number: u16, value: u16) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_semctl, id, number, SETVAL, value) }.map(|_| ())
}

/// The value of one semaphore.
///
/// # Errors
/// `EACCES` without the permission, `EINVAL` for a number that the set does not have.
pub fn semaphore(id: i32, number: u16) -> Result<u16, Errno> {
    const GETVAL: u32 = 12;
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_semctl, id, number, GETVAL, 0) }.map(|value| value as u16)
}

/// semop(2): all or none.
///
/// # Errors
/// `EAGAIN` where it would wait and may not, `ERANGE` beyond [`SEM_MOST`], `EACCES` without the permission.
pub fn operate(id: i32, operations: &[SemaphoreOperation]) -> Result<(), Errno> {
    // SAFETY: the operations live over the call.
    unsafe { syscall!(nr::__NR_semop, id, operations.as_ptr(), operations.len()) }.map(|_| ())
}

/// Sends a message, which begins with its type in eight bytes, without waiting for room.
///
/// # Errors
/// `EAGAIN` where there is no room, `EINVAL` for a message without a type.
pub fn send(id: i32, message: &[u8]) -> Result<(), Errno> {
    let Some(len) = message.len().checked_sub(8) else { return Err(Errno(EINVAL as i32)) };
    // SAFETY: the message lives over the call, and has a type before its `len` bytes.
    unsafe { syscall!(nr::__NR_msgsnd, id, message.as_ptr(), len, u32::from(IPC_NOWAIT)) }.map(|_| ())
}

/// Changes the effective user and group while `act` runs; nothing happens where they are those already.
///
/// # Errors
/// `EPERM` where the caller may not become that user or group.
pub fn as_creator<T>(own: (u32, u32), wanted: (u32, u32), act: impl FnOnce() -> T) -> Result<T, Errno> {
    if own == wanted {
        return Ok(act());
    }
    const KEEP: u32 = u32::MAX;
    // SAFETY: these take numbers only. Saved ids stay, so the way back is open.
    unsafe {
        syscall!(nr::__NR_setresgid, KEEP, wanted.1, KEEP)?;
        syscall!(nr::__NR_setresuid, KEEP, wanted.0, KEEP)?;
        let result = act();
        syscall!(nr::__NR_setresuid, KEEP, own.0, KEEP)?;
        syscall!(nr::__NR_setresgid, KEEP, own.1, KEEP)?;
        Ok(result)
    }
}
