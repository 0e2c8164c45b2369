//! The start of a coordinator: in `ckpt-launch`, which starts the job's command, or in `ckpt-restart`, which has restored the job.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ckpt_objects::directory::DirectoryIdentity;
use ckpt_objects::sysv::EarlierIds;
use ckpt_objects::terminal::OwnTerminal;
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_session::Listener;
use ckpt_session::Reporter;
use ckpt_session::environment;
use ckpt_session::io_uring::{self, IoUring};
use ckpt_session::job::realtime_ns;
use ckpt_session::job::{JobInfo, Settings};
use ckpt_session::library::{self, find_agent};
use ckpt_sys::program::found_heeds_preload;
use ckpt_wire::touched::ENV_TOUCHED;
use ckpt_wire::{
    DEFAULT_SIGNAL, ENV_AGENT, ENV_DIR, ENV_FILE, ENV_IO_URING, ENV_JOB, ENV_SECRET, ENV_SHIELD, ENV_SIGNAL, Secret,
};
use nix::sys::signal::Signal as NixSignal;
use rustix::process::{Pid, set_child_subreaper};

use crate::error::{LaunchError, system};
use crate::files::Files;
use crate::nesting::without_agents;
use crate::options::Reactions;
use crate::run::{Coordinator, Setup, Terminal, Watch};
use crate::signals::{Signals, start_as_before};
use crate::tree::Earlier;

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
    /// System V objects that were in the machine's IPC namespace before the restart.
    pub earlier_ids: EarlierIds,
    /// Its files as they have been brought back.
    pub files: Files,
    /// The image that it came from, held while there is no newer one.
    pub image: Option<File>,
}

/// What a job with this command is called.
#[must_use]
pub fn job_name(command: &[OsString]) -> String {
    let name = command.first().and_then(|program| Path::new(program).file_name());
    name.map_or_else(|| "job".into(), |name| name.to_string_lossy().into_owned())
}

/// Launches a job and stays with it to its end. Gives the exit code.
///
/// # Errors
///
/// When the job cannot be started, or its coordinator lacks what it needs.
pub fn launch(launch: Launch) -> Result<u8, LaunchError> {
    let agent = find_agent().ok_or(LaunchError::Agent)?;
    let dir = launch.settings.dir.as_path();
    check_directory(dir).map_err(|source| LaunchError::Directory { dir: dir.to_owned(), source })?;
    let id = draw_id()?;
    let env_file = environment::file_for(&id, std::env::var_os(ENV_FILE));
    environment::check(&env_file, &id).map_err(LaunchError::Variables)?;
    if launch.settings.io_uring == IoUring::Forbidden {
        io_uring::forbid().map_err(LaunchError::IoUring)?;
    }
    let agent = library::lend(agent, &id);

    set_child_subreaper(Some(rustix::process::getpid())).map_err(|errno| system("adopt orphans")(errno.into()))?;
    let secret = draw_secret()?;
    let listener =
        Listener::bind(secret, HostPid::own().pid_namespace().map_err(system("read /proc"))?).map_err(system("open a socket"))?;
    let signals = Signals::catch(&Reactions::from_settings(&launch.settings.on, &[]))?;
    let terminal = OwnTerminal::find();
    let mut command = command(&launch, &id, secret, &agent, &signals);
    command.env(ENV_FILE, &env_file);
    let earlier_ids = EarlierIds::observe();
    let reporter = launch.reporter;
    let mut info = job_info(launch, id, secret, env_file);
    let (files, listed) = Files::begin(&info);
    match listed {
        Ok(()) => {
            command.env(ENV_TOUCHED, files.list().path());
        }
        Err(error) => reporter.error(format_args!(
            "what the job does to files cannot be noted in {}: {error}; a restart brings back only those that it has open",
            files.list().path().display()
        )),
    }
    // Before the job can look for it.
    if let Some(complaint) = environment::offer(&info) {
        reporter.error(complaint);
    }
    let earlier = Earlier::find(&info.id, info.signal);
    let child = command.spawn().map_err(|source| {
        environment::withdraw(&info);
        library::take_back(&info.id);
        files.list().remove();
        LaunchError::Command { command: command.get_program().into(), source }
    })?;
    let first = Pid::from_child(&child);
    info.first = NsPid(first.as_raw_nonzero().get());
    let setup = Setup {
        info,
        reaper: HostPid::own(),
        earlier,
        listener,
        files,
        agent,
        watch: Watch::Child(first),
        signals,
        terminal: Terminal { own: terminal, shared: true, is_new: false },
        reporter,
        makers: Vec::new(),
        earlier_ids,
        image: None,
    };
    Coordinator::new(setup)?.run()
}

/// A job's id: 16 hexadecimal digits.
fn draw_id() -> Result<String, LaunchError> {
    Ok(format!("{:016x}", u64::from_ne_bytes(draw()?)))
}

fn draw_secret() -> Result<Secret, LaunchError> {
    Ok(Secret(u128::from_ne_bytes(draw()?)))
}

fn draw<const N: usize>() -> Result<[u8; N], LaunchError> {
    let mut random = [0u8; N];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| system("draw random bytes")(errno.into()))?;
    Ok(random)
}

/// The command, with the agent's variables and the signal mask that the job begins with.
fn command(launch: &Launch, id: &str, secret: Secret, agent: &Path, signals: &Signals) -> Command {
    let program = PathBuf::from(&launch.command[0]);
    let mut command = Command::new(&program);
    command.args(&launch.command[1..]).env(ENV_JOB, id).env(ENV_DIR, launch.settings.dir.as_path()).env(ENV_AGENT, agent);
    command.env(ENV_SECRET, OsStr::from_bytes(&secret.text()));
    command.env(ENV_SIGNAL, DEFAULT_SIGNAL.to_string()).env("LD_PRELOAD", preload(agent));
    if launch.settings.io_uring == IoUring::Allowed {
        command.env(ENV_IO_URING, "1");
    }
    command.env(ENV_SHIELD, shield(&signals.reactions)).env_remove(ENV_TOUCHED);
    start_as_before(&mut command, signals.before, &shielded(&program, &signals.reactions));
    command
}

/// What images say of a job that is about to begin.
fn job_info(launch: Launch, id: String, secret: Secret, env_file: PathBuf) -> JobInfo {
    // Not by rustix, which expects no 0: a group or session that was made outside of this pid namespace.
    let (group, session) = (nix::unistd::getpgrp(), nix::unistd::getsid(None));
    JobInfo {
        env_file: env_file.into(),
        id,
        restarted: Vec::new(),
        secret: secret.0,
        name: job_name(&launch.command),
        command: launch.command.iter().map(|word| FilePath::from(word.as_os_str())).collect(),
        launch_dir: std::env::current_dir().unwrap_or_default().into(),
        launch_dir_is: DirectoryIdentity::of(Path::new(".")),
        generation: 1,
        launched_at_ns: realtime_ns(),
        taken_at_ns: 0,
        launcher: NsPid(HostPid::own().0),
        launcher_pgid: NsPid(group.as_raw()),
        launcher_sid: NsPid(session.map_or(0, nix::unistd::Pid::as_raw)),
        first: NsPid(0),
        first_status: None,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        signal: DEFAULT_SIGNAL,
        environment: environment::variables(&[]),
        key: launch.key,
        cost_ns: None,
        settings: launch.settings,
    }
}

/// Stays with a restarted job to its end. Gives the exit code.
///
/// # Errors
///
/// When its coordinator lacks what it needs.
pub fn coordinate_restarted(restarted: Restarted, reporter: Reporter) -> Result<u8, LaunchError> {
    let setup = Setup {
        agent: library::in_use(&restarted.info.id).ok_or(LaunchError::Agent)?,
        signals: Signals::catch(&Reactions::from_settings(&restarted.info.settings.on, &[]))?,
        info: restarted.info,
        reaper: restarted.reaper,
        earlier: None,
        listener: restarted.listener,
        files: restarted.files,
        watch: Watch::Report(restarted.report),
        terminal: Terminal { own: restarted.terminal, shared: restarted.shares_session, is_new: true },
        reporter,
        makers: restarted.makers,
        earlier_ids: restarted.earlier_ids,
        image: restarted.image,
    };
    Coordinator::new(setup)?.run()
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
    format!("{}:{}", HostPid::own(), signals.join(","))
}

/// The signals that the command's agent shields it from; none, if it will have no agent.
fn shielded(program: &Path, reactions: &Reactions) -> Vec<NixSignal> {
    let name = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let list = std::env::var_os("PATH").unwrap_or_default();
    let known = reactions.shielded().filter_map(|signal| NixSignal::try_from(signal.as_raw()).ok());
    if found_heeds_preload(&name, list.as_bytes()) { known.collect() } else { Vec::new() }
}
