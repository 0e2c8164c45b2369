//! Timers of timer_create(2), by operations of the restorer: made with their ids when the threads are there, set when the job goes on.

use ckpt_objects::older::KernelFeature;
use ckpt_objects::posix_timer::{CpuClock, Notify, PosixTimer, TimerSignal};
use ckpt_sys::raw::Errno;
use ckpt_sys::{probe, timer};
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl;

use crate::error::ProcessError;
use crate::restorer::{Check, Operations, Region, Step};

/// How many ids may be used up to get at the ones that are wanted: it takes seconds.
const MOST_UNUSED: i32 = 1 << 22;
/// The same of those between timers, where each is two operations.
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

/// Bytes that the operations take in the region.
#[must_use]
pub fn room(timers: &[PosixTimer]) -> u64 {
    let between = match (timers.iter().map(|timer| timer.id).min(), timers.iter().map(|timer| timer.id).max()) {
        (Some(first), Some(last)) if matches!(Ids::here(), Ids::Counted) => u64::from(first.abs_diff(last)),
        _ => 0,
    };
    timers.len() as u64 * 2048 + between.min(MOST_BETWEEN) * 256
}

/// Uses up the ids before the first timer's, where they cannot be named. The timers of a process outlive what follows.
pub fn prepare(timers: &[PosixTimer]) -> Result<(), ProcessError> {
    let Some(first) = timers.iter().map(|timer| timer.id).min().filter(|_| matches!(Ids::here(), Ids::Counted)) else {
        return Ok(());
    };
    let last = timers.iter().map(|timer| timer.id).max().unwrap_or(first);
    if !(0..MOST_UNUSED).contains(&first) || u64::from(first.abs_diff(last)) > MOST_BETWEEN {
        return Err(ProcessError::call(format!("give a timer its id {last} (Linux 6.15 and later can)"))(
            std::io::Error::from_raw_os_error(libc::ENOTSUP),
        ));
    }
    let nobody = Event::of(Notify::Nobody).words();
    for wanted in 0..first {
        let id = timer::create(nr::CLOCK_MONOTONIC.cast_signed(), &nobody)
            .and_then(|id| timer::delete(id).map(|()| id))
            .map_err(ProcessError::raw("make a timer"))?;
        if id != wanted {
            return Err(ProcessError::Identity { what: "first timer", got: id, wanted });
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

/// Operations that make the timers. The threads that they tell, or measure, must be there.
pub fn make(region: &mut Region, list: &mut Operations, timers: &[PosixTimer]) -> Result<(), ProcessError> {
    if timers.is_empty() {
        return Ok(());
    }
    let mut timers: Vec<&PosixTimer> = timers.iter().collect();
    timers.sort_by_key(|timer| timer.id);
    let ids = Ids::here();
    let naming = |list: &mut Operations, how: u32| {
        let args = [prctl::PR_TIMER_CREATE_RESTORE_IDS.into(), how.into(), 0, 0, 0];
        list.call(Step::MakeTimer, Check::Success, nr::__NR_prctl, &args);
    };
    let nobody = region.put_words(&Event::of(Notify::Nobody).words())?;
    let scratch = region.put_words(&[0; 4])?;
    if matches!(ids, Ids::Named) {
        naming(list, prctl::PR_TIMER_CREATE_RESTORE_IDS_ON);
    }
    let mut next = timers.first().map_or(0, |timer| timer.id);
    for timer in timers {
        while matches!(ids, Ids::Counted) && next < timer.id {
            let clock = u64::from(nr::CLOCK_MONOTONIC);
            list.call(Step::MakeTimer, Check::Success, nr::__NR_timer_create, &[clock, nobody, scratch]);
            list.call(Step::MakeTimer, Check::Success, nr::__NR_timer_delete, &[u64::from(next.cast_unsigned())]);
            next += 1;
        }
        next = timer.id + 1;
        let event = region.put_words(&Event::of(timer.notify).words())?;
        let id = region.put(&timer.id.to_ne_bytes())?;
        let clock = i64::from(clock_here(timer.clock)).cast_unsigned();
        list.call(Step::MakeTimer, Check::Success, nr::__NR_timer_create, &[clock, event, id]);
        // That it has the id that it should.
        let args = [u64::from(timer.id.cast_unsigned()), scratch];
        list.call(Step::MakeTimer, Check::Success, nr::__NR_timer_gettime, &args);
    }
    if matches!(ids, Ids::Named) {
        naming(list, prctl::PR_TIMER_CREATE_RESTORE_IDS_OFF);
    }
    Ok(())
}

/// The clock itself, or, where this machine or this user cannot have timers that wake a sleeping machine, its like that does not.
#[expect(unsafe_code, reason = "a fork where the job's root may have no /proc to count threads in")]
fn clock_here(clock: i32) -> i32 {
    let like = match clock {
        libc::CLOCK_REALTIME_ALARM => libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME_ALARM => libc::CLOCK_BOOTTIME,
        other => return other,
    };
    let nobody = Event::of(Notify::Nobody).words();
    // In a child, whose timers are its own.
    // SAFETY: this process has one thread; the child makes one call, whose pointers live over it, and ends.
    let can = match unsafe { ckpt_sys::fork::fork(0, None) } {
        Ok(ckpt_sys::fork::Fork::Child) => ckpt_sys::child::exit(i32::from(timer::create(clock, &nobody).is_err())),
        Ok(ckpt_sys::fork::Fork::Parent(child)) => {
            let child = rustix::process::Pid::from_raw(child);
            let ended = rustix::process::waitpid(child, rustix::process::WaitOptions::empty());
            ended.is_ok_and(|status| status.is_some_and(|(_, status)| status.exit_status() == Some(0)))
        }
        Err(Errno(_)) => false,
    };
    if can { clock } else { like }
}

/// Operations that set the timers going, when the job does.
pub fn start(region: &mut Region, list: &mut Operations, timers: &[PosixTimer], pid: i32) -> Result<(), ProcessError> {
    let parts = |ns: u64| [ns / SECOND, ns % SECOND];
    for timer in timers.iter().filter(|timer| timer.value_ns > 0 || timer.interval_ns > 0 || timer.pending > 0) {
        let id = u64::from(timer.id.cast_unsigned());
        let set = |list: &mut Operations, flags: u64, setting: u64| {
            list.call(Step::Timer, Check::Report, nr::__NR_timer_settime, &[id, flags, setting, 0]);
        };
        let setting =
            |region: &mut Region, value_ns: u64| region.put_words(&[parts(timer.interval_ns), parts(value_ns)].concat());
        if timer.pending == 0 {
            set(list, 0, setting(region, timer.value_ns.max(1))?);
        } else if timer.interval_ns == 0 {
            // Any time that is long past: it sends its signal at once.
            set(list, nr::TIMER_ABSTIME.into(), setting(region, 1)?);
        } else if CpuClock::of(timer.clock).is_none() && clock_reads(timer.clock) > timer.waits_since_ns() {
            // Set back to when it expired first, it sends its signal, and counts what was missed as before.
            let setting = setting(region, 0)?;
            let clock = u64::from(timer.clock.cast_unsigned());
            list.call(Step::Timer, Check::Report, nr::__NR_clock_gettime, &[clock, setting + 16]);
            list.backdate(setting + 16, parts(timer.waits_since_ns()));
            set(list, nr::TIMER_ABSTIME.into(), setting);
        } else {
            // The clock began too late for that: the signal is sent by hand.
            set(list, 0, setting(region, timer.value_ns.max(1))?);
            send(region, list, timer, pid)?;
        }
    }
    Ok(())
}

/// What a clock reads now, in nanoseconds; it only grows.
fn clock_reads(clock: i32) -> u64 {
    let now = timer::now(clock).unwrap_or_default();
    now[0].saturating_mul(SECOND).saturating_add(now[1])
}

fn send(region: &mut Region, list: &mut Operations, timer: &PosixTimer, pid: i32) -> Result<(), ProcessError> {
    let (signal, tid) = match timer.notify {
        Notify::Nobody => return Ok(()),
        Notify::Process(signal) => (signal, None),
        Notify::Thread { tid, signal } => (signal, Some(tid)),
    };
    let low = |number: i32| u64::from(number.cast_unsigned());
    let overrun = u64::from(u32::try_from(timer.pending - 1).unwrap_or(i32::MAX as u32).min(i32::MAX as u32));
    // siginfo_t: si_signo, si_errno; si_code, padding; si_timerid, si_overrun; si_value.
    let mut info = [0u64; 16];
    info[..4].copy_from_slice(&[low(signal.number), low(nr::SI_TIMER), low(timer.id) | overrun << 32, signal.value]);
    let info = region.put_words(&info)?;
    match tid {
        Some(tid) => {
            let args = [low(pid), low(tid), low(signal.number), info];
            list.call(Step::PendingSignal, Check::Report, nr::__NR_rt_tgsigqueueinfo, &args);
        }
        None => list.call(Step::PendingSignal, Check::Report, nr::__NR_rt_sigqueueinfo, &[low(pid), low(signal.number), info]),
    }
    Ok(())
}
