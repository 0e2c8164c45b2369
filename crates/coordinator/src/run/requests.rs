//! Who wants a checkpoint, and what for.

use rustix::process::Signal;

use crate::control::Client;
use crate::options::Action;

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
    /// A signal that is passed on to the job afterwards.
    Before(Signal),
    /// A signal that the first process is given too, afterwards.
    Also(Signal),
    /// `ckpt-ctl`.
    Client { client: Client, stop: Option<Stop> },
}

impl CheckpointRequest {
    /// What it wants of a checkpoint that ends the job, if that is what it wants.
    pub fn stop(&self) -> Option<Stop> {
        match self {
            Self::Planned | Self::Before(_) | Self::Also(_) => None,
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
