//! Observing timers: `/proc/PID/timers` shows which there are when the job is frozen ([`observe`]); the agent finds out how they stand
//! when it records pending signals ([`complete`]).

use std::io::{self, ErrorKind};

use ckpt_wire::TimerRecord;

use super::{CpuClock, Notify, PosixTimer, TimerSignal};
use crate::observe::{ObserveError, parse_error, read_proc};
use crate::older::KernelFeature;
use crate::process::Status;
use crate::subject::{Arg, Subject};
use crate::{HostPid, NsPid};

/// How many numbers of timers are tried where the kernel does not list them.
const MOST_LOOKS: i32 = 10_000;

/// A timer as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenTimer {
    id: i32,
    clock: i32,
    signal: i32,
    /// What comes with the signal.
    value: u64,
    target: Target,
}

/// Whom a timer tells, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Nobody,
    Process,
    /// A thread, which may have ended.
    Thread(HostPid),
}

/// The timers of a process, but for how they stand, and what its agent is told to look at. `threads` are its living threads; `is_known`
/// tells the processes of the job.
///
/// # Errors
///
/// When the kernel does not describe a timer, or a clock is none of the job's.
pub fn observe<S: Subject>(
    process: &S,
    threads: &[NsPid],
    is_known: impl Fn(NsPid) -> bool,
) -> Result<(Vec<PosixTimer>, Vec<TimerRecord>), ObserveError> {
    let shown = if KernelFeature::TimerList.is_off() { None } else { list(process.live())? };
    let Some(seen) = shown else {
        if has_any(process).unwrap_or(false) {
            let what = "has a timer of timer_create(2), which this kernel (without CONFIG_CHECKPOINT_RESTORE) does not describe";
            return Err(process.refuse(what, "delete it before a checkpoint, or use setitimer or timerfd"));
        }
        return Ok((Vec::new(), Vec::new()));
    };
    for timer in &seen {
        let measured = CpuClock::of(timer.clock).filter(|clock| clock.id != 0);
        let is_ours = |clock: CpuClock| {
            let id = NsPid(clock.id);
            if clock.of_thread { threads.contains(&id) } else { is_known(id) }
        };
        if !measured.is_none_or(is_ours) {
            let what = format!(
                "has a timer (id {}) of the processor time of a thread that has ended, or of a process outside of the job",
                timer.id
            );
            return Err(process.refuse(what, "delete it before a checkpoint"));
        }
    }
    let state = |timer: &SeenTimer| PosixTimer {
        id: timer.id,
        clock: timer.clock,
        notify: notify(process.pid(), timer, threads),
        interval_ns: 0,
        value_ns: 0,
        pending: 0,
    };
    let record =
        |timer: &SeenTimer| TimerRecord { id: timer.id, clock: timer.clock, signal: timer.signal, ..TimerRecord::default() };
    Ok((seen.iter().map(state).collect(), seen.iter().map(record).collect()))
}

fn notify(pid: HostPid, timer: &SeenTimer, threads: &[NsPid]) -> Notify {
    let signal = TimerSignal { number: timer.signal, value: timer.value };
    match timer.target {
        Target::Nobody => Notify::Nobody,
        Target::Process => Notify::Process(signal),
        // A timer whose thread has ended tells nobody any more.
        Target::Thread(tid) => Status::of_thread(pid, tid)
            .ok()
            .map(|status| status.ns_pid())
            .filter(|tid| threads.contains(tid))
            .map_or(Notify::Nobody, |tid| Notify::Thread { tid: tid.0, signal }),
    }
}

/// Adds how the timers stand, when the agent has looked. `check` fails for what is no living thread of the process.
///
/// # Errors
///
/// When a timer measures the processor time of one thread, and the kernel does not tell which.
pub fn complete<S: Subject>(
    process: &S,
    timers: &mut [PosixTimer],
    records: &[TimerRecord],
    check: impl Fn(NsPid) -> Result<(), ObserveError>,
) -> Result<(), ObserveError> {
    for (timer, record) in timers.iter_mut().zip(records) {
        let nanoseconds = |ns: i64| u64::try_from(ns).unwrap_or(0);
        timer.interval_ns = nanoseconds(record.interval_ns);
        timer.value_ns = nanoseconds(record.value_ns);
        // What the coordinator has seen already, the agent could not.
        timer.pending = timer.pending.saturating_add(nanoseconds(record.pending));
        let Some(clock) = CpuClock::of(timer.clock).filter(|clock| clock.of_thread && clock.id == 0) else { continue };
        if record.thread == 0 {
            let what = format!(
                "has a timer (id {}) of the processor time of one of its threads, and not even the kernel tells which",
                timer.id
            );
            return Err(process.refuse(what, "arm it, take its signal, or make it with pthread_getcpuclockid"));
        }
        check(NsPid(record.thread))?;
        timer.clock = clock.number_for(record.thread);
    }
    Ok(())
}

/// Whether a process has timers, where the kernel does not list them. Their numbers rise: a new timer's is above all others.
fn has_any<S: Subject>(process: &S) -> io::Result<bool> {
    if !process.makes_calls() {
        return Ok(false);
    }
    // struct sigevent in the window, and behind it the number, and the time that is left.
    process.put(
        &[0, (libc::SIGEV_NONE as u64) << 32, 0, 0, 0, 0, 0, 0]
            .iter()
            .flat_map(|word: &u64| word.to_ne_bytes())
            .collect::<Vec<_>>(),
    );
    process.call(libc::SYS_timer_create, &[libc::CLOCK_MONOTONIC.into(), Arg::Window(0), Arg::Window(64)])?;
    let bytes = process.get(68);
    let new = bytes[64..].iter().rev().fold(0, |value, byte| value << 8 | i32::from(*byte));
    process.call(libc::SYS_timer_delete, &[new.into()])?;
    Ok((0..new.min(MOST_LOOKS)).any(|id| process.call(libc::SYS_timer_gettime, &[id.into(), Arg::Window(64)]).is_ok()))
}

/// The timers of a process; nothing where this kernel does not show them.
fn list(pid: HostPid) -> Result<Option<Vec<SeenTimer>>, ObserveError> {
    let text = match read_proc(pid, "timers") {
        Err(ObserveError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    parse(&text).map(Some).map_err(|line| parse_error(pid, "timers", &line))
}

/// Four lines for each: `ID: 1`, `signal: 60/00007fff86e452a8`, `notify: signal/pid.2634`, `ClockID: 0`.
fn parse(text: &[u8]) -> Result<Vec<SeenTimer>, Vec<u8>> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(4).map(|lines| parse_timer(lines).ok_or_else(|| lines.join(" ").into_bytes())).collect()
}

fn parse_timer(lines: &[&str]) -> Option<SeenTimer> {
    let field = |at: usize, key: &str| lines.get(at)?.strip_prefix(key).map(str::trim);
    let (signal, value) = field(1, "signal:")?.split_once('/')?;
    let (how, whom) = field(2, "notify:")?.split_once('/')?;
    let target = match (how, whom.split_once('.')?) {
        ("none", _) => Target::Nobody,
        (_, ("tid", tid)) => Target::Thread(HostPid(tid.parse().ok()?)),
        _ => Target::Process,
    };
    Some(SeenTimer {
        id: field(0, "ID:")?.parse().ok()?,
        clock: field(3, "ClockID:")?.parse().ok()?,
        signal: signal.parse().ok()?,
        value: u64::from_str_radix(value, 16).ok()?,
        target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_timers_of_every_notification() {
        let text = b"ID: 7\nsignal: 37/1122334455667788\nnotify: signal/pid.23668\nClockID: 1\n\
                     ID: 0\nsignal: 32/00007fff00000000\nnotify: signal/tid.99\nClockID: -2\n\
                     ID: 2\nsignal: 0/0000000000000000\nnotify: none/pid.5\nClockID: 0\n";
        let timers = parse(text).unwrap();
        let seen: Vec<_> = timers.iter().map(|timer| (timer.id, timer.clock, timer.signal, timer.target)).collect();
        let wanted = [(7, 1, 37, Target::Process), (0, -2, 32, Target::Thread(HostPid(99))), (2, 0, 0, Target::Nobody)];
        assert_eq!(seen, wanted);
        assert_eq!(timers[0].value, 0x1122_3344_5566_7788);
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"ID: 7\nsignal: 37\n").is_err());
    }
}
