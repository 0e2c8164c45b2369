//! One process: its ids, credentials, limits and settings. Its memory, threads and descriptors have modules of their own.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::credentials::Credentials;
use crate::descriptor::FdEntry;
use crate::directory::RemovedDirectory;
use crate::memory::AddressSpace;
use crate::posix_timer::PosixTimer;
use crate::signal::{Siginfo, SignalState};
use crate::sysv::Undo;
use crate::thread::ThreadState;
use crate::timer::IntervalTimer;
use crate::{FilePath, NsPid};

mod observe;

pub use observe::{
    Status, children, core_filter, exit_signal, group_session_and_terminal, is_secure, limits, oom_score_adj, scheduling,
    start_ticks, status_if_there, threads, wait_status,
};

/// A process of the job, alive or waiting to be waited for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessState {
    /// Its pid.
    pub pid: NsPid,
    /// Its parent's pid: another process of the job, or the launcher.
    pub ppid: NsPid,
    /// Its process group.
    pub pgid: NsPid,
    /// Its session.
    pub sid: NsPid,
    /// The signal that tells its parent of its end: `SIGCHLD`, or what clone(2) was given; 0: none.
    pub exit_signal: i32,
    /// When it started, in ticks since the boot of the machine, as the job sees it (field 22 of `/proc/PID/stat`).
    pub started: u64,
    /// The name of its first thread, as in `/proc/PID/comm`.
    pub comm: FilePath,
    /// What it is.
    pub life: Life,
}

impl ProcessState {
    /// What it has, if it is alive.
    #[must_use]
    pub fn live(&self) -> Option<&LiveProcess> {
        match &self.life {
            Life::Alive(live) => Some(live),
            Life::Zombie { .. } => None,
        }
    }

    /// See [`ProcessState::live`].
    pub fn live_mut(&mut self) -> Option<&mut LiveProcess> {
        match &mut self.life {
            Life::Alive(live) => Some(live),
            Life::Zombie { .. } => None,
        }
    }
}

impl LiveProcess {
    /// Takes the timers of setitimer(2) as they stand after the pending signals were recorded: a timer that has sent its signal since the
    /// job was frozen must not be recorded as if it had yet to.
    pub fn settle_interval_timers(&mut self, now: [IntervalTimer; 3]) {
        let own = self.threads.iter().flat_map(|thread| &thread.pending);
        let waiting: HashSet<i32> = self.signals.pending.iter().chain(own).map(Siginfo::signal).collect();
        for ((timer, now), signal) in self.interval_timers.iter_mut().zip(now).zip(INTERVAL_SIGNALS) {
            *timer = timer.settled(now, waiting.contains(&signal));
        }
    }
}

/// The signals of the timers of setitimer(2): `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
const INTERVAL_SIGNALS: [i32; 3] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];

/// A process is alive, or it has ended and its parent has not waited for it yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Life {
    /// It runs.
    Alive(Box<LiveProcess>),
    /// It has ended with this wait status (wait(2)).
    Zombie {
        /// As `waitpid` will give it.
        status: i32,
    },
}

/// What a living process has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveProcess {
    /// Its mappings and the fields of its `mm`.
    pub memory: AddressSpace,
    /// Its threads; the first is the thread group's leader.
    pub threads: Vec<ThreadState>,
    /// Its descriptors, by ascending number.
    pub descriptors: Vec<FdEntry>,
    /// Its signal handlers, and signals pending for the process as a whole.
    pub signals: SignalState,
    /// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF` as `getitimer` gave them.
    pub interval_timers: [IntervalTimer; 3],
    /// Timers of timer_create(2).
    pub posix_timers: Vec<PosixTimer>,
    /// It has its session's controlling terminal.
    pub has_terminal: bool,
    /// What its end adds to System V semaphores (`SEM_UNDO`).
    pub semaphore_undo: Vec<Undo>,
    /// Its working directory.
    pub cwd: FilePath,
    /// The working directory, where it has been removed: then nothing is at `cwd`.
    pub removed_cwd: Option<RemovedDirectory>,
    /// Its root directory.
    pub root: FilePath,
    /// `umask`.
    pub umask: u32,
    /// Its resource limits, indexed by `RLIMIT_*` (0 to 15).
    pub limits: Vec<Limit>,
    /// Who it runs as.
    pub credentials: Credentials,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: i32,
    /// `prctl` settings that are the process's, not a thread's.
    pub settings: ProcessSettings,
    /// The job has stopped it (`SIGSTOP`), and not let it go on.
    pub stopped: bool,
    /// Where the agent is in its memory.
    pub agent: AgentPlace,
}

/// A resource limit; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What applies.
    pub soft: u64,
    /// What an unprivileged process may raise it to.
    pub hard: u64,
}

/// Settings made with prctl(2) for the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSettings {
    /// `PR_GET_DUMPABLE`.
    pub dumpable: u32,
    /// `PR_GET_CHILD_SUBREAPER`.
    pub child_subreaper: bool,
    /// `PR_GET_THP_DISABLE`: 0, or 1 with the flags it was set with.
    pub thp_disable: u32,
    /// `personality`.
    pub personality: u32,
    /// `PR_GET_MEMORY_MERGE`.
    pub memory_merge: bool,
    /// `PR_GET_MDWE`.
    pub no_exec_gain: u32,
    /// It has asked for AMX tile registers (`ARCH_REQ_XCOMP_PERM`), used or not.
    pub tile_registers: bool,
    /// Registrations with membarrier(2), `MEMBARRIER_CMD_REGISTER_*`.
    pub memory_barriers: u32,
    /// `/proc/PID/coredump_filter`; 0: not known.
    pub core_filter: u32,
}

/// Where the agent lies in a process's memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct AgentPlace {
    /// Entry point by which the restorer leaves: see `ckpt_agent::leave`.
    pub leave: u64,
    /// Start of the agent's state that holds only during a checkpoint: a restart fills it with zeroes.
    pub transient_start: u64,
    /// Its length in bytes.
    pub transient_len: u64,
    /// Address, inside the transient state, of the 32-bit count of threads that have yet to leave the restorer.
    pub leaving: u64,
    /// Address of the variable that says where the job's list of touched paths is; 0 where there is none.
    pub touched: u64,
}
