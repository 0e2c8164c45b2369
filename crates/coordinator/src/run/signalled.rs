//! The coordinator's reactions to signals: its own, and those that processes of the job hold back.

use std::sync::atomic::Ordering;
use std::time::Instant;

use ckpt_objects::HostPid;
use ckpt_session::HeldSignal;
use ckpt_sys::signal_set::SignalSet;
use ckpt_wire::Forward;
use nix::sys::signal::Signal as NixSignal;
use rustix::process::{Signal, kill_process};

use super::requests::{CheckpointRequest, TERM_GRACE, stop_by};
use super::{Coordinator, Watch};

use crate::held_signals::{Fate, Verdict};
use crate::options::{Action, is_given};

impl Coordinator {
    /// The coordinator has got a signal.
    pub fn react(&mut self, signal: Signal, action: Action, from_kernel: bool) {
        let also = is_given(signal, &self.info.settings.forward);
        if action != Action::Forward {
            self.held_signals.hear(signal.as_raw(), Instant::now());
            self.checkpointer.heard.fetch_or(SignalSet::of(signal.as_raw()).bits(), Ordering::AcqRel);
        }
        match action {
            Action::Checkpoint if also => self.waiting.push(CheckpointRequest::Also(signal, Instant::now())),
            Action::Checkpoint | Action::Stop | Action::Requeue => {
                // The job goes no further than its checkpoint.
                if also {
                    self.settle(signal, Fate::Given);
                }
                self.waiting.push(CheckpointRequest::Signal(signal, stop_by(action)));
            }
            // One that is under way is as good as another.
            Action::CheckpointThenForward if !self.serving.is_empty() => {
                self.serving.push(CheckpointRequest::Before(signal, Instant::now()));
            }
            Action::CheckpointThenForward if self.schedule.fits(TERM_GRACE) => {
                self.waiting.push(CheckpointRequest::Before(signal, Instant::now()))
            }
            Action::CheckpointThenForward => {
                self.reporter.event(format_args!("no checkpoint on {}: the last took too long", name(signal)));
                self.pass_on(signal);
            }
            // A terminal sends its signals to the whole foreground group, of which a launched job is part.
            Action::Forward if from_kernel && self.terminal.shared => (),
            Action::Forward => self.forward(signal),
        }
    }

    /// When the next signal has waited for a checkpoint for too long.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.serving.iter().chain(&self.waiting).filter_map(CheckpointRequest::due).min()
    }

    /// Passes on the signals that have waited for a checkpoint for too long: the disk may never answer.
    pub fn pass_overdue(&mut self) {
        let now = Instant::now();
        let is_overdue = |request: &mut CheckpointRequest| request.due().is_some_and(|due| due <= now);
        let is_under_way = !self.serving.is_empty();
        let mut overdue: Vec<_> = self.serving.extract_if(.., is_overdue).collect();
        overdue.extend(self.waiting.extract_if(.., is_overdue));
        if is_under_way && self.serving.is_empty() {
            // It still is.
            self.serving.push(CheckpointRequest::Planned);
        }
        for request in overdue {
            let (CheckpointRequest::Before(signal, _) | CheckpointRequest::Also(signal, _)) = request else { continue };
            self.reporter.error(format_args!(
                "{} reaches the job without a checkpoint: the one under way has taken {} s since; see whether {} answers",
                name(signal),
                TERM_GRACE.as_secs(),
                self.info.settings.dir
            ));
            match request {
                CheckpointRequest::Also(..) => self.settle(signal, Fate::Given),
                _ => self.pass_on(signal),
            }
        }
    }

    /// Passes a signal on for which the job had to wait: to the first process, and to whoever got it before and holds it back.
    pub fn pass_on(&mut self, signal: Signal) {
        // A job that takes its time to end would come back only to go on ending.
        self.schedule.pause(Instant::now() + TERM_GRACE);
        self.settle(signal, Fate::PassedOn);
    }

    /// What a signal asked for is done, or cannot be: the first process gets it, if any does, and others as it is their fate.
    pub fn settle(&mut self, signal: Signal, fate: Fate) {
        let mut holds = self.held_signals.settle(signal.as_raw(), fate, Instant::now());
        if fate == Fate::Dropped {
            return;
        }
        // Parents before their children, or they would be told of an end that they should not live to see.
        let order: Vec<HostPid> = self.checkpointer.anchor.scan().iter().map(|member| member.pid).collect();
        holds.sort_by_key(|hold| order.iter().position(|pid| *pid == hold.pid));
        // It has it already.
        if !holds.iter().any(|hold| hold.ns_pid == self.info.first) {
            self.forward(signal);
        }
        for hold in holds {
            let only_if_handled = fate == Fate::Given && hold.ns_pid != self.info.first;
            self.let_in(hold, only_if_handled);
        }
    }

    fn let_in(&self, hold: HeldSignal, only_if_handled: bool) {
        self.checkpointer.anchor.let_in(hold.pid, hold.signal, self.info.signal, only_if_handled);
    }

    /// Decides about signals that processes hold back and the coordinator has not got.
    pub fn look_at_held_signals(&mut self) {
        let now = Instant::now();
        for hold in self.checkpointer.listener.holds() {
            let is_acted_on =
                self.signals.reactions.iter().any(|on| on.signal.as_raw() == hold.signal && on.action != Action::Forward);
            match self.held_signals.hold(hold, is_acted_on, hold.ns_pid == self.info.first, now) {
                Verdict::Leave => (),
                Verdict::LetIn => self.let_in(hold, false),
                Verdict::LetInIfHandled => self.let_in(hold, true),
            }
        }
        for hold in self.held_signals.alone(now) {
            self.let_in(hold, false);
        }
    }

    /// Passes a signal on: to the first process, or where a restarted job is not in the terminal's foreground group, to the first
    /// process's group, as a terminal would.
    fn forward(&self, signal: Signal) {
        match &self.watch {
            Watch::Child(first) => {
                if self.first_status.is_none() {
                    let _ = kill_process(*first, signal);
                }
            }
            // By the stand-in: the job must see who it is from.
            Watch::Report(_) => {
                let group = matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH);
                let number = u8::try_from(signal.as_raw()).unwrap_or(0);
                if self.first_status.is_none() {
                    let what = Forward { signal: number, pid: self.info.first.0, group };
                    let _ = ckpt_sys::process::queue(self.checkpointer.anchor.reaper.0, self.info.signal, what.to_value());
                }
            }
        }
    }
}

fn name(signal: Signal) -> String {
    NixSignal::try_from(signal.as_raw()).map_or_else(|_| signal.as_raw().to_string(), |signal| signal.to_string())
}
