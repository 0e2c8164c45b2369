//! Why a restart fails.

use std::io;
use std::path::PathBuf;

use ckpt_image::ReadError;
use ckpt_objects::rebuild::RebuildError;

use crate::listing::Listing;
use crate::memory::MemoryError;
use crate::restorer::{Failure, RegionFull};
use crate::tree::TreeError;

/// Why a job could not be brought back. Nothing of it has run, and no file has been changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The metadata of the image is not that of a job.
    #[error("the image's description of the job cannot be understood: {0}; it is of another release, or damaged")]
    Metadata(String),
    /// The image cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Pages of a mapped file cannot be written back.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// This processor lacks something.
    #[error(
        "this machine's processor lacks {missing}, which the job's programs may use (it ran on {host}); restart it on a like machine"
    )]
    Processor {
        /// What it lacks.
        missing: String,
        /// Where the job ran.
        host: String,
    },
    /// Files or directories are gone: a line for each place.
    #[error("{0}")]
    Missing(Listing),
    /// A file may be there, and cannot be reached.
    #[error("{path}, which process {pid} {use_}, cannot be reached: {source}", path = .path.display())]
    Unreachable {
        /// The file.
        path: PathBuf,
        /// Who needs it.
        pid: i32,
        /// What for.
        use_: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it was.
    #[error("{path}, which process {pid} {use_}, {how}; bring back the file as it was{hint}", path = .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Who needs it.
        pid: i32,
        /// What for.
        use_: &'static str,
        /// In what way it has changed.
        how: String,
        /// What else would help.
        hint: &'static str,
    },
    /// Somebody else has a lock.
    #[error("{path} is locked by {who}, and the job had it locked; let that end first", path = .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who has it.
        who: String,
    },
    /// Memory is short.
    #[error("the job needs {} MiB of memory, and this machine has {} MiB available; free memory or use another machine", .needed >> 20, .available >> 20)]
    OutOfMemory {
        /// Bytes that the image holds.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// It ran as somebody else.
    #[error("process {pid} ran as user {uid}, and only that user or root can bring it back")]
    User {
        /// The process.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// The tree cannot be made.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Namespaces are not allowed here.
    #[error("cannot make the namespaces that a restart needs ({kind}): {source}; {remedy}")]
    Namespaces {
        /// Which.
        kind: &'static str,
        /// What the system said.
        source: io::Error,
        /// What to look at.
        remedy: &'static str,
    },
    /// A socket cannot be made.
    #[error(transparent)]
    Socket(#[from] ckpt_objects::socket::all::Refused),
    /// The agent's library, which the job has mapped, is gone from `/tmp`.
    #[error("cannot put the agent's library back into /tmp: {0}")]
    Library(io::Error),
    /// The kernel takes no filter of system calls, which the job has.
    #[error("cannot forbid the job io_uring, as at its launch: {0}")]
    IoUring(io::Error),
    /// The job would read what another user has written.
    #[error("cannot offer the batch job's variables to the job: {0}")]
    Variables(io::Error),
    /// The processes of the restart cannot be given what they share.
    #[error("cannot {what}: {source}")]
    Channels {
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The job's agents could not find their coordinator.
    #[error("cannot open the socket that the job's agents connect to: {0}")]
    Listener(io::Error),
    /// The stand-in for the launcher cannot be looked at.
    #[error("cannot read /proc of the restarted job: {0}")]
    StandIn(io::Error),
    /// A process of the restart reported why it failed.
    #[error("{0}")]
    Process(String),
    /// An operation of the restorer failed.
    #[error("{0}")]
    Operation(Box<Failure>),
    /// A process ended before the job was complete.
    #[error("a process of the restart ended before the job was complete{0}; was it killed, or is memory short?")]
    Died(String),
    /// Nothing happens any more.
    #[error("the restart made no progress for {0} seconds; please report this")]
    Stuck(u64),
    /// What a restart takes away cannot be kept.
    #[error(
        "cannot set aside in {dir} what was made of {path} after the checkpoint: {source}; make room there, or give another directory with \
         --dir",
        dir = .dir.display(), path = .path.display()
    )]
    Aside {
        /// The file.
        path: PathBuf,
        /// Where it was to be kept.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the job's is not as it was, and `--strict` was given.
    #[error("{0}: it would not come back as it was at the checkpoint, which --strict forbids")]
    Lost(String),
    /// A file could not be brought back to the state of the checkpoint.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Commit {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RestoreError {
    /// Whether it is the image that is at fault, and another might do.
    #[must_use]
    pub fn is_of_image(&self) -> bool {
        matches!(self, Self::Metadata(_) | Self::Read(_))
    }
}

/// Why one process of a restart failed; it is told to the restart in words.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// An object.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// Memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The image.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The restorer's memory.
    #[error(transparent)]
    Region(#[from] RegionFull),
    /// A call.
    #[error("cannot {what}: {source}")]
    Call {
        /// What was to be done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// It did not come out right.
    #[error("its {what} is {got} and not {wanted}; please report this")]
    Identity {
        /// Parent, group or session.
        what: &'static str,
        /// As it is.
        got: i32,
        /// As it was.
        wanted: i32,
    },
    /// The image lacks something that every image has.
    #[error("the image says nothing of {0}; it is of another release, or damaged")]
    Incomplete(&'static str),
    /// The vDSO.
    #[error("cannot bridge from the old kernel's vDSO to this one's: {0}; restart the job on the kernel that it ran on")]
    Vdso(String),
}

impl ProcessError {
    /// For `map_err`: a call.
    pub fn call<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::Call { what: what.into(), source: error.into() }
    }

    /// For `map_err`: a raw system call.
    pub fn raw(what: impl Into<String>) -> impl FnOnce(ckpt_sys::raw::Errno) -> Self {
        move |ckpt_sys::raw::Errno(errno)| Self::Call { what: what.into(), source: io::Error::from_raw_os_error(errno) }
    }
}
