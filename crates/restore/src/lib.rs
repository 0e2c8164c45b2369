//! Bringing a job back from its image: the plan of a restart, and the few hundred bytes of code that swap one address space for
//! another.
//!
//! The order of things (`docs/restart.md` tells why):
//!
//! 1. [`checks`]: can this machine be the job's, are its files there? Nothing is changed. Then the job's files are brought back to how they
//!    were at the checkpoint ([`rollback`]).
//! 2. [`tree`]: who forks whom. [`namespaces`]: new ones are made, and their first process.
//! 3. [`files`]: one process, the [`standin`] for the launcher, makes every open file description of the job, and joins its
//!    [`epolls`].
//! 4. [`family`]: the process tree grows; everybody takes its place in sessions and groups.
//! 5. [`process`]: each maps and fills its [`memory`], arranges its [`descriptors`], and enters the [`restorer`].
//! 6. When every thread waits at the gate: [`commit`] writes back what is mapped shared; then the gate opens for all at once.
//!
//! What happens with the job after that is the coordinator's part.

mod aside;
mod checks;
mod commit;
mod contents;
mod control;
mod descriptors;
mod environment;
mod epolls;
mod error;
mod family;
mod files;
mod holes;
mod input;
mod locks;
mod memory;
mod missing;
mod namespaces;
mod own_output;
mod paths;
mod process;
mod restorer;
mod rollback;
mod sockets;
mod standin;
mod terminals;
#[cfg(test)]
mod testing;
mod timers;
mod tree;
mod vdso;

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ckpt_image::{ImageName, ImageReader};
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::process::{Life, children, status_if_there};
use ckpt_objects::terminal::OwnTerminal;
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_session::JobState;
use ckpt_session::Listener;
use ckpt_session::environment::{offer, variables};
use ckpt_session::job::JobInfo;
use ckpt_session::library;
use ckpt_sys::syscall;
use ckpt_wire::touched::{ENV_TOUCHED, VARIABLE_SIZE};
use linux_raw_sys::general as nr;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::futex;

pub use error::RestoreError;
pub use namespaces::{is_privileged, remedy as namespace_remedy};

use crate::aside::Aside;
use crate::control::{COMMITTED, Control, OPEN, Report, wake};
use crate::family::Restart;
use crate::missing::Missing;
use crate::paths::PathMap;
use crate::rollback::Rollback;
use crate::terminals::Standing;
use crate::tree::Tree;

/// What the user may say about a restart.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Paths that moved: old and new prefix.
    pub maps: Vec<(PathBuf, PathBuf)>,
    /// Refuse a job that had sockets which lead outside of it.
    pub strict: bool,
    /// Write the variables of the batch job into the processes' environments.
    pub refresh_env: bool,
    /// Where the job's images go, if it is not where they went.
    pub dir: Option<PathBuf>,
}

/// A job that runs again.
#[derive(Debug)]
pub struct RestoredJob {
    /// Process 1 of its pid namespace. When it ends, everything in the namespace does.
    pub init: HostPid,
    /// The process that has the launcher's pid: what descends from it is the job.
    pub stand_in: HostPid,
    /// Where the job's agents find their coordinator: it must be there before the job is.
    pub listener: Listener,
    /// A pipe of numbers in four bytes: a wait status when the first process has ended, a negative number for a signal that the job
    /// sent to its launcher. It ends when no process is left.
    pub ends: OwnedFd,
    /// Living processes.
    pub processes: usize,
    /// Threads in them.
    pub threads: usize,
    /// Processes that made sockets of the job's, and have ended: their numbers here and in the namespace.
    pub makers: Vec<(HostPid, NsPid)>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
    /// Processes of the job are in the session and process group of the restart.
    pub shares_session: bool,
    /// Its files, by the paths that they have now.
    pub files: JobFiles,
    /// What the image says of the job, with paths as they are now: what the next image is to say.
    pub info: JobInfo,
}

/// Reads what an image says of its job.
pub fn read_job(reader: &ImageReader) -> Result<JobState, RestoreError> {
    let job: JobState = postcard::from_bytes(reader.metadata()).map_err(|error| RestoreError::Metadata(error.to_string()))?;
    // Names of files are made from its id.
    ImageName::new(&job.info.name, &job.info.id, job.info.generation)
        .map_err(|error| RestoreError::Metadata(error.to_string()))?;
    Ok(job)
}

/// Brings a job back. The caller must have one thread. `own` is its terminal; `tell` is told what takes its time.
///
/// When this returns an error, nothing of the job has run and nothing of it is left.
pub fn restore(
    reader: &ImageReader,
    job: &JobState,
    options: &Options,
    own: Option<&OwnTerminal>,
    tell: &dyn Fn(&str),
) -> Result<RestoredJob, RestoreError> {
    let mut info = job.info.clone();
    let adopted = terminals::adopt(job, own);
    let terminal = Standing { adopted: adopted.is_some(), in_foreground: own.is_some_and(OwnTerminal::is_in_foreground) };
    let job = adopted.as_ref().unwrap_or(job);
    let privileged = is_privileged();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut paths = PathMap::new(options.maps.clone());
    let mut notes = Vec::new();

    checks::processor(job)?;
    checks::users(job, privileged, uid)?;
    let tree = Tree::plan(job, checks::pid_max())?;
    notes.extend(checks::moved_directory(job, reader.path(), &mut paths));
    paths.move_job(&mut info);
    let former = std::mem::take(&mut info.environment);
    info.environment = variables(&former);
    let copy = library::copy_of(&job.info.id);
    if job.mapped_files.iter().any(|file| file.path.as_path() == copy) {
        library::lend_again(&job.info.id).map_err(RestoreError::call("put the agent's library back into /tmp"))?;
    }
    let home = home_of(&info, options, reader);
    let aside = Aside { dir: ckpt_session::files::aside_in(&home, &info) };
    let output = Aside { dir: ckpt_session::files::output_in(&home, &info) };
    let mut rollback = Rollback::plan(job, reader, &mut paths, &info, &aside)?;
    let holds = |path: &FilePath| rollback.provides(path);
    let mut missing = Missing::default();
    let mapped = checks::mapped_files(job, &paths, &holds, &mut missing)?;
    notes.extend(checks::open_files(job, &paths, &holds, &mut missing)?);
    missing.finish(&paths, &former, &info.environment)?;
    notes.extend(sockets::check(job, &paths, options.strict, &holds)?);
    checks::memory(reader)?;
    locks::check(job, &paths)?;
    rollback.apply()?;
    if let (true, Some(lost)) = (options.strict, rollback.lost().first()) {
        return Err(RestoreError::Lost(lost.clone()));
    }
    let files = rollback.begin_segment(job, &paths, &info, &home);
    let touched = touched_variable(&files);

    let living = job.processes.iter().filter(|process| matches!(process.life, Life::Alive(_))).count();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let control = Control::map().map_err(|errno| RestoreError::call("map a page")(std::io::Error::from_raw_os_error(errno.0)))?;
    let (reports, reports_in) = control::report_pipe().map_err(RestoreError::call("make a pipe"))?;
    let (ends, ends_in) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(RestoreError::call("make a pipe"))?;
    let place = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let processes = rustix::fs::open("/proc", place, rustix::fs::Mode::empty()).map_err(RestoreError::call("open /proc"))?;
    let restart = Restart {
        job,
        reader,
        paths: &paths,
        mapped: &mapped,
        reads: rollback.reads(),
        touched: &touched,
        environment: if options.refresh_env { &info.environment } else { &[] },
        tree: &tree,
        control,
        reports: reports_in.as_raw_fd(),
        ends: ends_in.as_raw_fd(),
        processes: processes.as_raw_fd(),
        lowest: 3,
        fill_threads: (processors / living.max(1)).max(1),
        user_namespace: !privileged,
        terminal,
        uid,
        gid,
    };
    let init = with_signals_blocked(|| namespaces::make_init(&restart))?;
    drop((reports_in, ends_in, processes));
    let seen = (0, Instant::now());
    let init = HostPid(init);
    let mut watcher = Watcher { job, tree: &tree, control, init, reports, notes, tell, makers: Vec::new(), seen };
    let outcome = watcher.wait_for_all().and_then(|()| watcher.open(|| commit::commit(job, reader, &paths, &output)));
    let identity = outcome.and_then(|()| watcher.identify()).and_then(|(stand_in, namespace)| {
        let listener = Listener::bind(&job.info.id, namespace).map_err(RestoreError::call("open a socket"))?;
        Ok((stand_in, listener))
    });
    let (stand_in, listener) = match identity {
        Ok(identity) => identity,
        Err(error) => {
            watcher.end_all();
            return Err(error);
        }
    };
    let _ = rollback.settle();
    watcher.notes.extend(rollback.keep());
    watcher.notes.extend(offer(&info));
    terminals::lend(job, own);
    hold_signals(job);
    control.gate.store(OPEN, Ordering::Release);
    wake(&control.gate);
    if terminals::uses_outside(job) {
        // By the way: whoever coordinates must soon catch what is typed. No signal is to end this thread instead.
        with_signals_blocked(|| std::thread::spawn(move || terminals::tell_window(stand_in)));
    }
    let threads = thread_count(job);
    Ok(RestoredJob {
        init,
        stand_in,
        listener,
        ends,
        processes: living,
        threads,
        shares_session: terminal.adopted,
        makers: watcher.makers,
        notes: watcher.notes,
        files,
        info,
    })
}

/// Where the job's images are and go: beside the one that it comes from where their directory is gone.
fn home_of(info: &JobInfo, options: &Options, reader: &ImageReader) -> PathBuf {
    let dir = options.dir.as_deref().unwrap_or(info.settings.dir.as_path());
    let beside = || reader.path().canonicalize().ok().and_then(|image| Some(image.parent()?.to_owned()));
    if dir.exists() { dir.to_owned() } else { beside().unwrap_or_else(|| dir.to_owned()) }
}

/// The variable that tells the job's agents where their list is; empty where there is none, or its path is too long for them.
fn touched_variable(files: &JobFiles) -> Vec<u8> {
    let variable = [ENV_TOUCHED.as_bytes(), b"=", &files.dir.0, b"\0"].concat();
    if variable.len() <= VARIABLE_SIZE { variable } else { Vec::new() }
}

/// Blocks the signals that the coordinator listens to: one that comes between the job's first step and the coordinator's is to wait
/// for that, and not to end the restart.
fn hold_signals(job: &JobState) {
    let bit = |signal: &(i32, String)| u32::try_from(signal.0 - 1).ok().and_then(|bit| 1u64.checked_shl(bit));
    let set = job.info.settings.on.iter().filter_map(bit).fold(0u64, |set, bit| set | bit);
    // SAFETY: a signal set of 8 bytes that lives over the call.
    let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, libc::SIG_BLOCK, &raw const set, 0, size_of::<u64>()) };
}

/// Threads that are alive.
fn thread_count(job: &JobState) -> usize {
    job.processes
        .iter()
        .map(|process| match &process.life {
            Life::Alive(live) => live.threads.iter().filter(|thread| !thread.exited).count(),
            Life::Zombie { .. } => 0,
        })
        .sum()
}

/// All signals are blocked in the processes of a restart: what comes for a process of the job waits until that is itself again.
fn with_signals_blocked<T>(act: impl FnOnce() -> T) -> T {
    let (all, mut before) = (u64::MAX, 0u64);
    let set = |new: *const u64, old: *mut u64| {
        // SAFETY: both are null or signal sets of 8 bytes that live over the call. By a raw call, since libc keeps two signals
        // out.
        let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of::<u64>()) };
    };
    set(&raw const all, &raw mut before);
    let result = act();
    set(&raw const before, std::ptr::null_mut());
    result
}

/// How often it is looked whether somebody has died.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A restart that has not got on for this long will not.
const PATIENCE: Duration = Duration::from_secs(120);

/// The restart's view of the processes that it made.
struct Watcher<'a> {
    job: &'a JobState,
    tree: &'a Tree,
    control: &'static Control,
    init: HostPid,
    reports: OwnedFd,
    notes: Vec<String>,
    tell: &'a dyn Fn(&str),
    /// Processes that made sockets: their numbers here and in the namespace.
    makers: Vec<(HostPid, NsPid)>,
    /// How far they were, and since when.
    seen: (u64, Instant),
}

impl Watcher<'_> {
    /// Waits until every thread of the job is at the gate.
    fn wait_for_all(&mut self) -> Result<(), RestoreError> {
        let everybody = thread_count(self.job) as u32;
        loop {
            let arrived = self.control.arrived.load(Ordering::Acquire);
            self.read_reports()?;
            if arrived >= everybody {
                return Ok(());
            }
            self.wait_on(&self.control.arrived, arrived)?;
        }
    }

    /// Does the last step, and prepares init and the stand-in for the time after.
    fn open(&mut self, commit: impl FnOnce() -> Result<Vec<String>, RestoreError>) -> Result<(), RestoreError> {
        self.notes.extend(commit()?);
        self.control.gate.store(COMMITTED, Ordering::Release);
        wake(&self.control.gate);
        let servants = self.tree.nodes.iter().filter(|node| matches!(node.role, tree::Role::Init | tree::Role::StandIn)).count();
        loop {
            let ready = self.control.ready.load(Ordering::Acquire);
            self.read_reports()?;
            if ready >= servants as u32 {
                return Ok(());
            }
            self.wait_on(&self.control.ready, ready)?;
        }
    }

    /// Waits for a word to change, a while; sees whether everybody is alive when nothing happens.
    fn wait_on(&mut self, word: &std::sync::atomic::AtomicU32, value: u32) -> Result<(), RestoreError> {
        let timeout = futex::Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
        if futex::wait(word, futex::Flags::empty(), value, Some(&timeout)) != Err(rustix::io::Errno::TIMEDOUT) {
            return Ok(());
        }
        // A report of the reason comes before the end that it explains.
        self.read_reports()?;
        let dead = self.find_dead();
        if !dead.is_empty() {
            // One that makes sockets has the number of another for a moment, says so, and ends.
            self.read_reports()?;
            if let Some((_, pid)) = dead.iter().find(|dead| !self.makers.contains(dead)) {
                let who = if *pid == NsPid(1) { "init".to_owned() } else { format!("process {pid}") };
                return Err(RestoreError::Died(format!(" ({who})")));
            }
        }
        let progress = self.control.progress();
        if progress != self.seen.0 {
            self.seen = (progress, Instant::now());
        } else if self.seen.1.elapsed() > PATIENCE {
            return Err(RestoreError::Stuck(PATIENCE.as_secs()));
        }
        Ok(())
    }

    fn read_reports(&mut self) -> Result<(), RestoreError> {
        loop {
            match control::receive(&self.reports) {
                None => return Ok(()),
                Some(Report::Note(note)) => self.notes.push(note),
                Some(Report::Waiting(what)) => (self.tell)(&what),
                Some(Report::Maker(outside, inside)) => self.makers.push((HostPid(outside), NsPid(inside))),
                Some(Report::Operation(failure)) if failure.tolerated => self.notes.push(failure.to_string()),
                Some(Report::Operation(failure)) => return Err(RestoreError::Operation(Box::new(failure))),
                Some(Report::Failed(why)) => return Err(RestoreError::Process(why)),
                Some(Report::End) => return Err(RestoreError::Died(String::new())),
            }
        }
    }

    /// Processes that are dead and should not be, with their numbers here and in the namespace; those that made sockets may be among
    /// them. Children that live for a moment and have numbers of their own are not waited for here.
    fn find_dead(&self) -> Vec<(HostPid, NsPid)> {
        let lasting: HashSet<i32> = self.tree.nodes.iter().filter(|node| !node.ends).map(|node| node.pid).collect();
        let led_by_the_dead: HashSet<i32> = self
            .job
            .processes
            .iter()
            .filter(|process| matches!(&process.life, Life::Alive(live) if live.threads.iter().any(|thread| thread.exited)))
            .map(|process| process.pid.0)
            .collect();
        let mut dead = Vec::new();
        let mut next = vec![self.init];
        while let Some(pid) = next.pop() {
            match status_if_there(pid) {
                Some(status) => {
                    let inside = status.ns_pid();
                    if status.state() == 'Z' && lasting.contains(&inside.0) && !led_by_the_dead.contains(&inside.0) {
                        dead.push((pid, inside));
                    }
                }
                None if pid == self.init => dead.push((pid, NsPid(1))),
                None => (),
            }
            next.extend(children(pid));
        }
        dead
    }

    /// The stand-in as it is seen from here, and the pid namespace.
    fn identify(&self) -> Result<(HostPid, u64), RestoreError> {
        let wanted = self.job.info.launcher;
        let mut next = vec![self.init];
        let mut stand_in = None;
        while let (Some(pid), None) = (next.pop(), stand_in) {
            if status_if_there(pid).is_some_and(|status| status.ns_pid() == wanted) {
                stand_in = Some(pid);
            }
            next.extend(children(pid));
        }
        let stand_in = stand_in.ok_or_else(|| RestoreError::Died(" (the launcher's stand-in)".to_owned()))?;
        let namespace = self.init.pid_namespace().map_err(RestoreError::call("read /proc"))?;
        Ok((stand_in, namespace))
    }

    /// Ends everything that was made.
    fn end_all(&self) {
        if let Some(init) = Pid::from_raw(self.init.0) {
            let _ = kill_process(init, Signal::KILL);
            let _ = waitpid(Some(init), WaitOptions::empty());
        }
    }
}
