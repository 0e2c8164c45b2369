//! System V IPC (sysvipc(7)): semaphores and message queues, and who may use them and shared memory. The shared memory itself is a
//! [`crate::shared_memory::SharedMemory`].
//!
//! Objects live in an IPC namespace, and have their numbers there. A job that has any is restarted in a namespace of its own, where all
//! numbers are free, so that two restarts of it can run at once; `/proc/sys/kernel/*_next_id` gives each object its number.
//!
//! What is set back on `exit` (`SEM_UNDO`) the kernel shows to nobody. It refuses to let it grow beyond 32767, and that can be asked without
//! changing anything: see [`Probe`].

use serde::{Deserialize, Serialize};

mod observe;
mod rebuild;
mod table;

pub use observe::{EarlierIds, Observer};
pub use rebuild::{prepare, rebuild_memory, rebuild_messages, rebuild_semaphores, rebuild_undo, rebuild_users};
pub use table::Row;

use ckpt_sys::sysv::{IPC_NOWAIT, Kind, SEM_MOST, SEM_UNDO, SemaphoreOperation};

/// All System V IPC of a job but for shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemV {
    /// Sets of semaphores.
    pub semaphores: Vec<SemaphoreSet>,
    /// Message queues.
    pub queues: Vec<MessageQueue>,
    /// The limits of the namespace: name below `/proc/sys`, and value.
    pub limits: Vec<(String, String)>,
}

/// Whose an object is, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub id: i32,
    /// Its key; 0: `IPC_PRIVATE`.
    pub key: i32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// See `cuid`.
    pub cgid: u32,
}

/// A set of semaphores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemaphoreSet {
    /// Whose it is.
    pub identity: Identity,
    /// The value of each.
    pub values: Vec<u16>,
    /// The process that changed each last; 0: nobody did.
    pub users: Vec<i32>,
    /// Whether semop(2) was ever called on it: programs tell by `sem_otime` whether it has been initialised.
    pub operated: bool,
}

/// A message queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageQueue {
    /// Whose it is.
    pub identity: Identity,
    /// Most bytes of messages (`msg_qbytes`).
    pub capacity: u64,
    /// The messages in their order, each with its type in its first eight bytes.
    pub messages: Vec<Vec<u8>>,
}

/// What is added to a semaphore when a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The set.
    pub id: i32,
    /// Which of it.
    pub number: u16,
    /// What is added.
    pub change: i16,
}

/// Names of the three kinds in `/proc/sysvipc`, and what people call them.
#[must_use]
pub const fn table(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Memory => ("shm", "System V shared memory"),
        Kind::Semaphores => ("sem", "a System V semaphore set"),
        Kind::Messages => ("msg", "a System V message queue"),
    }
}

/// Limits that a namespace of the job's own is given: names below `/proc/sys`.
pub const LIMITS: [&str; 10] = [
    "kernel/shmmax",
    "kernel/shmall",
    "kernel/shmmni",
    "kernel/sem",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "fs/mqueue/msg_max",
    "fs/mqueue/msgsize_max",
    "fs/mqueue/queues_max",
];

/// Finds out what the end of a process adds to a semaphore.
///
/// The kernel keeps this number between -32768 and 32767, and semop(2) fails with `ERANGE` where an operation with `SEM_UNDO` would
/// bring it below. A list of operations is done as a whole or not at all. So a list is made that takes `n` off the number, by raising the semaphore with
/// `SEM_UNDO` and lowering it again without, and that ends with an operation that cannot be done: it fails with `ERANGE` if the number is less than
/// `n` - 32768, with `EAGAIN` if not, and changes nothing either way (`perform_atomic_semop_slow`, ipc/sem.c).
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Which of the set.
    pub number: u16,
    /// Its value.
    pub value: u16,
}

impl Probe {
    /// The list that fails with `ERANGE` if the number is less than `bound`.
    #[must_use]
    pub fn less_than(self, bound: i32) -> Vec<SemaphoreOperation> {
        let step = |change: i32, flags: u16| SemaphoreOperation {
            number: self.number,
            change: change as i16,
            flags: flags | IPC_NOWAIT,
        };
        let mut list = Vec::new();
        if self.value > 0 {
            list.push(step(-i32::from(self.value), 0));
        }
        let mut left = bound + SEM_MOST + 1;
        while left > 0 {
            let part = left.min(SEM_MOST);
            list.extend([step(part, SEM_UNDO), step(-part, 0)]);
            left -= part;
        }
        // The semaphore is zero now.
        list.push(step(-1, 0));
        list
    }

    /// Finds the number, by asking whether it is less than some bound.
    ///
    /// # Errors
    /// What `is_less` gave.
    pub fn find<E>(self, mut is_less: impl FnMut(&[SemaphoreOperation]) -> Result<bool, E>) -> Result<i16, E> {
        let mut ask = |bound: i32| is_less(&self.less_than(bound));
        if !ask(0)? && ask(1)? {
            return Ok(0);
        }
        // At least `low`, less than `high`.
        let (mut low, mut high) = (-SEM_MOST - 1, SEM_MOST + 1);
        while high - low > 1 {
            let middle = i32::midpoint(low, high);
            if ask(middle)? { high = middle } else { low = middle }
        }
        Ok(low as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_sys::raw::Errno;
    use ckpt_sys::sysv;

    /// A set of one semaphore, removed at the end.
    struct Set(i32);

    impl Drop for Set {
        fn drop(&mut self) {
            // As ipcrm(1) does.
            let _ = std::process::Command::new("ipcrm").args(["-s", &self.0.to_string()]).status();
        }
    }

    #[test]
    fn what_the_end_of_a_process_adds_is_found_and_nothing_changed() {
        let Ok(id) = sysv::create(Kind::Semaphores, sysv::IPC_PRIVATE, 2, 0o600) else { return };
        let set = Set(id);
        for (value, change) in [(0u16, 0i16), (5, 3), (3, -2), (32767, -1), (0, 700), (20000, -20000), (12, 0)] {
            sysv::set_semaphore(id, 1, value).unwrap();
            rebuild_undo(&[Undo { id, number: 1, change }]).unwrap();
            assert_eq!(sysv::semaphore(id, 1), Ok(value));
            let found = Probe { number: 1, value }.find(|list| match sysv::operate(set.0, list) {
                Err(Errno(libc::ERANGE)) => Ok(true),
                Err(Errno(libc::EAGAIN)) => Ok(false),
                other => Err(other),
            });
            assert_eq!(found, Ok(change));
            assert_eq!(sysv::semaphore(id, 1), Ok(value));
        }
    }
}
