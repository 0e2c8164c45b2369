//! Why a job cannot be launched, frozen, checkpointed or written. Each error says what happened, to what, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ckpt_image::{NameError, WriteError};
use ckpt_objects::job_file::SaveError;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_session::library::AGENT_FILE;
use ckpt_wire::PROTOCOL;

use crate::hand_over::{HandOverError, REMEDY};

/// Why a job could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The command could not be started.
    #[error("cannot run {}: {source}", command.display())]
    Command {
        /// What was to be run.
        command: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// Images cannot be written where they are to go.
    #[error("cannot write images to {}: {source}; give another directory with --dir", dir.display())]
    Directory {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent's library is missing.
    #[error("cannot find the agent's library {name}; it belongs beside ckpt-launch or in ../lib", name = AGENT_FILE)]
    Agent,
    /// The job would read what another user has written.
    #[error("cannot offer the batch job's variables to the job: {0}, or set CKPT_ENV_FILE for another place")]
    Variables(io::Error),
    /// The kernel takes no filter of system calls.
    #[error("cannot forbid the job io_uring: {0}; leave --no-io-uring out")]
    IoUring(io::Error),
    /// The system refused something that is always there.
    #[error("cannot {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// For `map_err`: the system refused `what`.
pub fn system(what: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::System { what, source }
}

/// Why a job could not be frozen. It goes on as if nothing had been.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// A process has no agent.
    #[error("process {pid} ({name}) {reason}")]
    NoAgent {
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// What is in the way, and what to do.
        reason: String,
    },
    /// A process has a property that no restart could give back, and that may not let its agent work.
    #[error("process {pid} ({name}) {what}; {remedy}")]
    Refused {
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// What it has.
        what: &'static str,
        /// What the user can do.
        remedy: &'static str,
    },
    /// A process is traced by another one of the job: that would be frozen too, and nothing could reach the first, which would wait for it.
    #[error(
        "process {pid} ({name}) is traced by process {tracer} ({tracer_name}) of the same job; run it without, or trace it from outside of the job"
    )]
    Traced {
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// The pid of what traces it, as the job sees it.
        tracer: NsPid,
        /// The name of that.
        tracer_name: FilePath,
    },
    /// There are too many processes for the limit on open files.
    #[error(
        "the job has {processes} processes, which takes some {needed} open files, and {limit} are allowed; raise the limit (ulimit -Hn)"
    )]
    Descriptors {
        /// How many it has.
        processes: usize,
        /// What a checkpoint needs.
        needed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A child of vfork takes its time, before anybody is disturbed.
    #[error("process {pid} ({name}) has run in its parent's memory for {} s, as a child of vfork does until it calls exec", grace.as_secs())]
    Vfork {
        /// How long it was waited for.
        grace: Duration,
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
    },
    /// A process was signalled and did not answer.
    #[error("process {pid} ({name}) did not answer within {} s: {reason}", grace.as_secs())]
    Silent {
        /// How long it was waited for.
        grace: Duration,
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// In what state it is.
        reason: String,
    },
    /// A thread of a process takes no signal.
    #[error("process {pid} ({name}) {reason}")]
    Uninterruptible {
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// What it waits for, and what to do.
        reason: &'static str,
    },
    /// No connection of an agent could be taken.
    #[error(
        "failed to accept the connections of the job's processes: {0}; raise the limit on open files (ulimit -n, fs.file-max)"
    )]
    Accept(io::Error),
    /// An agent reported a failure.
    #[error("process {pid} ({name}): {what}")]
    Agent {
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// What went wrong.
        what: String,
    },
    /// An agent of another version of this program.
    #[error(
        "process {pid} has the agent of another version of ckpt (protocol {theirs}, here {PROTOCOL}); restart the job with one version"
    )]
    Protocol {
        /// Its pid.
        pid: HostPid,
        /// Its version.
        theirs: u32,
    },
    /// A child of vfork was born while others were frozen already, and takes its time: they go on, and all begins anew.
    #[error("process {0} runs in its parent's memory, as a child of vfork does until it calls exec; try again")]
    Borrowing(NsPid),
    /// The hand-over memory could not be made.
    #[error("failed to make the memory through which pages are handed over: {0}; see ulimit -f")]
    Memory(io::Error),
    /// Nothing is left to be checkpointed.
    #[error("the job has no process any more")]
    Empty,
}

/// Why a dump failed. The job is not affected.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The image could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Whoever dumped ended before it was done.
    #[error(
        "the copy of process {pid} ({name}) that was being written ended early, perhaps for lack of memory; the next checkpoint is taken without copies, while the job stands still"
    )]
    Ended {
        /// Whose copy it was.
        pid: NsPid,
        /// Its name.
        name: FilePath,
    },
    /// An agent reported a failure.
    #[error(transparent)]
    Agent(FreezeError),
    /// An agent handed over what no agent does.
    #[error("process {pid} ({name}) has damaged its agent's memory: {source}; {REMEDY}")]
    Damaged {
        /// Its pid as the job sees it.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// How.
        source: HandOverError,
    },
    /// What was staged of files cannot be read back.
    #[error("failed to read back the job's files: {0}; check the file system that they are on")]
    Saved(io::Error),
    /// A file that must be in the image has changed before it was.
    #[error("{0}, which --save-files names, has changed while it was read; the next checkpoint will be tried as planned")]
    Changed(FilePath),
    /// The job ended meanwhile.
    #[error("the job ended before the checkpoint was written")]
    Cancelled,
}

/// Why a checkpoint could not be taken. The job goes on untouched.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The job could not be frozen.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// No thread could be started to take it.
    #[error("failed to start a thread: {0}; see ulimit -u and -v, and the pids.max of the control group")]
    Thread(io::Error),
    /// It holds something that is not kept.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A signal that is about to be passed on may have been sent to the whole job, and one of its programs acts on it.
    #[error("process {pid} ({name}) catches {signal} itself, and may be ending already; earlier images stand")]
    Told {
        /// Its pid.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// The signal.
        signal: &'static str,
    },
    /// The guard of a [`crate::standstill::Standstill`] has ended it.
    #[error("a file system has not answered for 10 s while the job stood still, so that it goes on now")]
    Stalled,
    /// An agent went away between two messages.
    #[error("process {pid} ({name}) ended while the checkpoint was taken; the next one will be tried as planned")]
    Lost {
        /// Its pid.
        pid: NsPid,
        /// Its name.
        name: FilePath,
    },
    /// A twin ended before it said anything.
    #[error(
        "the copy of process {pid} ({name}) that was to be written has ended, so somebody has killed it, or the kernel for lack of memory; the next checkpoint is taken without copies, while the job stands still"
    )]
    Twin {
        /// The pid of the process that it was a copy of.
        pid: NsPid,
        /// Its name.
        name: FilePath,
    },
    /// The processes could not be told.
    #[error("process {pid} ({name}) could not be told to go on with the checkpoint: {source}")]
    Order {
        /// Its pid.
        pid: NsPid,
        /// Its name.
        name: FilePath,
        /// Why.
        source: io::Error,
    },
    /// Files that are to be in the image could not be captured.
    #[error(transparent)]
    Capture(#[from] SaveError),
    /// Pages were not handed over.
    #[error(transparent)]
    HandOver(DumpError),
    /// Contents of memory or of files without a name could not be appended.
    #[error(transparent)]
    Append(WriteError),
    /// Contents of the job's files could not be appended.
    #[error(transparent)]
    AppendFiles(DumpError),
    /// The job's state could not be written down.
    #[error("failed to encode the state of the job: {0}; please report this")]
    Encode(postcard::Error),
    /// The image could not be made durable.
    #[error(transparent)]
    Commit(WriteError),
    /// Processes may not be compared.
    #[error(
        "the system call kcmp is refused: {0}; it tells which descriptors share a file, so allow it in the container's seccomp profile"
    )]
    Compare(io::Error),
    /// The image has no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The image could not be begun.
    #[error(transparent)]
    Begin(WriteError),
    /// The directory could not be read.
    #[error("failed to look for earlier images in {}: {source}; give another directory with --dir", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CheckpointError {
    /// Whether a twin was killed: perhaps there is no memory for twins.
    pub(crate) fn lost_twin(&self) -> bool {
        matches!(self, Self::Twin { .. } | Self::HandOver(DumpError::Ended { .. }))
    }

    /// Whether it may be otherwise in a moment: something was about to happen, or to end.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Observe(ObserveError::Passing { .. }) | Self::Freeze(FreezeError::Borrowing(_)))
    }
}
