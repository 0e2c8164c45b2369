//! The coordinator's main loop: it waits for the job, the clock, signals and requests, and does one thing at a time.
//!
//! Each pass of the loop takes these steps:
//!
//! 1. [`reap`] learns which processes have ended.
//! 2. [`signalled`] reacts to signals, and to those that the job holds back.
//! 3. Requests of `ckpt-ctl` are answered or queued ([`requests`]).
//! 4. [`checkpoints`] concludes a checkpoint that is over.
//! 5. [`ending`] gives the exit code once the job is over.
//! 6. [`clock`] wants a checkpoint when it is time for one.
//! 7. [`checkpoints`] begins one that is wanted.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ckpt_image::generations;
use ckpt_objects::sysv::EarlierIds;
use ckpt_objects::terminal::OwnTerminal;
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::Listener;
use ckpt_session::environment;
use ckpt_session::job::JobInfo;
use ckpt_session::library;
use ckpt_session::{Reporter, report};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::Pid;

use crate::batch::Slurm;
use crate::checkpoint::{CheckpointSummary, Checkpointer, features};
use crate::control::{self, Client, Reply, Request, Server};
use crate::error::{CheckpointError, LaunchError, system};
use crate::files::Files;
use crate::held_signals::HeldSignals;
use crate::helpers::Helpers;
use crate::hooks::HookRunner;
use crate::ptrace::WaitLock;
use crate::schedule::Schedule;
use crate::signals::Signals;
use crate::snapshot::TwinChoice;
use crate::tree::{Anchor, Earlier};

mod checkpoints;
mod clock;
mod ending;
mod reap;
mod requests;
mod signalled;

use requests::{CheckpointRequest, Stop};

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

/// What a thread beside has done for the coordinator.
enum Event {
    /// A checkpoint is over.
    Checkpoint(Outcome),
    /// When the machine is taken away, or why that is not known.
    End(Result<SystemTime, String>),
}

type Outcome = Result<CheckpointSummary, CheckpointError>;

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
    /// Requests that the checkpoint under way serves, and those that the next will.
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
            twins: TwinChoice::default(),
            freezing: AtomicBool::new(false),
            wake: Arc::clone(&wake),
            hooks: Arc::new(HookRunner::new(info.settings.hooks.clone(), Arc::clone(&helpers), reporter)),
            files: Mutex::new(setup.files),
        };
        let schedule = Schedule::new(&info.settings, info.cost_ns.map(Duration::from_nanos), Instant::now());
        // A coordinator without a control socket still does its main work.
        let server = Server::bind(&info.id).map_err(|error| {
            reporter.error(format_args!("ckpt-ctl cannot reach this job: no socket for it: {error}"));
        });
        let _ = generations::remove_stale_temporaries(info.settings.dir.as_path(), &info.id);
        Ok(Self {
            first_status: info.first_status,
            info,
            checkpointer: Arc::new(checkpointer),
            watch: setup.watch,
            signals,
            terminal,
            server: server.ok(),
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

    /// For a thread that does something beside: tells the coordinator, and wakes it.
    fn teller(&self) -> impl FnOnce(Event) + Send + use<> {
        let (sender, wake) = (self.events.0.clone(), Arc::clone(&self.wake));
        move |event| {
            let _ = sender.send(event);
            let _ = rustix::io::write(wake.as_fd(), &1u64.to_ne_bytes());
        }
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
}
