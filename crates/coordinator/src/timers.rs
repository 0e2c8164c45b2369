//! Timers of timer_create(2): what `/proc` shows of them when the job is frozen, joined with what the agent finds out at last.

use std::collections::HashMap;

use ckpt_objects::observe::ObserveError;
use ckpt_objects::posix_timer::{self, CpuClock, Notify, PosixTimer, Target, TimerSignal};
use ckpt_objects::process::Status;
use ckpt_objects::{HostPid, NsPid};
use ckpt_wire::TimerRecord;

use crate::freeze::FrozenProcess;
use crate::survey::refuse;

/// The timers of a process, but for how they stand; its agent is told which there are.
pub fn describe(process: &FrozenProcess, pids: &HashMap<HostPid, NsPid>) -> Result<Vec<PosixTimer>, ObserveError> {
    let Some(seen) = posix_timer::observe(process.live)? else { return Ok(Vec::new()) };
    let records: Vec<TimerRecord> = seen
        .iter()
        .map(|timer| TimerRecord { id: timer.id, clock: timer.clock, signal: timer.signal, ..TimerRecord::default() })
        .collect();
    if !process.memory.set_timers(&records) {
        let what = format!("has {} timers of timer_create(2)", records.len());
        return Err(refuse(process, what, "delete some before a checkpoint"));
    }
    let threads: Vec<i32> = process.memory.threads().iter().filter(|thread| !thread.exited).map(|thread| thread.tid).collect();
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

/// Adds how the timers stand, when the agent has looked.
pub fn complete(process: &FrozenProcess, timers: &mut [PosixTimer]) -> Result<(), ObserveError> {
    if timers.is_empty() {
        return Ok(());
    }
    for (timer, record) in timers.iter_mut().zip(process.memory.timers()) {
        let nanoseconds = |ns: i64| u64::try_from(ns).unwrap_or(0);
        timer.interval_ns = nanoseconds(record.interval_ns);
        timer.value_ns = nanoseconds(record.value_ns);
        timer.pending = nanoseconds(record.pending);
        let Some(clock) = CpuClock::of(timer.clock).filter(|clock| clock.of_thread && clock.id == 0) else { continue };
        if record.thread == 0 {
            let what = format!(
                "has a timer (id {}) of the processor time of one of its threads, but not even the kernel tells of which",
                timer.id
            );
            return Err(refuse(process, what, "arm it, take its signal, or make it with pthread_getcpuclockid"));
        }
        timer.clock = clock.number_for(record.thread);
    }
    Ok(())
}
