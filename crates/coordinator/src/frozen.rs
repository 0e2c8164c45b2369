//! A frozen job: its processes, the requests to each, and the release of all.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ckpt_objects::descriptor::SeenDescriptor;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::process::{Status, threads};
use ckpt_objects::signal::Siginfo;
use ckpt_objects::subject::{Arg, Subject};
use ckpt_objects::thread::Rseq;
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::{Connection, Received};
use ckpt_sys::signal_set::SignalSet;
use ckpt_wire::{CallRecord, Order, Report, ReportKind, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::FreezeError;
use crate::hand_over::{HandOver, HandOverError, REMEDY};
use crate::ptrace::{PtraceError, TracerThread, WaitLock};
use crate::standstill::Standstill;
use crate::tree::Member;

/// How long a call may take that a process makes for the coordinator: none waits for anything.
const CALL_GRACE: Duration = Duration::from_secs(10);

/// A frozen process. Dropping it lets it go on: the agent notices that the connection is closed.
pub struct FrozenProcess {
    /// Its pid here.
    pub pid: HostPid,
    /// A thread of it that lives, the first if that does, through which its `/proc` is read: that of a leader that has ended is empty.
    pub live: HostPid,
    /// Its pid as the job sees it.
    pub ns_pid: NsPid,
    /// What `/proc/PID/status` said when it was frozen.
    pub status: Status,
    /// The connection to its agent.
    pub connection: Arc<Connection>,
    /// The memory through which it hands over.
    pub memory: HandOver,
    /// The agent's own descriptor in it.
    pub agent_socket: i32,
    /// The job has stopped it (`SIGSTOP`), and it is to stay so.
    pub stopped: bool,
}

impl FrozenProcess {
    /// The thread that has this number as the job sees it, by the number that it has here.
    pub fn thread(&self, tid: i32) -> Option<HostPid> {
        if tid == self.ns_pid.0 {
            return Some(self.pid);
        }
        // Outside of any restart the two are the same.
        if self.pid.0 == self.ns_pid.0 {
            return Some(HostPid(tid));
        }
        threads(self.pid)
            .into_iter()
            .find(|thread| Status::of_thread(self.pid, *thread).is_ok_and(|status| status.ns_pid().0 == tid))
    }

    /// Gives its agent an order.
    pub fn order(&self, order: Order) -> io::Result<()> {
        self.connection.send(&(order as u32), None)
    }

    /// The error for memory of its agent that holds what no agent writes.
    pub fn damaged(&self, error: HandOverError) -> ObserveError {
        self.refuse(format!("has damaged its agent's memory: {error}"), REMEDY)
    }

    /// The error for a failure that its agent reported.
    pub fn failure(&self, report: &Report) -> FreezeError {
        let what = match ReportKind::of(report) {
            Some(ReportKind::ThreadSilent) => format!("thread {} does not take the checkpoint signal", report.value),
            Some(ReportKind::TooManyThreads) => format!("it starts threads faster than they can be counted ({})", report.value),
            Some(ReportKind::Failed) if report.errno == 0 => {
                format!("{} failed: there are too many", Step::describe(report.value))
            }
            Some(ReportKind::Failed) => {
                format!("{} failed: {}", Step::describe(report.value), io::Error::from_raw_os_error(report.errno))
            }
            _ => "its agent reports what this program does not know".to_owned(),
        };
        FreezeError::Agent { pid: self.ns_pid, name: self.name(), what }
    }
}

impl Subject for FrozenProcess {
    fn pid(&self) -> HostPid {
        self.pid
    }

    fn live(&self) -> HostPid {
        self.live
    }

    fn ns_pid(&self) -> NsPid {
        self.ns_pid
    }

    fn status(&self) -> &Status {
        &self.status
    }

    fn call(&self, number: i64, args: &[Arg]) -> io::Result<u64> {
        let mut call = CallRecord { number: number.unsigned_abs(), ..CallRecord::default() };
        for (i, arg) in args.iter().enumerate() {
            match arg {
                Arg::Number(number) => call.args[i] = *number,
                Arg::Window(at) => {
                    call.args[i] = self.memory.window() + at;
                    call.offsets |= 1 << i;
                }
            }
        }
        self.memory.set_call(call);
        self.order(Order::Call)?;
        let begun = Instant::now();
        loop {
            match self.connection.receive::<Report>() {
                Received::Message(report, _) if ReportKind::of(&report) == Some(ReportKind::Called) => {
                    return result(report.value).map_err(io::Error::from_raw_os_error);
                }
                Received::Nothing if begun.elapsed() < CALL_GRACE => {
                    let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
                    let _ = poll(&mut [PollFd::new(&self.connection, PollFlags::IN)], Some(&timeout));
                }
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }

    fn window(&self) -> io::Result<u64> {
        let process = self.memory.process().map_err(io::Error::other)?;
        Ok(process.control_start + self.memory.window())
    }

    fn put(&self, bytes: &[u8]) {
        self.memory.put(bytes);
    }

    fn get(&self, len: usize) -> Vec<u8> {
        self.memory.get(len)
    }
}

/// A frozen job.
pub struct Frozen {
    /// What stopped processes run through.
    pub(crate) tracer: Option<TracerThread>,
    /// For another tracer.
    pub(crate) waiting: WaitLock,
    /// The living, by ascending pid.
    pub processes: Vec<FrozenProcess>,
    /// The dead that are not yet waited for.
    pub zombies: Vec<Member>,
    /// Since the first of them was signalled.
    pub standstill: Standstill,
}

impl Frozen {
    /// The process through whose `/proc` a descriptor was seen, if that is the job's.
    pub fn owner(&self, descriptor: &SeenDescriptor) -> Option<&FrozenProcess> {
        self.processes.iter().find(|process| process.live == descriptor.pid)
    }

    /// The error for a descriptor of something that is not kept.
    pub fn refuse_descriptor(&self, descriptor: &SeenDescriptor, what: impl fmt::Display) -> ObserveError {
        let owner = self.owner(descriptor);
        ObserveError::Refused {
            pid: owner.map_or(descriptor.pid.0, |process| process.ns_pid.0),
            name: owner.map(Subject::name).unwrap_or_default(),
            what: format!("has {what} open (descriptor {})", descriptor.fd),
            remedy: "close it before a checkpoint",
        }
    }

    fn by_ptrace<T>(&self, work: impl FnOnce(&TracerThread) -> Result<T, PtraceError>) -> Result<T, PtraceError> {
        match &self.tracer {
            Some(tracer) => work(tracer),
            None => work(&TracerThread::new(&self.waiting).map_err(|_| PtraceError::Gone)?),
        }
    }

    /// The restartable sequences area that a thread has registered. Only ptrace(2) tells where it is.
    pub fn rseq(&self, thread: HostPid) -> Result<Option<Rseq>, PtraceError> {
        self.by_ptrace(|tracer| tracer.rseq(thread))
    }

    /// The signals that are pending for a process as a whole, in their order: for one whose first thread has ended, since no other's agent
    /// can find them out.
    pub fn pending_for_process(&self, process: &FrozenProcess) -> Result<Vec<Siginfo>, PtraceError> {
        let set = Status::of_thread(process.pid, process.live).map_or(SignalSet::EMPTY, |status| status.pending_for_process());
        if set.is_empty() {
            return Ok(Vec::new());
        }
        let queue = self.by_ptrace(|tracer| tracer.pending_for_process(process.live))?;
        let mut queue: Vec<Siginfo> = queue.into_iter().map(|info| Siginfo(info.to_vec())).collect();
        // Of one that came when the queue was full only the number was kept.
        for signal in set.iter() {
            if !queue.iter().any(|info| info.signal() == signal) {
                queue.push(Siginfo::of_nobody(signal));
            }
        }
        Ok(queue)
    }

    /// Lets every process go on at once, the stopped ones first: they only stop again. One that has died meanwhile is no failure. Whether they
    /// have stood still until now.
    #[must_use]
    pub fn resume(&mut self) -> bool {
        let stood = self.standstill.end();
        let resume = |stopped: bool| {
            for process in self.processes.iter().filter(|process| process.stopped == stopped) {
                let _ = process.order(Order::Resume);
            }
        };
        if let Some(tracer) = self.tracer.take() {
            tracer.end(|| resume(true));
        }
        resume(false);
        stood
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.standstill.end();
        if let Some(tracer) = self.tracer.take() {
            tracer.end(|| self.processes.retain(|process| !process.stopped));
        }
    }
}

/// The result of a system call as an agent reports it: its value, or the error number.
fn result(value: i64) -> Result<u64, i32> {
    u64::try_from(value).map_err(|_| value.checked_neg().and_then(|errno| i32::try_from(errno).ok()).unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_result() {
        assert_eq!((result(7), result(-libc::EPERM as i64)), (Ok(7), Err(libc::EPERM)));
        assert_eq!((result(i64::MAX), result(i64::MIN)), (Ok(i64::MAX as u64), Err(libc::EIO)));
    }
}
