//! The coordinator's life: it waits for the job, the clock, signals and requests, and does one thing at a time.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ckpt_image::generations;
use ckpt_objects::sysv::EarlierIds;
use ckpt_objects::terminal::OwnTerminal;
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::Listener;
use ckpt_session::environment;
use ckpt_session::files::{aside_of, output_of};
use ckpt_session::job::JobInfo;
use ckpt_session::library;
use ckpt_session::{Reporter, Took, report};
use nix::sys::signal::Signal as NixSignal;
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};

use crate::batch::Slurm;
use crate::checkpoint::{CheckpointSummary, Checkpointer, features};
use crate::control::{self, Client, Reply, Request, Server};
use crate::error::{CheckpointError, LaunchError, system};
use crate::files::Files;
use crate::held_signals::{Fate, HeldSignals};
use crate::helpers::Helpers;
use crate::hooks::HookRunner;
use crate::options::is_given;
use crate::output;
use crate::ptrace::WaitLock;
use crate::schedule::{Due, Schedule};
use crate::signals::Signals;
use crate::snapshot::TwinRoom;
use crate::tree::{Anchor, Earlier};

mod requests;
mod signalled;

use requests::{CheckpointRequest, Stop, stop_by};

/// How often it is looked whether a command of the coordinator's own has ended, while nothing else is done.
const LOOK: Duration = Duration::from_millis(5);

/// The terminal of a coordinator.
pub struct Terminal {
    /// As it was before the job had it.
    pub own: Option<OwnTerminal>,
    /// The job is in this process's group: what the terminal sends to that reaches both.
    pub shared: bool,
    /// The job has it again after a restart, with settings of its own.
    pub is_new: bool,
}

/// How the coordinator learns what becomes of the job.
pub enum Watch {
    /// It is the parent of this child.
    Child(Pid),
    /// The stand-in writes to this pipe.
    Report(OwnedFd),
}

/// What somebody has done for the coordinator beside.
enum Event {
    /// A checkpoint is over.
    Checkpoint(Outcome),
    /// It is known when the machine is taken away, or it is not.
    End(Result<SystemTime, String>),
}

type Outcome = Result<CheckpointSummary, CheckpointError>;

/// How long the file system of the images may take for what is left to do when the job has ended, each time.
const END_GRACE: Duration = Duration::from_secs(5);

/// Does beside what may never return, since it needs the disk, and waits for that for a while.
fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
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
        Ok(()) => done.recv_timeout(patience).ok(),
        Err(_) => take(&work).map(|work| work()),
    }
}

/// The coordinator of a job.
pub struct Coordinator {
    info: JobInfo,
    checkpointer: Arc<Checkpointer>,
    watch: Watch,
    signals: Signals,
    terminal: Terminal,
    server: Option<Server>,
    reporter: Reporter,
    schedule: Schedule,
    slurm: Option<Slurm>,
    helpers: Arc<Helpers>,
    /// Wishes that the checkpoint under way serves, and those that the next will.
    serving: Vec<CheckpointRequest>,
    waiting: Vec<CheckpointRequest>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Written to when an event is there.
    wake: Arc<OwnedFd>,
    newest: Option<PathBuf>,
    /// The newest image: it is marked as in use until this is dropped.
    in_use: Option<File>,
    /// The first process's wait status once it has ended.
    first_status: Option<i32>,
    /// No process of the job is left.
    all_ended: bool,
    /// Signals that its processes hold back.
    held_signals: HeldSignals,
    /// The user knows that the job's input is not in its images.
    told_of_input: bool,
}

/// What a coordinator begins with: a job that runs already, or is about to.
pub struct Setup {
    /// What images say of the job.
    pub info: JobInfo,
    /// What descends from this process is the job.
    pub reaper: HostPid,
    /// The children that the launcher had before.
    pub earlier: Option<Earlier>,
    /// Where its agents connect.
    pub listener: Listener,
    /// The files that it touches.
    pub files: Files,
    /// The agent's library.
    pub agent: PathBuf,
    /// How its end is learnt.
    pub watch: Watch,
    /// The signals that the coordinator listens to.
    pub signals: Signals,
    /// The terminal of the coordinator.
    pub terminal: Terminal,
    /// How much is said.
    pub reporter: Reporter,
    /// Processes that made sockets of the job's at a restart, and have ended: their numbers here and in its namespace.
    pub makers: Vec<(HostPid, NsPid)>,
    /// System V objects that were there before the job.
    pub earlier_ids: EarlierIds,
    /// The image that it came from, in use while there is no newer one.
    pub image: Option<File>,
}

/// Starts a thread, which may be refused (`RLIMIT_NPROC`, `pids.max`, `RLIMIT_AS`).
fn beside(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().spawn(work).map(drop)
}

impl Coordinator {
    /// A coordinator that has done nothing yet.
    pub fn new(setup: Setup) -> Result<Self, LaunchError> {
        let Setup { info, signals, terminal, reporter, .. } = setup;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| system("make an eventfd")(errno.into()))?;
        let wake = Arc::new(wake);
        let anchor = Arc::new(Anchor::new(setup.reaper, setup.earlier));
        let helpers = Arc::new(Helpers::new(Arc::clone(&anchor), signals.before));
        let checkpointer = Checkpointer {
            anchor,
            listener: setup.listener,
            agent: setup.agent.into(),
            codec: info.settings.compress.parse().unwrap_or(ckpt_image::Codec::Zstd(1)),
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            terminal: terminal.own.as_ref().map(|own| own.settings),
            features: features(),
            makers: setup.makers,
            earlier_ids: setup.earlier_ids,
            waiting: WaitLock::default(),
            cancelled: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            stood: Arc::default(),
            twins: TwinRoom::default(),
            freezing: AtomicBool::new(false),
            wake: Arc::clone(&wake),
            hooks: Arc::new(HookRunner::new(info.settings.hooks.clone(), Arc::clone(&helpers), reporter)),
            files: Mutex::new(setup.files),
        };
        let schedule = Schedule::new(&info.settings, info.cost_ns.map(Duration::from_nanos), Instant::now());
        // A coordinator without a control socket still does its main work.
        let server = Server::bind(&info.id).ok();
        let _ = generations::remove_stale_temporaries(info.settings.dir.as_path(), &info.id);
        Ok(Self {
            first_status: info.first_status,
            info,
            checkpointer: Arc::new(checkpointer),
            watch: setup.watch,
            signals,
            terminal,
            server,
            reporter,
            schedule,
            slurm: Slurm::here(),
            helpers,
            serving: Vec::new(),
            waiting: Vec::new(),
            wake,
            events: mpsc::channel(),
            newest: None,
            in_use: setup.image,
            all_ended: false,
            held_signals: HeldSignals::default(),
            told_of_input: false,
        })
    }

    /// Stays with the job to its end. Gives the exit code.
    pub fn run(mut self) -> Result<u8, LaunchError> {
        // The job runs: nothing that this process writes is cut off any more.
        report::forget();
        self.find_end();
        let code = self.serve_to_the_end();
        environment::withdraw(&self.info);
        // What the job has left behind may start programs.
        if self.checkpointer.anchor.scan().is_empty() {
            library::take_back(&self.info.id);
        }
        let code = code?;
        self.give_terminal_back(code);
        Ok(code)
    }

    /// A program that was ended, or that knows another terminal's settings, leaves some that are not this one's.
    fn give_terminal_back(&self, code: u8) {
        let Terminal { own: Some(own), is_new, .. } = &self.terminal else { return };
        own.take_foreground();
        if (*is_new || code >= 128 || code == self.info.settings.stop_exit_code) && own.is_in_foreground() {
            own.set(&own.settings);
        }
    }

    fn serve_to_the_end(&mut self) -> Result<u8, LaunchError> {
        loop {
            self.wait();
            self.checkpointer.send_away();
            self.reap();
            while let Some((signal, action, from_kernel)) = self.signals.next() {
                self.react(signal, action, from_kernel);
            }
            self.pass_overdue();
            self.look_at_held_signals();
            while let Some((request, client)) = self.server.as_ref().and_then(Server::accept) {
                self.serve(request, client);
            }
            while let Ok(event) = self.events.1.try_recv() {
                match event {
                    Event::Checkpoint(outcome) => {
                        if let Some(code) = self.conclude(outcome) {
                            return Ok(code);
                        }
                    }
                    Event::End(end) => self.note_end(end),
                }
            }
            if self.is_over() {
                return Ok(self.end());
            }
            self.look_at_clock();
            self.begin();
        }
    }

    /// Waits for anything to happen.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.signals.descriptor, PollFlags::IN), PollFd::new(&*self.wake, PollFlags::IN)];
        if let Some(server) = &self.server {
            fds.push(PollFd::new(server, PollFlags::IN));
        }
        if !self.checkpointer.freezing.load(Ordering::Acquire) {
            fds.push(PollFd::new(&self.checkpointer.listener, PollFlags::IN));
        }
        if let Watch::Report(report) = &self.watch
            && !self.all_ended
        {
            fds.push(PollFd::new(report, PollFlags::IN));
        }
        // While a checkpoint is under way, its end comes first.
        let next = if self.serving.is_empty() { self.schedule.next() } else { None };
        let next = next.into_iter().chain(self.held_signals.next()).chain(self.next_overdue()).min();
        let next = if self.checkpointer.listener.has_strangers() { Some(Instant::now() + LOOK) } else { next };
        let timeout = next.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let _ = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
    }

    /// Finds out when the machine is taken away, where that matters.
    fn find_end(&mut self) {
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

    fn note_end(&mut self, end: Result<SystemTime, String>) {
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

    /// For a thread that does something beside: tells the coordinator, and wakes it.
    fn teller(&self) -> impl FnOnce(Event) + Send + use<> {
        let (sender, wake) = (self.events.0.clone(), Arc::clone(&self.wake));
        move |event| {
            let _ = sender.send(event);
            let _ = rustix::io::write(wake.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// Wants a checkpoint when it is time for one.
    fn look_at_clock(&mut self) {
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

    /// Waits for processes that have ended: the first, orphans of the job's, twins.
    fn reap(&mut self) {
        // When the checkpoint is over, this is looked after.
        let checkpointer = Arc::clone(&self.checkpointer);
        let Some(_nobody_traces) = checkpointer.waiting.to_wait() else { return };
        loop {
            match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid.as_raw(), code << 8),
                Ok(WaitStatus::Signaled(pid, signal, core)) => {
                    self.ended(pid.as_raw(), signal as i32 | if core { 0x80 } else { 0 });
                }
                Ok(WaitStatus::StillAlive) => {
                    // Only the children that it had before the job are left.
                    let anchor = &checkpointer.anchor;
                    self.all_ended |= self.first_status.is_some() && anchor.has_earlier() && anchor.scan().is_empty();
                    break;
                }
                Ok(_) => (),
                // A real-time signal ended it, for which nix has no name, or there is no child any more.
                Err(nix::Error::EINVAL) => (),
                Err(_) => {
                    if matches!(self.watch, Watch::Child(_)) {
                        self.all_ended = true;
                    }
                    break;
                }
            }
        }
        if let Watch::Report(report) = &self.watch
            && !self.all_ended
        {
            let mut fds = [PollFd::new(report, PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
                let mut status = [0u8; 4];
                match rustix::io::read(report, &mut status) {
                    Ok(4) => match i32::from_le_bytes(status) {
                        signal @ ..0 => {
                            // As if it had been sent here, as it was before the restart.
                            if let Some(signal) = Signal::from_named_raw(-signal) {
                                let _ = kill_process(rustix::process::getpid(), signal);
                            }
                        }
                        status => {
                            self.first_status = Some(status);
                            self.info.first_status = Some(status);
                        }
                    },
                    _ => self.all_ended = true,
                }
            }
        }
    }

    fn ended(&mut self, pid: i32, status: i32) {
        self.helpers.ended(pid, ExitStatus::from_raw(status));
        self.checkpointer.anchor.reaped(HostPid(pid));
        if matches!(self.watch, Watch::Child(first) if first.as_raw_nonzero().get() == pid) {
            self.first_status = Some(status);
            self.info.first_status = Some(status);
        }
    }

    fn is_over(&self) -> bool {
        self.all_ended || self.first_status.is_some() && !self.info.settings.wait_all
    }

    fn serve(&mut self, request: Request, client: Client) {
        match request {
            Request::Status => client.answer(&Reply::Status(self.status())),
            Request::Checkpoint => self.waiting.push(CheckpointRequest::Client { client, stop: None }),
            Request::Stop => self.waiting.push(CheckpointRequest::Client { client, stop: Some(Stop::Leave) }),
        }
    }

    fn status(&self) -> control::Status {
        control::Status {
            job: self.info.id.clone(),
            name: self.info.name.clone(),
            pid: std::process::id(),
            dir: self.info.settings.dir.to_string(),
            processes: self.checkpointer.anchor.scan().len(),
            interval: self.schedule.interval().map(|interval| interval.as_secs_f64()),
            newest: self.newest.as_ref().map(|path| path.display().to_string()),
            busy: !self.serving.is_empty(),
        }
    }

    /// Begins a checkpoint when one is wanted and none is under way.
    fn begin(&mut self) {
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
    fn conclude(&mut self, outcome: Outcome) -> Option<u8> {
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

    fn note_taken(&mut self, taken: &CheckpointSummary) {
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

    /// Asks the scheduler to queue the job again, which ends this process soon after: the image is durable already.
    fn requeue(&mut self) {
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

    /// Waits for something that depends on commands of its own, which only this thread reaps.
    fn wait_for<T>(&mut self, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            self.reap();
            if let Some(found) = look(self) {
                return found;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The job is over: a checkpoint under way is given up. The exit code.
    fn end(&mut self) -> u8 {
        self.checkpointer.cancelled.store(true, Ordering::Relaxed);
        let given_up = Instant::now() + END_GRACE;
        while !self.serving.is_empty() {
            let event = self.wait_for(|own| match own.events.1.try_recv() {
                Ok(event) => Some(Some(event)),
                Err(_) => (Instant::now() > given_up).then_some(None),
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
        let tidied = within(END_GRACE, move || {
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
