//! Timerfds: timers that are read (timerfd_create(2)).
//!
//! A timer goes on with the time that it had left, since that is what the job lived through; one that was set to a time of the wall
//! clock (`TFD_TIMER_ABSTIME`) expires at that time, or at once where it has passed. It is made before the job's processes and started
//! after them, at the instant when the job goes on.

use serde::{Deserialize, Serialize};

mod observe;
mod rebuild;

pub use observe::observe;
pub use rebuild::{rebuild, start};

/// A timerfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerfdState {
    /// `CLOCK_*`.
    pub clock: i32,
    /// `TFD_TIMER_*`, as it was last set with.
    pub flags: u32,
    /// Nanoseconds until it expires next; 0: it does not, or, with an interval, when is not known: it has expired and was not read.
    pub remaining_ns: u64,
    /// Period in nanoseconds; 0: it expires once.
    pub interval_ns: u64,
    /// Expirations that were not yet read.
    pub ticks: u64,
    /// When it expires next, in nanoseconds since the epoch, if it was set to a time of the wall clock.
    pub deadline_ns: Option<u64>,
}

/// Whether a clock is the wall clock.
fn is_wall_clock(clock: i32) -> bool {
    matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_ALARM)
}

/// What a clock that timerfds may use shows, in nanoseconds.
fn now_ns(clock: i32) -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(match clock {
        _ if is_wall_clock(clock) => ClockId::Realtime,
        libc::CLOCK_MONOTONIC => ClockId::Monotonic,
        _ => ClockId::Boottime,
    });
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
