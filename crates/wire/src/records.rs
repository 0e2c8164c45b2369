//! What the agent observes, and what the coordinator plans: the records of the shared memory object.

use core::sync::atomic::AtomicU32;

use bytemuck::{Pod, Zeroable};

use crate::messages::BlockedCall;

/// What only the process itself can tell.
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
    /// Protection keys that are allocated already.
    pub taken_keys: u32,
    /// `PR_GET_MEMORY_MERGE`.
    pub memory_merge: u32,
    /// `PR_GET_MDWE`.
    pub no_exec_gain: u32,
    /// `ARCH_GET_XCOMP_PERM` allows AMX tile registers.
    pub tile_registers: u32,
    /// Registrations with membarrier(2), `MEMBARRIER_CMD_REGISTER_*`.
    pub memory_barriers: u32,
    /// Nothing.
    pub reserved: u32,
    /// Addresses of the agent: see `ckpt_objects::process::AgentPlace`.
    pub leave: u64,
    /// See `leave`.
    pub transient_start: u64,
    /// See `leave`.
    pub transient_len: u64,
    /// See `leave`.
    pub leaving: u64,
    /// Where this memory object is mapped, which is not the job's: first address.
    pub control_start: u64,
    /// First address after it.
    pub control_end: u64,
    /// Address of the variable [`ENV_TOUCHED`](crate::touched::ENV_TOUCHED) with its value, as a C string in room for
    /// [`VARIABLE_SIZE`](crate::touched::VARIABLE_SIZE) bytes. A restart writes there where the directory is now.
    pub touched: u64,
}

impl Default for ProcessRecord {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// One thread. The leader writes `tid` and `call` before it signals the thread, which writes the rest.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ThreadRecord {
    /// Its id as it sees it; 0: this record is void, since the thread has ended.
    pub tid: AtomicU32,
    /// [`ThreadStatus`].
    pub status: AtomicU32,
    /// What the leader has the parked thread do: [`ThreadOrder`]. A futex.
    pub order: AtomicU32,
    /// 1: a thread group leader that has ended.
    pub exited: AtomicU32,
    /// Nonzero: the thread blocked the signal, and the coordinator has taken it out of its mask. The thread puts it back.
    pub unblocked: AtomicU32,
    /// Nonzero: the leader has reported [`ReportKind::ThreadBlocked`](crate::ReportKind::ThreadBlocked) for it.
    pub reported: AtomicU32,
    /// The call that it was blocked in.
    pub call: BlockedCall,
    /// What it has found out about itself; right once its status is [`ThreadStatus::PARKED`].
    pub facts: ThreadFacts,
}

/// What only a thread itself can tell.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadFacts {
    /// Address of its `ucontext`.
    pub frame: u64,
    /// Address of the instruction that comes next.
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
    /// Address of the restartable sequences area; 0: none; [`RSEQ_UNKNOWN`]: one that the thread cannot find.
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
    /// `PR_GET_IO_FLUSHER`; 0 where that is not allowed.
    pub io_flusher: u32,
    /// get_mempolicy(2): mode and flags.
    pub policy: u32,
    /// get_mempolicy(2): the nodes, bit by bit.
    pub policy_nodes: [u64; POLICY_WORDS],
}

/// Words of a set of memory nodes: the kernel's limit is 1024 of them (`MAX_NUMNODES`).
pub const POLICY_WORDS: usize = 16;

/// Of [`ThreadFacts::rseq`].
pub const RSEQ_UNKNOWN: u64 = u64::MAX;

/// How far a thread has come.
#[derive(Clone, Copy, Debug)]
pub struct ThreadStatus;

impl ThreadStatus {
    /// It has been signalled.
    pub const CALLED: u32 = 0;
    /// In its handler, its record filled in.
    pub const PARKED: u32 = 1;
    /// It has left the handler, or is about to and does not touch the record again.
    pub const GONE: u32 = 2;
}

/// The orders of the leader to a parked thread.
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
    /// The thread that it is pending for; 0: the process.
    pub tid: i32,
    /// Nothing.
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
    /// The thread whose processor time it measures, where the clock means the thread that made the timer; 0: none, or not known.
    pub thread: i32,
    /// `timer_getoverrun`.
    pub overrun: i32,
    /// The signal that it sends.
    pub signal: i32,
    /// How often the agent has taken its signal out of a queue.
    pub taken: u32,
    /// Period in nanoseconds; 0: fires once.
    pub interval_ns: i64,
    /// Time left in nanoseconds; 0: not armed.
    pub value_ns: i64,
    /// How many expirations its pending signal stands for; 0: no signal is pending.
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
    /// Address of the copy that the agent has made of the contents; 0: none.
    pub source: u64,
    /// The address of `start` in its space.
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
    /// Copied before the threads go on: a twin would not see it as it is now.
    pub const COPY_FIRST: u32 = 4;
    /// Shared memory: `mincore` tells which pages exist.
    pub const SHARED: u32 = 8;
    /// Not readable as it is mapped: read through `/proc/self/mem`.
    pub const UNREADABLE: u32 = 16;
    /// Not dumped, and kept from the twin: the kernel counts the processes that map it.
    pub const NOT_IN_TWIN: u32 = 32;
}
