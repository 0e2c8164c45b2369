//! Timers made with their ids when the threads are there, and set when the job goes on.

use ckpt_sys::{probe, timer};
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::{CpuClock, Notify, PosixTimer, TimerSignal};
use crate::NsPid;
use crate::deferred::{Action, Argument, Deferred, OnFailure, Purpose};
use crate::older::KernelFeature;
use crate::rebuild::RebuildError;

/// How many ids may be used up to get at the ones that are wanted: it takes seconds.
const MOST_UNUSED: i32 = 1 << 22;
/// The same of those between timers, where each is two calls.
const MOST_BETWEEN: u64 = 1 << 18;
const SECOND: u64 = 1_000_000_000;

/// How timers get their ids.
enum Ids {
    /// By naming them (Linux 6.15).
    Named,
    /// By counting: a process's timers are numbered in the order in which they are made.
    Counted,
}

impl Ids {
    fn here() -> Self {
        if KernelFeature::TimerIds.is_off() || probe::timer_create_restore_ids().is_err() { Self::Counted } else { Self::Named }
    }
}

/// Uses up the ids before the first timer's, where they cannot be named. The timers of a process outlive what follows.
///
/// # Errors
/// The ids are too large to be counted to, or the process has made timers before.
pub fn prepare(timers: &[PosixTimer]) -> Result<(), RebuildError> {
    let Some(first) = timers.iter().map(|timer| timer.id).min().filter(|_| matches!(Ids::here(), Ids::Counted)) else {
        return Ok(());
    };
    let last = timers.iter().map(|timer| timer.id).max().unwrap_or(first);
    if !(0..MOST_UNUSED).contains(&first) || u64::from(first.abs_diff(last)) > MOST_BETWEEN {
        return Err(RebuildError::call(format!("give a timer its id {last} (Linux 6.15 and later can)"))(
            std::io::Error::from_raw_os_error(libc::ENOTSUP),
        ));
    }
    let nobody = Event::of(Notify::Nobody).words();
    for wanted in 0..first {
        let made = timer::create(nr::CLOCK_MONOTONIC.cast_signed(), &nobody)
            .and_then(|id| timer::delete(id).map(|()| id))
            .map_err(RebuildError::raw("make a timer"))?;
        if made != wanted {
            return Err(RebuildError::call(format!("give the first timer its id {wanted} (it got {made})"))(
                std::io::Error::from_raw_os_error(libc::EEXIST),
            ));
        }
    }
    Ok(())
}

/// `struct sigevent`.
struct Event {
    value: u64,
    signal: i32,
    notify: i32,
    thread: i32,
}

impl Event {
    fn of(notify: Notify) -> Self {
        match notify {
            Notify::Nobody => Self { value: 0, signal: 0, notify: libc::SIGEV_NONE, thread: 0 },
            Notify::Process(TimerSignal { number, value }) => {
                Self { value, signal: number, notify: libc::SIGEV_SIGNAL, thread: 0 }
            }
            Notify::Thread { tid, signal } => {
                Self { value: signal.value, signal: signal.number, notify: libc::SIGEV_THREAD_ID, thread: tid }
            }
        }
    }

    fn words(&self) -> [u64; 8] {
        let pair = |low: i32, high: i32| u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32;
        [self.value, pair(self.signal, self.notify), pair(self.thread, 0), 0, 0, 0, 0, 0]
    }
}

/// Calls that make the timers. The threads that they tell, or measure, must be there.
#[must_use]
pub fn rebuild(timers: &[PosixTimer]) -> Deferred {
    let mut deferred = Deferred::default();
    let mut timers: Vec<&PosixTimer> = timers.iter().collect();
    timers.sort_by_key(|timer| timer.id);
    let Some(mut next) = timers.first().map(|timer| timer.id) else { return deferred };
    let named = matches!(Ids::here(), Ids::Named);
    let naming = |deferred: &mut Deferred, how: u32| {
        make(deferred, nr::__NR_prctl, &[prctl::PR_TIMER_CREATE_RESTORE_IDS.into(), how.into()]);
    };
    let nobody = deferred.put_words(&Event::of(Notify::Nobody).words());
    let scratch = deferred.put_words(&[0; 4]);
    if named {
        naming(&mut deferred, prctl::PR_TIMER_CREATE_RESTORE_IDS_ON);
    }
    for timer in timers {
        while !named && next < timer.id {
            make(&mut deferred, nr::__NR_timer_create, &[nr::CLOCK_MONOTONIC.into(), nobody, scratch]);
            make(&mut deferred, nr::__NR_timer_delete, &[next.into()]);
            next += 1;
        }
        next = timer.id + 1;
        let event = deferred.put_words(&Event::of(timer.notify).words());
        let id = deferred.put(&timer.id.to_ne_bytes());
        let clock = Argument::Value(i64::from(clock_here(timer.clock)).cast_unsigned());
        make(&mut deferred, nr::__NR_timer_create, &[clock, event, id]);
        // It must have got that id.
        make(&mut deferred, nr::__NR_timer_gettime, &[timer.id.into(), scratch]);
    }
    if named {
        naming(&mut deferred, prctl::PR_TIMER_CREATE_RESTORE_IDS_OFF);
    }
    deferred
}

fn make(deferred: &mut Deferred, nr: u32, args: &[Argument]) {
    deferred.call(Purpose::MakeTimer, OnFailure::Fail, nr, args);
}

/// The clock itself, or, where this machine or this user cannot have timers that wake a sleeping machine, its like that does not.
/// The kernel wants a clock of real time for them, which only `clock_getres` tells (`alarm_clock_getres`, kernel/time/alarmtimer.c),
/// and a capability, which a timerfd needs as well.
fn clock_here(clock: i32) -> i32 {
    let (like, descriptor) = match clock {
        libc::CLOCK_REALTIME_ALARM => (libc::CLOCK_REALTIME, TimerfdClockId::RealtimeAlarm),
        libc::CLOCK_BOOTTIME_ALARM => (libc::CLOCK_BOOTTIME, TimerfdClockId::BoottimeAlarm),
        other => return other,
    };
    let can = timer::resolution(clock).is_ok() && timerfd_create(descriptor, TimerfdFlags::CLOEXEC).is_ok();
    if can { clock } else { like }
}

/// Calls that set the timers of process `pid` going, when the job does.
#[must_use]
pub fn arm(timers: &[PosixTimer], pid: NsPid) -> Deferred {
    let mut deferred = Deferred::default();
    for timer in timers.iter().filter(|timer| timer.value_ns > 0 || timer.interval_ns > 0 || timer.pending > 0) {
        if timer.pending == 0 {
            set(&mut deferred, timer, 0, timer.value_ns.max(1));
        } else if timer.interval_ns == 0 {
            // Any time that is long past: it sends its signal at once.
            set(&mut deferred, timer, nr::TIMER_ABSTIME, 1);
        } else if CpuClock::of(timer.clock).is_none() && clock_reads(timer.clock) > timer.waits_since_ns() {
            set_back(&mut deferred, timer);
        } else {
            // The clock began too late for that: the signal is sent by hand.
            set(&mut deferred, timer, 0, timer.value_ns.max(1));
            send(&mut deferred, timer, pid);
        }
    }
    deferred
}

fn parts(ns: u64) -> [u64; 2] {
    [ns / SECOND, ns % SECOND]
}

fn set(deferred: &mut Deferred, timer: &PosixTimer, flags: u32, value_ns: u64) {
    let setting = deferred.put_words(&[parts(timer.interval_ns), parts(value_ns)].concat());
    deferred.call(Purpose::Timer, OnFailure::Report, nr::__NR_timer_settime, &[timer.id.into(), flags.into(), setting]);
}

/// Set to when it expired first, a timer sends its signal, and counts what was missed as before.
fn set_back(deferred: &mut Deferred, timer: &PosixTimer) {
    deferred.put_words(&parts(timer.interval_ns));
    let at = deferred.data.len();
    deferred.put_words(&[0, 0]);
    let clock = [timer.clock.into(), Argument::At(at)];
    deferred.call(Purpose::Timer, OnFailure::Report, nr::__NR_clock_gettime, &clock);
    deferred.actions.push(Action::Backdate { at, by: parts(timer.waits_since_ns()) });
    let args = [timer.id.into(), nr::TIMER_ABSTIME.into(), Argument::At(at - 16)];
    deferred.call(Purpose::Timer, OnFailure::Report, nr::__NR_timer_settime, &args);
}

/// What a clock reads now, in nanoseconds; it only grows.
fn clock_reads(clock: i32) -> u64 {
    let [seconds, nanoseconds] = timer::now(clock).unwrap_or_default();
    seconds.saturating_mul(SECOND).saturating_add(nanoseconds)
}

fn send(deferred: &mut Deferred, timer: &PosixTimer, pid: NsPid) {
    let (signal, tid) = match timer.notify {
        Notify::Nobody => return,
        Notify::Process(signal) => (signal, None),
        Notify::Thread { tid, signal } => (signal, Some(tid)),
    };
    let low = |number: i32| u64::from(number.cast_unsigned());
    let overrun = (timer.pending - 1).min(i32::MAX as u64);
    // siginfo_t: si_signo, si_errno; si_code, padding; si_timerid, si_overrun; si_value.
    let mut info = [0u64; 16];
    info[..4].copy_from_slice(&[low(signal.number), low(nr::SI_TIMER), low(timer.id) | overrun << 32, signal.value]);
    let info = deferred.put_words(&info);
    let (call, args) = match tid {
        Some(tid) => (nr::__NR_rt_tgsigqueueinfo, vec![pid.0.into(), tid.into(), signal.number.into(), info]),
        None => (nr::__NR_rt_sigqueueinfo, vec![pid.0.into(), signal.number.into(), info]),
    };
    deferred.call(Purpose::PendingSignal, OnFailure::Report, call, &args);
}
