//! What the agent and the coordinator say to each other: messages on a UNIX socket, and one shared memory object per process
//! and checkpoint, laid out here and made by the coordinator.
//!
//! ```text
//! 0            +----------------------------------------------+
//!              | Control: layout, what was observed           |
//! threads_off  | [ThreadRecord; max_threads]                  |
//! pending_off  | [PendingSignal; max_pending]                 |
//! timers_off   | [TimerRecord; max_timers]                    |
//! plan_off     | [PlanEntry; max_plan]   what is to be dumped  |
//! ring_off     | [Slot; slots]           pages, handed over    |
//!              +----------------------------------------------+
//! ```
//!
//! Both sides are of one build (the coordinator started the agent), so the layout needs no version of its own beyond
//! [`PROTOCOL`], which an agent that outlived an upgrade of the tools is told apart by.
#![no_std]
#![deny(unsafe_code)]

use bytemuck::{Pod, Zeroable};
use core::sync::atomic::{AtomicU32, AtomicU64};

pub mod touched;

/// Version of everything in this crate.
pub const PROTOCOL: u32 = 3;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// Bytes of page data that one slot holds: one chunk of the image.
pub const SLOT_DATA: usize = 1 << 20;

/// Runs of pages that one slot holds at most: each could be a page of its own.
pub const SLOT_RUNS: usize = SLOT_DATA / PAGE_SIZE;

/// Most bytes of an abstract socket name.
pub const MAX_NAME: usize = 107;

/// Environment variable that holds the job's id; its presence is what makes the agent active.
pub const ENV_JOB: &str = "CKPT_JOB_ID";
/// Environment variable that holds the directory of the images.
pub const ENV_DIR: &str = "CKPT_DIR";
/// Environment variable that holds the number of the checkpoint signal, where it is not the default.
pub const ENV_SIGNAL: &str = "CKPT_SIGNAL";
/// Environment variable that holds the path of the agent's library.
pub const ENV_AGENT: &str = "CKPT_AGENT";
/// Environment variable that says which signals processes of the job are shielded from: the launcher's pid, and numbers of signals,
/// as in `4711:10,12,15`.
pub const ENV_SHIELD: &str = "CKPT_SHIELD";

/// A program that is started with the first of these two signals blocked (63, 64) and the second not is told by that that the shielded ones are
/// blocked by the agent before it, and not by the program that made it. Not by signals 32 and 33, which no program can block: glibc leaves
/// them out of what a spawned program is given too.
pub const HELD_MARKS: u64 = 0b11 << 62;
/// See [`HELD_MARKS`].
pub const HELD_MARK: u64 = 0b01 << 62;

/// Environment variable that holds the path of a file with the variables of the batch job that the job runs in now.
pub const ENV_FILE: &str = "CKPT_ENV_FILE";

/// The checkpoint signal: `SIGRTMAX - 2`. Real-time signals near the top are the least used of all.
pub const DEFAULT_SIGNAL: i32 = 62;

/// How the name of the coordinator's abstract socket begins; the job's id, `/` and the inode number of the job's pid namespace follow.
/// Two restarts of one image live in different pid namespaces, so their coordinators have different names, while the
/// environment that the job keeps from before stays right.
pub const SOCKET_PREFIX: &str = "ckpt/";

/// Coordinator to agent, by the value of a checkpoint signal (sigqueue(3)): this with a signal's number added tells one that holds that signal back to let it
/// have its effect.
pub const LET_IN: u64 = 0x636b_7074 << 32;

/// As [`LET_IN`], for a process that has a handler of its own for the signal; in another the signal is dropped.
pub const LET_IN_IF_HANDLED: u64 = LET_IN + (1 << 16);

/// Coordinator to the launcher's stand-in in a restarted job, by the value of a checkpoint signal (sigqueue(3)): to send a signal, as the
/// launcher did before the restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The signal.
    pub signal: u8,
    /// To whom, as the job sees it.
    pub pid: i32,
    /// To its whole process group.
    pub group: bool,
}

impl Forward {
    /// As a signal carries it.
    #[must_use]
    pub fn to_value(self) -> u64 {
        u64::from(self.pid.cast_unsigned()) << 32 | u64::from(self.group) << 8 | u64::from(self.signal)
    }

    /// As a signal carried it.
    #[must_use]
    pub fn from_value(value: u64) -> Self {
        Self { signal: value as u8, pid: (value >> 32) as i32, group: value >> 8 & 1 != 0 }
    }
}

/// Agent to coordinator: the first message on a connection.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The process's id as it sees it.
    pub pid: i32,
    /// The thread that leads.
    pub tid: i32,
    /// The connection's descriptor number in the process, which is not the job's.
    pub socket: i32,
    /// Nonzero: nothing is asked for; the process tells that it holds this signal back, until [`LET_IN`] comes.
    pub holds: i32,
}

/// Coordinator to agent: the answer to [`Hello`], with the shared memory object's descriptor.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Start {
    /// Nonzero: freeze. Zero: nothing is wanted (any more), go on.
    pub go: u32,
    /// [`Feature`] bits that may be used.
    pub features: u32,
    /// Bytes of the shared memory object.
    pub len: u64,
    /// How long to wait for threads to answer.
    pub grace_ms: u32,
    /// Which thread the coordinator signalled.
    pub tid: i32,
    /// Nonzero: that thread had the signal blocked, and the coordinator took it out of its mask. It is to be put back.
    pub unblocked: u32,
    /// Nothing.
    pub reserved: u32,
    /// What that thread was blocked in before it was signalled.
    pub call: BlockedCall,
    /// The vDSO.
    pub vdso_start: u64,
    /// See `vdso_start`.
    pub vdso_end: u64,
}

/// Kernel facilities that are used where they are there.
#[derive(Clone, Copy, Debug)]
pub struct Feature;

impl Feature {
    /// `PAGEMAP_SCAN` (Linux 6.7).
    pub const PAGEMAP_SCAN: u32 = 1;
    /// `/proc/PID/task/TID/sched` (`CONFIG_SCHED_DEBUG`; always there since Linux 6.15).
    pub const SCHEDULER_NOTES: u32 = 2;
}

/// A system call that a thread was blocked in, as `/proc/PID/task/TID/syscall` told before it was signalled.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BlockedCall {
    /// 1 when it was in one.
    pub valid: u32,
    /// Its number.
    pub number: u32,
    /// Stack pointer.
    pub sp: u64,
    /// Address of the next instruction.
    pub pc: u64,
    /// When it began to wait, by the scheduler's clock of the processor that it last ran on, in nanoseconds; 0: not known.
    pub since_ns: u64,
    /// That processor. The scheduler's clocks of two processors cannot be compared.
    pub cpu: u64,
}

/// Coordinator to agent, once the process is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Order {
    /// Let the threads go on.
    Resume = 1,
    /// Make the copy-on-write twin, which dumps what the plan says.
    Twin = 2,
    /// Dump what the plan says now, frozen.
    DumpInPlace = 3,
    /// Make the system call that [`Control::call`] says, and report [`ReportKind::Called`].
    Call = 4,
}

/// Agent (or twin) to coordinator, after [`Hello`].
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Report {
    /// [`ReportKind`].
    pub kind: u32,
    /// A system call's error, or 0.
    pub errno: i32,
    /// What it is about: a thread id, a count.
    pub value: i64,
}

/// What a [`Report`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ReportKind {
    /// All threads are parked; the records are filled in.
    Frozen = 1,
    /// A thread (`value`) did not answer in time.
    ThreadSilent = 2,
    /// There are more threads (`value`) than records.
    TooManyThreads = 3,
    /// A system call failed; `value` is a [`Step`].
    Failed = 4,
    /// The twin is there; sent by the twin itself, so that the message's credentials name it.
    TwinReady = 5,
    /// Everything of the plan has been handed over.
    Dumped = 6,
    /// The leading thread was inside the vDSO, where it cannot be kept. It has gone on; signal it again.
    InVdso = 7,
    /// The system call has been made; `value` is its result, or `-errno`.
    Called = 8,
    /// A thread (`value`) blocks the checkpoint signal, and has not answered for a while. The leader goes on waiting for it.
    ThreadBlocked = 9,
}

impl ReportKind {
    /// The kind of a report.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        Some(match report.kind {
            1 => Self::Frozen,
            2 => Self::ThreadSilent,
            3 => Self::TooManyThreads,
            4 => Self::Failed,
            5 => Self::TwinReady,
            6 => Self::Dumped,
            7 => Self::InVdso,
            8 => Self::Called,
            9 => Self::ThreadBlocked,
            _ => return None,
        })
    }
}

/// What the agent was doing when a system call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Mapping the shared memory object.
    MapControl = 1,
    /// Listing its own threads.
    ListThreads = 2,
    /// Making room for copies of shared memory.
    MapCopies = 3,
    /// Forking the twin.
    Fork = 4,
    /// Reading `/proc/self/pagemap`.
    Pagemap = 5,
    /// More signals are pending than there are records.
    Pending = 6,
    /// More ranges of memory are to be dumped than there are records.
    Plan = 7,
}

impl Step {
    /// What it was doing, for a message.
    #[must_use]
    pub fn describe(value: i64) -> &'static str {
        match value {
            1 => "mapping the hand-over memory",
            2 => "listing the threads",
            3 => "copying shared memory",
            4 => "forking",
            5 => "reading the page map",
            6 => "reading the pending signals",
            7 => "listing the ranges of memory",
            _ => "an unknown step",
        }
    }
}

/// The head of the shared memory object.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Control {
    /// Byte offset of the thread records, and how many there can be.
    pub threads_off: u64,
    /// See `threads_off`.
    pub max_threads: u32,
    /// How many records are in use. Written by the agent.
    pub threads: AtomicU32,
    /// Byte offset of the pending signals, and how many there can be.
    pub pending_off: u64,
    /// See `pending_off`.
    pub max_pending: u32,
    /// How many there are. Written by the agent.
    pub pending: AtomicU32,
    /// Byte offset of the timers, and how many there can be.
    pub timers_off: u64,
    /// See `timers_off`.
    pub max_timers: u32,
    /// How many there are. Written by the coordinator, with their ids and clocks, before [`Order::Twin`].
    pub timers: AtomicU32,
    /// Byte offset of the plan, and how many entries there can be.
    pub plan_off: u64,
    /// See `plan_off`.
    pub max_plan: u32,
    /// How many entries it has. Written by the coordinator before [`Order::Twin`]. Until then by the agent: mappings with a memory policy
    /// of their own, with its mode in `flags` and its nodes in `source` (0 to 63) and `address` (64 to 127).
    pub plan: AtomicU32,
    /// Byte offset of the ring, and how many slots it has.
    pub ring_off: u64,
    /// See `ring_off`.
    pub slots: u32,
    /// Nonzero: the dump goes no further. Written by the coordinator.
    pub cancelled: AtomicU32,
    /// How many slots have been handed over in all. Written by whoever dumps, when it is done.
    pub total_slots: AtomicU64,
    /// Nonzero once `total_slots` is right.
    pub finished: AtomicU32,
    /// Size of the process's working part, for the layout.
    pub reserved: u32,
    /// What is observed of the process as a whole.
    pub process: ProcessRecord,
    /// The system call of [`Order::Call`]. Written by the coordinator.
    pub call: CallRecord,
}

/// A system call that the coordinator wants made in the process: of objects that only the job's namespaces or the process itself can name.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CallRecord {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Bit `i`: argument `i` is a byte offset in this memory object, and the call is given its address.
    pub offsets: u64,
}

/// What only the process itself can tell of it.
#[derive(Pod, Zeroable, Clone, Copy, Debug)]
#[repr(C)]
pub struct ProcessRecord {
    /// `rt_sigaction` of signals 1 to 64: handler, flags, restorer, mask.
    pub actions: [[u64; 4]; 64],
    /// `getitimer` of `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`: interval and value in microseconds.
    pub interval_timers: [[u64; 2]; 3],
    /// `brk(0)`.
    pub brk: u64,
    /// `PR_GET_DUMPABLE`.
    pub dumpable: u32,
    /// `PR_GET_CHILD_SUBREAPER`.
    pub child_subreaper: u32,
    /// `PR_GET_THP_DISABLE`.
    pub thp_disable: u32,
    /// `PR_GET_SECUREBITS`.
    pub securebits: u32,
    /// `personality(0xffffffff)`.
    pub personality: u32,
    /// Protection keys that the process may use, bit by bit.
    pub protection_keys: u32,
    /// Protection keys that cannot be allocated any more.
    pub taken_keys: u32,
    /// `PR_GET_MEMORY_MERGE`.
    pub memory_merge: u32,
    /// `PR_GET_MDWE`.
    pub no_exec_gain: u32,
    /// `ARCH_GET_XCOMP_PERM` allows AMX tile registers.
    pub tile_registers: u32,
    /// Where the agent is: see `ckpt_objects::process::AgentPlace`.
    pub leave: u64,
    /// See `leave`.
    pub transient_start: u64,
    /// See `leave`.
    pub transient_len: u64,
    /// See `leave`.
    pub leaving: u64,
    /// The range where this memory object is mapped, which is not the job's.
    pub control_start: u64,
    /// See `control_start`.
    pub control_end: u64,
    /// Where the agent has the variable [`touched::ENV_TOUCHED`] with its value, as a C string in room for
    /// [`touched::VARIABLE_SIZE`] bytes: a restart writes where the directory is now.
    pub touched: u64,
}

impl Default for ProcessRecord {
    fn default() -> Self {
        Self {
            actions: [[0; 4]; 64],
            interval_timers: [[0; 2]; 3],
            brk: 0,
            dumpable: 0,
            child_subreaper: 0,
            thp_disable: 0,
            securebits: 0,
            personality: 0,
            protection_keys: 0,
            taken_keys: 0,
            memory_merge: 0,
            no_exec_gain: 0,
            tile_registers: 0,
            leave: 0,
            transient_start: 0,
            transient_len: 0,
            leaving: 0,
            control_start: 0,
            control_end: 0,
            touched: 0,
        }
    }
}

/// One thread. `tid`, `call` are written by the leader before it signals the thread, the rest by the thread itself.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ThreadRecord {
    /// Its id as it sees it; 0: this record is void (the thread ended meanwhile).
    pub tid: AtomicU32,
    /// [`ThreadStatus`].
    pub status: AtomicU32,
    /// What the leader wants of the parked thread: [`ThreadOrder`]. A futex.
    pub order: AtomicU32,
    /// 1: a thread group leader that has ended.
    pub exited: u32,
    /// Nonzero: it had the signal blocked, and the coordinator took it out of its mask, before it let the thread take the signal. It is to be
    /// put back.
    pub unblocked: AtomicU32,
    /// Nonzero: the leader has reported [`ReportKind::ThreadBlocked`] for it.
    pub reported: u32,
    /// What it was blocked in.
    pub call: BlockedCall,
    /// Address of its `ucontext`.
    pub frame: u64,
    /// Instruction it was at.
    pub rip: u64,
    /// Base of fs.
    pub fs_base: u64,
    /// Base of gs.
    pub gs_base: u64,
    /// `PR_GET_TID_ADDRESS`.
    pub clear_child_tid: u64,
    /// `get_robust_list`: head.
    pub robust_head: u64,
    /// `get_robust_list`: length.
    pub robust_len: u64,
    /// Restartable sequences area; 0: none.
    pub rseq: u64,
    /// Its registered size.
    pub rseq_len: u32,
    /// Its signature.
    pub rseq_signature: u32,
    /// `PR_GET_NAME`.
    pub comm: [u8; 16],
    /// `PR_GET_TIMERSLACK`.
    pub timer_slack_ns: u64,
    /// `PR_GET_PDEATHSIG`.
    pub parent_death_signal: i32,
    /// `PR_GET_NO_NEW_PRIVS`.
    pub no_new_privs: u32,
    /// `PR_GET_SECUREBITS`.
    pub securebits: u32,
    /// `PR_GET_TSC`; 0: not known.
    pub time_stamp_counter: u32,
    /// `ARCH_GET_CPUID`: 0 where the instruction faults.
    pub cpuid: u32,
    /// `PR_MCE_KILL_GET`.
    pub machine_check: u32,
    /// `PR_GET_IO_FLUSHER`; 0 where it may not be asked for.
    pub io_flusher: u32,
    /// get_mempolicy(2): mode and flags.
    pub policy: u32,
    /// See `policy`: its nodes, bit by bit.
    pub policy_nodes: [u64; POLICY_WORDS],
}

/// Words of a set of memory nodes: the kernel's limit is 1024 of them (`MAX_NUMNODES`).
pub const POLICY_WORDS: usize = 16;

/// How far a thread is.
#[derive(Clone, Copy, Debug)]
pub struct ThreadStatus;

impl ThreadStatus {
    /// Signalled.
    pub const CALLED: u32 = 0;
    /// In its handler, its record filled in.
    pub const PARKED: u32 = 1;
    /// It has left the handler, or is about to without touching the record again.
    pub const GONE: u32 = 2;
}

/// What a parked thread is to do.
#[derive(Clone, Copy, Debug)]
pub struct ThreadOrder;

impl ThreadOrder {
    /// Stay.
    pub const STAY: u32 = 0;
    /// Record the signals pending for it, and park again.
    pub const CAPTURE: u32 = 1;
    /// Go on.
    pub const GO: u32 = 2;
}

/// A signal that is pending.
#[derive(Pod, Zeroable, Clone, Copy, Debug)]
#[repr(C)]
pub struct PendingSignal {
    /// The thread it is pending for; 0: the process.
    pub tid: i32,
    /// Keeps the layout plain.
    pub reserved: i32,
    /// Its `siginfo_t`.
    pub info: [u64; 16],
}

/// A timer of timer_create(2). The coordinator writes `id`, `clock` and `signal`, the agent the rest.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TimerRecord {
    /// Its id.
    pub id: i32,
    /// Its clock (`ClockID` of `/proc/PID/timers`).
    pub clock: i32,
    /// The thread whose processor time it measures, where the clock says "the thread that made it"; 0: none, or not known.
    pub thread: i32,
    /// `timer_getoverrun`.
    pub overrun: i32,
    /// The signal that it sends.
    pub signal: i32,
    /// How often its signal has been taken out of a queue, to see what came with it.
    pub taken: u32,
    /// Period in nanoseconds; 0: fires once.
    pub interval_ns: i64,
    /// Time left in nanoseconds; 0: not armed.
    pub value_ns: i64,
    /// How many expirations its pending signal stands for; 0: none is pending.
    pub pending: i64,
}

/// A range of memory that is to be dumped.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PlanEntry {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Where the contents lie that are dumped, when not at `start`: a copy made by the agent.
    pub source: u64,
    /// The address that `start` has in its space.
    pub address: u64,
    /// The space that the pages belong to.
    pub space: u32,
    /// [`PlanFlag`] bits.
    pub flags: u32,
}

/// How a range is dumped.
#[derive(Clone, Copy, Debug)]
pub struct PlanFlag;

impl PlanFlag {
    /// Every page that can be read, not only those that are the process's own.
    pub const ALL: u32 = 1;
    /// Pages of zeroes too: they hide a file's.
    pub const KEEP_ZERO: u32 = 2;
    /// Copied before the threads go on: `fork` does not keep it.
    pub const COPY_FIRST: u32 = 4;
    /// Shared memory: which pages exist is asked of `mincore`.
    pub const SHARED: u32 = 8;
    /// Not readable as it is mapped: read through `/proc/self/mem`.
    pub const UNREADABLE: u32 = 16;
    /// Nothing of it is dumped: the twin must not have it, since the kernel counts who has.
    pub const NOT_IN_TWIN: u32 = 32;
}

/// A run of pages in a slot.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Run {
    /// Address in its space.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Its space.
    pub space: u32,
}

/// A slot of the ring: what its pages are, and the pages one after the other.
#[repr(C, align(4096))]
pub struct Slot {
    /// [`SlotState`]. A futex.
    pub state: AtomicU32,
    /// How many runs it has.
    pub runs_len: u32,
    /// Bytes of `data` in use.
    pub data_len: u32,
    /// Keeps the layout plain.
    pub reserved: u32,
    /// The runs.
    pub runs: [Run; SLOT_RUNS],
    /// The pages.
    pub data: SlotData,
}

/// The pages of a slot, aligned as pages are.
#[repr(C, align(4096))]
pub struct SlotData(pub [u8; SLOT_DATA]);

/// Whose a slot is.
#[derive(Clone, Copy, Debug)]
pub struct SlotState;

impl SlotState {
    /// The agent's, to be filled.
    pub const FREE: u32 = 0;
    /// The coordinator's, to be taken.
    pub const FULL: u32 = 1;
    /// Being read by one of the coordinator's workers.
    pub const TAKEN: u32 = 2;
}
