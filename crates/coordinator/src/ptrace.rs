//! ptrace(2), for the few processes that the checkpoint signal does not reach.
//!
//! - A thread that blocks every signal (glibc's helpers for `SIGEV_THREAD` timers and asynchronous I/O, or one by a call of its own):
//!   the checkpoint signal is taken out of its mask for a moment ([`TracerThread::unblock`]). The agent's handler puts it back in.
//! - A process that has put a handler of its own in the place of the agent's by a raw call (the Go runtime does): it is made to
//!   install the agent's again ([`TracerThread::install`]).
//! - A stopped process (`SIGSTOP`): its threads run while there is a tracer, though the process as a whole stays stopped
//!   ([`TracerThread::let_run`]), so that they can park and make their twin. When the tracer ends they stop where they are.
//! - A process whose first thread has ended: no other thread may requeue signals that are pending for the whole process, so the agent
//!   cannot take them out. They are read from here ([`TracerThread::pending_for_process`]).
//!
//! The kernel knows one *thread* as a tracer, and lets all its tracees go when it ends, however it ends: so the tracer is a thread of its
//! own, and a coordinator that is killed leaves no tracee stopped. All is done through the few calls that work on a tracee that
//! was seized, which neither parents nor the tracee's own `wait` can tell.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ckpt_objects::observe::{proc_path, read_proc};
use ckpt_objects::process::{Status, threads};
use ckpt_objects::thread::Rseq;
use ckpt_objects::{FilePath, HostPid};
use ckpt_sys::blocked::Call;
use ckpt_sys::process::{blocked_signals, set_blocked_signals, tgkill};
use ckpt_sys::signal_set::SignalSet;
use goblin::elf::Elf;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

/// How long a tracee may take to stop: one that waits for a device does not, and is let go.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a tracee may take to make a call that waits for nothing: no more than its turn on a processor. It must not be given up, since its registers
/// are not its own meanwhile.
const TURN: Duration = Duration::from_secs(60);
/// How long the threads of stopped processes may take to leave their handlers: the others wait for them, which must not see them run.
const LEAVING: Duration = Duration::from_secs(10);
/// How often tracees are asked whether they have stopped.
const LOOK: Duration = Duration::from_micros(200);
/// `SIGTRAP` with what `PTRACE_O_TRACESYSGOOD` adds where a tracee stops for a system call.
const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// Why a thread could not be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PtraceError {
    /// ptrace is not allowed here.
    #[error("ptrace is not allowed here ({0}; see /proc/sys/kernel/yama/ptrace_scope, or a debugger holds it)")]
    Forbidden(Errno),
    /// The process or thread has ended.
    #[error("it has ended")]
    Gone,
    /// It did not stop in time.
    #[error("it waits for a device or a file system, and could not be stopped")]
    Busy,
}

impl From<Errno> for PtraceError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ESRCH | Errno::ECHILD => Self::Gone,
            other => Self::Forbidden(other),
        }
    }
}

impl From<ckpt_sys::raw::Errno> for PtraceError {
    fn from(errno: ckpt_sys::raw::Errno) -> Self {
        Errno::from_raw(errno.0).into()
    }
}

/// Where the agent lies in a process: what is needed to make it install its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentCode {
    /// Address of its `struct sigaction`, as the kernel wants it.
    pub action: u64,
    /// Address of a system call instruction.
    pub syscall: u64,
}

/// The name of the agent's library.
const AGENT_LIBRARY: &str = "/libckpt_preload.so";
/// How often a thread that is to make a call may stop for other reasons.
const MANY_STOPS: u32 = 100;
/// All signals that can be blocked.
const ALL_SIGNALS: SignalSet = SignalSet::ALL.without(libc::SIGKILL).without(libc::SIGSTOP);

impl AgentCode {
    /// Looks for the agent in a process: it is mapped, and its constructor has run.
    pub fn find(process: HostPid) -> Option<Self> {
        let maps = read_proc(process, "maps").ok()?;
        let line = maps.split(|byte| *byte == b'\n').find(|line| line.ends_with(AGENT_LIBRARY.as_bytes()))?;
        let path = &line[line.iter().position(|byte| *byte == b'/')?..];
        // The first segment is mapped from the library's first byte.
        let base = agent_range(process).start;
        let library = std::fs::read(FilePath(path.to_vec()).as_path()).ok()?;
        let library = Elf::parse(&library).ok()?;
        let address = |name: &str| {
            let symbol = library.dynsyms.iter().find(|symbol| library.dynstrtab.get_at(symbol.st_name) == Some(name))?;
            base.checked_add(symbol.st_value)
        };
        let found = Self { action: address("ckpt_agent_action")?, syscall: address("ckpt_agent_syscall")? };
        let mut handler = [0u8; 8];
        std::fs::File::open(proc_path(process, "mem"))
            .and_then(|memory| memory.read_exact_at(&mut handler, found.action))
            .ok()?;
        (handler != [0; 8]).then_some(found)
    }
}

/// The ranges of a process's memory whose line in `maps` satisfies `matches`.
fn ranges(process: HostPid, matches: impl Fn(&str) -> bool) -> Vec<Range<u64>> {
    let maps = read_proc(process, "maps").unwrap_or_default();
    let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
    String::from_utf8_lossy(&maps)
        .lines()
        .filter(|line| matches(line))
        .filter_map(|line| line.split_ascii_whitespace().next()?.split_once('-'))
        .map(|(start, end)| number(start)..number(end))
        .collect()
}

/// Where the agent's library lies in a process. An emulator (qemu-user) maps it once more for its guest, as data: the processor runs the executable copy.
fn agent_range(process: HostPid) -> Range<u64> {
    executable_copy(&String::from_utf8_lossy(&read_proc(process, "maps").unwrap_or_default())).unwrap_or_default()
}

/// The copy of the agent's library that is executable, from the lines of `maps`. Each copy begins where the file does.
fn executable_copy(maps: &str) -> Option<Range<u64>> {
    let number = |text| u64::from_str_radix(text, 16).ok();
    let mut copies: Vec<(Range<u64>, bool)> = Vec::new();
    for line in maps.lines().filter(|line| line.ends_with(AGENT_LIBRARY)) {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (access, offset) = (fields.next()?, number(fields.next()?)?);
        if offset == 0 || copies.is_empty() {
            copies.push((number(start)?..number(start)?, false));
        }
        let (range, executable) = copies.last_mut()?;
        range.end = number(end)?;
        *executable |= access.contains('x');
    }
    copies.into_iter().find_map(|(range, executable)| executable.then_some(range))
}

/// Code that is of no file, as the restorer is: of six fields only five are there.
fn nameless_code(process: HostPid) -> Vec<Range<u64>> {
    ranges(process, |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|access| access.contains('x')) && fields.count() == 3
    })
}

type Work = Box<dyn FnOnce(&mut Tracer) + Send>;

/// Excludes tracing and waiting for children from each other: the kernel tells of a tracee's stops whichever thread of a process waits for
/// any child at all.
#[derive(Clone, Debug, Default)]
pub struct WaitLock(Arc<Mutex<()>>);

impl WaitLock {
    /// Forbids tracing for as long as the result lives; nothing while a tracer is there.
    pub fn to_wait(&self) -> Option<MutexGuard<'_, ()>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn to_trace(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that traces others. It ends, and lets its tracees go, when this is dropped.
pub struct TracerThread {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl TracerThread {
    /// A tracer without tracees.
    pub fn new(waiting: &WaitLock) -> std::io::Result<Self> {
        let (work, requests) = channel();
        let waiting = waiting.clone();
        let thread = std::thread::Builder::new().name("ckpt-tracer".into()).spawn(move || {
            let _nobody_waits = waiting.to_trace();
            serve(&requests);
        })?;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    /// Takes `signal` out of what a thread blocks, and gives the call that it was interrupted in. The thread is then stopped until [`TracerThread::detach`], so
    /// that the caller can note both before the thread's handler runs. Nothing when it does not block it, or does not catch it: a program that
    /// was just begun blocks the signal until its agent is there, and would be ended by it.
    pub fn unblock(&self, process: HostPid, thread: HostPid, signal: i32) -> Result<Option<Call>, PtraceError> {
        self.through(move |tracer| {
            tracer.interrupt(thread.0)?;
            let blocked = SignalSet::from_bits(blocked_signals(thread.0)?);
            // Looked at while it is stopped: before that it may have called exec at any time.
            let catches = Status::of_thread(process, thread).is_ok_and(|status| status.caught().contains(signal));
            if !blocked.contains(signal) || !catches {
                tracer.detach(thread.0);
                return Ok(None);
            }
            let call = interrupted_call(&ptrace::getregs(Pid::from_raw(thread.0))?);
            set_blocked_signals(thread.0, blocked.without(signal).bits())?;
            Ok(Some(call))
        })
    }

    /// Lets a stopped thread go on.
    pub fn detach(&self, thread: HostPid) {
        let _ = self.through(move |tracer| {
            tracer.detach(thread.0);
            Ok(())
        });
    }

    /// Has a thread install the agent's handler for `signal`, and take that signal at once. Gives the call that it was interrupted in.
    pub fn install(&self, process: HostPid, thread: HostPid, signal: i32, agent: AgentCode) -> Result<Call, PtraceError> {
        self.through(move |tracer| {
            tracer.interrupt(thread.0)?;
            if !agent_range(process).contains(&agent.syscall) {
                // It has become another program since the agent was looked for.
                tracer.detach(thread.0);
                return Err(PtraceError::Gone);
            }
            let call = interrupted_call(&ptrace::getregs(Pid::from_raw(thread.0))?);
            let arguments = [i64::from(signal).cast_unsigned(), agent.action, 0, size_of::<u64>() as u64];
            let result = match tracer.call(thread.0, agent.syscall, libc::SYS_rt_sigaction, arguments) {
                // Only now: without the handler the signal could end the process. And while the thread is stopped: the call that it was blocked in
                // is not yet made again.
                Ok(0) => tgkill(process.0, thread.0, signal).map_err(PtraceError::from),
                Ok(error) => Err(PtraceError::Forbidden(Errno::from_raw(i32::try_from(-error).unwrap_or(0)))),
                Err(error) => Err(error),
            };
            tracer.detach(thread.0);
            result.map(|()| call)
        })
    }

    /// The `siginfo_t`s of the signals that are pending for a thread's whole process, in their order.
    pub fn pending_for_process(&self, thread: HostPid) -> Result<Vec<[u8; 128]>, PtraceError> {
        self.through(move |tracer| tracer.while_stopped(thread.0, queued_for_process))
    }

    /// The restartable sequences area that a thread has registered.
    pub fn rseq(&self, thread: HostPid) -> Result<Option<Rseq>, PtraceError> {
        let area =
            self.through(move |tracer| tracer.while_stopped(thread.0, |tid| Ok(ckpt_sys::process::rseq_of_tracee(tid)?)))?;
        Ok((area.address != 0).then_some(Rseq { address: area.address, len: area.len, signature: area.signature }))
    }

    /// Lets the threads of a stopped process run until the tracer ends, each from the moment when `signal` waits for it: of its own
    /// code it executes nothing.
    ///
    /// Gives those that are still in the restorer, since they were stopped when they were restored: they block every signal until they
    /// leave it, and then take this one.
    pub fn let_run(&self, process: HostPid, signal: i32) -> Result<Vec<HostPid>, PtraceError> {
        let agent = agent_range(process);
        let nameless = nameless_code(process);
        self.through(move |tracer| {
            let mut restored = Vec::new();
            for thread in threads(process) {
                match tracer.interrupt(thread.0) {
                    Ok(()) => (),
                    Err(PtraceError::Gone) => continue,
                    Err(error) => return Err(error),
                }
                let rip = ptrace::getregs(Pid::from_raw(thread.0))?.rip;
                if agent.contains(&rip) {
                    // It was stopped on its way out of the handler, after an earlier checkpoint.
                    tracer.follow(thread.0, Some((process, signal)));
                    continue;
                }
                let in_restorer =
                    blocked_signals(thread.0)? == ALL_SIGNALS.bits() && nameless.iter().any(|code| code.contains(&rip));
                if in_restorer {
                    restored.push(thread);
                }
                tracer.tracees.insert(thread.0, State::Awaits { process, signal, in_restorer });
            }
            Ok(restored)
        })
    }

    /// Whether all threads of a process that was let run have left the handler of an earlier checkpoint.
    pub fn is_ready(&self, process: HostPid) -> bool {
        let leaves = move |state: &State| matches!(state, State::Followed { then: Some((of, _)), .. } if *of == process);
        self.through(move |tracer| Ok(!tracer.tracees.values().any(leaves))) == Ok(true)
    }

    /// Ends the tracer: `release` has the agents of stopped processes leave their handlers, and their threads are followed until they have, to stop
    /// where they were.
    pub fn end(self, release: impl FnOnce()) {
        let _ = self.through(|tracer| {
            tracer.follow_all();
            Ok(())
        });
        release();
        let begun = Instant::now();
        while begun.elapsed() < LEAVING && self.through(|tracer| Ok(!tracer.is_done())) == Ok(true) {
            std::thread::sleep(LOOK);
        }
    }

    fn through<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tracer) -> Result<T, PtraceError> + Send + 'static,
    ) -> Result<T, PtraceError> {
        let (answer, result) = channel();
        let work: Work = Box::new(move |tracer| drop(answer.send(work(tracer))));
        self.work.as_ref().and_then(|sender| sender.send(work).ok()).ok_or(PtraceError::Gone)?;
        result.recv().unwrap_or(Err(PtraceError::Gone))
    }
}

impl Drop for TracerThread {
    fn drop(&mut self) {
        self.work = None;
        // The kernel detaches tracees when their tracer exits.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(requests: &Receiver<Work>) {
    let mut tracer = Tracer::default();
    loop {
        let next = if tracer.tracees.values().any(|state| *state != State::Interrupted) {
            requests.recv_timeout(Duration::from_millis(1))
        } else {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(work) => work(&mut tracer),
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        tracer.keep_running();
    }
}

/// What a tracee does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has stopped.
    Interrupted,
    /// It has stopped with its process, and is let run when this signal waits for it.
    Awaits { process: HostPid, signal: i32, in_restorer: bool },
    /// It runs, and is stopped for each signal that comes.
    Runs,
    /// It is followed from system call to system call until it has left the handler, by the one that `leaves`.
    Followed {
        leaves: bool,
        /// What it then awaits, if it is not let go.
        then: Option<(HostPid, i32)>,
    },
}

/// How a tracee has stopped.
enum TraceeStop {
    /// Interrupted, or with its process.
    Event,
    /// For a system call, at its begin or end.
    Syscall,
    /// A signal is to be delivered to it.
    Signal(i32),
}

/// The state of the tracer: the threads that it traces.
#[derive(Default)]
struct Tracer {
    tracees: HashMap<i32, State>,
    /// Those that were followed out of the handler.
    left: Vec<HostPid>,
}

impl Tracer {
    /// Stops a thread, wherever it is; gives way to signals that are just being delivered.
    fn interrupt(&mut self, tid: i32) -> Result<(), PtraceError> {
        match self.tracees.get(&tid) {
            Some(State::Interrupted | State::Awaits { .. }) => return Ok(()),
            Some(State::Followed { .. }) => return Err(PtraceError::Busy),
            Some(State::Runs) | None => (),
        }
        let pid = Pid::from_raw(tid);
        if let Entry::Vacant(entry) = self.tracees.entry(tid) {
            ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD)?;
            entry.insert(State::Runs);
        }
        ptrace::interrupt(pid)?;
        loop {
            match self.wait(tid, PATIENCE)? {
                TraceeStop::Event => break,
                TraceeStop::Syscall => resume(tid, 0)?,
                TraceeStop::Signal(signal) => resume(tid, signal)?,
            }
        }
        self.tracees.insert(tid, State::Interrupted);
        Ok(())
    }

    /// Does `work` while a thread stands still, which then goes on as before.
    fn while_stopped<T>(&mut self, tid: i32, work: impl FnOnce(i32) -> Result<T, PtraceError>) -> Result<T, PtraceError> {
        let ran = self.tracees.get(&tid) == Some(&State::Runs);
        self.interrupt(tid)?;
        let result = work(tid);
        if ran {
            // A thread of a stopped process stays a tracee.
            resume(tid, 0)?;
            self.tracees.insert(tid, State::Runs);
        } else {
            self.detach(tid);
        }
        result
    }

    /// Lets a stopped thread go, for good, unless it is one of a stopped process.
    fn detach(&mut self, tid: i32) {
        if self.tracees.get(&tid) == Some(&State::Interrupted) {
            self.tracees.remove(&tid);
            let _ = ptrace::detach(Pid::from_raw(tid), None);
        }
    }

    /// Lets threads of stopped processes run, and hands them the signals that are for them.
    fn keep_running(&mut self) {
        self.run_the_signalled();
        let running: Vec<(i32, State)> = self.tracees.iter().map(|(tid, state)| (*tid, *state)).collect();
        for (tid, state) in running {
            let result = match state {
                State::Interrupted | State::Awaits { .. } => continue,
                State::Runs => look(tid).and_then(|stop| match stop {
                    None => Ok(()),
                    Some(TraceeStop::Signal(signal)) => resume(tid, signal),
                    Some(TraceeStop::Event | TraceeStop::Syscall) => resume(tid, 0),
                }),
                State::Followed { leaves, then } => self.follow_one(tid, leaves, then),
            };
            if result.is_err() {
                self.tracees.remove(&tid);
            }
        }
    }

    /// From now on every thread that runs is followed.
    fn follow_all(&mut self) {
        let running: Vec<i32> = self.tracees.iter().filter(|(_, state)| **state == State::Runs).map(|(tid, _)| *tid).collect();
        for tid in running {
            if self.interrupt(tid).is_ok() {
                self.follow(tid, None);
            }
        }
    }

    /// Follows a stopped thread out of the handler.
    fn follow(&mut self, tid: i32, then: Option<(HostPid, i32)>) {
        if ptrace::syscall(Pid::from_raw(tid), None).is_ok() {
            self.tracees.insert(tid, State::Followed { leaves: false, then });
        }
    }

    /// Whether every thread that was followed has stopped again.
    fn is_done(&self) -> bool {
        let runs = |tid: &HostPid| Status::of(*tid).is_ok_and(|status| !matches!(status.state(), 'T' | 'Z' | 'X'));
        self.tracees.is_empty() && !self.left.iter().any(runs)
    }

    /// Brings a thread nearer to the end of the handler. Beyond it its own code begins: it is let go there, and its process being stopped, stops.
    fn follow_one(&mut self, tid: i32, leaves: bool, then: Option<(HostPid, i32)>) -> Result<(), PtraceError> {
        let pid = Pid::from_raw(tid);
        match look(tid)? {
            None => return Ok(()),
            Some(TraceeStop::Syscall) if leaves && let Some((process, signal)) = then => {
                self.tracees.insert(tid, State::Awaits { process, signal, in_restorer: false });
            }
            Some(TraceeStop::Syscall) if leaves => {
                self.tracees.insert(tid, State::Interrupted);
                self.detach(tid);
                self.left.push(HostPid(tid));
                return Ok(());
            }
            Some(TraceeStop::Syscall) => {
                let leaves = ptrace::getregs(pid)?.orig_rax == libc::SYS_rt_sigreturn as u64;
                self.tracees.insert(tid, State::Followed { leaves, then });
                ptrace::syscall(pid, None)?;
            }
            // Every signal but these is blocked in the handler.
            Some(TraceeStop::Signal(signal)) => ckpt_sys::process::resume_tracee_to_call(tid, signal)?,
            Some(TraceeStop::Event) => ptrace::syscall(pid, None)?,
        }
        Ok(())
    }

    fn run_the_signalled(&mut self) {
        for (&tid, state) in &mut self.tracees {
            if let State::Awaits { process, signal, in_restorer } = *state
                && Status::of_thread(process, HostPid(tid))
                    .is_ok_and(|status| status.pending().contains(signal) && (in_restorer || !status.blocked().contains(signal)))
                && resume(tid, 0).is_ok()
            {
                *state = State::Runs;
            }
        }
    }

    /// Waits until a thread stops.
    fn wait(&mut self, tid: i32, patience: Duration) -> Result<TraceeStop, PtraceError> {
        let begun = Instant::now();
        loop {
            match look(tid) {
                Ok(Some(stop)) => return Ok(stop),
                Ok(None) if begun.elapsed() > patience => return Err(PtraceError::Busy),
                Ok(None) => std::thread::sleep(LOOK),
                Err(error) => {
                    self.tracees.remove(&tid);
                    return Err(error);
                }
            }
        }
    }

    /// Waits until a thread stops in one way, and lets it go on from all others: but not for ever, as one that cannot go on stops again and again.
    fn wait_for_stop(
        &mut self,
        tid: i32,
        is_it: impl Fn(&TraceeStop) -> bool,
        go_on: impl Fn(TraceeStop) -> Result<(), PtraceError>,
    ) -> Result<(), PtraceError> {
        for _ in 0..MANY_STOPS {
            let stop = self.wait(tid, TURN)?;
            if is_it(&stop) {
                return Ok(());
            }
            go_on(stop)?;
        }
        Err(PtraceError::Busy)
    }

    /// Has a stopped thread make a system call, and be as it was, the call that it was interrupted in included. Gives what the call returned.
    fn call(&mut self, tid: i32, instruction: u64, number: i64, arguments: [u64; 4]) -> Result<i64, PtraceError> {
        let pid = Pid::from_raw(tid);
        let saved = ptrace::getregs(pid)?;
        let mask = blocked_signals(tid)?;
        let mut regs = saved;
        regs.rip = instruction;
        regs.rax = number.cast_unsigned();
        // Not in a system call any more: else the kernel would make the interrupted one again, with these registers.
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10] = arguments;
        // No handler may run in between.
        set_blocked_signals(tid, SignalSet::ALL.bits())?;
        let result = self.call_with(tid, regs);
        // Interrupted once more, so that it goes on from a stop after which the kernel looks at the saved call.
        let again = ptrace::interrupt(pid).map_err(PtraceError::from).and_then(|()| {
            resume(tid, 0)?;
            self.wait_for_stop(tid, |stop| matches!(stop, TraceeStop::Event), |_| resume(tid, 0))
        });
        ptrace::setregs(pid, saved)?;
        set_blocked_signals(tid, mask)?;
        again?;
        result
    }

    fn call_with(&mut self, tid: i32, regs: libc::user_regs_struct) -> Result<i64, PtraceError> {
        let pid = Pid::from_raw(tid);
        ptrace::setregs(pid, regs)?;
        // To the call's begin, then to its end.
        for _ in 0..2 {
            ptrace::syscall(pid, None)?;
            let go_on = |_| Ok(ptrace::syscall(pid, None)?);
            self.wait_for_stop(tid, |stop| matches!(stop, TraceeStop::Syscall), go_on)?;
        }
        Ok(ptrace::getregs(pid)?.rax.cast_signed())
    }
}

/// The signals that are queued for the whole process of a stopped thread.
fn queued_for_process(tid: i32) -> Result<Vec<[u8; 128]>, PtraceError> {
    const AT_ONCE: usize = 64;
    let mut queue = Vec::new();
    loop {
        let mut infos = [[0; 128]; AT_ONCE];
        let count = ckpt_sys::process::peek_signals_of_process(tid, queue.len() as u64, &mut infos)?;
        queue.extend_from_slice(&infos[..count.min(AT_ONCE)]);
        if count < AT_ONCE {
            return Ok(queue);
        }
    }
}

/// The system call that a thread was interrupted in; its number is that of none (-1) where it was in none.
fn interrupted_call(regs: &libc::user_regs_struct) -> Call {
    Call { number: regs.orig_rax as u32, sp: regs.rsp, pc: regs.rip }
}

/// Resumes a stopped tracee with a signal, 0 for none. Not by nix: it has no real-time signals.
fn resume(tid: i32, signal: i32) -> Result<(), PtraceError> {
    Ok(ckpt_sys::process::resume_tracee(tid, signal)?)
}

/// Whether a tracee has stopped, and how.
fn look(tid: i32) -> Result<Option<TraceeStop>, PtraceError> {
    let Some(status) = ckpt_sys::process::look_at_tracee(tid)? else { return Ok(None) };
    Ok(Some(match (status >> 8, status & 0xff) {
        (libc::PTRACE_EVENT_STOP, _) => TraceeStop::Event,
        (0, SYSCALL_STOP) => TraceeStop::Syscall,
        (_, signal) => TraceeStop::Signal(signal),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_copy_of_the_agent_is_found() {
        let maps = "1000-2000 r--p 00000000 fe:00 1 /tmp/libckpt_preload.so\n\
            2000-3000 rw-p 00001000 fe:00 1 /tmp/libckpt_preload.so\n\
            7f0000000000-7f0000010000 r-xp 00000000 fe:00 1 /tmp/libckpt_preload.so\n\
            7f0000010000-7f0000012000 rw-p 0000f000 fe:00 1 /tmp/libckpt_preload.so\n\
            7f0000020000-7f0000030000 r-xp 00000000 fe:00 2 /usr/lib/libc.so.6\n";
        assert_eq!(executable_copy(maps), Some(0x7f00_0000_0000..0x7f00_0001_2000));
        assert_eq!(executable_copy("1000-2000 r--p 00000000 fe:00 1 /tmp/libckpt_preload.so\n"), None);
        assert_eq!(executable_copy(""), None);
    }
}
