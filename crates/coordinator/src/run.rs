//! The coordinator's life: it waits for the job, the clock, signals and requests, and does one thing at a time.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use ckpt_image::generations;
use ckpt_objects::directory::DirectoryIdentity;
use ckpt_objects::job::{JobInfo, Settings};
use ckpt_objects::terminal::OwnTerminal;
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_sys::program::found_heeds_preload;
use ckpt_wire::{DEFAULT_SIGNAL, ENV_AGENT, ENV_DIR, ENV_FILE, ENV_JOB, ENV_SHIELD, ENV_SIGNAL, Forward};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, Signal, kill_process, set_child_subreaper};

use crate::batch::Slurm;
use crate::checkpoint::{CheckpointError, Checkpointer, Taken, features};
use crate::control::{self, Client, Reply, Request, Server};
use crate::environment;
use crate::held::{Fate, Held, Hold, Verdict};
use crate::hooks::HookRunner;
use crate::library;
use crate::machine;
use crate::nesting::without_agents;
use crate::options::{Action, Reactions, is_given};
use crate::rendezvous::Listener;
use crate::report::Reporter;
use crate::schedule::{Due, Schedule};
use crate::second_door;
use crate::servants::Servants;
use crate::signals::{start_with_mask, survive_file_size_limit};
use crate::tree::Anchor;

/// `si_code` of a signal that the kernel sent, such as a terminal's.
const SI_KERNEL: i32 = 0x80;
/// Longest time between SIGTERM and SIGKILL that schedulers promise unless told otherwise (Slurm's `KillWait`): a checkpoint that took
/// longer than most of it is not begun.
const TERM_GRACE: Duration = Duration::from_secs(25);
/// How often it is looked whether a command of the coordinator's own has ended, while nothing else is done.
const LOOK: Duration = Duration::from_millis(5);

/// Why a job could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The command could not be started.
    #[error("cannot run {}: {source}", command.display())]
    Command {
        /// What was to be run.
        command: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// Images cannot be written where they are to go.
    #[error("cannot write images to {}: {source}; give another directory with --dir", dir.display())]
    Directory {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent's library is missing.
    #[error("cannot find the agent's library {name}; it belongs beside ckpt-launch or in ../lib", name = AGENT_FILE)]
    Agent,
    /// The system refused something that is always there.
    #[error("cannot {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::System { what, source }
}

/// The file name of the agent's library.
pub(crate) const AGENT_FILE: &str = "libckpt_preload.so";

/// What a launch is asked for.
pub struct Launch {
    /// The command and its arguments; not empty.
    pub command: Vec<OsString>,
    /// See [`batch::key`](crate::batch::key).
    pub key: String,
    /// The options that later coordinators of the job go on with.
    pub settings: Settings,
    /// How much is said.
    pub reporter: Reporter,
}

/// The terminal of a coordinator.
struct Terminal {
    /// As it was before the job had it.
    own: Option<OwnTerminal>,
    /// The job is in this process's group: what the terminal sends to that reaches both.
    shared: bool,
    /// The job has it again after a restart, with settings of its own.
    is_new: bool,
}

/// A restarted job, as `ckpt-restore` hands it over.
pub struct Restarted {
    /// What the image says of it, with the settings to go on with.
    pub info: JobInfo,
    /// The stand-in for the launcher in the job's pid namespace: what descends from it is the job.
    pub reaper: HostPid,
    /// Where the job's agents find their coordinator.
    pub listener: Listener,
    /// The stand-in's pipe, of numbers in four bytes: a wait status when the job's first process has ended, a negative number for
    /// a signal that the job sent to its launcher. It ends when no process is left.
    pub report: OwnedFd,
    /// The terminal of the restart, as it was before the job had it.
    pub terminal: Option<OwnTerminal>,
    /// Processes of the job are in the restart's own session and process group.
    pub shares_session: bool,
    /// Processes that made sockets of the job's, and have ended: their numbers here and in its namespace.
    pub makers: Vec<(HostPid, NsPid)>,
    /// The image that it came from, held while there is no newer one.
    pub image: Option<File>,
}

/// How the coordinator learns what becomes of the job.
enum Watch {
    /// It is the parent of this child.
    Child(Pid),
    /// The stand-in writes to this pipe.
    Report(OwnedFd),
}

/// Finds the agent's library: beside this program, in `../lib`, or where the build puts it.
#[must_use]
pub fn find_agent() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let dir = program.parent()?;
    [
        dir.join(AGENT_FILE),
        dir.join("../lib").join(AGENT_FILE),
        dir.join("deps").join(AGENT_FILE),
        dir.join("..").join(AGENT_FILE),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .and_then(|path| path.canonicalize().ok())
}

/// The inode number of a process's pid namespace.
pub fn pid_namespace(pid: HostPid) -> io::Result<u64> {
    Ok(std::fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino())
}

pub(crate) fn own_pid() -> HostPid {
    HostPid(i32::try_from(std::process::id()).unwrap_or(0))
}

/// What a job with this command is called.
#[must_use]
pub fn job_name(command: &[OsString]) -> String {
    let name = command.first().and_then(|program| Path::new(program).file_name());
    name.map_or_else(|| "job".into(), |name| name.to_string_lossy().into_owned())
}

/// Launches a job and stays with it to its end. Gives the exit code.
pub fn launch(launch: Launch) -> Result<u8, LaunchError> {
    let agent = find_agent().ok_or(LaunchError::Agent)?;
    let dir = launch.settings.dir.as_path().to_owned();
    check_directory(&dir).map_err(|source| LaunchError::Directory { dir: dir.clone(), source })?;
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| system("draw random bytes")(errno.into()))?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let agent = library::lend(agent, &id);

    set_child_subreaper(Some(rustix::process::getpid())).map_err(|errno| system("adopt orphans")(errno.into()))?;
    let listener =
        Listener::bind(&id, pid_namespace(own_pid()).map_err(system("read /proc"))?).map_err(system("open a socket"))?;
    let signals = Signals::catch(&Reactions::from_settings(&launch.settings.on, &[]))?;
    let terminal = OwnTerminal::find();
    let program = PathBuf::from(&launch.command[0]);
    let mut command = Command::new(&program);
    command.args(&launch.command[1..]).env(ENV_JOB, &id).env(ENV_DIR, &dir).env(ENV_AGENT, &agent);
    command.env(ENV_SIGNAL, DEFAULT_SIGNAL.to_string()).env("LD_PRELOAD", preload(&agent));
    let env_file = environment::file_for(&id, std::env::var_os(ENV_FILE));
    command.env(ENV_FILE, &env_file);
    command.env(ENV_SHIELD, shield(&signals.reactions));
    start_with_mask(&mut command, signals.before, &shielded(&program, &signals.reactions));
    crate::ipc::note_before();
    // Not by rustix, which expects no 0: a group or session that was made outside of this pid namespace.
    let (group, session) = (nix::unistd::getpgrp(), nix::unistd::getsid(None));
    let mut info = JobInfo {
        id,
        name: job_name(&launch.command),
        command: launch.command.iter().map(|word| FilePath::from(word.as_os_str())).collect(),
        launch_dir: std::env::current_dir().unwrap_or_default().into(),
        launch_dir_is: DirectoryIdentity::of(Path::new(".")),
        generation: 1,
        launched_at_ns: machine::launch_time_ns(),
        taken_at_ns: 0,
        launcher: NsPid(own_pid().0),
        launcher_pgid: NsPid(group.as_raw()),
        launcher_sid: NsPid(session.map_or(0, nix::unistd::Pid::as_raw)),
        first: NsPid(0),
        first_status: None,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        signal: DEFAULT_SIGNAL,
        environment: environment::variables(&[]),
        env_file: env_file.into(),
        key: launch.key,
        cost_ns: None,
        settings: launch.settings,
    };
    // Before the job can look for it.
    if let Some(complaint) = environment::offer(&info) {
        launch.reporter.error(complaint);
    }
    let child = command.spawn().map_err(|source| {
        environment::withdraw(&info);
        library::take_back(&info.id);
        LaunchError::Command { command: program.clone(), source }
    })?;
    let first = Pid::from_child(&child);
    info.first = NsPid(first.as_raw_nonzero().get());
    let terminal = Terminal { own: terminal, shared: true, is_new: false };
    Coordinator::new(info, own_pid(), listener, agent, Watch::Child(first), signals, terminal, launch.reporter)?.run()
}

/// Stays with a restarted job to its end. Gives the exit code.
pub fn coordinate_restarted(restarted: Restarted, reporter: Reporter) -> Result<u8, LaunchError> {
    let agent = library::in_use(&restarted.info.id).ok_or(LaunchError::Agent)?;
    let signals = Signals::catch(&Reactions::from_settings(&restarted.info.settings.on, &[]))?;
    let watch = Watch::Report(restarted.report);
    let terminal = Terminal { own: restarted.terminal, shared: restarted.shares_session, is_new: true };
    let mut coordinator =
        Coordinator::new(restarted.info, restarted.reaper, restarted.listener, agent, watch, signals, terminal, reporter)?;
    if let Some(checkpointer) = Arc::get_mut(&mut coordinator.checkpointer) {
        checkpointer.makers = restarted.makers;
    }
    coordinator.held = restarted.image;
    coordinator.run()
}

fn check_directory(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    Ok(())
}

/// The job's `LD_PRELOAD`: the agent, then what the user preloads already.
fn preload(agent: &Path) -> OsString {
    let mut list = agent.as_os_str().to_owned();
    let others = std::env::var_os("LD_PRELOAD").map(|others| without_agents(&others)).unwrap_or_default();
    if !others.is_empty() {
        list.push(":");
        list.push(others);
    }
    list
}

/// What the job's shield is told: see [`ENV_SHIELD`].
fn shield(reactions: &Reactions) -> String {
    let signals: Vec<String> = reactions.shielded().map(|signal| signal.as_raw().to_string()).collect();
    format!("{}:{}", own_pid(), signals.join(","))
}

/// The signals that the command's agent shields it from; none, if it will have no agent.
fn shielded(program: &Path, reactions: &Reactions) -> Vec<NixSignal> {
    let name = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let list = std::env::var_os("PATH").unwrap_or_default();
    let known = reactions.shielded().filter_map(|signal| NixSignal::try_from(signal.as_raw()).ok());
    if found_heeds_preload(&name, list.as_bytes()) { known.collect() } else { Vec::new() }
}

/// The signals that the coordinator listens to: blocked, and read from a descriptor.
struct Signals {
    descriptor: SignalFd,
    reactions: Reactions,
    /// The signal mask that the coordinator was started with.
    before: SigSet,
}

impl Signals {
    fn catch(reactions: &Reactions) -> Result<Self, LaunchError> {
        let fail = |errno: nix::Error| system("listen to signals")(errno.into());
        let mut set = SigSet::empty();
        set.add(NixSignal::SIGCHLD);
        for on in reactions.iter() {
            set.add(NixSignal::try_from(on.signal.as_raw()).map_err(fail)?);
        }
        let mut before = SigSet::empty();
        nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before)).map_err(fail)?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(fail)?;
        survive_file_size_limit().map_err(fail)?;
        Ok(Self { descriptor, reactions: reactions.clone(), before })
    }

    /// The next signal that came and is not SIGCHLD, what it does, and whether the kernel sent it.
    fn next(&mut self) -> Option<(Signal, Action, bool)> {
        while let Ok(Some(info)) = self.descriptor.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Some(on) = self.reactions.iter().find(|on| on.signal.as_raw() == number) {
                return Some((on.signal, on.action, info.ssi_code == SI_KERNEL));
            }
        }
        None
    }
}

/// What comes after a checkpoint that ends the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// Nothing.
    Leave,
    /// The scheduler is asked to queue it again.
    Requeue,
}

/// Who wants a checkpoint, and what for.
enum Wish {
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

impl Wish {
    /// What it wants of a checkpoint that ends the job, if that is what it wants.
    fn stop(&self) -> Option<Stop> {
        match self {
            Self::Planned | Self::Before(_) | Self::Also(_) => None,
            Self::Last(stop) | Self::Signal(_, stop) | Self::Client { stop, .. } => *stop,
        }
    }
}

/// What an action wants of a checkpoint that ends the job.
fn stop_by(action: Action) -> Option<Stop> {
    match action {
        Action::Stop => Some(Stop::Leave),
        Action::Requeue => Some(Stop::Requeue),
        Action::Checkpoint | Action::CheckpointThenForward | Action::Forward => None,
    }
}

/// What somebody has done for the coordinator beside.
enum Event {
    /// A checkpoint is over.
    Checkpoint(Outcome),
    /// It is known when the machine is taken away, or it is not.
    End(Result<SystemTime, String>),
}

type Outcome = Result<Taken, CheckpointError>;

struct Coordinator {
    info: JobInfo,
    checkpointer: Arc<Checkpointer>,
    watch: Watch,
    signals: Signals,
    terminal: Terminal,
    server: Option<Server>,
    reporter: Reporter,
    schedule: Schedule,
    slurm: Option<Slurm>,
    servants: Arc<Servants>,
    /// Wishes that the checkpoint under way serves, and those that the next will.
    serving: Vec<Wish>,
    waiting: Vec<Wish>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Written to when an event is there.
    wake: Arc<OwnedFd>,
    newest: Option<PathBuf>,
    /// The newest image, so that nobody else takes it for one whose job does not run.
    held: Option<File>,
    /// The first process's wait status once it has ended.
    first_status: Option<i32>,
    /// No process of the job is left.
    all_ended: bool,
    /// Signals that its processes hold back.
    holds: Held,
}

impl Coordinator {
    #[allow(clippy::too_many_arguments)]
    fn new(
        info: JobInfo,
        reaper: HostPid,
        listener: Listener,
        agent: PathBuf,
        watch: Watch,
        signals: Signals,
        terminal: Terminal,
        reporter: Reporter,
    ) -> Result<Self, LaunchError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| system("make an eventfd")(errno.into()))?;
        let wake = Arc::new(wake);
        let anchor = Arc::new(Anchor::new(reaper));
        let servants = Arc::new(Servants::new(Arc::clone(&anchor), signals.before));
        let checkpointer = Checkpointer {
            anchor,
            listener,
            agent: agent.into(),
            codec: info.settings.compress.parse().unwrap_or(ckpt_image::Codec::Zstd(1)),
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            terminal: terminal.own.as_ref().map(|own| own.settings),
            features: features(),
            makers: Vec::new(),
            cancelled: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            freezing: AtomicBool::new(false),
            wake: Arc::clone(&wake),
            hooks: Arc::new(HookRunner::new(info.settings.hooks.clone(), Arc::clone(&servants), reporter)),
        };
        let schedule = Schedule::new(&info.settings, info.cost_ns.map(Duration::from_nanos), Instant::now());
        // A coordinator without a control socket still does its main work.
        let server = Server::bind(&info.id).ok();
        let _ = generations::remove_stale_temporaries(info.settings.dir.as_path(), &info.id);
        Ok(Self {
            first_status: info.first_status,
            info,
            checkpointer: Arc::new(checkpointer),
            watch,
            signals,
            terminal,
            server,
            reporter,
            schedule,
            slurm: Slurm::here(),
            servants,
            serving: Vec::new(),
            waiting: Vec::new(),
            wake,
            events: mpsc::channel(),
            newest: None,
            held: None,
            all_ended: false,
            holds: Held::default(),
        })
    }

    fn run(mut self) -> Result<u8, LaunchError> {
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
            self.look_at_holds();
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
        let next = next.into_iter().chain(self.holds.next()).min();
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
                let (servants, tell) = (Arc::clone(&self.servants), self.teller());
                std::thread::spawn(move || tell(Event::End(slurm.ask_end(&servants))));
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
            Some(Due::Planned) => self.waiting.push(Wish::Planned),
            Some(Due::Last(action)) => self.waiting.push(Wish::Last(stop_by(action))),
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
        let Some(_nobody_traces) = second_door::nobody_traces() else { return };
        loop {
            match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid.as_raw(), code << 8),
                Ok(WaitStatus::Signaled(pid, signal, core)) => {
                    self.ended(pid.as_raw(), signal as i32 | if core { 0x80 } else { 0 });
                }
                Ok(WaitStatus::StillAlive) => break,
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
        self.servants.ended(pid, ExitStatus::from_raw(status));
        if matches!(self.watch, Watch::Child(first) if first.as_raw_nonzero().get() == pid) {
            self.first_status = Some(status);
            self.info.first_status = Some(status);
        }
    }

    fn is_over(&self) -> bool {
        self.all_ended || self.first_status.is_some() && !self.info.settings.wait_all
    }

    fn react(&mut self, signal: Signal, action: Action, from_kernel: bool) {
        let also = is_given(signal, &self.info.settings.forward);
        if action != Action::Forward {
            self.holds.hear(signal.as_raw(), Instant::now());
            self.checkpointer.heard.fetch_or(1 << (signal.as_raw() - 1), Ordering::AcqRel);
        }
        match action {
            Action::Checkpoint if also => self.waiting.push(Wish::Also(signal)),
            Action::Checkpoint | Action::Stop | Action::Requeue => {
                // The job goes no further than its checkpoint.
                if also {
                    self.settle(signal, Fate::Given);
                }
                self.waiting.push(Wish::Signal(signal, stop_by(action)));
            }
            // One that is under way is as good as another.
            Action::CheckpointThenForward if !self.serving.is_empty() => self.serving.push(Wish::Before(signal)),
            Action::CheckpointThenForward if self.schedule.fits(TERM_GRACE) => self.waiting.push(Wish::Before(signal)),
            Action::CheckpointThenForward => {
                self.reporter.event(format_args!("no checkpoint on {}: the last took too long", name(signal)));
                self.pass_on(signal);
            }
            // A terminal sends its signals to the whole foreground group, of which a launched job is part.
            Action::Forward if from_kernel && self.terminal.shared => (),
            Action::Forward => self.forward(signal),
        }
    }

    /// Passes a signal on for which the job had to wait: to the first process, and to whoever got it before and holds it back.
    fn pass_on(&mut self, signal: Signal) {
        // A job that takes its time to end would come back only to go on ending.
        self.schedule.pause(Instant::now() + TERM_GRACE);
        self.settle(signal, Fate::PassedOn);
    }

    /// What a signal asked for is done, or cannot be: the first process gets it, if any does, and others as it is their fate.
    fn settle(&mut self, signal: Signal, fate: Fate) {
        let holds = self.holds.settle(signal.as_raw(), fate, Instant::now());
        if fate == Fate::Dropped {
            return;
        }
        // It has it already.
        if !holds.iter().any(|hold| hold.ns_pid == self.info.first) {
            self.forward(signal);
        }
        for hold in holds {
            let only_if_handled = fate == Fate::Given && hold.ns_pid != self.info.first;
            self.let_in(hold, only_if_handled);
        }
    }

    fn let_in(&self, hold: Hold, only_if_handled: bool) {
        self.checkpointer.anchor.let_in(hold.pid, hold.signal, self.info.signal, only_if_handled);
    }

    /// Decides about signals that processes hold back and the coordinator has not got.
    fn look_at_holds(&mut self) {
        let now = Instant::now();
        for hold in self.checkpointer.listener.holds() {
            let is_acted_on =
                self.signals.reactions.iter().any(|on| on.signal.as_raw() == hold.signal && on.action != Action::Forward);
            match self.holds.hold(hold, is_acted_on, hold.ns_pid == self.info.first, now) {
                Verdict::Leave => (),
                Verdict::LetIn => self.let_in(hold, false),
                Verdict::LetInIfHandled => self.let_in(hold, true),
            }
        }
        for hold in self.holds.alone(now) {
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

    fn serve(&mut self, request: Request, client: Client) {
        match request {
            Request::Status => client.answer(&Reply::Status(self.status())),
            Request::Checkpoint => self.waiting.push(Wish::Client { client, stop: None }),
            Request::Stop => self.waiting.push(Wish::Client { client, stop: Some(Stop::Leave) }),
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
        let stop = self.serving.iter().any(|wish| wish.stop().is_some());
        let told = self.serving.iter().find_map(|wish| match wish {
            Wish::Before(signal) if !stop => NixSignal::try_from(signal.as_raw()).ok(),
            _ => None,
        });
        let (checkpointer, info, tell) = (Arc::clone(&self.checkpointer), self.info.clone(), self.teller());
        self.schedule.begin(Instant::now());
        std::thread::spawn(move || {
            let outcome = checkpointer.take(info, stop, told);
            if let Ok(taken) = &outcome {
                let hooks = &checkpointer.hooks;
                // When the job ends with it, so does this process, and perhaps all that the scheduler lets run.
                if stop { hooks.after(&taken.path, taken.generation) } else { hooks.after_beside(&taken.path, taken.generation) }
            }
            tell(Event::Checkpoint(outcome));
        });
    }

    /// A checkpoint is over. The exit code, if the job is over with it.
    fn conclude(&mut self, outcome: Outcome) -> Option<u8> {
        let served = std::mem::take(&mut self.serving);
        let stop = served.iter().filter_map(Wish::stop).max();
        match &outcome {
            Ok(taken) => self.note_taken(taken),
            Err(_) if self.is_over() => (),
            Err(error) => self.reporter.error(format_args!("no checkpoint: {error}")),
        }
        self.schedule.conclude(outcome.as_ref().ok().map(|taken| taken.total), Instant::now());
        for wish in served {
            match wish {
                Wish::Client { client, .. } => client.answer(&match &outcome {
                    Ok(taken) => Reply::Image(taken.path.display().to_string()),
                    Err(error) => Reply::Error(error.to_string()),
                }),
                Wish::Before(signal) => self.pass_on(signal),
                Wish::Also(signal) => self.settle(signal, Fate::Given),
                Wish::Signal(signal, _) if !is_given(signal, &self.info.settings.forward) => self.settle(signal, Fate::Dropped),
                Wish::Last(_) if outcome.is_err() && !self.is_over() => {
                    if let Some(after) = self.schedule.last_failed(Instant::now()) {
                        self.reporter.event(format_args!("the last checkpoint is tried again in {} s", after.as_secs()));
                    }
                }
                Wish::Last(_) | Wish::Planned | Wish::Signal(..) => (),
            }
        }
        let stop = stop.filter(|_| outcome.is_ok())?;
        match stop {
            Stop::Leave => self.reporter.event("the job is stopped; go on with ckpt-restart"),
            Stop::Requeue => self.requeue(),
        }
        Some(self.info.settings.stop_exit_code)
    }

    fn note_taken(&mut self, taken: &Taken) {
        self.reporter.event(taken);
        if let Some(complaint) = &taken.complaint {
            self.reporter.error(complaint);
        }
        self.info.generation = taken.generation + 1;
        self.info.cost_ns = u64::try_from(taken.total.as_nanos()).ok();
        self.newest = Some(taken.path.clone());
        self.held = generations::hold(&taken.path).ok();
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
        let (servants, asked) = (Arc::clone(&self.servants), slurm.clone());
        let (tell, answer) = mpsc::channel();
        std::thread::spawn(move || tell.send(asked.requeue(&servants)));
        match self.wait_for(|_| answer.try_recv().ok()) {
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
        while !self.serving.is_empty() {
            if let Event::Checkpoint(outcome) = self.wait_for(|own| own.events.1.try_recv().ok())
                && let Some(code) = self.conclude(outcome)
            {
                // It is over because the checkpoint was to end it.
                return code;
            }
        }
        for wish in std::mem::take(&mut self.waiting) {
            if let Wish::Client { client, .. } = wish {
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
        if status.success() && !self.info.settings.keep_on_success {
            self.remove_images();
        }
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        u8::try_from(code).unwrap_or(1)
    }

    /// A job that has ended well is not to be resumed by mistake.
    fn remove_images(&mut self) {
        self.held = None;
        if let Err(error) = generations::remove_all(self.info.settings.dir.as_path(), &self.info.id) {
            self.reporter.error(error);
        }
    }
}

fn name(signal: Signal) -> String {
    NixSignal::try_from(signal.as_raw()).map_or_else(|_| signal.as_raw().to_string(), |signal| signal.to_string())
}
