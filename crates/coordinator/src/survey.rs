//! The survey of a frozen job: its state without the contents of pages, and the plan by which each process hands those over.
//!
//! Each module of `ckpt-objects` observes its kind of object. The survey gives the order, and joins what spans processes: descriptors of one
//! open file description, mappings of one object, parents and children.

use std::collections::HashMap;

use ckpt_objects::file::{MappedFiles, Piece};
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::open_file::OpenFile;
use ckpt_objects::process::{Life, ProcessState, wait_status};
use ckpt_objects::signal::Siginfo;
use ckpt_objects::sysv::{self, EarlierIds, SystemV};
use ckpt_objects::{FilePath, HostPid, NsPid, SpaceId, Spaces, posix_timer, program, shared_memory, sharing, standard, terminal};
use ckpt_session::JobState;
use ckpt_session::job::{JobInfo, Machine};
use ckpt_sys::signal_set::SignalSet;
use ckpt_wire::PlanEntry;

use crate::files::{UsedFile, used};
use crate::frozen::{Frozen, FrozenProcess};
use crate::hand_over::HandOverError;
use crate::tree::Anchor;

mod job;
mod memory;
mod open_files;
mod process;

use job::Job;
use memory::Memory;
use open_files::{OpenFiles, Others};

/// What each living process is to hand over.
pub type Plans = HashMap<HostPid, Vec<PlanEntry>>;

/// The result of a survey.
pub struct Survey {
    /// The job. Files that it maps are missing until [`Survey::identify_files`].
    pub state: JobState,
    /// What each living process is to hand over.
    pub plans: Plans,
    /// Contents of files without a name, and of shared memory that is not handed over, by their space.
    pub contents: Vec<(SpaceId, Vec<Piece>)>,
    /// Regular files that the job uses.
    pub used: Vec<UsedFile>,
    /// The spaces that are not in use.
    pub spaces: Spaces,
    mapped: MappedFiles,
}

impl Survey {
    /// Finds out who the mapped files are. Reads files, so it is done when the job goes on already.
    pub fn identify_files(&mut self) {
        self.state.mapped_files = self.mapped.identify();
    }

    /// Whether the job's standard input is a pipe that somebody outside of it writes to: what is in it is not the job's to keep.
    pub fn reads_outside(&self) -> bool {
        self.state.open_files.iter().any(OpenFile::is_outside_input)
    }

    /// The first process that has a handler for a signal which the agent's shield does not stand before.
    pub fn catcher(&self, signal: i32) -> Option<&ProcessState> {
        let index = usize::try_from(signal - 1).ok()?;
        self.state.processes.iter().find(|process| {
            let Some(live) = process.live() else { return false };
            let handler = live.signals.actions.get(index).map_or(0, |action| action.handler);
            let mut code = live.memory.vmas.iter().map(|vma| vma.start..vma.end);
            let is_agents = code.find(|code| code.contains(&live.agent.leave)).is_some_and(|code| code.contains(&handler));
            handler > libc::SIG_IGN as u64 && !is_agents
        })
    }

    /// Adds what agents find out last: the signals that were pending, and how timers stand.
    ///
    /// Signals of `heard` that somebody outside has sent are left out: they were meant for this run.
    pub fn add_pending(&mut self, frozen: &Frozen, heard: SignalSet, anchor: &Anchor) -> Result<(), ObserveError> {
        for process in &frozen.processes {
            let Some(live) = find(&mut self.state.processes, process.ns_pid).and_then(ProcessState::live_mut) else { continue };
            let damaged = |error| process.damaged(error);
            for signal in process.memory.pending().map_err(damaged)? {
                let info = Siginfo(signal.info.iter().flat_map(|word| word.to_ne_bytes()).collect());
                if signal.tid == 0 {
                    live.signals.pending.push(info);
                } else if let Some(thread) = live.threads.iter_mut().find(|thread| thread.tid.0 == signal.tid) {
                    thread.pending.push(info);
                }
            }
            let ids: Vec<i32> = live.posix_timers.iter().map(|timer| timer.id).collect();
            let records = process.memory.timers(ids).map_err(damaged)?;
            let threads = &live.threads;
            posix_timer::complete(process, &mut live.posix_timers, &records, |tid| {
                let is_living = threads.iter().any(|thread| thread.tid == tid && !thread.exited);
                if is_living { Ok(()) } else { Err(process.damaged(HandOverError::Thread(tid.0))) }
            })?;
            let record = process.memory.process().map_err(damaged)?;
            live.settle_interval_timers(process::interval_timers(&record));
        }
        self.leave_out(heard, anchor);
        self.forget_outside_senders(anchor);
        Ok(())
    }

    /// Whether the job sees who is outside: in a pid namespace of its own it does not.
    fn sees_outside(&self, anchor: &Anchor) -> bool {
        self.state.info.launcher.0 == anchor.reaper.0
    }

    fn leave_out(&mut self, heard: SignalSet, anchor: &Anchor) {
        let sees_outside = self.sees_outside(anchor);
        let is_outside = |info: &Siginfo| match info.sender() {
            Some(pid) => sees_outside && anchor.is_outside(HostPid(pid)),
            None => info.is_from_kill(),
        };
        for live in self.state.processes.iter_mut().filter_map(ProcessState::live_mut) {
            for pending in live.threads.iter_mut().map(|thread| &mut thread.pending).chain([&mut live.signals.pending]) {
                pending.retain(|info| !heard.contains(info.signal()) || !is_outside(info));
            }
        }
    }

    /// Makes the senders of pending signals that are not of the job what they will be after a restart: somebody outside of its
    /// pid namespace. Another process may have their numbers then.
    fn forget_outside_senders(&mut self, anchor: &Anchor) {
        if !self.sees_outside(anchor) {
            return;
        }
        for live in self.state.processes.iter_mut().filter_map(ProcessState::live_mut) {
            let own = live.threads.iter_mut().flat_map(|thread| &mut thread.pending);
            for info in live.signals.pending.iter_mut().chain(own) {
                if info.sender().is_some_and(|pid| anchor.is_outside(HostPid(pid))) {
                    info.forget_sender();
                }
            }
        }
    }
}

fn find(processes: &mut [ProcessState], pid: NsPid) -> Option<&mut ProcessState> {
    processes.iter_mut().find(|process| process.pid == pid)
}

/// What the survey needs to know beside the frozen job.
pub struct Context<'a> {
    /// The process that adopts the job's orphans, as seen here.
    pub reaper: HostPid,
    /// What the image says of the job.
    pub info: JobInfo,
    /// The path of the agent's library: its pages are always kept, so that an image outlives an upgrade.
    pub agent: &'a FilePath,
    /// The settings of the launcher's terminal when it took that over.
    pub terminal: Option<terminal::TerminalSettings>,
    /// Processes that made sockets of the job's at a restart, and have ended: their numbers here and in its namespace.
    pub makers: &'a [(HostPid, NsPid)],
    /// System V objects that were there before the job.
    pub earlier_ids: &'a EarlierIds,
}

/// Surveys a frozen job.
pub fn survey(frozen: &Frozen, context: Context<'_>, machine: Machine) -> Result<Survey, ObserveError> {
    sharing::check(&frozen.processes, context.reaper)?;
    let job = Job::new(frozen, &context.info, context.reaper, context.makers);
    let ipc = sysv::Observer::observe(&frozen.processes, context.earlier_ids)?;
    let mut spaces = Spaces::default();
    let mut memory = Memory {
        ipc: &ipc,
        shared: shared_memory::Observer::default(),
        mapped: MappedFiles::default(),
        programs: program::Observer::default(),
        self_contained: context.info.settings.self_contained,
        agent: context.agent,
    };
    let mut files = OpenFiles::default();
    let (mut processes, mut plans) = observe_processes(&job, &mut memory, &mut files, &mut spaces)?;

    files.observe_sockets(&job)?;
    let controlled = files.observe_terminals(&job, context.terminal.as_ref())?;
    for process in &mut processes {
        let has_terminal = controlled.contains(&process.pid);
        process.live_mut().into_iter().for_each(|live| live.has_terminal = has_terminal);
    }
    let mut open_files = files.observe(&job, Others { ipc: &ipc, shared: &mut memory.shared, spaces: &mut spaces })?;
    standard::split(files.descriptions.all(), &mut open_files, &mut processes);
    standard::keep_input(&mut open_files);
    let signalling = files.signalling(&job, &open_files)?;
    let used = used(files.descriptions.all(), &open_files, memory.shared.by_inode(), context.info.uid);
    // The launcher's own files are replaced, and with them what they have locked.
    files.locks.all.retain(|lock| open_files.get(lock.file.at()).is_some_and(|file| file.inherited.is_none()));

    let mut contents = files.kinds.contents;
    contents.extend(memory.shared.read_files(context.reaper)?);
    contents.extend(memory.shared.read_system_v(&ipc, &mut spaces)?);
    let (programs, their_contents) = memory.programs.into_parts();
    contents.extend(their_contents);
    for plan in plans.values_mut() {
        plan.retain(|entry| !contents.iter().any(|(space, _)| space.0 == entry.space));
    }
    let system_v = ipc.system_v(!files.kinds.mqueues.is_empty())?;
    add_semaphore_undo(frozen, &ipc, &system_v, &mut processes)?;
    let (mapped, shared_memory) = (memory.mapped, memory.shared.into_states());
    let state = JobState {
        info: context.info,
        machine,
        processes,
        open_files,
        pipes: files.kinds.pipes.into_states(),
        locks: files.locks.all,
        signalling,
        terminals: files.terminals.terminals,
        sockets: files.sockets.states,
        shared_memory,
        mqueues: files.kinds.mqueues.into_states(),
        system_v,
        mapped_files: Vec::new(),
        programs,
        files: JobFiles::default(),
    };
    Ok(Survey { state, plans, contents, used, spaces, mapped })
}

/// All processes by ascending pid, the dead included, and what each living one is to hand over.
fn observe_processes(
    job: &Job<'_>,
    memory: &mut Memory<'_>,
    files: &mut OpenFiles,
    spaces: &mut Spaces,
) -> Result<(Vec<ProcessState>, Plans), ObserveError> {
    let (mut processes, mut plans) = (Vec::new(), HashMap::new());
    let own_spaces: Vec<SpaceId> = job.frozen.processes.iter().map(|_| spaces.take()).collect();
    for (process, space) in job.frozen.processes.iter().zip(own_spaces) {
        let record = process.memory.process().map_err(|error| process.damaged(error))?;
        let (memory, plan) = memory.observe(process, &record, space, spaces)?;
        let descriptors = files.descriptors(job, process)?;
        let live = process::observe(job, process, &record, memory, descriptors)?;
        processes.push(job.process(process.ns_pid, &process.status, Life::Alive(Box::new(live))));
        plans.insert(process.pid, plan);
    }
    for member in &job.frozen.zombies {
        let life = Life::Zombie { status: wait_status(member.pid)? };
        processes.push(job.process(member.status.ns_pid(), &member.status, life));
    }
    processes.sort_by_key(|process| process.pid);
    Ok((processes, plans))
}

fn add_semaphore_undo(
    frozen: &Frozen,
    ipc: &sysv::Observer<'_, FrozenProcess>,
    system_v: &SystemV,
    processes: &mut [ProcessState],
) -> Result<(), ObserveError> {
    for process in &frozen.processes {
        let undo = ipc.undo(process, system_v)?;
        if let Some(live) = find(processes, process.ns_pid).and_then(ProcessState::live_mut) {
            live.semaphore_undo = undo;
        }
    }
    Ok(())
}
