//! Takes checkpoints in a thread beside, one at a time, and answers the requests for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ckpt_image::generations;
use ckpt_session::Took;
use nix::sys::signal::Signal as NixSignal;

use super::requests::{CheckpointRequest, Stop};
use super::{Coordinator, Event, Outcome, beside};
use crate::checkpoint::CheckpointSummary;
use crate::control::Reply;
use crate::error::CheckpointError;
use crate::held_signals::Fate;
use crate::options::is_given;

impl Coordinator {
    /// Begins a checkpoint when one is wanted and none is under way.
    pub(super) fn begin(&mut self) {
        if self.waiting.is_empty() || !self.serving.is_empty() {
            return;
        }
        self.serving = std::mem::take(&mut self.waiting);
        let stop = self.serving.iter().any(|request| request.stop().is_some());
        let told = self.serving.iter().find_map(|request| match request {
            CheckpointRequest::Before(signal, _) if !stop => NixSignal::try_from(signal.as_raw()).ok(),
            _ => None,
        });
        let (checkpointer, info, tell) = (Arc::clone(&self.checkpointer), self.info.clone(), self.teller());
        self.schedule.begin(Instant::now());
        let started = beside(move || {
            let outcome = checkpointer.take(info, stop, told);
            if let Ok(taken) = &outcome {
                let hooks = &checkpointer.hooks;
                // When the job ends with it, so does this process, and perhaps all that the scheduler lets run.
                if stop { hooks.after(&taken.path, taken.generation) } else { hooks.after_beside(&taken.path, taken.generation) }
            }
            tell(Event::Checkpoint(outcome));
        });
        if let Err(error) = started {
            self.teller()(Event::Checkpoint(Err(CheckpointError::Thread(error))));
        }
    }

    /// A checkpoint is over. The exit code, if the job is over with it.
    pub(super) fn conclude(&mut self, outcome: Outcome) -> Option<u8> {
        let served = std::mem::take(&mut self.serving);
        let stop = served.iter().filter_map(CheckpointRequest::stop).max();
        match &outcome {
            Ok(taken) => self.note_taken(taken),
            Err(_) if self.is_over() => (),
            Err(error) => self.reporter.error(format_args!("no checkpoint: {error}")),
        }
        let now = Instant::now();
        self.schedule.conclude(outcome.as_ref().ok().map(|taken| taken.total), now);
        let stood = Duration::from_nanos(self.checkpointer.stood.swap(0, Ordering::AcqRel));
        if outcome.is_err()
            && !self.is_over()
            && let Some(wait) = self.schedule.lose(stood, now)
        {
            self.reporter.event(format_args!(
                "the job stood still for that for {}: the next try is in {} s",
                Took(stood),
                wait.as_secs()
            ));
        }
        for request in served {
            match request {
                CheckpointRequest::Client { client, .. } => client.answer(&match &outcome {
                    Ok(taken) => Reply::Image(taken.path.display().to_string()),
                    Err(error) => Reply::Error(error.to_string()),
                }),
                CheckpointRequest::Before(signal, _) => self.pass_on(signal),
                CheckpointRequest::Also(signal, _) => self.settle(signal, Fate::Given),
                CheckpointRequest::Signal(signal, _) if !is_given(signal, &self.info.settings.forward) => {
                    self.settle(signal, Fate::Dropped)
                }
                CheckpointRequest::Last(_) if outcome.is_err() && !self.is_over() => {
                    if let Some(after) = self.schedule.last_failed(Instant::now()) {
                        self.reporter.event(format_args!("the last checkpoint is tried again in {} s", after.as_secs()));
                    }
                }
                CheckpointRequest::Last(_) | CheckpointRequest::Planned | CheckpointRequest::Signal(..) => (),
            }
        }
        let stop = stop.filter(|_| outcome.is_ok())?;
        match stop {
            Stop::Leave => self.reporter.event("the job is stopped; go on with ckpt-restart"),
            Stop::Requeue => self.requeue(),
        }
        Some(self.info.settings.stop_exit_code)
    }

    pub(super) fn note_taken(&mut self, taken: &CheckpointSummary) {
        self.reporter.event(taken);
        for complaint in &taken.complaints {
            self.reporter.error(complaint);
        }
        if taken.reads_outside && !std::mem::replace(&mut self.told_of_input, true) {
            self.reporter.event(
                "standard input is a pipe that another program writes to: what the job has not read of it is in no image, \
                 and a restart reads its own standard input",
            );
        }
        self.info.generation = taken.generation + 1;
        self.info.cost_ns = u64::try_from(taken.total.as_nanos()).ok();
        self.newest = Some(taken.path.clone());
        self.in_use = generations::mark_in_use(&taken.path).ok();
    }
}
