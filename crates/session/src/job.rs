//! A whole job at one instant: the root of what an image's metadata holds.

use std::fmt;

use crate::io_uring::IoUring;
use ckpt_objects::clocks::Clocks;
use ckpt_objects::directory::DirectoryIdentity;
use ckpt_objects::file::FileIdentity;
use ckpt_objects::file_lock::FileLock;
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::mqueue::Mqueue;
use ckpt_objects::open_file::OpenFile;
use ckpt_objects::pipe::PipeState;
use ckpt_objects::process::ProcessState;
use ckpt_objects::program::UnnamedProgram;
use ckpt_objects::shared_memory::SharedMemory;
use ckpt_objects::signalling::Signalling;
use ckpt_objects::socket::SocketState;
use ckpt_objects::start::Start;
use ckpt_objects::sysv::SystemV;
use ckpt_objects::terminal::Terminals;
use ckpt_objects::{FilePath, NsPid};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Everything about a job but the contents of its pages, which the image keeps beside it by address space.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobState {
    /// Which job this is, and how it was launched.
    pub info: JobInfo,
    /// The machine it was taken on, as far as a restart must compare it.
    pub machine: Machine,
    /// Every process of the job, by ascending pid; the dead that are not yet waited for included.
    pub processes: Vec<ProcessState>,
    /// Every open file description once, however many descriptors in however many processes refer to it.
    pub open_files: Vec<OpenFile>,
    /// Every pipe and named pipe that an open file description is an end of.
    pub pipes: Vec<PipeState>,
    /// File locks and leases.
    pub locks: Vec<FileLock>,
    /// Descriptions that send signals.
    pub signalling: Vec<Signalling>,
    /// Every terminal.
    pub terminals: Terminals,
    /// Every socket: those that an open file description is.
    pub sockets: Vec<SocketState>,
    /// Every shared memory object that a process maps or has open.
    pub shared_memory: Vec<SharedMemory>,
    /// Every POSIX message queue that a process has open.
    pub mqueues: Vec<Mqueue>,
    /// System V semaphores and message queues.
    pub system_v: SystemV,
    /// Every file that is mapped or executed, known by more than its path.
    pub mapped_files: Vec<FileIdentity>,
    /// Every program that runs and whose file has no name.
    pub programs: Vec<UnnamedProgram>,
    /// The files that the job has touched or uses, by their names.
    pub files: JobFiles,
}

/// Which job an image belongs to, and how it was launched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobInfo {
    /// 16 lower-case hexadecimal digits, drawn at launch; the same over all restarts.
    pub id: String,
    /// The processes that a restart has made; empty in the first run.
    pub restarted: Vec<Start>,
    /// What the job's agents find their coordinator by: [`ckpt_wire::Secret`]. Shown to nobody.
    #[serde(serialize_with = "hide_from_people", deserialize_with = "read_hidden")]
    pub secret: u128,
    /// The file name of the command's program.
    pub name: String,
    /// The command and its arguments.
    pub command: Vec<FilePath>,
    /// The working directory of the launch.
    pub launch_dir: FilePath,
    /// Which directory that is, to tell it from another one that has its path.
    pub launch_dir_is: DirectoryIdentity,
    /// The generation of this checkpoint: 1 for a job's first, rising over restarts.
    pub generation: u64,
    /// When the job was launched: nanoseconds since the epoch.
    pub launched_at_ns: u64,
    /// When the job was frozen: nanoseconds since the epoch.
    pub taken_at_ns: u64,
    /// The pid that the job sees as its launcher: the parent of its first process and of its orphans.
    pub launcher: NsPid,
    /// The process group of the launcher, as the job saw it at launch.
    pub launcher_pgid: NsPid,
    /// The session of the launcher, as the job saw it at launch.
    pub launcher_sid: NsPid,
    /// The job's first process. It may have ended when the job is one that is waited for as a whole.
    pub first: NsPid,
    /// The wait status of the first process when it has ended and been waited for already.
    pub first_status: Option<i32>,
    /// The user and group that the launcher ran as.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// The checkpoint signal of this job.
    pub signal: i32,
    /// Variables of the batch job that this run is in, by name.
    pub environment: Vec<Variable>,
    /// The path of the file in which the job is offered them, as the job knows it: relative ones begin in the launch directory.
    pub env_file: FilePath,
    /// What tells this job from others of the same user and command in one directory: its name, array task and rank; empty where
    /// it has none.
    pub key: String,
    /// Nanoseconds that the last checkpoint before this one took, until it was durable.
    pub cost_ns: Option<u64>,
    /// What later coordinators of the job go on with unless told otherwise.
    pub settings: Settings,
}

/// Leaves a secret out of JSON.
fn hide_from_people<S: Serializer>(secret: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() { serializer.serialize_none() } else { secret.serialize(serializer) }
}

/// Reads a secret, which JSON has not.
fn read_hidden<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    if deserializer.is_human_readable() {
        return Ok(Option::deserialize(deserializer)?.unwrap_or(0));
    }
    u128::deserialize(deserializer)
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: FilePath,
    /// Its value; nothing for one that an earlier run had, and this one has not.
    pub value: Option<FilePath>,
}

/// How often checkpoints are taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Interval {
    /// Every so many seconds.
    Every(f64),
    /// As often as loses the least time, by what a checkpoint costs and how often the machine fails.
    Auto,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(seconds) => write!(f, "every {seconds} s"),
            Self::Auto => f.write_str("as often as loses the least time"),
        }
    }
}

/// Commands that the coordinator runs, by `sh -c`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hooks {
    /// Before each checkpoint.
    pub before: Vec<String>,
    /// When an image is durable.
    pub after: Vec<String>,
    /// Before the job is brought back.
    pub restart: Vec<String>,
}

/// Options of the launch that a restart goes on with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How often checkpoints are taken; never by themselves without it.
    pub interval: Option<Interval>,
    /// Seconds between failures that end a job, on average.
    pub mtbf: f64,
    /// Seconds after which a run stops with a checkpoint.
    pub stop_after: Option<f64>,
    /// Seconds before the end of the batch job's time at which a run takes its last checkpoint, and what it does then, as on the
    /// command line.
    pub before_end: Option<(f64, String)>,
    /// Seconds that a run may last, where no scheduler tells.
    pub time_limit: Option<f64>,
    /// What else is done around checkpoints.
    pub hooks: Hooks,
    /// Images stay when the job has ended well.
    pub keep_on_success: bool,
    /// Where images go.
    pub dir: FilePath,
    /// Complete generations to keep.
    pub keep: u32,
    /// `none`, `lz4` or `zstd:LEVEL`.
    pub compress: String,
    /// Images hold program and library pages too.
    pub self_contained: bool,
    /// The job ends when its last process has ended, not its first.
    pub wait_all: bool,
    /// What a signal to the coordinator does: `(signal number, action)` as on the command line.
    pub on: Vec<(i32, String)>,
    /// Signals that are acted on and given to the first process too; 0: every one that is acted on.
    pub forward: Vec<i32>,
    /// Files that images hold, as patterns for a shell: relative ones begin in the launch directory.
    pub save_files: Vec<String>,
    /// Bytes of files' contents that an image holds at most; a part of the free space unless the user says.
    pub file_budget: Option<u64>,
    /// A restart writes the variables of its batch job into the processes' environments, where they fit.
    pub refresh_env: bool,
    /// Sockets that lead outside of the job are refused.
    pub strict: bool,
    /// Who may use io_uring.
    pub io_uring: IoUring,
    /// Exit code after a checkpoint that stopped the job.
    pub stop_exit_code: u8,
}

/// What a restart must find again, or know of, in the machine it runs on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// `uname -n`, for messages.
    pub host: String,
    /// `uname -r`, for messages.
    pub kernel: String,
    /// The state components that the kernel saves in a signal frame (`XCR0`); 0 without XSAVE.
    pub xcr0: u64,
    /// Instruction set extensions that programs may have chosen code paths by: the words of
    /// [`ckpt_sys::cpu::features`], in its order.
    pub cpu_features: Vec<u32>,
    /// Bytes of the signal frame's XSAVE area.
    pub xsave_size: u32,
    /// What the clocks showed to the job at the freeze.
    pub clocks: Clocks,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The vDSO's bytes, so that a restart can tell whether it has the same one.
    pub vdso: Vec<u8>,
}

/// Nanoseconds since the epoch, by the fine clock.
#[must_use]
pub fn realtime_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
