//! File locks and leases: record locks of a process (fcntl(2), POSIX), record locks of an open file description (OFD), flock(2), and
//! leases (`F_SETLEASE`).
//!
//! They are seen in `/proc/PID/fdinfo/N`, which shows of each description the locks that were set through it: POSIX locks only those
//! of the process that is looked at. POSIX locks are taken last by the process that had them, since closing any descriptor of the file
//! lets go of them; the others belong to the description, and whoever builds that takes them.

use serde::{Deserialize, Serialize};

use crate::{FileIndex, NsPid};

mod observe;
mod rebuild;

pub use observe::{LockError, Locks, Standing, held};
pub use rebuild::{TakenLock, check, leased, take_leases, take_of_descriptions, take_of_process};

/// A lock or lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLock {
    /// Index into `JobState::open_files` of the description that it was set through.
    pub file: FileIndex,
    /// A descriptor for that, in the process that has the lock or in some process: the `si_fd` of a lease's signal.
    pub fd: i32,
    /// Who has it.
    pub holder: Holder,
    /// Nobody else may have one beside it.
    pub exclusive: bool,
    /// First byte, of record locks.
    pub start: u64,
    /// Last byte; nothing: the end of the file, wherever that will be.
    pub end: Option<u64>,
    /// The file as `/proc/locks` names it: device and inode number.
    pub inode: (String, u64),
}

/// Who has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Holder {
    /// A process: a POSIX lock.
    Process(NsPid),
    /// The description: an OFD lock.
    Description,
    /// The description, for the whole file: flock(2).
    Flock,
    /// The description: a lease.
    Lease,
}

impl FileLock {
    /// Whether somebody else's standing lock forbids this one.
    #[must_use]
    pub fn is_forbidden_by(&self, other: &Standing) -> bool {
        let of_records = matches!(self.holder, Holder::Process(_) | Holder::Description);
        let overlap = self.start <= other.end.unwrap_or(u64::MAX) && other.start <= self.end.unwrap_or(u64::MAX);
        let same_kind = self.holder != Holder::Lease && of_records == other.of_records;
        same_kind && overlap && (self.exclusive || other.exclusive)
    }
}
