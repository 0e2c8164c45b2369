//! Timers of timer_create(2) and setitimer(2): what `/proc` shows of them when the job is frozen, joined with what the agent
//! finds out at last.

use std::collections::{HashMap, HashSet};

use ckpt_objects::observe::ObserveError;
use ckpt_objects::older::Switch;
use ckpt_objects::posix_timer::{self, CpuClock, Notify, PosixTimer, Target, TimerSignal};
use ckpt_objects::process::{LiveProcess, Status};
use ckpt_objects::signal::Siginfo;
use ckpt_objects::timer::IntervalTimer;
use ckpt_objects::{HostPid, NsPid};
use ckpt_wire::TimerRecord;

use crate::calls::Arg;
use crate::freeze::FrozenProcess;
use crate::hand_over::HandOverError;
use crate::survey::{damaged, refuse};

/// What the timers of setitimer(2) send: `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
const INTERVAL_SIGNALS: [i32; 3] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];
/// How many numbers of timers are tried where the kernel does not list them.
const MOST_LOOKS: i32 = 10_000;

/// The timers of a process, but for how they stand; its agent is told which there are.
pub fn describe(process: &FrozenProcess, pids: &HashMap<HostPid, NsPid>) -> Result<Vec<PosixTimer>, ObserveError> {
    let shown = if Switch::TimerList.is_off() { None } else { posix_timer::observe(process.live)? };
    let Some(seen) = shown else {
        if has_any(process).unwrap_or(false) {
            let what =
                "has a timer of timer_create(2), which this kernel (without CONFIG_CHECKPOINT_RESTORE) does not describe".into();
            return Err(refuse(process, what, "delete it before a checkpoint, or use setitimer or timerfd"));
        }
        return Ok(Vec::new());
    };
    let records: Vec<TimerRecord> = seen
        .iter()
        .map(|timer| TimerRecord { id: timer.id, clock: timer.clock, signal: timer.signal, ..TimerRecord::default() })
        .collect();
    if !process.memory.set_timers(&records) {
        let what = format!("has {} timers of timer_create(2)", records.len());
        return Err(refuse(process, what, "delete some before a checkpoint"));
    }
    let threads = live_threads(process)?;
    for timer in &seen {
        let measured = CpuClock::of(timer.clock).filter(|clock| clock.id != 0);
        let known = measured.is_none_or(|clock| {
            if clock.of_thread { threads.contains(&clock.id) } else { pids.values().any(|pid| pid.0 == clock.id) }
        });
        if !known {
            let what = format!(
                "has a timer (id {}) of the processor time of a thread that has ended, or of a process outside of the job",
                timer.id
            );
            return Err(refuse(process, what, "delete it before a checkpoint"));
        }
    }
    Ok(seen
        .iter()
        .map(|timer| {
            let signal = TimerSignal { number: timer.signal, value: timer.value };
            let notify = match timer.target {
                Target::Nobody => Notify::Nobody,
                Target::Process => Notify::Process(signal),
                // One whose thread has ended tells nobody any more.
                Target::Thread(tid) => Status::of_thread(process.pid, tid)
                    .ok()
                    .map(|status| status.ns_pid().0)
                    .filter(|tid| threads.contains(tid))
                    .map_or(Notify::Nobody, |tid| Notify::Thread { tid, signal }),
            };
            PosixTimer { id: timer.id, clock: timer.clock, notify, interval_ns: 0, value_ns: 0, pending: 0 }
        })
        .collect())
}

/// The threads of a process that have not ended, as it sees them.
fn live_threads(process: &FrozenProcess) -> Result<Vec<i32>, ObserveError> {
    let threads = process.memory.threads().map_err(|error| damaged(process, error))?;
    Ok(threads.iter().filter(|thread| !thread.exited).map(|thread| thread.tid).collect())
}

/// Takes the timers of setitimer(2) as they stand after the pending signals were recorded: one that has sent its signal since the
/// job was frozen must not be recorded as if it had yet to.
pub fn settle(process: &mut LiveProcess, now: [[u64; 2]; 3]) {
    let own = process.threads.iter().flat_map(|thread| &thread.pending);
    let waiting: HashSet<i32> = process.signals.pending.iter().chain(own).map(Siginfo::signal).collect();
    for ((timer, [interval_us, value_us]), signal) in process.interval_timers.iter_mut().zip(now).zip(INTERVAL_SIGNALS) {
        *timer = timer.settled(IntervalTimer { interval_us, value_us }, waiting.contains(&signal));
    }
}

/// Whether a process has timers, where the kernel does not list them. Their numbers rise: that of a new one is above all of the
/// others'.
fn has_any(process: &FrozenProcess) -> std::io::Result<bool> {
    const SIGEV_NONE: u64 = 1;
    if !process.makes_calls() {
        return Ok(false);
    }
    // struct sigevent in the window, and behind it the number, and the time that is left.
    process
        .memory
        .put(&[0, SIGEV_NONE << 32, 0, 0, 0, 0, 0, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect::<Vec<_>>());
    process.call(libc::SYS_timer_create, &[libc::CLOCK_MONOTONIC.into(), Arg::Window(0), Arg::Window(64)])?;
    let bytes = process.memory.get(68);
    let new = bytes[64..].iter().rev().fold(0, |value, byte| value << 8 | i32::from(*byte));
    process.call(libc::SYS_timer_delete, &[new.into()])?;
    Ok((0..new.min(MOST_LOOKS)).any(|id| process.call(libc::SYS_timer_gettime, &[id.into(), Arg::Window(64)]).is_ok()))
}

/// Adds how the timers stand, when the agent has looked.
pub fn complete(process: &FrozenProcess, timers: &mut [PosixTimer]) -> Result<(), ObserveError> {
    if timers.is_empty() {
        return Ok(());
    }
    let threads = live_threads(process)?;
    let records = process.memory.timers(timers.iter().map(|timer| timer.id)).map_err(|error| damaged(process, error))?;
    for (timer, record) in timers.iter_mut().zip(records) {
        let nanoseconds = |ns: i64| u64::try_from(ns).unwrap_or(0);
        timer.interval_ns = nanoseconds(record.interval_ns);
        timer.value_ns = nanoseconds(record.value_ns);
        // What the coordinator has seen already, the agent could not.
        timer.pending = timer.pending.saturating_add(nanoseconds(record.pending));
        let Some(clock) = CpuClock::of(timer.clock).filter(|clock| clock.of_thread && clock.id == 0) else { continue };
        if record.thread == 0 {
            let what = format!(
                "has a timer (id {}) of the processor time of one of its threads, but not even the kernel tells of which",
                timer.id
            );
            return Err(refuse(process, what, "arm it, take its signal, or make it with pthread_getcpuclockid"));
        }
        if !threads.contains(&record.thread) {
            return Err(damaged(process, HandOverError::Thread(record.thread)));
        }
        timer.clock = clock.number_for(record.thread);
    }
    Ok(())
}
