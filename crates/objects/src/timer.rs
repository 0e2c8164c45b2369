//! Timers.

use serde::{Deserialize, Serialize};

/// An interval timer (getitimer(2)), in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalTimer {
    /// Period; 0: fires once.
    pub interval_us: u64,
    /// Time left; 0: not armed.
    pub value_us: u64,
}
