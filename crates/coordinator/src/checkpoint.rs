//! One checkpoint, from the freeze to the durable image.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ckpt_image::{Codec, ImageName, ImageWriter, WriteError, generations};
use ckpt_objects::clocks::{self, Clocks};
use ckpt_objects::job_file::SaveError;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::older::Switch;
use ckpt_objects::{FilePath, HostPid};
use ckpt_session::job::{JobInfo, realtime_ns};
use ckpt_session::{Bytes, Took};
use ckpt_session::{Listener, Received};
use ckpt_wire::{Feature, Order, Report, ReportKind, Step};
use nix::sys::signal::Signal as NixSignal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::dump::{self, DumpError};
use crate::files::Files;
use crate::freeze::{FreezeError, Frozen, FrozenProcess, Settings, freeze};
use crate::hooks::HookRunner;
use crate::machine;
use crate::probe;
use crate::survey::{Context, Survey, survey};
use crate::tree::Anchor;

/// How long an agent may take to make its twin, beyond what forking its memory takes.
const TWIN_GRACE: Duration = Duration::from_secs(60);
/// After which pauses, in milliseconds, a checkpoint that met a passing state is tried again. They grow, and are no fractions of
/// each other, lest they keep step with the job.
const TRIES_MS: [u64; 3] = [20, 50, 110];
/// What a fork fails with where a twin is forbidden: by memory or the overcommit rule, or by a limit of processes
/// (`RLIMIT_NPROC`, which some programs set to 0 once they have begun; pids.max of a cgroup).
const NO_TWIN: [i32; 2] = [libc::ENOMEM, libc::EAGAIN];

/// Why a checkpoint could not be taken. The job goes on untouched.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The job could not be frozen.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// It holds something that is not kept.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A signal that is about to be passed on may have been sent to the whole job, and one of its programs acts on it.
    #[error("process {pid} ({name}) catches {signal} itself, and may be ending already; earlier images stand")]
    Told {
        /// Its pid.
        pid: ckpt_objects::NsPid,
        /// Its name.
        name: FilePath,
        /// The signal.
        signal: &'static str,
    },
    /// An agent went away between two messages.
    #[error("process {pid} ({name}) ended in the midst of the checkpoint; the next one will be tried as planned")]
    Lost {
        /// Its pid.
        pid: ckpt_objects::NsPid,
        /// Its name.
        name: FilePath,
    },
    /// The processes could not be told.
    #[error("process {pid} ({name}) could not be told to go on with the checkpoint: {source}")]
    Order {
        /// Its pid.
        pid: ckpt_objects::NsPid,
        /// Its name.
        name: FilePath,
        /// Why.
        source: io::Error,
    },
    /// Files that are to be in the image cannot be.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// Pages could not be collected.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// The image could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Processes may not be compared.
    #[error(
        "the system call kcmp is refused: {0}; it tells which descriptors share a file, so allow it in the container's seccomp profile"
    )]
    Compare(io::Error),
    /// The directory could not be read.
    #[error("failed to look for earlier images in {}: {source}; give another directory with --dir", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CheckpointError {
    /// Whether it may be otherwise in a moment: something was about to happen, or to end.
    fn passes(&self) -> bool {
        matches!(self, Self::Observe(ObserveError::Passing { .. }) | Self::Freeze(FreezeError::Borrowing(_)))
    }
}

/// What a checkpoint took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number.
    pub generation: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of memory that it holds.
    pub raw_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// For how long the job stood still.
    pub pause: Duration,
    /// How long it took in all.
    pub total: Duration,
    /// What the user should know: files that are not held, old images that could not be removed.
    pub complaints: Vec<String>,
    /// Somebody outside of the job writes to the pipe that is its standard input.
    pub reads_outside: bool,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "checkpoint {}: {} → {} on disk, paused {}, wrote in {}",
            self.generation,
            Bytes(self.raw_bytes),
            Bytes(self.file_bytes),
            Took(self.pause),
            Took(self.total)
        )
    }
}

/// What checkpoints of a job are taken with.
pub struct Checkpointer {
    /// Where the job hangs in the tree of processes.
    pub anchor: Arc<Anchor>,
    /// Where its agents connect.
    pub listener: Listener,
    /// The agent's library.
    pub agent: FilePath,
    /// How chunks are compressed.
    pub codec: Codec,
    /// Worker threads.
    pub workers: usize,
    /// The settings of the launcher's terminal when it took that over.
    pub terminal: Option<ckpt_objects::terminal::Settings>,
    /// `PAGEMAP_SCAN` and its like may be used.
    pub features: u32,
    /// Processes that made sockets of the job's at a restart, and have ended: their numbers here and in its namespace.
    pub makers: Vec<(HostPid, ckpt_objects::NsPid)>,
    /// Set when a checkpoint that is being written is not wanted any more.
    pub cancelled: AtomicBool,
    /// The set of the signals that the coordinator has got and acted on: where others were sent them too, and have not taken them
    /// yet, they are not the next run's.
    pub heard: AtomicU64,
    /// Set while agents are expected: at any other time one that connects is to be sent away, see [`Checkpointer::send_away`].
    pub freezing: AtomicBool,
    /// An eventfd(2) that is written to when `freezing` ends.
    pub wake: Arc<OwnedFd>,
    /// What the user wants done before and after.
    pub hooks: Arc<HookRunner>,
    /// The files that the job touches.
    pub files: Mutex<Files>,
}

impl Checkpointer {
    /// Takes a checkpoint. When this returns, the image is durable, and the job goes on, unless `stop` says that it is to end
    /// with it: then it is ended before it does anything more. What cannot be kept only for a moment is looked at again soon.
    ///
    /// `told` is a signal that ends jobs, and that a batch system may send to all their processes. A job that acts on it by
    /// itself, because its agents cannot hold it back, would come back only to go on ending, so there is no checkpoint of that.
    pub fn take(&self, mut info: JobInfo, stop: bool, told: Option<NixSignal>) -> Result<Taken, CheckpointError> {
        probe::kcmp().map_err(CheckpointError::Compare)?;
        let dir = info.settings.dir.as_path().to_owned();
        let next = generations::next_generation(&dir, &info.id)
            .map_err(|source| CheckpointError::Directory { dir: dir.clone(), source })?;
        info.generation = info.generation.max(next);
        let name = ImageName::new(&info.name, &info.id, info.generation)
            .map_err(|error| CheckpointError::Directory { dir: dir.clone(), source: io::Error::other(error.to_string()) })?;
        self.hooks.before(&dir.join(name.file_name()), info.generation);
        let begun = Instant::now();
        // Where an image cannot even be begun the job need not be disturbed.
        let writer = ImageWriter::create(&dir, &name)?;
        info.taken_at_ns = realtime_ns();
        let keep = info.settings.keep;
        let (generation, job) = (info.generation, info.id.clone());

        self.files.lock().unwrap_or_else(PoisonError::into_inner).catch_up(&info);
        let (mut frozen, mut survey) = self.look(&info)?;
        if let Some((signal, process)) = told.and_then(|signal| Some((signal, survey.catcher(signal as i32)?))) {
            return Err(CheckpointError::Told { pid: process.pid, name: process.comm.clone(), signal: signal.as_str() });
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut capture = files.capture(&survey.state, &survey.used, survey.next_space)?;
        let mut twins = Twins { anchor: &self.anchor, twins: Vec::new() };
        let all_have_twins = self.snapshot(&frozen, &survey, &mut twins)?;
        // A process without a twin is dumped as it stands, and the others wait for it: they may share memory.
        if all_have_twins && !stop {
            frozen.resume();
        }
        let mut pause = frozen.since.elapsed();
        dump::collect(&frozen.processes, &writer, self.codec, self.workers, &self.cancelled)?;
        if !all_have_twins && !stop {
            frozen.resume();
            pause = frozen.since.elapsed();
        }
        // A process that dumped as it stood has captured them only now.
        survey.add_pending(&frozen)?;
        let heard = self.heard.load(Ordering::Acquire);
        for signal in (1..=64).filter(|signal| heard & 1 << (signal - 1) != 0) {
            survey.leave_out(signal, &self.anchor);
        }
        // In a namespace of its own the job does not see who is outside.
        if self.anchor.reaper.0 == survey.state.info.launcher.0 {
            survey.forget_outside_senders(&self.anchor);
        }
        for (space, pieces) in std::mem::take(&mut survey.contents) {
            dump::append_pieces(&writer, self.codec, space, pieces)?;
        }
        files.append(&mut capture, &writer, self.codec)?;
        survey.state.files = files.state(&capture);
        survey.identify_files();
        let metadata = postcard::to_stdvec(&survey.state)
            .map_err(|error| CheckpointError::Directory { dir: dir.clone(), source: io::Error::other(error) })?;
        let committed = writer.commit(&metadata)?;
        if stop {
            end(&frozen);
        }
        let reads_outside = survey.reads_outside();
        let mut complaints = std::mem::take(&mut capture.complaints);
        complaints.extend(generations::prune(&dir, &job, keep).err().map(|error| error.to_string()));
        files.committed(&capture, generation, &committed.path, &survey.state.info);
        Ok(Taken {
            generation,
            path: committed.path,
            raw_bytes: committed.raw_bytes,
            file_bytes: committed.file_bytes,
            pause,
            total: begun.elapsed(),
            complaints,
            reads_outside,
        })
    }

    /// Freezes the job and surveys it; where that meets a state that passes, again after a pause in which the job goes on.
    fn look(&self, info: &JobInfo) -> Result<(Frozen, Survey), CheckpointError> {
        let mut tries = TRIES_MS.iter();
        loop {
            let outcome = self.look_once(info.clone());
            match (&outcome, tries.next()) {
                (Err(error), Some(pause)) if error.passes() && !self.cancelled.load(Ordering::Relaxed) => {
                    std::thread::sleep(Duration::from_millis(*pause));
                }
                _ => return outcome,
            }
        }
    }

    fn look_once(&self, info: JobInfo) -> Result<(Frozen, Survey), CheckpointError> {
        let settings = Settings { signal: info.signal, features: self.features, slots: 2 * self.workers as u32 + 2 };
        self.freezing.store(true, Ordering::Release);
        let frozen = freeze(&self.anchor, &self.listener, &settings);
        self.freezing.store(false, Ordering::Release);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        let frozen = frozen?;
        let (agent, makers) = (self.agent.clone(), self.makers.clone());
        let context = Context { reaper: self.anchor.reaper, info, agent, terminal: self.terminal, makers };
        let clocks = frozen.processes.first().map_or_else(Clocks::own, |process| clocks::observe(process.live));
        let survey = survey(&frozen, context, machine::observe(clocks))?;
        Ok((frozen, survey))
    }

    /// Lets go on whoever has answered too late: because the freeze was given up meanwhile, or because it had been asked twice.
    pub fn send_away(&self) {
        if !self.freezing.load(Ordering::Acquire) {
            self.listener.hear_strangers();
        }
    }

    /// Has every process make its twin, or, where that fails for lack of memory, dump as it stands. Whether all have twins.
    fn snapshot(&self, frozen: &Frozen, survey: &Survey, twins: &mut Twins<'_>) -> Result<bool, CheckpointError> {
        let in_place = Switch::Twin.is_off();
        for (process, plan) in frozen.processes.iter().zip(&survey.plans) {
            if !process.memory.set_plan(plan) {
                return Err(process
                    .failure(&Report { kind: ReportKind::Failed as u32, errno: 0, value: Step::Plan as i64 })
                    .into());
            }
            give_order(process, if in_place { Order::DumpInPlace } else { Order::Twin })?;
        }
        if in_place {
            return Ok(false);
        }
        let mut all_have_twins = true;
        for process in &frozen.processes {
            // The twin speaks for itself, the leader of having made it, in either order.
            let (mut twin, mut leader) = (false, false);
            while !(twin && leader) {
                let report = match next_report(process)? {
                    (report, sender) if ReportKind::of(&report) == Some(ReportKind::TwinReady) => {
                        twins.add(sender);
                        twin = true;
                        continue;
                    }
                    (report, _) => report,
                };
                match ReportKind::of(&report) {
                    Some(ReportKind::Frozen) => leader = true,
                    // A small process may be done before its leader has spoken.
                    Some(ReportKind::Dumped) => (),
                    Some(ReportKind::Failed) if NO_TWIN.contains(&report.errno) => {
                        all_have_twins = false;
                        give_order(process, Order::DumpInPlace)?;
                        break;
                    }
                    _ => return Err(process.failure(&report).into()),
                }
            }
        }
        Ok(all_have_twins)
    }
}

/// Waits for the next report on a process's connection.
fn next_report(process: &FrozenProcess) -> Result<(Report, HostPid), CheckpointError> {
    let lost = || CheckpointError::Lost { pid: process.ns_pid, name: process.name() };
    let begun = Instant::now();
    loop {
        match process.connection.receive::<Report>() {
            Received::Message(report, sender) => return Ok((report, sender)),
            Received::Closed => return Err(lost()),
            Received::Nothing if begun.elapsed() > TWIN_GRACE => return Err(lost()),
            Received::Nothing => {
                let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(&process.connection, PollFlags::IN)], Some(&timeout));
            }
        }
    }
}

fn give_order(process: &FrozenProcess, order: Order) -> Result<(), CheckpointError> {
    process.order(order).map_err(|source| CheckpointError::Order { pid: process.ns_pid, name: process.name(), source })
}

/// Ends every process of a frozen job.
fn end(frozen: &Frozen) {
    for process in &frozen.processes {
        if let Some(pid) = rustix::process::Pid::from_raw(process.pid.0) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Twins of one checkpoint: when it is over, for whatever reason, none must linger.
struct Twins<'a> {
    anchor: &'a Anchor,
    /// Each by a descriptor, which never comes to mean another process.
    twins: Vec<(HostPid, Option<OwnedFd>)>,
}

impl Twins<'_> {
    fn add(&mut self, pid: HostPid) {
        self.anchor.add_twin(pid);
        let raw = rustix::process::Pid::from_raw(pid.0);
        let descriptor = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok());
        self.twins.push((pid, descriptor));
    }
}

impl Drop for Twins<'_> {
    fn drop(&mut self) {
        for (pid, descriptor) in &self.twins {
            if let Some(descriptor) = descriptor {
                let _ = pidfd_send_signal(descriptor, Signal::KILL);
                let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout));
            }
            self.anchor.remove_twin(*pid);
        }
    }
}

/// Facilities that agents may use on this kernel, less those that `CKPT_WITHOUT` switches off for tests.
#[must_use]
pub fn features() -> u32 {
    let mut features = 0;
    if !Switch::PagemapScan.is_off() && probe::pagemap_scan().is_ok() {
        features |= Feature::PAGEMAP_SCAN;
    }
    if !Switch::SchedulerNotes.is_off() {
        features |= Feature::SCHEDULER_NOTES;
    }
    features
}
