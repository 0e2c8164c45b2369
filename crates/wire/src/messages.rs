//! What the coordinator and an agent say to each other, on the socket and by the value of a signal.

use bytemuck::{Pod, Zeroable};

/// Coordinator to agent, by the value of a checkpoint signal (sigqueue(3)): the number of a signal added to this tells an agent that
/// holds that signal back to let it have its effect.
pub const LET_IN: u64 = 0x636b_7074 << 32;

/// As [`LET_IN`], for a process that has a handler of its own for the signal. Any other process drops it.
pub const LET_IN_IF_HANDLED: u64 = LET_IN + (1 << 16);

/// Coordinator to the launcher's stand-in in a restarted job, by the value of a checkpoint signal (sigqueue(3)): to send a signal, as the
/// launcher did before the restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The signal.
    pub signal: u8,
    /// The process that gets it, by its pid as the job sees it.
    pub pid: i32,
    /// Its whole process group gets it.
    pub group: bool,
}

impl Forward {
    /// The value of the signal that carries this.
    #[must_use]
    pub fn to_value(self) -> u64 {
        u64::from(self.pid.cast_unsigned()) << 32 | u64::from(self.group) << 8 | u64::from(self.signal)
    }

    /// What the value of a signal says.
    #[must_use]
    pub fn from_value(value: u64) -> Self {
        Self { signal: value as u8, pid: (value >> 32) as i32, group: value >> 8 & 1 != 0 }
    }
}

/// Agent to coordinator: the first message on a connection.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The process's id as it sees it.
    pub pid: i32,
    /// The thread that leads.
    pub tid: i32,
    /// The connection's descriptor number in the process, which is not the job's.
    pub socket: i32,
    /// Nonzero: the process only tells that it holds this signal back until [`LET_IN`] comes.
    pub holds: i32,
    /// What only processes of the job know: [`crate::Secret::bytes`].
    pub secret: [u8; 16],
}

/// Coordinator to agent: the answer to [`Hello`], with the shared memory object's descriptor.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Start {
    /// Nonzero: freeze. Zero: go on, nothing is wanted any more.
    pub go: u32,
    /// [`Feature`] bits.
    pub features: u32,
    /// Bytes of the shared memory object.
    pub len: u64,
    /// How long to wait for threads to answer, in milliseconds.
    pub grace_ms: u32,
    /// Which thread the coordinator signalled.
    pub tid: i32,
    /// Nonzero: that thread blocked the signal, and the coordinator has taken it out of its mask. The agent puts it back.
    pub unblocked: u32,
    /// Nothing.
    pub reserved: u32,
    /// The call that thread was blocked in before it was signalled.
    pub call: BlockedCall,
    /// First address of the vDSO.
    pub vdso_start: u64,
    /// First address after the vDSO.
    pub vdso_end: u64,
}

/// Kernel facilities that an agent may use.
#[derive(Clone, Copy, Debug)]
pub struct Feature;

impl Feature {
    /// `PAGEMAP_SCAN` (Linux 6.7).
    pub const PAGEMAP_SCAN: u32 = 1;
    /// `/proc/PID/task/TID/sched` (`CONFIG_SCHED_DEBUG`; always there since Linux 6.15).
    pub const SCHEDULER_NOTES: u32 = 2;
}

/// The system call that a thread was blocked in before it was signalled (`/proc/PID/task/TID/syscall`).
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BlockedCall {
    /// 1 where it was in one.
    pub valid: u32,
    /// Its number.
    pub number: u32,
    /// Stack pointer.
    pub sp: u64,
    /// Address of the next instruction.
    pub pc: u64,
    /// When it began to wait, by the scheduler's clock of the processor that it last ran on, in nanoseconds; 0: not known.
    pub since_ns: u64,
    /// That processor: the scheduler's clocks of two processors cannot be compared.
    pub cpu: u64,
}

/// Coordinator to agent, once the process is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Order {
    /// Let the threads go on.
    Resume = 1,
    /// Make the copy-on-write twin, which dumps the ranges of the plan.
    Twin = 2,
    /// Dump the ranges of the plan while frozen.
    DumpInPlace = 3,
    /// Make the system call of [`Control::call`](crate::Control::call), and report [`ReportKind::Called`].
    Call = 4,
}

/// Agent (or twin) to coordinator, after [`Hello`].
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Report {
    /// [`ReportKind`].
    pub kind: u32,
    /// A system call's error, or 0.
    pub errno: i32,
    /// The thread id, count or result that the kind is about.
    pub value: i64,
}

impl Report {
    /// A report of something that has not failed.
    #[must_use]
    pub const fn new(kind: ReportKind, value: i64) -> Self {
        Self { kind: kind as u32, errno: 0, value }
    }

    /// A report of a step that has failed with this error, or, where it is 0, for lack of room.
    #[must_use]
    pub const fn failed(step: Step, errno: i32) -> Self {
        Self { kind: ReportKind::Failed as u32, errno, value: step as i64 }
    }
}

/// The kinds of a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ReportKind {
    /// All threads are parked; the records are filled in.
    Frozen = 1,
    /// A thread (`value`) did not answer in time.
    ThreadSilent = 2,
    /// There are more threads (`value`) than records.
    TooManyThreads = 3,
    /// A system call failed; `value` is a [`Step`].
    Failed = 4,
    /// The twin is there. It sends this itself, so that the message's credentials name it.
    TwinReady = 5,
    /// Everything of the plan has been handed over.
    Dumped = 6,
    /// The leading thread was inside the vDSO, where it cannot be frozen. It has gone on; signal it again.
    InVdso = 7,
    /// The system call has been made; `value` is its result, or `-errno`.
    Called = 8,
    /// A thread (`value`) blocks the checkpoint signal, and has not answered for a while. The leader keeps waiting for it.
    ThreadBlocked = 9,
}

impl ReportKind {
    /// The kind of a report.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        Some(match report.kind {
            1 => Self::Frozen,
            2 => Self::ThreadSilent,
            3 => Self::TooManyThreads,
            4 => Self::Failed,
            5 => Self::TwinReady,
            6 => Self::Dumped,
            7 => Self::InVdso,
            8 => Self::Called,
            9 => Self::ThreadBlocked,
            _ => return None,
        })
    }
}

/// The steps of the agent that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Mapping the shared memory object.
    MapControl = 1,
    /// Listing its own threads.
    ListThreads = 2,
    /// Making room for copies of shared memory.
    MapCopies = 3,
    /// Forking the twin.
    Fork = 4,
    /// Reading `/proc/self/pagemap`.
    Pagemap = 5,
    /// More signals are pending than there are records.
    Pending = 6,
    /// More ranges of memory are to be dumped than there are records.
    Plan = 7,
}

impl Step {
    /// The step of a [`ReportKind::Failed`], for a message.
    #[must_use]
    pub fn describe(value: i64) -> &'static str {
        match value {
            1 => "mapping the hand-over memory",
            2 => "listing the threads",
            3 => "copying shared memory",
            4 => "forking",
            5 => "reading the page map",
            6 => "reading the pending signals",
            7 => "listing the ranges of memory",
            _ => "an unknown step",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_forwarded_signal_comes_out_as_it_went_in() {
        for forward in [Forward { signal: 15, pid: i32::MAX, group: true }, Forward { signal: 64, pid: 1, group: false }] {
            assert_eq!(Forward::from_value(forward.to_value()), forward);
        }
    }

    #[test]
    fn every_kind_of_report_is_known_by_its_number() {
        let kinds: Vec<ReportKind> = (0..100).filter_map(|kind| ReportKind::of(&Report { kind, ..Report::default() })).collect();
        assert_eq!(kinds.len(), 9);
        for kind in kinds {
            assert_eq!(ReportKind::of(&Report::new(kind, 0)), Some(kind));
        }
        let report = Report::failed(Step::Fork, 12);
        assert_eq!((ReportKind::of(&report), report.errno), (Some(ReportKind::Failed), 12));
        assert_eq!(Step::describe(report.value), "forking");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message(bytes: [u8; 16], value: u64) {
            let report: Report = bytemuck::cast(bytes);
            let _ = (ReportKind::of(&report), Step::describe(report.value));
            let _ = Forward::from_value(value);
        }
    }
}
