//! The survey of a frozen job: everything about it but the contents of its pages, and the plan by which each process hands those
//! over.
//!
//! What belongs to one process is observed by its module in `ckpt-objects`; here is joined what spans processes: which
//! descriptors are one open file description, which mappings show one object, who is whose parent.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use ckpt_objects::descriptor::{Descriptions, FdEntry, SeenDescriptor, descriptors, is_own};
use ckpt_objects::directory::{self, RemovedDirectory};
use ckpt_objects::file::{
    DeletedFile, FileIdentity, OpenFile, OpenFileKind, Piece, RegularFile, contents, identify, name_of, split_deleted,
};
use ckpt_objects::file_lock::Locks;
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::memory::{self, AddressSpace, Backing, Mapping, Vma, VmaFlags, guards, mappings, mm_fields};
use ckpt_objects::mqueue::{self, Mqueue};
use ckpt_objects::observe::{ObserveError, proc_path, read_proc_link};
use ckpt_objects::pidfd::PidfdState;
use ckpt_objects::pipe::{self, PipeState};
use ckpt_objects::posix_timer::PosixTimer;
use ckpt_objects::process::{
    AgentPlace, Credentials, Life, LiveProcess, ProcessSettings, ProcessState, Status, core_filter, exit_signal,
    group_session_and_terminal, limits, oom_score_adj, scheduling, wait_status,
};
use ckpt_objects::shared_memory::{SharedMemory, SharedMemoryKind};
use ckpt_objects::signal::{Siginfo, SignalAction, SignalState};
use ckpt_objects::signalling::{self, Signalling};
use ckpt_objects::socket::observe::Surroundings;
use ckpt_objects::socket::{self, Sockets};
use ckpt_objects::sysv::Row;
use ckpt_objects::terminal::{self, Group};
use ckpt_objects::thread::{Rseq, ThreadSettings, ThreadState};
use ckpt_objects::timer::IntervalTimer;
use ckpt_objects::{FilePath, HostPid, NsPid, epoll, event, eventfd, inotify, pidfd, signalfd, timerfd};
use ckpt_session::JobState;
use ckpt_session::job::{JobInfo, Machine};
use ckpt_wire::{PlanEntry, PlanFlag, ProcessRecord};

use crate::files::{UsedFile, used};
use crate::freeze::{Frozen, FrozenProcess};
use crate::hand_over::{HandOverError, REMEDY, SeenThread};
use crate::ipc::Ipc;
use crate::separate;
use crate::standard;
use crate::tree::{Anchor, Member};

/// `SIG_IGN` (signal(2)).
const SIG_IGN: u64 = 1;
const PROT_READ: u32 = 1;
/// Magic number of tmpfs (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Magic number of hugetlbfs (include/uapi/linux/magic.h).
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// What a survey gives.
pub struct Survey {
    /// The job. Files that it maps are known by their paths and inodes only, until [`Survey::identify_files`].
    pub state: JobState,
    /// For each living process, in the order of `Frozen::processes`, what it is to hand over.
    pub plans: Vec<Vec<PlanEntry>>,
    /// Contents of files without a name, by their space.
    pub contents: Vec<(u32, Vec<Piece>)>,
    /// Regular files that the job uses.
    pub used: Vec<UsedFile>,
    /// From here on no space is in use.
    pub next_space: u32,
    /// The inode numbers of `state.mapped_files`.
    inodes: Vec<u64>,
}

impl Survey {
    /// Finds out who the mapped files are. Reads files, so it is done when the job goes on already.
    pub fn identify_files(&mut self) {
        for (file, inode) in self.state.mapped_files.iter_mut().zip(&self.inodes) {
            let deleted = file.deleted;
            *file = identify(&file.path, *inode);
            file.deleted |= deleted;
        }
    }

    /// Whether the job's standard input is a pipe that somebody outside of it writes to: what is in it is not the job's to keep.
    pub fn reads_outside(&self) -> bool {
        self.state.open_files.iter().any(OpenFile::is_outside_input)
    }

    /// The first process that has a handler for a signal which the agent's shield does not stand before.
    pub fn catcher(&self, signal: i32) -> Option<&ProcessState> {
        let index = usize::try_from(signal - 1).ok()?;
        self.state.processes.iter().find(|process| {
            let Life::Alive(live) = &process.life else { return false };
            let handler = live.signals.actions.get(index).map_or(0, |action| action.handler);
            let mut code = live.memory.vmas.iter().map(|vma| vma.start..vma.end);
            let is_agents = code.find(|code| code.contains(&live.agent.leave)).is_some_and(|code| code.contains(&handler));
            handler > SIG_IGN && !is_agents
        })
    }

    /// Leaves out a signal that is pending because somebody outside has sent it: it was meant for this run.
    pub fn leave_out(&mut self, signal: i32, anchor: &Anchor) {
        // In a namespace of its own the job does not see who is outside.
        let is_outside = |info: &Siginfo| match info.sender() {
            Some(pid) => self.state.info.launcher.0 == anchor.reaper.0 && anchor.is_outside(HostPid(pid)),
            None => info.is_from_kill(),
        };
        for live in self.state.processes.iter_mut().filter_map(live_mut) {
            for pending in live.threads.iter_mut().map(|thread| &mut thread.pending).chain([&mut live.signals.pending]) {
                pending.retain(|info| info.signal() != signal || !is_outside(info));
            }
        }
    }

    /// Adds the signals that were pending, and how timers stand, which agents look at last.
    pub fn add_pending(&mut self, frozen: &Frozen) -> Result<(), ObserveError> {
        for process in &frozen.processes {
            let Some(live) = self.state.processes.iter_mut().find(|state| state.pid == process.ns_pid).and_then(live_mut) else {
                continue;
            };
            let damaged = |error| damaged(process, error);
            for signal in process.memory.pending().map_err(damaged)? {
                let info = Siginfo(signal.info.iter().flat_map(|word| word.to_ne_bytes()).collect());
                if signal.tid == 0 {
                    live.signals.pending.push(info);
                } else if let Some(thread) = live.threads.iter_mut().find(|thread| thread.tid.0 == signal.tid) {
                    thread.pending.push(info);
                }
            }
            crate::timers::complete(process, &mut live.posix_timers)?;
            crate::timers::settle(live, process.memory.process().map_err(damaged)?.interval_timers);
        }
        Ok(())
    }
}

impl Survey {
    /// Makes the senders of pending signals that are not of the job what they will be after a restart: somebody outside of its
    /// pid namespace. Whoever is there then may have their numbers.
    pub fn forget_outside_senders(&mut self, anchor: &Anchor) {
        let is_outside = |pid: i32| anchor.is_outside(HostPid(pid));
        for live in self.state.processes.iter_mut().filter_map(live_mut) {
            let own = live.threads.iter_mut().flat_map(|thread| &mut thread.pending);
            for info in live.signals.pending.iter_mut().chain(own) {
                if info.sender().is_some_and(is_outside) {
                    info.forget_sender();
                }
            }
        }
    }
}

fn live_mut(process: &mut ProcessState) -> Option<&mut LiveProcess> {
    match &mut process.life {
        Life::Alive(live) => Some(live),
        Life::Zombie { .. } => None,
    }
}

/// What the survey needs to know beside the frozen job.
pub struct Context {
    /// The process that adopts the job's orphans, as seen here.
    pub reaper: HostPid,
    /// What the image says of the job.
    pub info: JobInfo,
    /// The path of the agent's library: its pages are always kept, so that an image outlives an upgrade.
    pub agent: FilePath,
    /// The settings of the launcher's terminal when it took that over.
    pub terminal: Option<terminal::Settings>,
    /// Processes that made sockets of the job's at a restart, and have ended: their numbers here and in its namespace.
    pub makers: Vec<(HostPid, NsPid)>,
}

/// Surveys a frozen job.
pub fn survey(frozen: &Frozen, context: Context, machine: Machine) -> Result<Survey, ObserveError> {
    separate::check(frozen, context.reaper)?;
    let mut surveyor = Surveyor::new(frozen, context, Ipc::look(frozen)?);
    let mut processes = Vec::new();
    let mut plans = Vec::new();
    for process in &frozen.processes {
        let (state, plan) = surveyor.process(process)?;
        processes.push(state);
        plans.push(plan);
    }
    for member in &frozen.zombies {
        processes.push(surveyor.zombie(member)?);
    }
    processes.sort_by_key(|process| process.pid);
    surveyor.sockets()?;
    surveyor.observe_terminals(&mut processes)?;
    let mut open_files = surveyor.open_files()?;
    standard::split(surveyor.descriptions.all(), &mut open_files, &mut processes);
    standard::keep_input(&mut open_files);
    let signalling = surveyor.signalling(&open_files)?;
    let used = surveyor.used(&open_files);
    // The launcher's own files are replaced, and with them what they have locked.
    surveyor.locks.all.retain(|lock| open_files.get(lock.file as usize).is_some_and(|file| file.inherited.is_none()));
    surveyor.read_shared_memory(&mut plans)?;
    surveyor.read_system_v_memory(&mut plans)?;
    let system_v = surveyor.ipc.system_v(!surveyor.mqueues.is_empty())?;
    for process in &frozen.processes {
        let undo = surveyor.ipc.undo(process, &system_v)?;
        if let Some(live) = processes.iter_mut().find(|state| state.pid == process.ns_pid).and_then(live_mut) {
            live.semaphore_undo = undo;
        }
    }
    Ok(Survey {
        state: JobState {
            info: surveyor.context.info,
            machine,
            processes,
            open_files,
            pipes: surveyor.pipes,
            locks: surveyor.locks.all,
            signalling,
            terminals: surveyor.terminals.terminals,
            sockets: surveyor.sockets.states,
            shared_memory: surveyor.objects,
            mqueues: surveyor.mqueues,
            system_v,
            mapped_files: surveyor.mapped_files,
            files: JobFiles::default(),
        },
        plans,
        contents: surveyor.contents,
        used,
        next_space: surveyor.next_space,
        inodes: surveyor.mapped_inodes,
    })
}

struct Surveyor<'a> {
    frozen: &'a Frozen,
    context: Context,
    /// Job pids by host pids, the reaper's included.
    pids: HashMap<HostPid, NsPid>,
    descriptions: Descriptions,
    terminals: terminal::Observer,
    locks: Locks,
    pipes: Vec<PipeState>,
    pipe_index: HashMap<(u64, u64), u32>,
    sockets: Sockets,
    mqueues: Vec<Mqueue>,
    mqueue_index: HashMap<(u64, u64), u32>,
    objects: Vec<SharedMemory>,
    /// Shared memory objects by inode; device numbers in `maps` and of `stat` differ on some file systems.
    object_index: HashMap<u64, u32>,
    /// System V IPC.
    ipc: Ipc<'a>,
    /// Its shared memory by id: the object, and how many mappings show it.
    segments: HashMap<i32, (u32, u64)>,
    /// Ranges of each object that some process hands over.
    object_ranges: Vec<Vec<(u64, u64)>>,
    /// A descriptor through which an object can be read as a whole.
    object_files: HashMap<u32, (std::path::PathBuf, u64)>,
    mapped_files: Vec<FileIdentity>,
    mapped_inodes: Vec<u64>,
    mapped_index: HashMap<(FilePath, u64), u32>,
    contents: Vec<(u32, Vec<Piece>)>,
    next_space: u32,
    own_affinity: Vec<u64>,
    /// What the process says that the job hangs below.
    reaper: Option<Status>,
}

impl<'a> Surveyor<'a> {
    fn new(frozen: &'a Frozen, context: Context, ipc: Ipc<'a>) -> Self {
        let mut pids: HashMap<HostPid, NsPid> = frozen.processes.iter().map(|process| (process.pid, process.ns_pid)).collect();
        pids.extend(frozen.zombies.iter().map(|member| (member.pid, member.status.ns_pid())));
        pids.insert(context.reaper, context.info.launcher);
        let own = HostPid::own();
        Self {
            reaper: Status::of(context.reaper).ok(),
            frozen,
            context,
            pids,
            descriptions: Descriptions::default(),
            terminals: terminal::Observer::default(),
            locks: Locks::default(),
            pipes: Vec::new(),
            pipe_index: HashMap::new(),
            sockets: Sockets::default(),
            mqueues: Vec::new(),
            mqueue_index: HashMap::new(),
            objects: Vec::new(),
            object_index: HashMap::new(),
            ipc,
            segments: HashMap::new(),
            object_ranges: Vec::new(),
            object_files: HashMap::new(),
            mapped_files: Vec::new(),
            mapped_inodes: Vec::new(),
            mapped_index: HashMap::new(),
            contents: Vec::new(),
            next_space: frozen.processes.len() as u32,
            own_affinity: Status::of(own).map(|status| status.affinity()).unwrap_or_default(),
        }
    }

    fn new_space(&mut self) -> u32 {
        self.next_space += 1;
        self.next_space - 1
    }

    /// The ids of a process that its status tells. A group or session outside of the job's pid namespace reads 0: it is the
    /// launcher's.
    fn ids(&self, pid: NsPid, status: &Status, life: Life) -> ProcessState {
        let or = |id: NsPid, outside: NsPid| if id.0 == 0 { outside } else { id };
        ProcessState {
            pid,
            ppid: self.pids.get(&status.parent()).copied().unwrap_or(self.context.info.launcher),
            pgid: or(status.ns_pgid(), self.context.info.launcher_pgid),
            sid: or(status.ns_sid(), self.context.info.launcher_sid),
            exit_signal: exit_signal(status.process()).unwrap_or(libc::SIGCHLD),
            comm: status.name(),
            life,
        }
    }

    fn zombie(&self, member: &Member) -> Result<ProcessState, ObserveError> {
        let life = Life::Zombie { status: wait_status(member.pid)? };
        Ok(self.ids(member.status.ns_pid(), &member.status, life))
    }

    fn process(&mut self, process: &FrozenProcess) -> Result<(ProcessState, Vec<PlanEntry>), ObserveError> {
        let pid = process.live;
        let record = process.memory.process().map_err(|error| damaged(process, error))?;
        let space = self.frozen.processes.iter().position(|other| other.pid == process.pid).unwrap_or(0) as u32;
        let mut plan = Vec::new();
        let memory = self.memory(process, &record, space, &mut plan)?;
        let descriptors = self.descriptors(process)?;
        let threads = process.memory.threads().map_err(|error| damaged(process, error))?;
        let credentials = process.status.credentials(record.securebits)?;
        let threads = threads.iter().map(|thread| self.thread(process, thread, &credentials)).collect::<Result<Vec<_>, _>>()?;
        let (cwd, removed_cwd) = working_directory(process)?;
        let mut posix_timers = crate::timers::describe(process, &self.pids)?;
        let first_has_ended = threads.iter().any(|thread| thread.exited);
        let pending = if first_has_ended { self.pending_without_first(process, &mut posix_timers)? } else { Vec::new() };
        let live = LiveProcess {
            memory,
            threads: leader_first(threads, process.ns_pid),
            descriptors,
            signals: SignalState { actions: record.actions.iter().map(signal_action).collect(), pending },
            semaphore_undo: Vec::new(),
            posix_timers,
            interval_timers: record.interval_timers.map(|[interval_us, value_us]| IntervalTimer { interval_us, value_us }),
            has_terminal: false,
            cwd,
            removed_cwd,
            root: self.directory(process, "root")?,
            umask: process.status.umask()?,
            limits: limits(pid)?,
            credentials,
            oom_score_adj: oom_score_adj(pid)?,
            stopped: process.stopped,
            settings: ProcessSettings {
                dumpable: record.dumpable,
                child_subreaper: record.child_subreaper != 0,
                thp_disable: record.thp_disable,
                personality: record.personality,
                memory_merge: record.memory_merge == 1,
                no_exec_gain: record.no_exec_gain,
                tile_registers: record.tile_registers == 1,
                core_filter: core_filter(pid),
            },
            agent: AgentPlace {
                leave: record.leave,
                transient_start: record.transient_start,
                transient_len: record.transient_len,
                leaving: record.leaving,
                touched: record.touched,
            },
        };
        Ok((self.ids(process.ns_pid, &process.status, Life::Alive(Box::new(live))), plan))
    }

    /// The signals that are pending for a process as a whole whose first thread has ended; those of its timers are counted there.
    fn pending_without_first(&self, process: &FrozenProcess, timers: &mut [PosixTimer]) -> Result<Vec<Siginfo>, ObserveError> {
        let queue = self.frozen.pending_for_process(process).map_err(|error| {
            let what = format!("has ended its first thread, its pending signals cannot be seen by any other, and {error}");
            refuse(process, what, "try again when no signal is pending, or allow ptrace")
        })?;
        let mut pending = Vec::new();
        for info in queue {
            match info.timer().and_then(|id| timers.iter_mut().find(|timer| timer.id == id)) {
                Some(timer) => timer.pending = 1,
                None => pending.push(info),
            }
        }
        Ok(pending)
    }

    fn directory(&self, process: &FrozenProcess, link: &str) -> Result<FilePath, ObserveError> {
        let (path, deleted) = split_deleted(&read_proc_link(process.live, link)?);
        if deleted && !path.as_path().is_dir() {
            let what = format!("has a {link} directory that was removed ({path})");
            return Err(refuse(process, what, "leave that directory before the checkpoint"));
        }
        Ok(path)
    }

    /// Speculation controls of a thread, where it has others than come from outside of the job.
    fn speculation(&self, status: &Status) -> [u32; 2] {
        let own = status.speculation();
        if self.reaper.as_ref().is_some_and(|reaper| reaper.speculation() == own) { [0; 2] } else { own }
    }

    fn thread(&self, process: &FrozenProcess, seen: &SeenThread, common: &Credentials) -> Result<ThreadState, ObserveError> {
        // Thread ids outside differ from the job's own after a restart; only the leader's is at hand without a search.
        let tid = process.thread(seen.tid).ok_or_else(|| damaged(process, HandOverError::Thread(seen.tid)))?;
        let status = Status::of_thread(process.pid, tid)?;
        if let Some((what, remedy)) = self.reaper.as_ref().and_then(|reaper| status.unkept(reaper)) {
            return Err(refuse(process, what.to_owned(), remedy));
        }
        let credentials = status.credentials(seen.securebits)?;
        let name_len = seen.comm.iter().position(|byte| *byte == 0).unwrap_or(seen.comm.len());
        Ok(ThreadState {
            tid: NsPid(seen.tid),
            exited: seen.exited,
            frame: seen.frame,
            fs_base: seen.fs_base,
            gs_base: seen.gs_base,
            clear_child_tid: seen.clear_child_tid,
            robust_list: seen.robust_list,
            rseq: (seen.rseq.0 != 0).then_some(Rseq { address: seen.rseq.0, len: seen.rseq.1, signature: seen.rseq.2 }),
            comm: FilePath(seen.comm[..name_len].to_vec()),
            pending: Vec::new(),
            scheduling: scheduling(process.pid, tid, &status, &self.own_affinity)?,
            timer_slack_ns: seen.timer_slack_ns,
            parent_death_signal: seen.parent_death_signal,
            no_new_privs: seen.no_new_privs,
            credentials: (!seen.exited && credentials != *common).then(|| Box::new(credentials)),
            settings: ThreadSettings { speculation: self.speculation(&status), ..seen.settings },
            policy: seen.policy.clone(),
        })
    }

    fn descriptors(&mut self, process: &FrozenProcess) -> Result<Vec<FdEntry>, ObserveError> {
        let seen = descriptors(process.live, process.agent_socket)?;
        let mut entries = Vec::new();
        for mut descriptor in seen {
            if descriptor.may_not_close_on_exec()
                && let Ok(flags) = process.call(libc::SYS_fcntl, &[descriptor.fd.into(), libc::F_GETFD.into(), 0.into()])
            {
                descriptor.close_on_exec = flags & libc::FD_CLOEXEC as u64 != 0;
            }
            let locked = descriptor.info.windows(5).any(|word| word == b"lock:").then(|| descriptor.clone());
            let entry = self.descriptions.entry(descriptor);
            if let Some(descriptor) = locked {
                let seen = self.locks.see(process.ns_pid, entry, &descriptor.info);
                seen.map_err(|error| self.refuse_descriptor(&descriptor, &error.to_string()))?;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn memory(
        &mut self,
        process: &FrozenProcess,
        record: &ProcessRecord,
        space: u32,
        plan: &mut Vec<PlanEntry>,
    ) -> Result<AddressSpace, ObserveError> {
        let mut vmas = Vec::new();
        let policies = process.memory.policies().map_err(|error| damaged(process, error))?;
        let mut lock_future = 0;
        for mapping in mappings(process.live)? {
            if mapping.start >= record.control_start && mapping.end <= record.control_end {
                // The agent has mapped it just now: as it is, so will be what is mapped next.
                lock_future = memory::lock_future(mapping.flags);
                continue;
            }
            let backing = self.backing(process, &mapping)?;
            self.plan(&mapping, &backing, space, plan);
            vmas.push(Vma {
                start: mapping.start,
                end: mapping.end,
                prot: mapping.prot,
                name: anonymous_name(&mapping, &backing),
                backing,
                flags: flags_of(&mapping),
                protection_key: mapping.protection_key,
                policy: policies.get(&mapping.start).cloned(),
            });
        }
        check_room_for_copies(process, plan)?;
        let mut fields = mm_fields(process.live)?;
        fields.brk = record.brk;
        let exe = read_proc_link(process.live, "exe")?;
        // The program is mapped, unless it is gone from its own address space.
        let mapped = vmas.iter().find_map(|vma| match vma.backing {
            Backing::PrivateFile { file, .. } if self.mapped_files[file as usize].path == split_deleted(&exe).0 => Some(file),
            _ => None,
        });
        fields.exe = mapped.unwrap_or_else(|| self.mapped_file(&exe, 0));
        let (protection_keys, execute_only_key) = memory::protection_keys(record.protection_keys, record.taken_keys);
        let guards = guards(process.live)?;
        Ok(AddressSpace { space, vmas, guards, fields, lock_future, protection_keys, execute_only_key })
    }

    fn backing(&mut self, process: &FrozenProcess, mapping: &Mapping) -> Result<Backing, ObserveError> {
        let name = &mapping.name.0;
        if mapping.device_memory && !name.starts_with(b"[vvar") {
            let what = format!("maps memory of the device {}", mapping.name);
            return Err(refuse(process, what, "end that use before a checkpoint, or run it without the device"));
        }
        if mapping.flags.contains(VmaFlags::SHADOW_STACK) {
            let remedy = "run it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off";
            return Err(refuse(process, "has a shadow stack".into(), remedy));
        }
        if name.starts_with(b"/secretmem") {
            let remedy = "end that use before a checkpoint";
            return Err(refuse(process, "has secret memory of memfd_secret(2)".into(), remedy));
        }
        if mapping.flags.contains(VmaFlags::HUGETLB) {
            return Err(refuse(process, "has huge pages of hugetlbfs".into(), "use transparent huge pages instead"));
        }
        if let Some(kind) = event::kind(&mapping.name) {
            let what = format!("maps memory of {}", event::describe(kind));
            return Err(refuse(process, what, "end that use before a checkpoint, or have it do without"));
        }
        // Rings of packet sockets.
        if name.starts_with(b"socket:") {
            return Err(refuse(process, format!("maps {}", mapping.name), "end that use before a checkpoint"));
        }
        if !mapping.shared {
            return Ok(match name.as_slice() {
                b"[vdso]" => Backing::Vdso,
                name if name.starts_with(b"[vvar") => Backing::Vvar,
                _ if mapping.inode == 0 => Backing::Anonymous,
                _ => {
                    let file = self.mapped_file(&mapping.name, mapping.inode);
                    let stored = self.is_stored(file);
                    Backing::PrivateFile { file, offset: mapping.offset, stored }
                }
            });
        }
        if name.starts_with(b"/SYSV") {
            let row = self.ipc.memory(process, mapping.inode)?.clone();
            let object = self.segment(&row);
            self.segments.entry(row.identity.id).and_modify(|(_, attached)| *attached += 1);
            return Ok(Backing::SharedMemory { object, offset: mapping.offset });
        }
        let (mut path, mut deleted) = name_of(&mapping.name, mapping.inode);
        if deleted && let Some(name) = posix_name(&path, mapping.inode) {
            (path, deleted) = (name, false);
        }
        let anonymous = mapping.name.0 == b"/dev/zero (deleted)" || name.starts_with(b"[anon_shmem:");
        let memfd = path.0.strip_prefix(b"/memfd:");
        if !(anonymous || memfd.is_some() || deleted || mapping.may_write) {
            let file = self.mapped_file(&mapping.name, mapping.inode);
            return Ok(Backing::SharedFile { file, offset: mapping.offset });
        }
        let kind = if anonymous {
            SharedMemoryKind::Anonymous
        } else if let Some(name) = memfd {
            SharedMemoryKind::Memfd { name: FilePath(name.to_vec()), seals: 0 }
        } else if deleted {
            SharedMemoryKind::Unlinked { path, mode: 0o600 }
        } else {
            named_kind(path)
        };
        let end = mapping.offset + (mapping.end - mapping.start);
        let object = self.object(mapping.inode, kind);
        let known = &mut self.objects[object as usize];
        if !matches!(known.kind, SharedMemoryKind::Named { .. }) {
            known.size = known.size.max(end);
        }
        Ok(Backing::SharedMemory { object, offset: mapping.offset })
    }

    /// System V shared memory as an object.
    fn segment(&mut self, row: &Row) -> u32 {
        if let Some(&(known, _)) = self.segments.get(&row.identity.id) {
            return known;
        }
        let (removed, locked) = (row.is_removed(), row.is_locked());
        let mut identity = row.identity.clone();
        identity.mode &= 0o777;
        let (space, object) = (self.new_space(), self.objects.len() as u32);
        self.objects.push(SharedMemory { space, size: row.size, kind: SharedMemoryKind::SystemV { identity, removed, locked } });
        self.object_ranges.push(Vec::new());
        self.segments.insert(row.identity.id, (object, 0));
        object
    }

    /// Reads System V shared memory that no process of the job maps as a whole.
    fn read_system_v_memory(&mut self, plans: &mut [Vec<PlanEntry>]) -> Result<(), ObserveError> {
        let rows: Vec<Row> = self.ipc.all_memory().cloned().collect();
        for row in &rows {
            let attached = self.segments.get(&row.identity.id).map_or(0, |(_, attached)| *attached);
            match attached {
                // Another job's, whose maker has ended.
                0 if row.attached > 0 => continue,
                0 => {
                    let Some(contents) = self.ipc.contents(row)? else { continue };
                    let object = self.segment(row);
                    self.contents.push((self.objects[object as usize].space, contents));
                    continue;
                }
                _ if row.attached > attached => return Err(self.ipc.shared_with_others(row)),
                _ => (),
            }
            let object = self.segment(row);
            let SharedMemory { space, size, .. } = self.objects[object as usize];
            if !subtract(0, size, &self.object_ranges[object as usize]).is_empty() {
                let Some(contents) = self.ipc.contents(row)? else { continue };
                self.contents.push((space, contents));
                for plan in plans.iter_mut() {
                    plan.retain(|entry| entry.space != space);
                }
            }
        }
        Ok(())
    }

    /// The shared memory object with this inode.
    fn object(&mut self, inode: u64, kind: SharedMemoryKind) -> u32 {
        if let Some(&known) = self.object_index.get(&inode) {
            return known;
        }
        let space = self.new_space();
        let size = match &kind {
            SharedMemoryKind::Named { path, .. } => std::fs::metadata(path.as_path()).map(|meta| meta.len()).unwrap_or(0),
            _ => 0,
        };
        let index = self.objects.len() as u32;
        self.objects.push(SharedMemory { space, size, kind });
        self.object_ranges.push(Vec::new());
        self.object_index.insert(inode, index);
        index
    }

    fn mapped_file(&mut self, link: &FilePath, inode: u64) -> u32 {
        if let Some(&known) = self.mapped_index.get(&(link.clone(), inode)) {
            return known;
        }
        let (path, deleted) = name_of(link, inode);
        let replaced = || {
            use std::os::unix::fs::MetadataExt;
            inode != 0 && std::fs::metadata(path.as_path()).is_ok_and(|meta| meta.ino() != inode)
        };
        let deleted = deleted || replaced();
        let index = self.mapped_files.len() as u32;
        self.mapped_files.push(FileIdentity { path, size: 0, mtime_ns: 0, build_id: Vec::new(), deleted });
        self.mapped_inodes.push(inode);
        self.mapped_index.insert((link.clone(), inode), index);
        index
    }

    /// Whether all pages of a mapped file are kept, not only those that were changed.
    fn is_stored(&self, file: u32) -> bool {
        let file = &self.mapped_files[file as usize];
        file.deleted || self.context.info.settings.self_contained || file.path == self.context.agent
    }

    /// Adds to a process's plan what it must hand over of a mapping.
    fn plan(&mut self, mapping: &Mapping, backing: &Backing, space: u32, plan: &mut Vec<PlanEntry>) {
        if mapping.flags.contains(VmaFlags::DROPPABLE) {
            return;
        }
        let mut flags = 0;
        if mapping.prot & PROT_READ == 0 || mapping.protection_key != 0 {
            flags |= PlanFlag::UNREADABLE;
        }
        if mapping.flags.contains(VmaFlags::DONT_FORK) || mapping.flags.contains(VmaFlags::WIPE_ON_FORK) {
            flags |= PlanFlag::COPY_FIRST;
        }
        let len = mapping.end - mapping.start;
        match backing {
            Backing::Anonymous if mapping.own == 0 => (),
            Backing::Anonymous => {
                plan.push(PlanEntry { start: mapping.start, len, source: 0, address: mapping.start, space, flags })
            }
            Backing::PrivateFile { stored: true, .. } => {
                flags = flags & !PlanFlag::COPY_FIRST | PlanFlag::ALL | PlanFlag::KEEP_ZERO;
                plan.push(PlanEntry { start: mapping.start, len, source: 0, address: mapping.start, space, flags });
            }
            Backing::PrivateFile { .. } if mapping.own == 0 => (),
            Backing::PrivateFile { .. } => {
                flags |= PlanFlag::KEEP_ZERO;
                plan.push(PlanEntry { start: mapping.start, len, source: 0, address: mapping.start, space, flags });
            }
            Backing::SharedMemory { object, offset } => self.plan_shared(*object, *offset, mapping, flags, plan),
            Backing::SharedFile { .. } | Backing::Vvar | Backing::Vdso => (),
        }
    }

    /// Plans the part of a shared object that this mapping shows and no earlier one did.
    fn plan_shared(&mut self, object: u32, offset: u64, mapping: &Mapping, flags: u32, plan: &mut Vec<PlanEntry>) {
        let SharedMemory { space, ref kind, .. } = self.objects[object as usize];
        if matches!(kind, SharedMemoryKind::SystemV { .. }) && !mapping.flags.contains(VmaFlags::DONT_FORK) {
            let (start, len) = (mapping.start, mapping.end - mapping.start);
            plan.push(PlanEntry { start, len, flags: PlanFlag::NOT_IN_TWIN, space: u32::MAX, ..PlanEntry::default() });
        }
        let keep_zero = if matches!(kind, SharedMemoryKind::Named { .. }) { PlanFlag::KEEP_ZERO } else { 0 };
        // Of a file on disk, what is not in memory now may be changed before a restart too. What is swapped out does not show
        // either. Both are read by a call, which fails where the file ends or its disk does.
        let on_disk = matches!(kind, SharedMemoryKind::Named { in_memory: false, .. });
        let every = if on_disk || mapping.swapped > 0 { PlanFlag::ALL | PlanFlag::UNREADABLE } else { 0 };
        let ranges = &mut self.object_ranges[object as usize];
        for (start, end) in subtract(offset, offset + (mapping.end - mapping.start), ranges) {
            plan.push(PlanEntry {
                start: mapping.start + (start - offset),
                len: end - start,
                source: 0,
                address: start,
                space,
                flags: flags | keep_zero | every | PlanFlag::COPY_FIRST | PlanFlag::SHARED,
            });
            ranges.push((start, end));
        }
    }

    /// Descriptions that send signals.
    fn signalling(&self, open_files: &[OpenFile]) -> Result<Vec<Signalling>, ObserveError> {
        let mut all = Vec::new();
        for ((file, descriptor), open) in (0u32..).zip(self.descriptions.all()).zip(open_files) {
            let owner = self.frozen.processes.iter().find(|process| process.live == descriptor.pid);
            let Some(owner) = owner.filter(|_| open.inherited.is_none()) else { continue };
            let found = signalling::observe(file, owner.ns_pid, descriptor, |kind, host| self.signalled(kind, host));
            all.extend(found.map_err(|error| self.refuse_descriptor(descriptor, &error.to_string()))?);
        }
        Ok(all)
    }

    /// The job's number of a thread, process or group.
    fn signalled(&self, kind: i32, host: HostPid) -> Option<NsPid> {
        match kind {
            signalling::F_OWNER_PGRP => self.frozen.processes.iter().find_map(|process| {
                let (group, ..) = group_session_and_terminal(process.live).ok()?;
                (group == host.0).then(|| self.ids(process.ns_pid, &process.status, Life::Zombie { status: 0 }).pgid)
            }),
            signalling::F_OWNER_TID => self
                .frozen
                .processes
                .iter()
                .find_map(|process| Status::of_thread(process.pid, host).ok().map(|status| status.ns_pid())),
            _ => self.pids.get(&host).copied(),
        }
    }

    /// Terminals, which tell of many descriptions and processes at once.
    fn observe_terminals(&mut self, states: &mut [ProcessState]) -> Result<(), ObserveError> {
        let groups = self.frozen.processes.iter().map(|process| {
            let (group, session, terminal) = group_session_and_terminal(process.live)?;
            let ids = self.ids(process.ns_pid, &process.status, Life::Zombie { status: 0 });
            Ok(Group { pid: process.live, host: (session, group), own: (ids.sid, ids.pgid), terminal })
        });
        let groups = groups.collect::<Result<Vec<_>, ObserveError>>()?;
        let before = self.context.terminal.as_ref();
        self.terminals = terminal::Observer::observe(self.descriptions.all(), &groups, before).map_err(|(at, error)| {
            let remedy = "end the program that uses it before a checkpoint";
            match at.map(|at| &self.descriptions.all()[at]) {
                Some(descriptor) => self.refuse_descriptor(descriptor, &error.to_string()),
                None => refuse(&self.frozen.processes[0], format!("or another is controlled by {error}"), remedy),
            }
        })?;
        for process in self.frozen.processes.iter().filter(|process| self.terminals.controlled.contains(&process.live)) {
            if let Some(live) = states.iter_mut().find(|state| state.pid == process.ns_pid).and_then(live_mut) {
                live.has_terminal = true;
            }
        }
        Ok(())
    }

    fn open_files(&mut self) -> Result<Vec<OpenFile>, ObserveError> {
        let seen = self.descriptions.all().to_vec();
        let mut files = Vec::new();
        for (at, descriptor) in seen.iter().enumerate() {
            let inherited = (0..3u8).find(|fd| is_own(descriptor, i32::from(*fd)));
            let terminal = self.terminals.kinds.remove(&at);
            let socket = self.sockets.of_file(at).map(|socket| OpenFileKind::Socket { socket });
            let kind = match terminal.or(socket).map_or_else(|| self.open_file_kind(descriptor), Ok) {
                // What is the launcher's own need not be understood: it is replaced.
                Err(_) if inherited.is_some() => OpenFileKind::Device { path: descriptor.link.clone(), rdev: descriptor.rdev },
                other => other?,
            };
            let SeenDescriptor { flags, position, .. } = *descriptor;
            files.push(OpenFile { flags, position, inherited, is_input: false, kind });
        }
        for (socket, file) in self.sockets.in_flight() {
            let kind = files.get(file as usize).map(|file| &file.kind);
            if matches!(kind, Some(OpenFileKind::Proc { .. } | OpenFileKind::Pidfd(PidfdState { process: Some(_) }))) {
                let holder = (0..seen.len()).find(|&file| self.sockets.of_file(file) == Some(socket)).unwrap_or(0);
                return Err(self.refuse_descriptor(&seen[holder], "a socket with a pidfd or a file of /proc in flight"));
            }
        }
        // Written by any description of the job's.
        let written: Vec<(u64, u64)> = seen
            .iter()
            .filter(|descriptor| descriptor.flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32)
            .map(|descriptor| (descriptor.device, descriptor.inode))
            .collect();
        for file in &mut files {
            if let OpenFileKind::Regular(regular) = &mut file.kind {
                regular.written = written.contains(&(regular.device, regular.inode));
            }
        }
        Ok(files)
    }

    /// Regular files that the job uses.
    fn used(&self, open_files: &[OpenFile]) -> Vec<UsedFile> {
        let objects = self.object_index.iter().filter_map(|(inode, index)| Some((*inode, self.objects.get(*index as usize)?)));
        used(self.descriptions.all(), open_files, objects, self.context.info.uid)
    }

    fn open_file_kind(&mut self, descriptor: &SeenDescriptor) -> Result<OpenFileKind, ObserveError> {
        let link = &descriptor.link;
        let (path, deleted) = name_of(link, descriptor.inode);
        if let Some(kind) = event::kind(link) {
            return self.event_descriptor(descriptor, kind);
        }
        if descriptor.flags & libc::O_PATH as u32 != 0 {
            return Ok(OpenFileKind::Path { path });
        }
        let kind = descriptor.mode & libc::S_IFMT;
        if path.0.starts_with(b"/proc/") && matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
            return Ok(OpenFileKind::Proc { path });
        }
        match kind {
            libc::S_IFREG => self.regular_file(descriptor, path, deleted),
            libc::S_IFDIR => Ok(open_directory(descriptor, path)),
            libc::S_IFCHR | libc::S_IFBLK => Ok(OpenFileKind::Device { path, rdev: descriptor.rdev }),
            libc::S_IFIFO => self.pipe(descriptor).map(|pipe| OpenFileKind::Pipe { pipe }),
            libc::S_IFSOCK => Err(self.refuse_descriptor(descriptor, "a socket")),
            _ => Err(self.refuse_descriptor(descriptor, &link.to_string())),
        }
    }

    /// A file of the kernel's own, of a kind that its link names.
    fn event_descriptor(&self, descriptor: &SeenDescriptor, kind: &str) -> Result<OpenFileKind, ObserveError> {
        let descriptions = self.descriptions.all();
        let state = match kind {
            "eventpoll" => epoll::observe(descriptor, descriptions).map(OpenFileKind::Epoll),
            "eventfd" => eventfd::observe(descriptor).map(OpenFileKind::Eventfd),
            "timerfd" => timerfd::observe(descriptor).map(OpenFileKind::Timerfd),
            "signalfd" => signalfd::observe(descriptor, self.context.info.signal).map(OpenFileKind::Signalfd),
            "inotify" => {
                let processes = self.frozen.processes.iter().map(|process| process.pid).collect();
                inotify::observe(descriptor, &mut inotify::Search::new(processes, descriptions)).map(OpenFileKind::Inotify)
            }
            "pidfd" => pidfd::observe(descriptor, |pid| self.pids.get(&pid).copied()).map(OpenFileKind::Pidfd),
            other => return Err(self.refuse_descriptor(descriptor, &event::describe(other))),
        };
        state.map_err(|error| self.refuse_descriptor(descriptor, &error.to_string()))
    }

    /// Looks at all sockets, and adds files that are only in flight between them to the descriptions.
    fn sockets(&mut self) -> Result<(), ObserveError> {
        // Outside of any restart the numbers are the same here, also those of the dead.
        let same = self.frozen.processes.iter().all(|process| process.pid.0 == process.ns_pid.0);
        let makers: HashMap<HostPid, NsPid> = self.context.makers.iter().copied().collect();
        let number = |pid: i32| match self.pids.get(&HostPid(pid)).or_else(|| makers.get(&HostPid(pid))) {
            Some(number) => number.0,
            None if same => pid,
            None => 0,
        };
        let mut descriptions = std::mem::take(&mut self.descriptions);
        let cwds =
            self.frozen.processes.iter().filter_map(|process| std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok());
        let mut bases: Vec<_> = cwds.chain([self.context.info.launch_dir.as_path().to_owned()]).collect();
        bases.sort();
        bases.dedup();
        let info = &self.context.info;
        let job = Surroundings { pid: &number, strict: info.settings.strict, bases: &bases };
        let sockets = socket::observe::observe(&mut descriptions, &job);
        self.descriptions = descriptions;
        self.sockets = sockets.map_err(|(descriptor, error)| match self.refuse_descriptor(&descriptor, &error.to_string()) {
            ObserveError::Refused { pid, name, what, .. } if error.passes() => ObserveError::Passing { pid, name, what },
            ObserveError::Refused { pid, name, what, .. } => ObserveError::Refused { pid, name, what, remedy: error.remedy() },
            other => other,
        })?;
        Ok(())
    }

    fn refuse_descriptor(&self, descriptor: &SeenDescriptor, what: &str) -> ObserveError {
        let owner = self.frozen.processes.iter().find(|process| process.live == descriptor.pid);
        ObserveError::Refused {
            pid: owner.map_or(descriptor.pid.0, |process| process.ns_pid.0),
            name: owner.map(FrozenProcess::name).unwrap_or_default(),
            what: format!("has {what} open (descriptor {})", descriptor.fd),
            remedy: "close it before a checkpoint",
        }
    }

    fn regular_file(&mut self, descriptor: &SeenDescriptor, path: FilePath, deleted: bool) -> Result<OpenFileKind, ObserveError> {
        if mqueue::is_queue(descriptor) {
            return self.mqueue(descriptor);
        }
        let SeenDescriptor { device, inode, size, .. } = *descriptor;
        let through_proc = proc_path(descriptor.pid, &format!("fd/{}", descriptor.fd));
        if let Some(name) = path.0.strip_prefix(b"/memfd:") {
            if rustix::fs::statfs(&through_proc).is_ok_and(|stat| stat.f_type == HUGETLBFS_MAGIC) {
                return Err(self.refuse_descriptor(descriptor, "huge pages of hugetlbfs"));
            }
            let kind = SharedMemoryKind::Memfd { name: FilePath(name.to_vec()), seals: seals(&through_proc) };
            let object = self.object(inode, kind.clone());
            let known = &mut self.objects[object as usize];
            (known.size, known.kind) = (size, kind);
            self.object_files.insert(object, (through_proc, size));
            return Ok(OpenFileKind::SharedMemory { object });
        }
        let name = if deleted { posix_name(&path, inode) } else { Some(path.clone()) };
        if let Some(path) = name.filter(|path| descriptor.links > 0 && path.0.starts_with(POSIX_MEMORY)) {
            // Its contents are kept, unlike those of files that a restart finds again.
            if let kind @ SharedMemoryKind::Named { in_memory: true, .. } = named_kind(path.clone()) {
                let object = self.object(inode, kind);
                self.objects[object as usize].size = size;
                return Ok(OpenFileKind::Regular(RegularFile { path, size, device, inode, written: false }));
            }
        }
        if !deleted && descriptor.links > 0 {
            return Ok(OpenFileKind::Regular(RegularFile { path, size, device, inode, written: false }));
        }
        if let Some(&object) = self.object_index.get(&inode) {
            let known = &mut self.objects[object as usize];
            known.size = size;
            if let SharedMemoryKind::Unlinked { mode, .. } = &mut known.kind {
                *mode = descriptor.mode & 0o7777;
            }
            self.object_files.insert(object, (through_proc, size));
            return Ok(OpenFileKind::SharedMemory { object });
        }
        let space = self.new_space();
        let pieces = contents(&through_proc, size).map_err(|error| self.unreadable(descriptor, &error))?;
        self.contents.push((space, pieces));
        let mode = descriptor.mode & 0o7777;
        Ok(OpenFileKind::Deleted(DeletedFile { path, size, mode, device, inode, space }))
    }

    fn mqueue(&mut self, descriptor: &SeenDescriptor) -> Result<OpenFileKind, ObserveError> {
        let key = (descriptor.device, descriptor.inode);
        if let Some(&queue) = self.mqueue_index.get(&key) {
            return Ok(OpenFileKind::Mqueue { queue });
        }
        let state = mqueue::observe(descriptor).map_err(|error| self.refuse_descriptor(descriptor, &error.to_string()))?;
        if !self.ipc.is_user(state.owner.0) {
            return Err(self.refuse_descriptor(descriptor, "a POSIX message queue of another user"));
        }
        let queue = self.mqueues.len() as u32;
        self.mqueues.push(state);
        self.mqueue_index.insert(key, queue);
        Ok(OpenFileKind::Mqueue { queue })
    }

    fn pipe(&mut self, descriptor: &SeenDescriptor) -> Result<u32, ObserveError> {
        let key = (descriptor.device, descriptor.inode);
        if let Some(&known) = self.pipe_index.get(&key) {
            return Ok(known);
        }
        let by_packets = self
            .descriptions
            .all()
            .iter()
            .any(|other| (other.device, other.inode) == key && other.flags & libc::O_DIRECT as u32 != 0);
        let state = pipe::observe(descriptor, by_packets).map_err(|error| self.unreadable(descriptor, &error))?;
        let index = self.pipes.len() as u32;
        self.pipes.push(state);
        self.pipe_index.insert(key, index);
        Ok(index)
    }

    fn unreadable(&self, descriptor: &SeenDescriptor, error: &io::Error) -> ObserveError {
        self.refuse_descriptor(descriptor, &format!("{} (which cannot be read: {error})", descriptor.link))
    }

    /// Reads the objects that a descriptor is open on as a whole, here: a mapping may show only a part. They need not be handed
    /// over then.
    fn read_shared_memory(&mut self, plans: &mut [Vec<PlanEntry>]) -> Result<(), ObserveError> {
        // So are files in memory that have names, where no process maps them as a whole.
        for &object in self.object_index.values() {
            let SharedMemory { size, ref kind, .. } = self.objects[object as usize];
            if let SharedMemoryKind::Named { path, in_memory: true, .. } = kind
                && !subtract(0, size, &self.object_ranges[object as usize]).is_empty()
            {
                self.object_files.insert(object, (path.as_path().to_owned(), size));
            }
        }
        for (object, (path, size)) in &self.object_files {
            let space = self.objects[*object as usize].space;
            let pieces = contents(path, *size).map_err(|source| ObserveError::Read {
                pid: self.context.reaper,
                path: path.clone(),
                source,
            })?;
            self.contents.push((space, pieces));
            for plan in plans.iter_mut() {
                plan.retain(|entry| entry.space != space);
            }
        }
        Ok(())
    }
}

/// The working directory of a process, and what it is where it has been removed.
fn working_directory(process: &FrozenProcess) -> Result<(FilePath, Option<RemovedDirectory>), ObserveError> {
    let link = read_proc_link(process.live, "cwd")?;
    let removed = directory::observe_removed(&link, &proc_path(process.live, "cwd"));
    Ok((removed.as_ref().map_or(link, |removed| removed.path.clone()), removed))
}

/// Refuses what would need more memory than there is: every page of files that are mapped shared is copied while the job stands
/// still.
fn check_room_for_copies(process: &FrozenProcess, plan: &[PlanEntry]) -> Result<(), ObserveError> {
    const EVERY: u32 = PlanFlag::ALL | PlanFlag::SHARED;
    let needed: u64 = plan.iter().filter(|entry| entry.flags & EVERY == EVERY).map(|entry| entry.len).sum();
    if needed == 0 {
        return Ok(());
    }
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match free.map(|kib| kib << 10) {
        Some(free) if needed > free => {
            let what = format!(
                "has {} MiB of files mapped shared and writable, of which a copy must be made, and {} MiB of memory are free",
                needed >> 20,
                free >> 20
            );
            Err(refuse(process, what, "map less of them at once, or use read and write"))
        }
        _ => Ok(()),
    }
}

fn open_directory(descriptor: &SeenDescriptor, path: FilePath) -> OpenFileKind {
    let through = proc_path(descriptor.pid, &format!("fd/{}", descriptor.fd));
    match directory::observe_removed(&descriptor.link, &through) {
        Some(removed) => OpenFileKind::RemovedDirectory(removed),
        None => OpenFileKind::Directory { path },
    }
}

pub(crate) fn refuse(process: &FrozenProcess, what: String, remedy: &'static str) -> ObserveError {
    ObserveError::Refused { pid: process.ns_pid.0, name: process.name(), what, remedy }
}

/// The agent of a process has handed over what no agent does.
pub(crate) fn damaged(process: &FrozenProcess, error: HandOverError) -> ObserveError {
    refuse(process, format!("has damaged its agent's memory: {error}"), REMEDY)
}

/// The flags of a mapping; with the one that only System V shared memory has.
fn flags_of(mapping: &Mapping) -> VmaFlags {
    let mut flags = mapping.flags;
    if mapping.shared && mapping.name.0.starts_with(b"/SYSV") && !mapping.may_write {
        flags.insert(VmaFlags::READ_ONLY);
    }
    flags
}

/// Where POSIX shared memory and named semaphores are (shm_overview(7)).
const POSIX_MEMORY: &[u8] = b"/dev/shm/";

/// The name of a file in memory that was made under another one, which is gone: the C library makes semaphores like that.
fn posix_name(old: &FilePath, inode: u64) -> Option<FilePath> {
    use std::os::unix::fs::DirEntryExt;
    if !old.0.starts_with(POSIX_MEMORY) {
        return None;
    }
    let mut files = std::fs::read_dir(old.as_path().parent()?).ok()?.flatten();
    files.find(|file| file.ino() == inode).map(|file| FilePath::from(file.path().as_path()))
}

/// The name that a program gave its anonymous memory: `[anon:NAME]`.
fn anonymous_name(mapping: &Mapping, backing: &Backing) -> Option<FilePath> {
    if *backing != Backing::Anonymous {
        return None;
    }
    mapping.name.0.strip_prefix(b"[anon:").and_then(|name| name.strip_suffix(b"]")).map(|name| FilePath(name.to_vec()))
}

fn named_kind(path: FilePath) -> SharedMemoryKind {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let meta = std::fs::metadata(path.as_path());
    let mode = meta.as_ref().map_or(0o600, |meta| meta.permissions().mode() & 0o7777);
    let owner = meta.map_or((0, 0), |meta| (meta.uid(), meta.gid()));
    let in_memory = rustix::fs::statfs(path.as_path()).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC);
    SharedMemoryKind::Named { path, mode, owner, in_memory }
}

fn seals(path: &Path) -> u32 {
    std::fs::File::open(path).ok().and_then(|file| rustix::fs::fcntl_get_seals(file).ok()).map_or(0, |seals| seals.bits())
}

fn signal_action(words: &[u64; 4]) -> SignalAction {
    SignalAction { handler: words[0], flags: words[1], restorer: words[2], mask: words[3] }
}

fn leader_first(mut threads: Vec<ThreadState>, leader: NsPid) -> Vec<ThreadState> {
    threads.sort_by_key(|thread| (thread.tid != leader, thread.tid));
    threads
}

/// What of `start..end` is in none of `ranges`.
fn subtract(start: u64, end: u64, ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = vec![(start, end)];
    for &(from, to) in ranges {
        left = left
            .into_iter()
            .flat_map(|(start, end)| [(start, end.min(from)), (start.max(to), end)])
            .filter(|(start, end)| start < end)
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_range_is_handed_over_once() {
        assert_eq!(subtract(0, 10, &[]), [(0, 10)]);
        assert_eq!(subtract(0, 10, &[(2, 4), (8, 12)]), [(0, 2), (4, 8)]);
        assert!(subtract(3, 5, &[(0, 10)]).is_empty());
    }
}
