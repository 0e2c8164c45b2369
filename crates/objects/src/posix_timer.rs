//! Timers of timer_create(2).
//!
//! What a timer is tells `/proc/PID/timers` (`CONFIG_CHECKPOINT_RESTORE`), how it stands only the process itself can ask; see `ckpt_wire::TimerRecord`. A
//! restart goes on with the time that was left, whatever the clock: a clock of processor time begins anew with its process, and whether a program
//! gave an absolute time is told by nobody.

use serde::{Deserialize, Serialize};

mod observe;
mod rebuild;

pub use observe::{complete, observe};
pub use rebuild::{arm, prepare, rebuild};

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PosixTimer {
    /// What `timer_create` gave.
    pub id: i32,
    /// Its clock: `CLOCK_*`, or the number of a clock of processor time ([`CpuClock`]).
    pub clock: i32,
    /// Whom it tells.
    pub notify: Notify,
    /// Period in nanoseconds; 0: fires once.
    pub interval_ns: u64,
    /// Time left in nanoseconds; 0: not armed.
    pub value_ns: u64,
    /// How many expirations its signal stands for that waits to be taken; 0: none waits.
    pub pending: u64,
}

/// Whom a timer tells that it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// Nobody (`SIGEV_NONE`).
    Nobody,
    /// The process, by a signal.
    Process(TimerSignal),
    /// One thread, by a signal (`SIGEV_THREAD_ID`, of which the C library makes `SIGEV_THREAD`).
    Thread {
        /// Its id.
        tid: i32,
        /// The signal.
        signal: TimerSignal,
    },
}

/// The signal of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerSignal {
    /// Its number.
    pub number: i32,
    /// What comes with it (`si_value`).
    pub value: u64,
}

/// A clock of processor time (include/linux/posix-timers_types.h): whose, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuClock {
    /// The process or thread; 0: the one that made the timer.
    pub id: i32,
    /// One thread's time, not a process's.
    pub of_thread: bool,
    /// All that defines the clock beside whose it is.
    kind: i32,
}

impl CpuClock {
    const PER_THREAD: i32 = 4;

    /// The clock with this number, if it is one of processor time.
    #[must_use]
    pub fn of(clock: i32) -> Option<Self> {
        (clock < 0).then_some(Self { id: !(clock >> 3), of_thread: clock & Self::PER_THREAD != 0, kind: clock & 7 })
    }

    /// The number of the same clock of another process or thread.
    #[must_use]
    pub fn number_for(self, id: i32) -> i32 {
        !id << 3 | self.kind
    }
}

impl PosixTimer {
    /// Nanoseconds between the first expiration that its waiting signal stands for and now.
    #[must_use]
    pub fn waits_since_ns(&self) -> u64 {
        self.interval_ns.saturating_mul(self.pending).saturating_sub(self.value_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_processor_time_have_numbers() {
        // CLOCK_PROCESS_CPUTIME_ID and CLOCK_THREAD_CPUTIME_ID as the kernel keeps them.
        let process = CpuClock::of(-6).unwrap();
        assert_eq!((process.id, process.of_thread), (0, false));
        let thread = CpuClock::of(-2).unwrap();
        assert_eq!((thread.id, thread.of_thread), (0, true));
        let other = CpuClock::of(thread.number_for(1234)).unwrap();
        assert_eq!((other.id, other.of_thread), (1234, true));
        assert_eq!(other.number_for(0), -2);
        assert_eq!(CpuClock::of(libc::CLOCK_BOOTTIME), None);
    }

    #[test]
    fn a_waiting_signal_has_waited_since_the_first_expiration() {
        let notify = Notify::Nobody;
        let timer = PosixTimer { id: 0, clock: 1, notify, interval_ns: 10, value_ns: 4, pending: 3 };
        assert_eq!(timer.waits_since_ns(), 26);
    }
}
