//! One checkpoint, from the freeze to the durable image. docs/checkpoint.md has the steps.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ckpt_image::{Codec, Committed, ImageName, ImageWriter, generations};
use ckpt_objects::clocks::{self, Clocks};
use ckpt_objects::older::KernelFeature;
use ckpt_objects::sysv::EarlierIds;
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_session::Listener;
use ckpt_session::job::{JobInfo, JobState, realtime_ns};
use ckpt_session::{Bytes, Took};
use ckpt_sys::signal_set::SignalSet;
use ckpt_wire::Feature;
use nix::sys::signal::Signal as NixSignal;
use rustix::process::Signal;

use crate::dump;
use crate::error::CheckpointError;
use crate::files::{Capture, Files};
use crate::freeze::{FreezeSettings, freeze};
use crate::frozen::Frozen;
use crate::hooks::HookRunner;
use crate::machine;
use crate::probe;
use crate::ptrace::WaitLock;
use crate::room::Room;
use crate::snapshot::{TwinChoice, Twins, needed, snapshot};
use crate::survey::{Context, Survey, survey};
use crate::tree::Anchor;

/// The pauses, in milliseconds, after which a checkpoint that met a passing state is tried again: none is a fraction of another, so that
/// they do not fall into phase with the job.
const RETRIES_MS: [u64; 3] = [20, 50, 110];

/// A checkpoint that was taken.
#[derive(Clone, Debug)]
pub struct CheckpointSummary {
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

impl fmt::Display for CheckpointSummary {
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
    pub terminal: Option<ckpt_objects::terminal::TerminalSettings>,
    /// `PAGEMAP_SCAN` and its like may be used.
    pub features: u32,
    /// Processes that made sockets of the job's at a restart, and have ended: their numbers here and in its namespace.
    pub makers: Vec<(HostPid, NsPid)>,
    /// System V objects that were there before the job.
    pub earlier_ids: EarlierIds,
    /// Excludes tracing and waiting for children from each other.
    pub waiting: WaitLock,
    /// Set when a checkpoint that is being written is not wanted any more.
    pub cancelled: AtomicBool,
    /// The set of the signals that the coordinator has got and acted on: where others were sent them too, and have not taken them
    /// yet, they are not the next run's.
    pub heard: AtomicU64,
    /// For how long, in nanoseconds, the job has stood still since this was last set to 0.
    pub stood: Arc<AtomicU64>,
    /// Whether twins are made.
    pub twins: TwinChoice,
    /// Set while agents are expected: an agent that connects at any other time is to be sent away, see [`Checkpointer::send_away`].
    pub freezing: AtomicBool,
    /// An eventfd(2) that is written to when `freezing` ends.
    pub wake: Arc<OwnedFd>,
    /// What the user wants done before and after.
    pub hooks: Arc<HookRunner>,
    /// The files that the job touches.
    pub files: Mutex<Files>,
}

/// An image that has been begun.
struct Begun {
    info: JobInfo,
    writer: ImageWriter,
    at: Instant,
}

impl Checkpointer {
    /// Takes a checkpoint. When this returns, the image is durable, and the job goes on, unless `stop` says that it is to end
    /// with it: then it is ended before it does anything more. What cannot be kept only for a moment is looked at again soon.
    ///
    /// `told` is a signal that ends jobs, and that a batch system may send to all their processes. A job that acts on it by
    /// itself, because its agents cannot hold it back, would come back only to go on ending, so there is no checkpoint of that.
    ///
    /// # Errors
    ///
    /// One kind for each step. The job goes on as if nothing had been.
    pub fn take(&self, info: JobInfo, stop: bool, told: Option<NixSignal>) -> Result<CheckpointSummary, CheckpointError> {
        let outcome = self.try_to_take(info.clone(), stop, told);
        if outcome.as_ref().is_err_and(CheckpointError::lost_twin) && !self.cancelled.load(Ordering::Relaxed) {
            // Killed for lack of memory, most likely. This may be the last checkpoint before the end: it is taken again without twins.
            self.twins.note_loss();
            return self.try_to_take(info, stop, told);
        }
        outcome
    }

    fn try_to_take(&self, info: JobInfo, stop: bool, told: Option<NixSignal>) -> Result<CheckpointSummary, CheckpointError> {
        probe::kcmp().map_err(CheckpointError::Compare)?;
        let begun = self.begin_file(info)?;
        self.files().catch_up(&begun.info);
        let room = Room::look();
        let (mut frozen, survey) = self.freeze_and_observe(&begun.info)?;
        refuse_job_that_ends(&survey, told)?;
        let outcome = self.write(begun, &mut frozen, survey, &room, stop);
        outcome.map_err(|error| error_of(&frozen, error))
    }

    /// Steps 8 to 11.
    fn write(
        &self,
        begun: Begun,
        frozen: &mut Frozen,
        mut survey: Survey,
        room: &Room,
        stop: bool,
    ) -> Result<CheckpointSummary, CheckpointError> {
        let Begun { info, writer, at } = begun;
        let mut files = self.files();
        let mut capture = files.capture(&survey.state, &survey.used, survey.spaces)?;
        let may_twin = !stop && self.twins.may_be_made(room, &needed(frozen, &survey.plans));
        let twins = snapshot(&self.anchor, frozen, &survey.plans, may_twin)?;
        let pause = self.go_on_and_hand_over(frozen, &twins, &writer, stop)?;
        survey.add_pending(frozen, SignalSet::from_bits(self.heard.load(Ordering::Acquire)), &self.anchor)?;
        self.append_files(&writer, &mut survey, &mut files, &mut capture)?;
        // A job that is to end waits for the disk from here on.
        if stop && !frozen.standstill.end() {
            return Err(CheckpointError::Stalled);
        }
        let committed = commit(writer, &survey.state)?;
        if stop {
            end(frozen);
        }
        let mut complaints = std::mem::take(&mut capture.complaints);
        complaints.extend(committed.not_synced.clone());
        complaints.extend(prune(&info).err());
        files.committed(&capture, info.generation, &committed.path, &info);
        Ok(CheckpointSummary {
            generation: info.generation,
            path: committed.path,
            raw_bytes: committed.raw_bytes,
            file_bytes: committed.file_bytes,
            pause,
            total: at.elapsed(),
            complaints,
            reads_outside: survey.reads_outside(),
        })
    }

    /// Step 1: draws the generation's number, runs the user's hooks and makes the temporary file. Where that fails the job need not
    /// be disturbed.
    fn begin_file(&self, mut info: JobInfo) -> Result<Begun, CheckpointError> {
        let dir = info.settings.dir.as_path();
        let next = generations::next_generation(dir, &info.id)
            .map_err(|source| CheckpointError::Directory { dir: dir.to_owned(), source })?;
        info.generation = info.generation.max(next);
        let name = ImageName::new(&info.name, &info.id, info.generation)?;
        self.hooks.before(&dir.join(name.file_name()), info.generation);
        let at = Instant::now();
        let writer = ImageWriter::create(dir, &name).map_err(CheckpointError::Begin)?;
        info.taken_at_ns = realtime_ns();
        Ok(Begun { info, writer, at })
    }

    /// Steps 2 to 7; where they meet a state that passes, again after a pause in which the job goes on.
    fn freeze_and_observe(&self, info: &JobInfo) -> Result<(Frozen, Survey), CheckpointError> {
        let mut pauses = RETRIES_MS.iter();
        loop {
            let outcome = self.freeze(info.signal).and_then(|frozen| {
                let survey = self.observe(&frozen, info.clone()).map_err(|error| error_of(&frozen, error))?;
                Ok((frozen, survey))
            });
            match (&outcome, pauses.next()) {
                (Err(error), Some(pause)) if error.passes() && !self.cancelled.load(Ordering::Relaxed) => {
                    std::thread::sleep(Duration::from_millis(*pause));
                }
                _ => return outcome,
            }
        }
    }

    /// Steps 2 to 5: no process of the job runs afterwards.
    fn freeze(&self, signal: i32) -> Result<Frozen, CheckpointError> {
        let settings = FreezeSettings {
            signal,
            features: self.features,
            slots: 2 * self.workers as u32 + 2,
            waiting: self.waiting.clone(),
            stood: Arc::clone(&self.stood),
        };
        self.freezing.store(true, Ordering::Release);
        let frozen = freeze(&self.anchor, &self.listener, &settings);
        self.freezing.store(false, Ordering::Release);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(frozen?)
    }

    /// Steps 6 and 7: everything about the job but the contents of its pages, and the plan by which these are handed over.
    fn observe(&self, frozen: &Frozen, info: JobInfo) -> Result<Survey, CheckpointError> {
        let context = Context {
            reaper: self.anchor.reaper,
            info,
            agent: &self.agent,
            terminal: self.terminal,
            makers: &self.makers,
            earlier_ids: &self.earlier_ids,
        };
        let clocks = frozen.processes.first().map_or_else(Clocks::own, |process| clocks::observe(process.live));
        Ok(survey(frozen, context, machine::observe(clocks))?)
    }

    /// Steps 9 and 10: lets the job go on and takes its pages from the twins. Without all twins it goes on only afterwards, since
    /// processes may share memory; with `stop` it does not go on. Gives for how long the job stood still.
    fn go_on_and_hand_over(
        &self,
        frozen: &mut Frozen,
        twins: &Twins<'_>,
        writer: &ImageWriter,
        stop: bool,
    ) -> Result<Duration, CheckpointError> {
        if twins.are_complete && !stop && !frozen.resume() {
            return Err(CheckpointError::Stalled);
        }
        let mut pause = frozen.standstill.since.elapsed();
        dump::collect(&frozen.processes, writer, self.codec, self.workers, &self.cancelled).map_err(CheckpointError::HandOver)?;
        if !twins.are_complete && !stop {
            if !frozen.resume() {
                return Err(CheckpointError::Stalled);
            }
            pause = frozen.standstill.since.elapsed();
        }
        Ok(pause)
    }

    /// The first part of step 11: appends what twins cannot hand over, and finds out who the mapped files are.
    fn append_files(
        &self,
        writer: &ImageWriter,
        survey: &mut Survey,
        files: &mut Files,
        capture: &mut Capture,
    ) -> Result<(), CheckpointError> {
        for (space, pieces) in std::mem::take(&mut survey.contents) {
            dump::append_pieces(writer, self.codec, space, pieces).map_err(CheckpointError::Append)?;
        }
        files.append(capture, writer, self.codec).map_err(CheckpointError::AppendFiles)?;
        survey.state.files = files.state(capture);
        survey.identify_files();
        Ok(())
    }

    /// The files that the job touches.
    pub fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets agents go on that have answered too late: because the freeze was given up meanwhile, or because they had been asked twice.
    pub fn send_away(&self) {
        if !self.freezing.load(Ordering::Acquire) {
            self.listener.hear_strangers();
        }
    }
}

/// What went wrong: the guard of the standstill lets everything fail that is under way.
fn error_of(frozen: &Frozen, error: CheckpointError) -> CheckpointError {
    if frozen.standstill.end() { error } else { CheckpointError::Stalled }
}

/// Refuses a job that acts itself on a signal that ends it.
fn refuse_job_that_ends(survey: &Survey, told: Option<NixSignal>) -> Result<(), CheckpointError> {
    match told.and_then(|signal| Some((signal, survey.catcher(signal as i32)?))) {
        Some((signal, process)) => {
            Err(CheckpointError::Told { pid: process.pid, name: process.comm.clone(), signal: signal.as_str() })
        }
        None => Ok(()),
    }
}

/// Step 11: writes the metadata and makes the image durable under its final name.
fn commit(writer: ImageWriter, state: &JobState) -> Result<Committed, CheckpointError> {
    let metadata = postcard::to_stdvec(state).map_err(CheckpointError::Encode)?;
    writer.commit(&metadata).map_err(CheckpointError::Commit)
}

/// Removes generations past `--keep`.
fn prune(info: &JobInfo) -> Result<(), String> {
    generations::prune(info.settings.dir.as_path(), &info.id, info.settings.keep).map(drop).map_err(|error| error.to_string())
}

/// Ends every process of a frozen job.
fn end(frozen: &Frozen) {
    for process in &frozen.processes {
        if let Some(pid) = rustix::process::Pid::from_raw(process.pid.0) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Facilities that agents may use on this kernel, less those that `CKPT_WITHOUT` switches off for tests.
#[must_use]
pub fn features() -> u32 {
    let mut features = 0;
    if !KernelFeature::PagemapScan.is_off() && probe::pagemap_scan().is_ok() {
        features |= Feature::PAGEMAP_SCAN;
    }
    if !KernelFeature::SchedulerNotes.is_off() {
        features |= Feature::SCHEDULER_NOTES;
    }
    features
}
