//! Observing a timerfd.

use super::{TimerfdState, is_wall_clock, now_ns};
use crate::descriptor::{SeenDescriptor, info_field};
use crate::event::{self, EventError};
use crate::observe::proc_path;

const WHAT: &str = "a timerfd";

/// The timerfd that a descriptor of a frozen process is open on, as it stands now.
///
/// The kernel stops a periodic timer that has expired until somebody asks for it, and then counts what was missed. So it is asked
/// (timerfd_gettime(2), which takes nothing away), where the process may be traced; elsewhere one expiration is kept, and the period
/// begins anew.
///
/// # Errors
/// fdinfo cannot be read.
pub fn observe(descriptor: &SeenDescriptor) -> Result<TimerfdState, EventError> {
    let state = read(descriptor)?;
    if state.ticks > 0 && state.interval_ns > 0 && state.remaining_ns == 0 {
        let counted = event::duplicate(descriptor).and_then(|fd| Ok(rustix::time::timerfd_gettime(fd)?));
        if counted.is_ok() {
            return read(descriptor);
        }
    }
    Ok(state)
}

/// Reads fdinfo anew: what the survey read earlier has passed meanwhile.
fn read(descriptor: &SeenDescriptor) -> Result<TimerfdState, EventError> {
    let path = proc_path(descriptor.pid, &format!("fdinfo/{}", descriptor.fd));
    let info = std::fs::read(path).map_err(|source| EventError::Read { what: WHAT, source })?;
    let mut state = parse(&info).ok_or_else(|| event::not_understood(WHAT, &info))?;
    if state.flags & libc::TFD_TIMER_ABSTIME.cast_unsigned() != 0 && is_wall_clock(state.clock) && state.remaining_ns > 0 {
        // The clock is read later than the timer: the deadline is a little late, and never early.
        state.deadline_ns = Some(now_ns(state.clock) + state.remaining_ns);
    }
    Ok(state)
}

fn parse(info: &[u8]) -> Option<TimerfdState> {
    // `it_value: (SECONDS, NANOSECONDS)`.
    let time = |key| {
        let (seconds, nanoseconds) = info_field(info, key)?.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
        seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds.parse().ok()?)
    };
    Some(TimerfdState {
        clock: info_field(info, "clockid:")?.parse().ok()?,
        flags: u32::try_from(event::number(info, "settime flags:", 8)?).ok()?,
        remaining_ns: time("it_value:")?,
        interval_ns: time("it_interval:")?,
        ticks: event::number(info, "ticks:", 10)?,
        deadline_ns: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_shows() {
        let info = b"pos:\t0\nclockid: 7\nticks: 3\nsettime flags: 01\nit_value: (4, 943163865)\nit_interval: (0, 10000000)\n";
        let state = TimerfdState {
            clock: 7,
            flags: 1,
            remaining_ns: 4_943_163_865,
            interval_ns: 10_000_000,
            ticks: 3,
            deadline_ns: None,
        };
        assert_eq!(parse(info), Some(state));
        assert_eq!(parse(b"clockid: 7\nticks: 3\n"), None);
    }
}
