//! Freezing the job: every process is signalled until each has reported that all its threads are parked and no new process appears.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ckpt_objects::HostPid;
use ckpt_objects::observe::proc_path;
use ckpt_objects::older::KernelFeature;
use ckpt_objects::process::{Status, threads};
use ckpt_objects::subject::Subject;
use ckpt_session::{Connection, Listener, Received};
use ckpt_sys::blocked::{self, Call};
use ckpt_sys::process::{kcmp, shared, tgkill};
use ckpt_sys::signal_set::SignalSet;
use ckpt_wire::{BlockedCall, Feature, Hello, PROTOCOL, Report, ReportKind, Start};
use linux_numbers::{EXECVE, EXECVEAT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit};

use crate::diagnosis::{is_static, why_no_agent};
use crate::error::FreezeError;
use crate::frozen::{Frozen, FrozenProcess};
use crate::hand_over::HandOver;
use crate::ptrace::{AgentCode, PtraceError, TracerThread, WaitLock};
use crate::standstill::Standstill;
use crate::tree::{Anchor, Member};
use crate::uninterruptible::Uninterruptible;

/// Numbers of the system calls in which a process must not be signalled.
mod linux_numbers {
    /// `execve`.
    pub const EXECVE: u32 = libc::SYS_execve as u32;
    /// `execveat`.
    pub const EXECVEAT: u32 = libc::SYS_execveat as u32;
}

/// How long a process may take to answer.
const GRACE: Duration = Duration::from_secs(10);
/// How long a process may be without an agent: it is in the midst of `exec`.
const EXEC_GRACE: Duration = Duration::from_millis(500);
/// How long a thread may be in one uninterruptible wait before the freeze, and while others are frozen already.
const DEVICE_GRACE: Duration = Duration::from_secs(1);
const DEVICE_GRACE_FROZEN: Duration = Duration::from_millis(300);
/// How long to wait before a process that did not react is looked at again.
const RETRY: Duration = Duration::from_millis(20);
/// How long a process may leave no thread to signal before ptrace is tried: libraries block all signals for moments.
const CLOSED_FOR: Duration = Duration::from_millis(40);
/// How often a process may take the signal without an answer before its handler is taken for another's.
const UNANSWERED: u32 = 3;

/// What the freeze needs to know.
pub struct FreezeSettings {
    /// The checkpoint signal.
    pub signal: i32,
    /// Kernel facilities that agents may use (`ckpt_wire::Feature`).
    pub features: u32,
    /// Slots of each process's ring.
    pub slots: u32,
    /// Excludes tracing and waiting for children from each other.
    pub waiting: WaitLock,
    /// For how long, in nanoseconds, the job has stood still: added to when it goes on.
    pub stood: Arc<AtomicU64>,
}

enum Stage {
    /// Seen, but it could not be signalled yet.
    Seen { since: Instant },
    /// It runs in its parent's memory; it is not signalled, which could only disturb it.
    Borrowing { since: Instant },
    /// Signalled.
    Signalled(Signalled),
    /// The agent has connected and freezes its threads.
    Freezing(Box<FrozenProcess>),
    /// All its threads are parked.
    Frozen(Box<FrozenProcess>),
}

/// How a process was signalled.
#[derive(Clone, Copy)]
struct Signalled {
    at: Instant,
    /// The thread.
    tid: HostPid,
    /// What it was blocked in.
    call: BlockedCall,
    /// It blocked the signal, which was taken out of its mask.
    unblocked: bool,
    /// How often this has been done.
    times: u32,
}

struct Freezer<'a> {
    tracer: Option<TracerThread>,
    /// Why a process could not be traced.
    untraceable: HashMap<HostPid, PtraceError>,
    /// Stopped processes, whose threads the tracer lets run.
    stopped: HashSet<HostPid>,
    /// Threads of those that have not left the restorer yet.
    in_restorer: HashSet<HostPid>,
    listener: &'a Listener,
    settings: &'a FreezeSettings,
    stages: HashMap<HostPid, Stage>,
    /// Connections that have not said who they are.
    strangers: Vec<Connection>,
    /// Threads that take no signal.
    uninterruptible: Uninterruptible,
    /// A process could not be signalled in [`EXEC_GRACE`].
    lacks_agent: bool,
    since: Instant,
}

/// Freezes every process of the job.
pub fn freeze(anchor: &Anchor, listener: &Listener, settings: &FreezeSettings) -> Result<Frozen, FreezeError> {
    let begun = Instant::now();
    loop {
        wait_for_tracers(anchor, begun)?;
        wait_for_agents(anchor, settings.signal)?;
        wait_for_vfork(anchor, begun)?;
        refuse_many(anchor)?;
        wait_for_devices(anchor)?;
        refuse_sandboxes(anchor)?;
        match try_to_freeze(anchor, listener, settings) {
            Err(FreezeError::Borrowing(_) | FreezeError::Traced { .. }) if begun.elapsed() < GRACE => (),
            outcome => return outcome,
        }
    }
}

fn try_to_freeze(anchor: &Anchor, listener: &Listener, settings: &FreezeSettings) -> Result<Frozen, FreezeError> {
    let mut freezer = Freezer {
        tracer: None,
        untraceable: HashMap::new(),
        stopped: HashSet::new(),
        in_restorer: HashSet::new(),
        listener,
        settings,
        stages: HashMap::new(),
        strangers: Vec::new(),
        uninterruptible: Uninterruptible::default(),
        lacks_agent: false,
        since: Instant::now(),
    };
    let members = freezer.freeze_all(anchor).inspect_err(|_| freezer.note_standstill())?;
    freezer.finish(members)
}

/// Waits until every process has an agent, before anybody is disturbed: where one never will, nobody needs to be frozen to learn that.
fn wait_for_agents(anchor: &Anchor, signal: i32) -> Result<(), FreezeError> {
    let begun = Instant::now();
    loop {
        let members = anchor.scan();
        let lacks = |member: &&Member| !member.is_zombie() && (!member.status.caught().contains(signal) || is_static(member));
        let without = members.iter().find(lacks);
        match without {
            None => return Ok(()),
            // Its handler was taken away: the freeze puts it back.
            Some(member) if begun.elapsed() > EXEC_GRACE && !is_static(member) && AgentCode::find(member.pid).is_some() => {
                return Ok(());
            }
            Some(member) if begun.elapsed() > EXEC_GRACE => {
                let reason = why_no_agent(member, signal);
                return Err(FreezeError::NoAgent { pid: member.status.ns_pid(), name: member.status.name(), reason });
            }
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Waits until no process runs in its parent's memory any more, before anybody is disturbed: it may take any time until it calls exec.
fn wait_for_vfork(anchor: &Anchor, begun: Instant) -> Result<(), FreezeError> {
    loop {
        let members = anchor.scan();
        match members.iter().find(|member| !member.is_zombie() && is_in_parents_memory(member)) {
            None => return Ok(()),
            Some(member) if begun.elapsed() > GRACE => {
                return Err(FreezeError::Vfork { grace: GRACE, pid: member.status.ns_pid(), name: member.status.name() });
            }
            Some(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Looks whether there may be enough open files for all processes of the job.
fn refuse_many(anchor: &Anchor) -> Result<(), FreezeError> {
    /// For each process: its connection, the hand-over memory, and the twin's or a descriptor that is looked at.
    const EACH: u64 = 3;
    /// For all else.
    const OTHERS: u64 = 64;
    let processes = anchor.scan().len();
    let needed = EACH * processes as u64 + OTHERS;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(FreezeError::Descriptors { processes, needed, limit }),
        _ => Ok(()),
    }
}

/// Waits until no thread is in an uninterruptible wait that lasts, before anybody is disturbed: others would stand still until it ends.
fn wait_for_devices(anchor: &Anchor) -> Result<(), FreezeError> {
    let mut seen = Uninterruptible::default();
    let (begun, mut looked) = (Instant::now(), false);
    loop {
        let members = anchor.scan();
        let Some((member, waited)) = seen.look(members.iter().filter(|member| !member.is_zombie())) else { return Ok(()) };
        if waited > DEVICE_GRACE {
            return Err(stuck(member));
        }
        // Short waits are the rule where a job reads and writes: these have begun since the last look, or one follows another.
        let are_new = looked && waited < RETRY / 2;
        if are_new || begun.elapsed() > DEVICE_GRACE && waited < DEVICE_GRACE / 2 {
            return Ok(());
        }
        looked = true;
        std::thread::sleep(RETRY);
    }
}

/// The error for a process that takes no signal.
fn stuck(member: &Member) -> FreezeError {
    let reason = if waits_for_vfork(member.pid) { WAITS_FOR_VFORK } else { WAITS_FOR_DEVICE };
    FreezeError::Uninterruptible { pid: member.status.ns_pid(), name: member.status.name(), reason }
}

/// Waits for a moment until no process traces another one of the job, before anybody is disturbed: a debugger would see the checkpoint signal.
fn wait_for_tracers(anchor: &Anchor, begun: Instant) -> Result<(), FreezeError> {
    loop {
        match refuse_traced(&anchor.scan()) {
            Err(_) if begun.elapsed() < EXEC_GRACE => std::thread::sleep(Duration::from_millis(5)),
            outcome => return outcome,
        }
    }
}

/// Looks for processes that others of the job trace (strace, gdb, proot).
fn refuse_traced(members: &[Member]) -> Result<(), FreezeError> {
    for member in members.iter().filter(|member| !member.is_zombie()) {
        // A thread; 0: nobody.
        let Ok(thread @ 1..) = i32::try_from(member.status.number("TracerPid")) else { continue };
        let Ok(status) = Status::of(HostPid(thread)) else { continue };
        if let Some(tracer) = members.iter().find(|tracer| tracer.status.number("Tgid") == status.number("Tgid")) {
            let (pid, name) = (member.status.ns_pid(), member.status.name());
            return Err(FreezeError::Traced { pid, name, tracer: tracer.status.ns_pid(), tracer_name: tracer.status.name() });
        }
    }
    Ok(())
}

/// Looks for threads that may not make the calls that an agent makes: what they get for them is worse than no checkpoint.
fn refuse_sandboxes(anchor: &Anchor) -> Result<(), FreezeError> {
    let Ok(outside) = Status::of(anchor.reaper) else { return Ok(()) };
    for member in anchor.scan() {
        let others = if member.status.number("Threads") > 1 { threads(member.pid) } else { Vec::new() };
        let unkept = member.status.unkept(&outside).or_else(|| {
            others.iter().find_map(|tid| Status::of_thread(member.pid, *tid).ok().and_then(|status| status.unkept(&outside)))
        });
        if let Some((what, remedy)) = unkept.filter(|_| !member.is_zombie()) {
            return Err(FreezeError::Refused { pid: member.status.ns_pid(), name: member.status.name(), what, remedy });
        }
    }
    Ok(())
}

/// Whether a process runs in its parent's memory, as a child of vfork does until it calls exec. Its agent is its parent's.
fn is_in_parents_memory(member: &Member) -> bool {
    kcmp(member.pid.0, member.status.parent().0, shared::VM, 0, 0) == Ok(0)
}

impl Drop for Freezer<'_> {
    fn drop(&mut self) {
        if let Some(tracer) = self.tracer.take() {
            tracer.end(|| self.stages.retain(|pid, _| !self.stopped.contains(pid)));
        }
    }
}

impl Freezer<'_> {
    /// Signals and hears the processes until all are frozen and none is new. Gives the members of the job.
    fn freeze_all(&mut self, anchor: &Anchor) -> Result<Vec<Member>, FreezeError> {
        loop {
            let members = anchor.scan();
            refuse_traced(&members)?;
            let fresh = self.visit(&members)?;
            if self.all_frozen() && !fresh {
                return Ok(members);
            }
            let borrowing = |member: &&Member| matches!(self.stages.get(&member.pid), Some(Stage::Borrowing { since }) if since.elapsed() > EXEC_GRACE);
            if let Some(member) = members.iter().find(borrowing) {
                return Err(FreezeError::Borrowing(member.status.ns_pid()));
            }
            self.refuse_stuck(&members)?;
            if self.lacks_agent || self.since.elapsed() > GRACE {
                return Err(self.blame(&members));
            }
            let round = Instant::now();
            while !self.all_frozen() && round.elapsed() < RETRY {
                self.listen(RETRY.saturating_sub(round.elapsed()))?;
            }
        }
    }

    /// Gives up where a process that is not frozen waits for a device: the others would only stand still with it.
    fn refuse_stuck(&mut self, members: &[Member]) -> Result<(), FreezeError> {
        if self.stages.values().any(|stage| matches!(stage, Stage::Borrowing { .. })) {
            return Ok(());
        }
        let stages = &self.stages;
        let silent = |member: &&Member| !member.is_zombie() && !matches!(stages.get(&member.pid), Some(Stage::Frozen(_)));
        match self.uninterruptible.look(members.iter().filter(silent)) {
            Some((member, waited)) if waited > DEVICE_GRACE_FROZEN => Err(stuck(member)),
            _ => Ok(()),
        }
    }

    /// Adds the time since the first process was signalled, if one was.
    fn note_standstill(&self) {
        let was_signalled = |stage: &Stage| !matches!(stage, Stage::Seen { .. } | Stage::Borrowing { .. });
        if self.stages.values().any(was_signalled) {
            let _ = Standstill::new(self.since, Arc::clone(&self.settings.stood)).end();
        }
    }

    /// Signals whoever is new or did not react. Whether there was anybody new.
    fn visit(&mut self, members: &[Member]) -> Result<bool, FreezeError> {
        self.stages.retain(|pid, _| members.iter().any(|member| member.pid == *pid && !member.is_zombie()));
        let mut fresh = false;
        // Whoever else there is must not see that a stopped process runs, so such are the last.
        let only_stopped = members.iter().all(|member| {
            let frozen = matches!(self.stages.get(&member.pid), Some(Stage::Frozen(_)));
            frozen || member.is_zombie() || member.status.state() == 'T' || self.stopped.contains(&member.pid)
        });
        for member in members.iter().filter(|member| !member.is_zombie()) {
            let known = self.stages.remove(&member.pid);
            let is_new = known.is_none();
            fresh |= is_new;
            let mut stage = known.unwrap_or_else(|| Stage::Seen { since: Instant::now() });
            if !matches!(stage, Stage::Frozen(_)) && member.status.state() == 'T' {
                if only_stopped {
                    self.let_run(member.pid);
                } else if matches!(stage, Stage::Seen { .. }) {
                    self.stages.insert(member.pid, Stage::Seen { since: Instant::now() });
                    continue;
                }
            }
            if self.stopped.contains(&member.pid) && !self.tracer.as_ref().is_some_and(|tracer| tracer.is_ready(member.pid)) {
                self.stages.insert(member.pid, Stage::Seen { since: Instant::now() });
                continue;
            }
            match (&stage, is_in_parents_memory(member)) {
                (Stage::Seen { .. } | Stage::Signalled(_), true) => stage = Stage::Borrowing { since: Instant::now() },
                (Stage::Borrowing { .. }, false) => stage = Stage::Seen { since: Instant::now() },
                _ => (),
            }
            match &mut stage {
                Stage::Borrowing { .. } => (),
                Stage::Seen { since } => {
                    let closed_for = since.elapsed();
                    let replaced = has_replaced_handlers(member, self.settings.signal);
                    match self.signal(member, closed_for, replaced) {
                        Some(signalled) => stage = Stage::Signalled(signalled),
                        // Tried after that time, not only before it: on a busy machine one round may take as long.
                        None => self.lacks_agent |= closed_for > EXEC_GRACE,
                    }
                }
                Stage::Signalled(before)
                    if before.at.elapsed() >= RETRY
                        && !is_pending(member, self.settings.signal)
                        && !is_in_handler(member, before, self.settings.signal) =>
                {
                    if let Some(signalled) = self.signal(member, Duration::ZERO, before.times >= UNANSWERED) {
                        *before = Signalled { times: before.times + 1, ..signalled };
                    }
                }
                Stage::Signalled(_) | Stage::Freezing(_) | Stage::Frozen(_) => (),
            }
            self.stages.insert(member.pid, stage);
        }
        if members.iter().all(Member::is_zombie) {
            return Err(FreezeError::Empty);
        }
        Ok(fresh)
    }

    /// Sends the checkpoint signal to one thread of a process that can take it: never to a process that does not catch it, since it would end.
    /// A process that has blocked it for a while, or has `replaced` the handler, is traced for that.
    fn signal(&mut self, member: &Member, closed_for: Duration, replaced: bool) -> Option<Signalled> {
        if is_static(member) {
            return None;
        }
        let number = self.settings.signal;
        let mut candidates = vec![member.pid];
        candidates.extend(threads(member.pid).into_iter().filter(|tid| *tid != member.pid));
        let mut blocked = None;
        for tid in candidates {
            // Read anew: the process may have called exec since the scan.
            let Ok(status) = Status::of_thread(member.pid, tid) else { continue };
            let catches = status.caught().contains(number);
            if !catches && closed_for < CLOSED_FOR {
                return None;
            }
            if matches!(status.state(), 'Z' | 'X') {
                continue;
            }
            if status.blocked().contains(number) && !self.in_restorer.contains(&tid) {
                // What blocks the signal and does not catch it has just called exec: its agent will let the signal in when it is there.
                blocked = blocked.or(catches.then_some(tid));
                continue;
            }
            let call = blocked_call(member.pid, tid, self.settings.features);
            // In the midst of exec the handler is about to go: a signal sent now could meet the default action, which ends the process.
            if call.valid == 1 && matches!(call.number, EXECVE | EXECVEAT) {
                return None;
            }
            let agent = if replaced || !catches { AgentCode::find(member.pid) } else { None };
            let sent = match agent {
                Some(agent) => self
                    .by_ptrace(member.pid, |tracer| tracer.install(member.pid, tid, number, agent))
                    .map(|interrupted| reconcile_call(call, interrupted)),
                None => (catches && tgkill(member.pid.0, tid.0, number).is_ok()).then_some(call),
            };
            if let Some(call) = sent {
                return Some(Signalled { at: Instant::now(), tid, call, unblocked: false, times: 1 });
            }
        }
        let tid = blocked.filter(|_| closed_for >= CLOSED_FOR)?;
        let call = blocked_call(member.pid, tid, self.settings.features);
        if call.valid == 1 && matches!(call.number, EXECVE | EXECVEAT) {
            return None;
        }
        tgkill(member.pid.0, tid.0, number).ok()?;
        let interrupted = self.by_ptrace(member.pid, |tracer| tracer.unblock(member.pid, tid, number))?;
        self.by_ptrace(member.pid, |tracer| {
            tracer.detach(tid);
            Ok(())
        });
        let call = interrupted.map_or(call, |interrupted| reconcile_call(call, interrupted));
        Some(Signalled { at: Instant::now(), tid, call, unblocked: interrupted.is_some(), times: 1 })
    }

    /// Traces a process, and remembers why it cannot be traced.
    fn by_ptrace<T>(&mut self, pid: HostPid, work: impl FnOnce(&TracerThread) -> Result<T, PtraceError>) -> Option<T> {
        if self.tracer.is_none() {
            self.tracer = TracerThread::new(&self.settings.waiting).ok();
        }
        match work(self.tracer.as_ref()?) {
            Ok(done) => Some(done),
            // Another thread will be asked.
            Err(PtraceError::Gone) => None,
            Err(error) => {
                self.untraceable.insert(pid, error);
                None
            }
        }
    }

    /// Lets the threads of a stopped process run until the tracer ends.
    fn let_run(&mut self, pid: HostPid) {
        let signal = self.settings.signal;
        if !self.stopped.contains(&pid)
            && let Some(restored) = self.by_ptrace(pid, |tracer| tracer.let_run(pid, signal))
        {
            self.stopped.insert(pid);
            self.in_restorer.extend(restored);
        }
    }

    /// Has a thread that blocks the checkpoint signal take it.
    fn unblock(&mut self, process: &FrozenProcess, tid: i32) {
        let signal = self.settings.signal;
        let own = |thread: &HostPid| threads(process.pid).contains(thread);
        let Some(thread) = process.thread(tid).filter(own) else { return };
        let call = blocked_call(process.pid, thread, self.settings.features);
        if let Some(Some(interrupted)) = self.by_ptrace(process.pid, |tracer| tracer.unblock(process.pid, thread, signal)) {
            process.memory.note_unblocked(tid, reconcile_call(call, interrupted));
            self.by_ptrace(process.pid, |tracer| {
                tracer.detach(thread);
                Ok(())
            });
        }
    }

    fn all_frozen(&self) -> bool {
        self.stages.values().all(|stage| matches!(stage, Stage::Frozen(_)))
    }

    /// Waits for agents to speak, and hears what they say.
    fn listen(&mut self, at_most: Duration) -> Result<(), FreezeError> {
        let mut fds = vec![PollFd::new(self.listener, PollFlags::IN)];
        fds.extend(self.strangers.iter().map(|connection| PollFd::new(connection, PollFlags::IN)));
        fds.extend(self.stages.values().filter_map(|stage| match stage {
            Stage::Freezing(process) => Some(PollFd::new(&process.connection, PollFlags::IN)),
            _ => None,
        }));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(at_most.subsec_nanos().max(1000)) };
        let _ = poll(&mut fds, Some(&timeout));
        while let Some(connection) = self.listener.accept().map_err(FreezeError::Accept)? {
            self.strangers.push(connection);
        }
        for connection in std::mem::take(&mut self.strangers) {
            match connection.receive::<Hello>() {
                Received::Message(hello, _) => self.welcome(connection, hello)?,
                Received::Nothing => self.strangers.push(connection),
                Received::Closed => (),
            }
        }
        let freezing: Vec<HostPid> =
            self.stages.iter().filter(|(_, stage)| matches!(stage, Stage::Freezing(_))).map(|(pid, _)| *pid).collect();
        for pid in freezing {
            self.hear(pid)?;
        }
        Ok(())
    }

    /// An agent has said who it is: if it was signalled, it gets its memory and may freeze.
    fn welcome(&mut self, connection: Connection, hello: Hello) -> Result<(), FreezeError> {
        if self.listener.note(&connection, &hello) {
            return Ok(());
        }
        let pid = connection.peer;
        let Some(&Stage::Signalled(Signalled { call, tid, unblocked, .. })) = self.stages.get(&pid) else {
            // It was not asked, or has answered before: it goes on when the connection closes.
            return Ok(());
        };
        if hello.protocol != PROTOCOL {
            return Err(FreezeError::Protocol { pid, theirs: hello.protocol });
        }
        if !self.listener.is_of_job(&hello) {
            return Ok(());
        }
        let Ok(status) = Status::of(pid) else { return Ok(()) };
        let vmas = fs::read(proc_path(tid, "maps")).unwrap_or_default();
        let lines = u32::try_from(vmas.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX);
        let threads = u32::try_from(status.number("Threads")).unwrap_or(u32::MAX);
        let memory = HandOver::new(
            threads.saturating_mul(2).saturating_add(64),
            lines.saturating_mul(2).saturating_add(64),
            self.settings.slots,
        )
        .map_err(FreezeError::Memory)?;
        let (vdso_start, vdso_end) = vdso_range(&vmas).unwrap_or((0, 0));
        let start = Start {
            go: 1,
            features: self.settings.features,
            len: memory.len() as u64,
            grace_ms: u32::try_from(GRACE.as_millis()).unwrap_or(u32::MAX) / 2,
            tid: hello.tid,
            unblocked: u32::from(unblocked),
            reserved: 0,
            call,
            vdso_start,
            vdso_end,
        };
        if connection.send(&start, Some(memory.memory())).is_err() {
            return Ok(());
        }
        // The first thread where it lives: some calls take no other.
        let live = if status.state() == 'Z' { tid } else { pid };
        let process = FrozenProcess {
            pid,
            live,
            ns_pid: status.ns_pid(),
            status,
            connection: Arc::new(connection),
            memory,
            agent_socket: hello.socket,
            stopped: false,
        };
        self.stages.insert(pid, Stage::Freezing(Box::new(process)));
        Ok(())
    }

    /// Hears a report of an agent that freezes its threads.
    fn hear(&mut self, pid: HostPid) -> Result<(), FreezeError> {
        let Some(Stage::Freezing(process)) = self.stages.remove(&pid) else { return Ok(()) };
        let stage = match process.connection.receive::<Report>() {
            Received::Nothing => Stage::Freezing(process),
            Received::Closed => Stage::Seen { since: Instant::now() },
            Received::Message(report, _) => match ReportKind::of(&report) {
                Some(ReportKind::Frozen) => Stage::Frozen(process),
                Some(ReportKind::InVdso) => Stage::Seen { since: Instant::now() },
                Some(ReportKind::ThreadBlocked) => {
                    self.unblock(&process, i32::try_from(report.value).unwrap_or(0));
                    Stage::Freezing(process)
                }
                Some(ReportKind::ThreadSilent) if let Some(error) = self.untraceable.get(&pid) => {
                    let what = format!("thread {} does not take the checkpoint signal, and {error}", report.value);
                    return Err(FreezeError::Agent { pid: process.ns_pid, name: process.name(), what });
                }
                _ => return Err(process.failure(&report)),
            },
        };
        self.stages.insert(pid, stage);
        Ok(())
    }

    fn finish(mut self, members: Vec<Member>) -> Result<Frozen, FreezeError> {
        let mut processes: Vec<FrozenProcess> = std::mem::take(&mut self.stages)
            .into_values()
            .filter_map(|stage| match stage {
                Stage::Frozen(process) => Some(*process),
                _ => None,
            })
            .collect();
        if processes.is_empty() {
            return Err(FreezeError::Empty);
        }
        for process in &mut processes {
            process.stopped = self.stopped.contains(&process.pid);
            // Of a leader that has ended little is told; ids and credentials are the same for all threads.
            if let Ok(status) = Status::of_thread(process.pid, process.live) {
                process.status = status;
            }
        }
        processes.sort_by_key(|process| process.ns_pid);
        let zombies = members.into_iter().filter(Member::is_zombie).collect();
        let standstill = Standstill::new(self.since, Arc::clone(&self.settings.stood));
        standstill.guard(processes.iter().map(|process| Arc::downgrade(&process.connection)).collect());
        Ok(Frozen { tracer: self.tracer.take(), waiting: self.settings.waiting.clone(), processes, zombies, standstill })
    }

    /// Who has not answered, and why.
    fn blame(&self, members: &[Member]) -> FreezeError {
        for member in members.iter().filter(|member| !member.is_zombie()) {
            let (pid, name) = (member.status.ns_pid(), member.status.name());
            let is_frozen = matches!(self.stages.get(&member.pid), Some(Stage::Frozen(_)));
            if let Some(error) = self.untraceable.get(&member.pid).filter(|_| !is_frozen) {
                let reason = format!("it takes no signal, and {error}");
                return FreezeError::Silent { grace: GRACE, pid, name, reason };
            }
            match self.stages.get(&member.pid) {
                Some(Stage::Frozen(_)) => (),
                Some(Stage::Borrowing { .. }) => return FreezeError::Borrowing(pid),
                Some(Stage::Seen { .. }) => {
                    return FreezeError::NoAgent { pid, name, reason: why_no_agent(member, self.settings.signal) };
                }
                _ => {
                    let reason = match member.status.state() {
                        'D' => return stuck(member),
                        'T' | 't' => {
                            "it is stopped; let it go on with `kill -CONT`, or end the debugger that holds it".to_owned()
                        }
                        'S' => "its threads block every signal".to_owned(),
                        state => format!("it is in state {state}; the next checkpoint will be tried as planned"),
                    };
                    return FreezeError::Silent { grace: GRACE, pid, name, reason };
                }
            }
        }
        FreezeError::Empty
    }
}

/// What a process waits for that takes no signal.
const WAITS_FOR_VFORK: &str = "waits for a child of vfork that has neither called exec nor ended; try again when it has";
const WAITS_FOR_DEVICE: &str =
    "is in an uninterruptible wait for a device or a file server (state D); the job goes on, and this is tried again";

/// Whether a process is blocked in a call that makes a child.
fn waits_for_vfork(pid: HostPid) -> bool {
    const MAKING: [i64; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];
    threads(pid).into_iter().any(|tid| {
        let call = blocked_call(pid, tid, 0);
        call.valid == 1 && MAKING.contains(&i64::from(call.number))
    })
}

/// Whether a process catches the signals beside the checkpoint signal too: then it has most likely replaced all handlers by raw calls, as some
/// runtimes do, and its own would find the checkpoint signal, and a call of the job fail with `EINTR`.
fn has_replaced_handlers(member: &Member, number: i32) -> bool {
    member.status.caught().contains_all(SignalSet::of_all(&[number - 1, number + 1]))
}

/// Whether the checkpoint signal still waits to be taken.
fn is_pending(member: &Member, number: i32) -> bool {
    member.status.pending_for_process().contains(number)
        || threads(member.pid)
            .into_iter()
            .any(|tid| Status::of_thread(member.pid, tid).is_ok_and(|status| status.pending().contains(number)))
}

/// Whether the thread that took the checkpoint signal is still in its handler, on its way to answer: there every signal is blocked. No other thread
/// may be signalled meanwhile: the leader would not know of it, so it would go on at once, be it one of a stopped process.
fn is_in_handler(member: &Member, signalled: &Signalled, number: i32) -> bool {
    let blocks = |status: Status| status.blocked().contains(number) && !matches!(status.state(), 'Z' | 'X');
    Status::of_thread(member.pid, signalled.tid).is_ok_and(blocks)
}

/// What a thread that is interrupted was interrupted in, and since when it was, if that is what it was seen in before.
fn reconcile_call(seen: BlockedCall, interrupted: Call) -> BlockedCall {
    if (seen.number, seen.sp, seen.pc) == (interrupted.number, interrupted.sp, interrupted.pc) {
        return seen;
    }
    let in_call = interrupted.number != u32::MAX;
    BlockedCall { valid: in_call.into(), number: interrupted.number, sp: interrupted.sp, pc: interrupted.pc, since_ns: 0, cpu: 0 }
}

/// What a thread is blocked in, and since when.
fn blocked_call(pid: HostPid, tid: HostPid, features: u32) -> BlockedCall {
    if KernelFeature::BlockedCall.is_off() {
        return BlockedCall::default();
    }
    let read = |file: &str| fs::read(proc_path(pid, &format!("task/{tid}/{file}"))).ok();
    let Some(found) = read("syscall").and_then(|text| blocked::parse_syscall(&text)) else { return BlockedCall::default() };
    let mut call = BlockedCall { valid: 1, number: found.number, sp: found.sp, pc: found.pc, since_ns: 0, cpu: 0 };
    if features & Feature::SCHEDULER_NOTES != 0 && blocked::has_relative_timeout(found.number) {
        call.since_ns = read("sched").and_then(|text| blocked::parse_last_ran(&text)).unwrap_or(0);
        call.cpu = read("stat").and_then(|text| blocked::parse_processor(&text)).unwrap_or(0);
    }
    call
}

/// Where the vDSO is, from a `maps` file.
fn vdso_range(maps: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(maps);
    let line = text.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}
