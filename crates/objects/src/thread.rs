//! One thread: what the kernel keeps for it beside its registers, which lie in the signal frame on its stack.
//!
//! The frame also holds the signal mask and the alternate signal stack: `rt_sigreturn` puts both back.

use serde::{Deserialize, Serialize};

use crate::credentials::Credentials;
use crate::memory::MemoryPolicy;
use crate::signal::Siginfo;
use crate::{FilePath, NsPid};

/// A thread of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThreadState {
    /// Its thread id.
    pub tid: NsPid,
    /// A thread group leader that has called `pthread_exit` while others go on: it has ended, but its pid stays.
    /// Nothing else in this state holds for it.
    pub exited: bool,
    /// Address of the `ucontext` in its signal frame. To restore the thread, `rsp` is set to this and
    /// `rt_sigreturn` is called (the kernel looks for the frame at `rsp - 8`: arch/x86/kernel/signal_64.c).
    pub frame: u64,
    /// Base of `fs`: the thread's control block.
    pub fs_base: u64,
    /// Base of `gs`.
    pub gs_base: u64,
    /// `set_tid_address`: where the kernel writes 0 when the thread ends.
    pub clear_child_tid: u64,
    /// `set_robust_list`: head and length. Head 0: none.
    pub robust_list: (u64, u64),
    /// Its restartable sequences area.
    pub rseq: Option<Rseq>,
    /// Its name, as in `/proc/PID/task/TID/comm`.
    pub comm: FilePath,
    /// Signals pending for this thread alone, in the order in which they were queued.
    pub pending: Vec<Siginfo>,
    /// How it is scheduled.
    pub scheduling: Scheduling,
    /// `PR_GET_TIMERSLACK`, in nanoseconds; 0: not known.
    pub timer_slack_ns: u64,
    /// `PR_GET_PDEATHSIG`; 0: none.
    pub parent_death_signal: i32,
    /// `PR_GET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Who it runs as, where that is not as the process does.
    pub credentials: Option<Box<Credentials>>,
    /// Settings of its own.
    pub settings: ThreadSettings,
    /// On which memory nodes what it touches first is to lie.
    pub policy: MemoryPolicy,
}

/// Settings that prctl(2) and arch_prctl(2) make for one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSettings {
    /// `PR_SET_TSC`: reading the time stamp counter is a SIGSEGV.
    pub no_time_stamp_counter: bool,
    /// `ARCH_SET_CPUID`: the instruction is a SIGSEGV.
    pub no_cpuid: bool,
    /// `PR_MCE_KILL_GET`.
    pub machine_check: u32,
    /// `PR_GET_IO_FLUSHER`.
    pub io_flusher: bool,
    /// `PR_GET_SPECULATION_CTRL` of `PR_SPEC_STORE_BYPASS` and `PR_SPEC_INDIRECT_BRANCH`, as the value that sets it; 0: as the machine has it.
    pub speculation: [u32; 2],
}

impl Default for ThreadSettings {
    fn default() -> Self {
        Self {
            no_time_stamp_counter: false,
            no_cpuid: false,
            machine_check: libc::PR_MCE_KILL_DEFAULT as u32,
            io_flusher: false,
            speculation: [0; 2],
        }
    }
}

/// A restartable sequences area (rseq(2)), as it was registered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rseq {
    /// Its address.
    pub address: u64,
    /// The size that was registered.
    pub len: u32,
    /// The signature before abort handlers.
    pub signature: u32,
}

/// How a thread is scheduled (sched_setattr(2), sched_setaffinity(2), ioprio_set(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`: that children begin with the default policy, and their like.
    pub flags: u64,
    /// `SCHED_DEADLINE`: runtime, deadline and period in nanoseconds; zeroes else.
    pub deadline: [u64; 3],
    /// Real-time priority.
    pub priority: u32,
    /// Nice value.
    pub nice: i32,
    /// Processors it may run on, as the kernel's bit mask; empty: all of them.
    pub affinity: Vec<u64>,
    /// `ioprio_get`; 0: default.
    pub io_priority: u32,
}
