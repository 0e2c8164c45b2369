//! Timers of timer_create(2): the time that is left and the expirations that wait are told only to the process itself.
//!
//! The signal of a timer that has expired is a part of the timer: while it waits to be taken, further expirations are counted in it. To record
//! the count it must be taken out of its queue. It cannot be queued again by hand, since that would be another signal, beside which the timer's own would
//! come too; so the timer is set back to the moment when it first expired ([`fire_again`]), and sends it again.

use ckpt_sys::syscall;
use ckpt_wire::TimerRecord;
use linux_raw_sys::general as nr;

use crate::procfs::signal_set;
use crate::shared::Shared;

const SECOND: i64 = 1_000_000_000;
/// A time that no timer reaches which is set only to see whether its clock runs: a year.
const FAR: i64 = 365 * 86_400 * SECOND;
/// How often a thread looks whether a clock goes on while it runs.
const LOOKS: u32 = 1000;
/// How often the signal of one timer is taken before the timer is stopped: one with a period that is shorter than it takes to look would never be done.
const TAKEN_WHILE_RUNNING: u32 = 2;
/// Enough to take longer than the longest tick, 10 ms.
const LOOKS_OVER_A_TICK: u32 = 200_000;

/// `struct itimerspec`.
#[repr(C)]
#[derive(Default)]
struct Setting {
    interval: [i64; 2],
    value: [i64; 2],
}

impl Setting {
    fn of(interval_ns: i64, value_ns: i64) -> Self {
        let parts = |ns: i64| [ns / SECOND, ns % SECOND];
        Self { interval: parts(interval_ns), value: parts(value_ns) }
    }
}

fn nanoseconds([seconds, rest]: [i64; 2]) -> i64 {
    seconds.saturating_mul(SECOND).saturating_add(rest)
}

/// Period and time left in nanoseconds.
fn get(id: i32) -> Option<(i64, i64)> {
    let mut setting = Setting::default();
    // SAFETY: the setting is writable.
    unsafe { syscall!(nr::__NR_timer_gettime, id, &raw mut setting) }.ok()?;
    Some((nanoseconds(setting.interval), nanoseconds(setting.value)))
}

fn set(id: i32, flags: u32, setting: &Setting) {
    // SAFETY: the setting lives over the call, which writes nothing back.
    let _ = unsafe { syscall!(nr::__NR_timer_settime, id, flags, &raw const *setting, 0) };
}

/// Whether a clock is that of the thread that made the timer (include/linux/posix-timers.h: pid 0, `CPUCLOCK_PERTHREAD`).
fn is_own_clock(clock: i32) -> bool {
    (-4..=-2).contains(&clock)
}

/// Whether there are timers that measure the processor time of a thread not yet known.
pub fn any_without_thread(shared: &Shared) -> bool {
    shared.timers().iter().any(|timer| is_own_clock(timer.clock) && timer.thread == 0)
}

/// Records how each timer stands.
pub fn record(shared: &Shared) {
    for timer in shared.timers() {
        timer.pending = 0;
        timer.taken = 0;
        timer.thread = 0;
        if let Some((interval, value)) = get(timer.id) {
            (timer.interval_ns, timer.value_ns) = (interval, value);
        }
        // SAFETY: takes a number only.
        timer.overrun = unsafe { syscall!(nr::__NR_timer_getoverrun, timer.id) }.unwrap_or(0) as i32;
    }
}

/// Records how each timer of setitimer(2) stands: period and time left, in microseconds.
pub fn record_interval_timers(timers: &mut [[u64; 2]; 3]) {
    for (which, timer) in timers.iter_mut().enumerate() {
        let mut value = [0u64; 4];
        // SAFETY: the call writes a `struct itimerval`, four numbers of this size.
        let _ = unsafe { syscall!(nr::__NR_getitimer, which, value.as_mut_ptr()) };
        *timer = [value[0] * 1_000_000 + value[1], value[2] * 1_000_000 + value[3]];
    }
}

/// Finds the timers that measure the calling thread's own processor time: their time runs down while it runs. All threads that were asked before
/// have found theirs, and all that will be asked later sleep.
pub fn find_own(shared: &Shared, tid: i32) {
    let alone = shared.threads_len() == 1;
    for timer in shared.timers() {
        if is_own_clock(timer.clock) && timer.thread == 0 && (alone || follows_us(timer, tid)) {
            timer.thread = tid;
        }
    }
}

fn follows_us(timer: &TimerRecord, tid: i32) -> bool {
    let armed = timer.value_ns != 0;
    if !armed {
        // To set the timer would drop its pending signal. Its thread stays unknown then.
        let pending = signal_set(tid, b"SigPnd:") | signal_set(tid, b"ShdPnd:");
        if pending.contains(timer.signal) {
            return false;
        }
        set(timer.id, 0, &Setting::of(0, FAR));
    }
    let before = get(timer.id);
    // One that is about to expire reads 1 until the next tick of its own thread.
    let looks = if before.is_some_and(|(_, value)| value == 1) { LOOKS_OVER_A_TICK } else { LOOKS };
    let follows = (0..looks).any(|_| get(timer.id) != before);
    if !armed {
        set(timer.id, 0, &Setting::default());
    }
    follows
}

/// Notes a signal that was taken out of its queue, if it is a timer's.
pub fn note_pending(shared: &Shared, info: &[u64; 16]) -> bool {
    // siginfo_t: si_signo, si_errno; si_code, padding; si_timerid, si_overrun.
    let (code, id, overrun) = (info[1] as i32, info[2] as i32, (info[2] >> 32) as i32);
    if code != nr::SI_TIMER {
        return false;
    }
    let Some(timer) = shared.timers().iter_mut().find(|timer| timer.id == id) else { return false };
    timer.pending = timer.pending.saturating_add(1).saturating_add(i64::from(overrun.max(0)));
    // One that has been stopped stands as it stood then.
    if let Some((_, value)) = get(id).filter(|&(_, value)| timer.interval_ns == 0 || value != 0) {
        timer.value_ns = value;
    }
    timer.taken = timer.taken.saturating_add(1);
    if timer.interval_ns != 0 && timer.taken > TAKEN_WHILE_RUNNING {
        set(id, 0, &Setting::default());
    }
    true
}

/// Has each timer whose signal was taken send it again, with as many expirations as before.
pub fn fire_again(shared: &Shared) {
    for timer in shared.timers() {
        if timer.pending > 0 {
            // A timer without a period may be set to any time that is long past.
            let first = first_expiration(timer).unwrap_or(1);
            set(timer.id, nr::TIMER_ABSTIME, &Setting::of(timer.interval_ns, first));
        }
    }
}

/// When a timer with a period and a pending signal expired first, by its clock.
fn first_expiration(timer: &TimerRecord) -> Option<i64> {
    if timer.interval_ns == 0 {
        return None;
    }
    // A thread's clock by its number, which any thread of the process may read.
    let clock = if is_own_clock(timer.clock) && timer.thread != 0 { !timer.thread << 3 | timer.clock & 7 } else { timer.clock };
    let mut now = [0i64; 2];
    // SAFETY: the time is writable.
    unsafe { syscall!(nr::__NR_clock_gettime, clock, now.as_mut_ptr()) }.ok()?;
    let left = get(timer.id).map_or(0, |(_, left)| left);
    let left = if left == 0 { timer.value_ns } else { left };
    let since = timer.interval_ns.checked_mul(timer.pending)?;
    nanoseconds(now).checked_add(left)?.checked_sub(since).filter(|&first| first > 0)
}
