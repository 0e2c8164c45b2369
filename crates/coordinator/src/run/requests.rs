//! Requests for checkpoints: their origin and purpose.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::control::Client;
use crate::options::Action;

/// Longest time between SIGTERM and SIGKILL that schedulers promise unless told otherwise (Slurm's `KillWait`): a checkpoint that took
/// longer than most of it is not begun, and a signal waits no longer for one.
pub const TERM_GRACE: Duration = Duration::from_secs(25);

/// What comes after a checkpoint that ends the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Nothing.
    Leave,
    /// The scheduler is asked to queue it again.
    Requeue,
}

/// Who wants a checkpoint, and what for.
pub enum CheckpointRequest {
    /// The clock.
    Planned,
    /// The clock: the last of this run.
    Last(Option<Stop>),
    /// A signal.
    Signal(Signal, Option<Stop>),
    /// A signal that is passed on to the job afterwards, and when it came.
    Before(Signal, Instant),
    /// A signal that the first process is given too, afterwards.
    Also(Signal, Instant),
    /// `ckpt-ctl`.
    Client { client: Client, stop: Option<Stop> },
}

impl CheckpointRequest {
    /// When it has waited long enough: its signal is to reach the job.
    pub fn due(&self) -> Option<Instant> {
        match self {
            Self::Before(_, since) | Self::Also(_, since) => since.checked_add(TERM_GRACE),
            _ => None,
        }
    }

    /// What it wants of a checkpoint that ends the job, if that is what it wants.
    pub fn stop(&self) -> Option<Stop> {
        match self {
            Self::Planned | Self::Before(..) | Self::Also(..) => None,
            Self::Last(stop) | Self::Signal(_, stop) | Self::Client { stop, .. } => *stop,
        }
    }
}

/// What an action wants of a checkpoint that ends the job.
pub fn stop_by(action: Action) -> Option<Stop> {
    match action {
        Action::Stop => Some(Stop::Leave),
        Action::Requeue => Some(Stop::Requeue),
        Action::Checkpoint | Action::CheckpointThenForward | Action::Forward => None,
    }
}
