//! One living process: its threads, and its properties beside memory and descriptors.

use ckpt_objects::credentials::Credentials;
use ckpt_objects::descriptor::FdEntry;
use ckpt_objects::directory::{self, RemovedDirectory};
use ckpt_objects::file::split_deleted;
use ckpt_objects::memory::AddressSpace;
use ckpt_objects::observe::{ObserveError, proc_path, read_proc_link};
use ckpt_objects::posix_timer::{self, PosixTimer};
use ckpt_objects::process::{AgentPlace, LiveProcess, ProcessSettings, Status, core_filter, limits, oom_score_adj, scheduling};
use ckpt_objects::signal::{Siginfo, SignalAction, SignalState};
use ckpt_objects::subject::Subject;
use ckpt_objects::thread::{Rseq, ThreadSettings, ThreadState};
use ckpt_objects::timer::IntervalTimer;
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_wire::ProcessRecord;

use super::job::Job;
use crate::frozen::FrozenProcess;
use crate::hand_over::{HandOverError, SeenThread};

/// A living process with this memory and these descriptors. What is found out last, or joined with other processes, is empty.
pub fn observe(
    job: &Job<'_>,
    process: &FrozenProcess,
    record: &ProcessRecord,
    memory: AddressSpace,
    descriptors: Vec<FdEntry>,
) -> Result<LiveProcess, ObserveError> {
    let pid = process.live;
    let credentials = process.status.credentials(record.securebits)?;
    let threads = threads(job, process, &credentials)?;
    let (cwd, removed_cwd) = working_directory(process)?;
    let mut posix_timers = timers(job, process, &threads)?;
    let first_has_ended = threads.iter().any(|thread| thread.exited);
    let pending = if first_has_ended { pending_without_first(job, process, &mut posix_timers)? } else { Vec::new() };
    Ok(LiveProcess {
        memory,
        threads,
        descriptors,
        signals: SignalState { actions: record.actions.iter().map(signal_action).collect(), pending },
        semaphore_undo: Vec::new(),
        posix_timers,
        interval_timers: interval_timers(record),
        has_terminal: false,
        cwd,
        removed_cwd,
        root: root_directory(process)?,
        umask: process.status.umask()?,
        limits: limits(pid)?,
        credentials,
        oom_score_adj: oom_score_adj(pid)?,
        stopped: process.stopped,
        settings: ProcessSettings {
            dumpable: record.dumpable,
            child_subreaper: record.child_subreaper != 0,
            thp_disable: record.thp_disable,
            personality: record.personality,
            memory_merge: record.memory_merge == 1,
            no_exec_gain: record.no_exec_gain,
            tile_registers: record.tile_registers == 1,
            memory_barriers: record.memory_barriers,
            core_filter: core_filter(pid),
        },
        agent: AgentPlace {
            leave: record.leave,
            transient_start: record.transient_start,
            transient_len: record.transient_len,
            leaving: record.leaving,
            touched: record.touched,
        },
    })
}

/// The timers of setitimer(2), as the agent found them.
pub fn interval_timers(record: &ProcessRecord) -> [IntervalTimer; 3] {
    record.interval_timers.map(|[interval_us, value_us]| IntervalTimer { interval_us, value_us })
}

/// The threads of a process, the first thread first.
fn threads(job: &Job<'_>, process: &FrozenProcess, common: &Credentials) -> Result<Vec<ThreadState>, ObserveError> {
    let seen = process.memory.threads().map_err(|error| process.damaged(error))?;
    let mut threads = seen.iter().map(|seen| thread(job, process, seen, common)).collect::<Result<Vec<_>, _>>()?;
    threads.sort_by_key(|thread| (thread.tid != process.ns_pid, thread.tid));
    Ok(threads)
}

fn thread(job: &Job<'_>, process: &FrozenProcess, seen: &SeenThread, common: &Credentials) -> Result<ThreadState, ObserveError> {
    // Thread ids outside differ from the job's own after a restart; only the leader's is at hand without a search.
    let tid = process.thread(seen.tid).ok_or_else(|| process.damaged(HandOverError::Thread(seen.tid)))?;
    let status = Status::of_thread(process.pid, tid)?;
    if let Some((what, remedy)) = job.reaper.as_ref().and_then(|reaper| status.unkept(reaper)) {
        return Err(process.refuse(what, remedy));
    }
    let credentials = status.credentials(seen.securebits)?;
    let name_len = seen.comm.iter().position(|byte| *byte == 0).unwrap_or(seen.comm.len());
    Ok(ThreadState {
        tid: NsPid(seen.tid),
        exited: seen.exited,
        frame: seen.frame,
        fs_base: seen.fs_base,
        gs_base: seen.gs_base,
        clear_child_tid: seen.clear_child_tid,
        robust_list: seen.robust_list,
        rseq: registered_rseq(job, process, tid, seen.rseq)?,
        comm: FilePath(seen.comm[..name_len].to_vec()),
        pending: Vec::new(),
        scheduling: scheduling(process.pid, tid, &status, &job.own_affinity)?,
        timer_slack_ns: seen.timer_slack_ns,
        parent_death_signal: seen.parent_death_signal,
        no_new_privs: seen.no_new_privs,
        credentials: (!seen.exited && credentials != *common).then(|| Box::new(credentials)),
        settings: ThreadSettings { speculation: speculation(job, &status), ..seen.settings },
        policy: seen.policy.clone(),
    })
}

/// Speculation controls of a thread, where they differ from those that come from outside of the job.
fn speculation(job: &Job<'_>, status: &Status) -> [u32; 2] {
    let own = status.speculation();
    if job.reaper.as_ref().is_some_and(|reaper| reaper.speculation() == own) { [0; 2] } else { own }
}

/// The timers of timer_create(2), but for how they stand; the agent is told which there are.
fn timers(job: &Job<'_>, process: &FrozenProcess, threads: &[ThreadState]) -> Result<Vec<PosixTimer>, ObserveError> {
    let living: Vec<NsPid> = threads.iter().filter(|thread| !thread.exited).map(|thread| thread.tid).collect();
    let (timers, records) = posix_timer::observe(process, &living, |pid| job.has(pid))?;
    if !process.memory.set_timers(&records) {
        let what = format!("has {} timers of timer_create(2)", records.len());
        return Err(process.refuse(what, "delete some before a checkpoint"));
    }
    Ok(timers)
}

/// The restartable sequences area of a thread, from what its agent has found.
fn registered_rseq(
    job: &Job<'_>,
    process: &FrozenProcess,
    tid: HostPid,
    (address, len, signature): (u64, u32, u32),
) -> Result<Option<Rseq>, ObserveError> {
    match address {
        0 => Ok(None),
        ckpt_wire::RSEQ_UNKNOWN => job.frozen.rseq(tid).map_err(|error| {
            let what = format!("has restartable sequences of its own (rseq), which cannot be seen: {error}");
            process.refuse(what, "allow ptrace")
        }),
        _ => Ok(Some(Rseq { address, len, signature })),
    }
}

/// The signals that are pending for a process as a whole whose first thread has ended; those of its timers are counted there.
fn pending_without_first(
    job: &Job<'_>,
    process: &FrozenProcess,
    timers: &mut [PosixTimer],
) -> Result<Vec<Siginfo>, ObserveError> {
    let queue = job.frozen.pending_for_process(process).map_err(|error| {
        let what = format!("has ended its first thread, its pending signals cannot be seen by any other, and {error}");
        process.refuse(what, "try again when no signal is pending, or allow ptrace")
    })?;
    let mut pending = Vec::new();
    for info in queue {
        match info.timer().and_then(|id| timers.iter_mut().find(|timer| timer.id == id)) {
            Some(timer) => timer.pending = 1,
            None => pending.push(info),
        }
    }
    Ok(pending)
}

/// The working directory of a process, and its identity where it has been removed.
fn working_directory(process: &FrozenProcess) -> Result<(FilePath, Option<RemovedDirectory>), ObserveError> {
    let link = read_proc_link(process.live, "cwd")?;
    let removed = directory::observe_removed(&link, &proc_path(process.live, "cwd"));
    Ok((removed.as_ref().map_or(link, |removed| removed.path.clone()), removed))
}

fn root_directory(process: &FrozenProcess) -> Result<FilePath, ObserveError> {
    let (path, deleted) = split_deleted(&read_proc_link(process.live, "root")?);
    if deleted && !path.as_path().is_dir() {
        let what = format!("has a root directory that was removed ({path})");
        return Err(process.refuse(what, "leave that directory before the checkpoint"));
    }
    Ok(path)
}

fn signal_action(words: &[u64; 4]) -> SignalAction {
    SignalAction { handler: words[0], flags: words[1], restorer: words[2], mask: words[3] }
}
