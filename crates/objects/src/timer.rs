//! Interval timers.

use linux_raw_sys::general::__NR_setitimer;
use serde::{Deserialize, Serialize};

use crate::deferred::{Deferred, OnFailure, Purpose};

/// An interval timer (getitimer(2)), in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimer {
    /// Period; 0: fires once.
    pub interval_us: u64,
    /// Time left; 0: not armed.
    pub value_us: u64,
}

impl IntervalTimer {
    /// Whether it is to fire at all, or again.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.interval_us != 0 || self.value_us != 0
    }

    /// The time that a restart arms it with. One whose signal is still pending is armed again only when that is delivered
    /// (`dequeue_signal`, kernel/signal.c), and reads 0 until then: it fires at once, into the signal that is pending already.
    #[must_use]
    pub fn time_left_us(&self) -> u64 {
        self.value_us.max(1)
    }

    /// How it is to be recorded when it stood like this at first, and stands as `now` after the pending signals have been
    /// recorded; its own is among them or not (`waits`). A signal that came too late for that comes from the timer again.
    #[must_use]
    pub fn settled(self, now: Self, waits: bool) -> Self {
        let has_fired = self.value_us != 0 && (now.value_us == 0 || now.value_us > self.value_us);
        if has_fired && !waits { Self { value_us: 1, ..now } } else { now }
    }
}

/// Calls that set a process's timers going, in the order of `ITIMER_*`.
#[must_use]
pub fn arm(timers: &[IntervalTimer]) -> Deferred {
    let mut deferred = Deferred::default();
    for (which, timer) in (0u32..).zip(timers).filter(|(_, timer)| timer.is_set()) {
        let parts = |us: u64| [us / 1_000_000, us % 1_000_000];
        let setting = deferred.put_words(&[parts(timer.interval_us), parts(timer.time_left_us())].concat());
        deferred.call(Purpose::Timer, OnFailure::Ignore, __NR_setitimer, &[which.into(), setting]);
    }
    deferred
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_fires_meanwhile_does_so_once() {
        let (armed, later, over) = (once(20), once(10), once(0));
        assert_eq!(armed.settled(later, false), later);
        assert_eq!(armed.settled(over, true), over);
        assert_eq!(armed.settled(over, false), once(1));
        // Fired before, or never set.
        assert_eq!(over.settled(over, true), over);
        assert_eq!(over.settled(over, false), over);
    }

    fn once(value_us: u64) -> IntervalTimer {
        IntervalTimer { interval_us: 0, value_us }
    }

    #[test]
    fn a_periodic_timer_whose_signal_is_pending_goes_on() {
        let pending = IntervalTimer { interval_us: 10_000, value_us: 0 };
        assert!(pending.is_set() && pending.time_left_us() > 0);
        assert!(!IntervalTimer::default().is_set());
    }
}
