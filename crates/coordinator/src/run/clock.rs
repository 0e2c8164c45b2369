//! Requests checkpoints at their times, and one before the machine is taken away.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::requests::{CheckpointRequest, stop_by};
use super::{Coordinator, Event, beside};
use crate::batch::Slurm;
use crate::schedule::Due;

impl Coordinator {
    /// Finds out when the machine is taken away, where that matters.
    pub(super) fn find_end(&mut self) {
        if !self.schedule.wants_end() {
            if let Some(end) = Slurm::end_by_environment() {
                self.note_end(Ok(end));
            }
            return;
        }
        match (Slurm::end_by_environment(), self.slurm.clone()) {
            (Some(end), _) => self.note_end(Ok(end)),
            (None, None) => self.note_end(Err("no --time-limit was given, and this is no Slurm job".to_owned())),
            (None, Some(slurm)) => {
                let (helpers, tell) = (Arc::clone(&self.helpers), self.teller());
                if let Err(error) = beside(move || tell(Event::End(slurm.ask_end(&helpers)))) {
                    self.note_end(Err(error.to_string()));
                }
            }
        }
    }

    pub(super) fn note_end(&mut self, end: Result<SystemTime, String>) {
        match end {
            Ok(end) => {
                let left = end.duration_since(SystemTime::now()).unwrap_or_default();
                let now = Instant::now();
                if let Some(shorter) = now.checked_add(left).and_then(|end| self.schedule.set_end(end, now)) {
                    self.reporter.event(format_args!(
                        "{} s are left: the last checkpoint comes {} s before the end, and not as early as --before-end says",
                        left.as_secs(),
                        shorter.as_secs()
                    ));
                }
            }
            Err(error) => self.reporter.error(format_args!("--before-end does nothing, since the end is not known: {error}")),
        }
    }

    /// Wants a checkpoint when it is time for one.
    pub(super) fn look_at_clock(&mut self) {
        if !self.serving.is_empty() {
            return;
        }
        match self.schedule.due(Instant::now()) {
            Some(Due::Planned) => self.waiting.push(CheckpointRequest::Planned),
            Some(Due::Last(action)) => self.waiting.push(CheckpointRequest::Last(stop_by(action))),
            Some(Due::TooLate(left, cost)) => self.reporter.error(format_args!(
                "no last checkpoint: {} s are left, and the one before took {} s; give --before-end more time",
                left.as_secs(),
                cost.as_secs()
            )),
            None => (),
        }
    }
}
