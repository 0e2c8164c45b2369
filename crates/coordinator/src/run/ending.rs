//! The end of the coordinator: the job is over, or stopped by its last checkpoint.

use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ckpt_image::generations;
use ckpt_objects::HostPid;
use ckpt_objects::process::{Status, threads};
use ckpt_session::Reporter;
use ckpt_session::files::{aside_of, output_of};
use ckpt_session::job::JobInfo;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::requests::CheckpointRequest;
use super::{Coordinator, Event, LOOK, Terminal, beside};
use crate::control::Reply;
use crate::output;

/// How long all other threads may wait for the disk without progress when the job has ended.
const END_GRACE: Duration = Duration::from_secs(5);

/// Shows whether the coordinator's other threads make progress. On a slow disk they wait and go on; on one that hangs they only wait.
struct Progress {
    seen: u64,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { seen: Self::now(), since: Instant::now() }
    }

    /// How often the other threads have waited or given way so far.
    fn now() -> u64 {
        let own = HostPid::own();
        let others = threads(own).into_iter().filter(|thread| *thread != own);
        let status = others.filter_map(|thread| Status::of_thread(own, thread).ok());
        status.map(|status| status.number("voluntary_ctxt_switches") + status.number("nonvoluntary_ctxt_switches")).sum()
    }

    /// Whether nothing has gone on for [`END_GRACE`].
    fn has_ended(&mut self) -> bool {
        if self.since.elapsed() < END_GRACE {
            return false;
        }
        let now = Self { seen: Self::now(), since: Instant::now() };
        std::mem::replace(self, now).seen == self.seen
    }
}

impl Coordinator {
    pub(super) fn is_over(&self) -> bool {
        self.all_ended || self.first_status.is_some() && !self.info.settings.wait_all
    }

    /// Asks the scheduler to queue the job again, which ends this process soon after: the image is durable already.
    pub(super) fn requeue(&mut self) {
        let code = self.info.settings.stop_exit_code;
        let Some(slurm) = self.slurm.clone() else {
            return self.reporter.error(format_args!(
                "the job is stopped with exit code {code}, and not requeued: this is no Slurm job; go on with ckpt-restart"
            ));
        };
        if let Some(tasks) = slurm.tasks {
            return self.reporter.error(format_args!(
                "the job is stopped with exit code {code}, and not requeued: that would end the other {} tasks of the step, perhaps before they are \
                 durable; requeue it when srun has returned",
                tasks - 1
            ));
        }
        let (helpers, asked) = (Arc::clone(&self.helpers), slurm.clone());
        let (tell, answer) = mpsc::channel();
        let asked = beside(move || drop(tell.send(asked.requeue(&helpers)))).map_err(|error| error.to_string());
        match asked.and_then(|()| self.wait_for(|_| answer.try_recv().ok())) {
            Ok(()) => self.reporter.event(format_args!("the job is stopped and requeued ({slurm})")),
            Err(error) => self.reporter.error(format_args!(
                "the job is stopped with exit code {code}, and not requeued ({slurm}): {error}; submit it again, or go on with ckpt-restart"
            )),
        }
    }

    /// The job is over: a checkpoint under way is given up. The exit code.
    pub(super) fn end(&mut self) -> u8 {
        self.checkpointer.cancelled.store(true, Ordering::Relaxed);
        let mut progress = Progress::new();
        while !self.serving.is_empty() {
            let event = self.wait_for(|own| match own.events.1.try_recv() {
                Ok(event) => Some(Some(event)),
                Err(_) => progress.has_ended().then_some(None),
            });
            match event {
                Some(Event::Checkpoint(outcome)) => {
                    if let Some(code) = self.conclude(outcome) {
                        // It is over because the checkpoint was to end it.
                        return code;
                    }
                }
                Some(Event::End(_)) => (),
                None => {
                    self.waiting.append(&mut self.serving);
                    self.reporter
                        .error(format_args!("the checkpoint under way is left: {} does not answer", self.info.settings.dir));
                }
            }
        }
        for request in std::mem::take(&mut self.waiting) {
            if let CheckpointRequest::Client { client, .. } = request {
                client.answer(&Reply::Error("the job has ended".into()));
            }
        }
        let left = if self.all_ended { 0 } else { self.checkpointer.anchor.scan().len() };
        if left > 0 {
            let what = if left == 1 { "process that it left goes" } else { "processes that it left go" };
            self.reporter
                .event(format_args!("{} ended; {left} {what} on without checkpoints (--wait-all stays)", self.info.name));
        }
        self.wait_for(|own| (!own.checkpointer.hooks.are_running()).then_some(()));
        let status = ExitStatus::from_raw(self.first_status.unwrap_or(0));
        let in_use = self.in_use.take();
        let (info, reporter, checkpointer) = (self.info.clone(), self.reporter, Arc::clone(&self.checkpointer));
        let tidied = while_it_progresses(move || {
            // Not closed yet: where the disk does not answer, not even SIGKILL ends the wait of a close.
            if let Some(image) = &in_use {
                let _ = image.unlock();
            }
            if status.success() {
                tidy(&info, reporter);
            }
            checkpointer.files().end(&info);
        });
        if tidied.is_none() {
            self.reporter.error(format_args!(
                "what the ended job no longer needs stays in {}, which does not answer; remove it by hand",
                self.info.settings.dir
            ));
            // Nor does this process wait for it.
            if let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) {
                let _ = ckpt_sys::child::leave_descriptors(own.into_raw_fd());
            }
        }
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        u8::try_from(code).unwrap_or(1)
    }

    /// A program that was ended, or that knows another terminal's settings, leaves some that are not this one's.
    pub(super) fn give_terminal_back(&self, code: u8) {
        let Terminal { own: Some(own), is_new, .. } = &self.terminal else { return };
        own.take_foreground();
        if (*is_new || code >= 128 || code == self.info.settings.stop_exit_code) && own.is_in_foreground() {
            own.set(&own.settings);
        }
    }
}

/// Runs `work` in another thread, and waits while that makes progress. Work on a disk may never return.
fn while_it_progresses<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = mpsc::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let shared = Arc::clone(&work);
    let started = beside(move || {
        if let Some(work) = take(&shared) {
            let _ = sender.send(work());
        }
    });
    match started {
        Ok(()) => {
            let mut progress = Progress::new();
            loop {
                match done.recv_timeout(LOOK) {
                    Ok(result) => return Some(result),
                    Err(mpsc::RecvTimeoutError::Timeout) if !progress.has_ended() => (),
                    Err(_) => return None,
                }
            }
        }
        Err(_) => take(&work).map(|work| work()),
    }
}

/// Removes what a job that has ended well needs no more.
fn tidy(info: &JobInfo, reporter: Reporter) {
    // What restarts have taken away has been made again.
    output::tidy(&output_of(info));
    let aside = aside_of(info);
    if let Err(error) = std::fs::remove_dir_all(&aside)
        && error.kind() != io::ErrorKind::NotFound
    {
        reporter.error(format_args!("failed to remove {}: {error}; remove it by hand", aside.display()));
    }
    // It is not to be resumed by mistake.
    if !info.settings.keep_on_success
        && let Err(error) = generations::remove_all(info.settings.dir.as_path(), &info.id)
    {
        reporter.error(error);
    }
}
