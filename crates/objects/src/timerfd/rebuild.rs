//! Rebuilds timerfds.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ckpt_sys::descriptor::timerfd_set_ticks;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

use super::{TimerfdState, now_ns};
use crate::event::{self, failed};
use crate::rebuild::RebuildError;

/// Makes a timerfd with its clock and status flags. It does not run yet: see [`start`].
///
/// # Errors
/// The clock is unknown, or no descriptor is left.
pub fn rebuild(state: &TimerfdState, flags: u32) -> Result<OwnedFd, RebuildError> {
    let (clock, without_alarm) = match state.clock {
        libc::CLOCK_REALTIME => (TimerfdClockId::Realtime, None),
        libc::CLOCK_MONOTONIC => (TimerfdClockId::Monotonic, None),
        libc::CLOCK_BOOTTIME => (TimerfdClockId::Boottime, None),
        libc::CLOCK_REALTIME_ALARM => (TimerfdClockId::RealtimeAlarm, Some(TimerfdClockId::Realtime)),
        libc::CLOCK_BOOTTIME_ALARM => (TimerfdClockId::BoottimeAlarm, Some(TimerfdClockId::Boottime)),
        _ => return Err(failed("make a timerfd of an unknown clock")(Errno::INVAL)),
    };
    let make = |clock| timerfd_create(clock, TimerfdFlags::CLOEXEC);
    let fd = match (make(clock), without_alarm) {
        // Waking a machine that is suspended is a privilege, and no machine that restarts a job is.
        (Err(Errno::PERM), Some(clock)) => make(clock),
        (made, _) => made,
    }
    .map_err(failed("make a timerfd"))?;
    event::set_flags(&fd, flags).map_err(failed("set the flags of a timerfd"))?;
    Ok(fd)
}

/// Sets a timer that [`rebuild`] made to what it was, from now on.
///
/// # Errors
/// A time is out of range.
pub fn start(fd: impl AsFd, state: &TimerfdState) -> Result<(), RebuildError> {
    let remaining = match state {
        // It has expired at an unknown time: the period begins anew.
        TimerfdState { remaining_ns: 0, interval_ns, ticks: 1.., .. } => *interval_ns,
        TimerfdState { remaining_ns, .. } => *remaining_ns,
    };
    let absolute = state.flags & libc::TFD_TIMER_ABSTIME.cast_unsigned() != 0;
    let value = match state.deadline_ns {
        Some(deadline) => deadline,
        None if absolute && remaining > 0 => now_ns(state.clock).saturating_add(remaining),
        None => remaining,
    };
    set(&fd, state.flags, value, state.interval_ns)?;
    if state.ticks > 0 && timerfd_set_ticks(fd.as_fd().as_raw_fd(), state.ticks).is_err() {
        set_overdue(&fd, state)?;
    }
    Ok(())
}

/// Lets a timer expire at once as if it had been set so long ago that its expirations were missed: for kernels that cannot just be told.
fn set_overdue(fd: impl AsFd, state: &TimerfdState) -> Result<(), RebuildError> {
    let next = now_ns(state.clock).saturating_add(state.remaining_ns);
    let missed = state.ticks.saturating_mul(state.interval_ns);
    // A timer without a period is overdue at any time that has passed. Time 0 would disarm it.
    let first = if missed == 0 { 1 } else { next.saturating_sub(missed).max(1) };
    set(fd, state.flags | libc::TFD_TIMER_ABSTIME.cast_unsigned(), first, state.interval_ns)
}

fn set(fd: impl AsFd, flags: u32, value_ns: u64, interval_ns: u64) -> Result<(), RebuildError> {
    let time = |ns: u64| Timespec { tv_sec: (ns / 1_000_000_000).cast_signed(), tv_nsec: (ns % 1_000_000_000).cast_signed() };
    let new = Itimerspec { it_value: time(value_ns), it_interval: time(interval_ns) };
    timerfd_settime(fd, TimerfdTimerFlags::from_bits_retain(flags), &new).map(|_| ()).map_err(failed("set a timerfd"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{OFlags, fcntl_getfl};

    use super::super::observe;
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    const NONBLOCK: u32 = OFlags::NONBLOCK.bits() | OFlags::RDWR.bits();

    fn ticks(fd: &OwnedFd) -> Option<u64> {
        let mut ticks = [0; 8];
        rustix::io::read(fd, &mut ticks).ok().map(|_| u64::from_ne_bytes(ticks))
    }

    /// Rebuilds a state, and observes what has come of it.
    fn round_trip(state: &TimerfdState) -> (OwnedFd, TimerfdState) {
        let fd = rebuild(state, NONBLOCK).unwrap();
        start(&fd, state).unwrap();
        let seen = observe(&event::seen(&fd)).unwrap();
        (fd, seen)
    }

    fn state(clock: i32, flags: i32, remaining_ns: u64, interval_ns: u64, ticks: u64) -> TimerfdState {
        TimerfdState { clock, flags: flags.cast_unsigned(), remaining_ns, interval_ns, ticks, deadline_ns: None }
    }

    /// Equal but for the time that has passed since, which is less than a minute.
    fn check(seen: TimerfdState, wanted: TimerfdState) {
        let passed = wanted.remaining_ns - seen.remaining_ns;
        assert!(passed < 60_000_000_000 && (passed > 0 || wanted.remaining_ns == 0), "{seen:?}");
        assert_eq!(TimerfdState { remaining_ns: wanted.remaining_ns, deadline_ns: wanted.deadline_ns, ..seen }, wanted);
    }

    #[test]
    fn every_property_comes_back_on_every_clock() {
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME] {
            for flags in [0, libc::TFD_TIMER_ABSTIME] {
                for (remaining, interval, ticks) in
                    [(HOUR, 0, 0), (HOUR, 5_000_000, 0), (2 * HOUR, HOUR, 9), (0, 0, 1), (0, HOUR, 0), (0, 0, 0)]
                {
                    let wanted = state(clock, flags, remaining, interval, ticks);
                    let (fd, seen) = round_trip(&wanted);
                    check(seen, wanted);
                    assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
                    assert_eq!(super::tests::ticks(&fd), (ticks > 0).then_some(ticks));
                    assert_eq!(super::tests::ticks(&fd), None);
                }
            }
        }
    }

    #[test]
    fn a_time_of_the_wall_clock_stays_that_time() {
        let absolute = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        let deadline = now_ns(libc::CLOCK_REALTIME) + HOUR;
        let wanted = TimerfdState { deadline_ns: Some(deadline), ..state(libc::CLOCK_REALTIME, absolute, 2 * HOUR, 0, 0) };
        let (_fd, seen) = round_trip(&wanted);
        let late = seen.deadline_ns.unwrap() - deadline;
        assert!(late < 60_000_000_000 && seen.remaining_ns <= HOUR && seen.flags == wanted.flags, "{seen:?}");
        // One that has passed expires at once.
        let passed = TimerfdState { deadline_ns: Some(deadline - 2 * HOUR), ..wanted };
        let (fd, seen) = round_trip(&passed);
        assert_eq!((seen.ticks, seen.remaining_ns), (1, 0));
        assert_eq!(ticks(&fd), Some(1));
    }

    #[test]
    fn missed_expirations_are_counted_and_the_period_goes_on() {
        let (fd, _) = round_trip(&state(libc::CLOCK_MONOTONIC, 0, 1, 20_000_000, 0));
        std::thread::sleep(Duration::from_millis(110));
        let seen = observe(&event::seen(&fd)).unwrap();
        assert!(seen.ticks >= 6 && seen.remaining_ns > 0 && seen.remaining_ns <= 20_000_000, "{seen:?}");
        let (again, _) = round_trip(&seen);
        assert!(ticks(&again).unwrap() >= seen.ticks);
        // Nothing was taken away from the first.
        assert!(ticks(&fd).unwrap() >= seen.ticks);
    }

    #[test]
    fn one_that_expired_at_an_unknown_time_has_its_expirations() {
        let (fd, _) = round_trip(&state(libc::CLOCK_BOOTTIME, 0, 0, HOUR, 4));
        assert_eq!(ticks(&fd), Some(4));
        let (fd, _) = round_trip(&state(libc::CLOCK_BOOTTIME, 0, 0, HOUR, 1));
        assert_eq!(ticks(&fd), Some(1));
    }

    #[test]
    fn missed_expirations_come_back_on_kernels_that_cannot_be_told_them() {
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME] {
            let wanted = state(clock, 0, 150_000_000, 200_000_000, 5);
            let fd = rebuild(&wanted, NONBLOCK).unwrap();
            set_overdue(&fd, &wanted).unwrap();
            assert_eq!(ticks(&fd), Some(5));
            let left = observe(&event::seen(&fd)).unwrap().remaining_ns;
            assert!(left > 0 && left <= 150_000_000, "{left}");
            let once = state(clock, 0, 0, 0, 1);
            let fd = rebuild(&once, NONBLOCK).unwrap();
            set_overdue(&fd, &once).unwrap();
            assert_eq!(ticks(&fd), Some(1));
        }
    }
}
