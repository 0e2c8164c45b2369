//! Calls about other processes that rustix lacks. They take no pointer, so they are safe to call with any argument.

use linux_raw_sys::errno::ECHILD;
use linux_raw_sys::{general as nr, ptrace};

use crate::raw::Errno;
use crate::signal_set::SignalSet;
use crate::syscall;

/// `KCMP_FILE` (include/uapi/linux/kcmp.h): whether two descriptors refer to the same open file description.
pub const KCMP_FILE: u32 = 0;

/// kcmp(2): how two resources of two processes compare: 0 the same, 1 less, 2 greater, 3 different.
///
/// # Errors
/// `EPERM` where the caller may not trace both, `ESRCH` where one has ended, `EBADF` where an index is no open descriptor.
pub fn kcmp(first: i32, second: i32, kind: u32, first_index: u64, second_index: u64) -> Result<u64, Errno> {
    // SAFETY: for the kinds without a pointer argument, which `kind` is documented to be; any other fails.
    unsafe { syscall!(nr::__NR_kcmp, first, second, kind, first_index, second_index) }
}

/// A registration of an epoll instance (`struct kcmp_epoll_slot`, include/uapi/linux/kcmp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EpollSlot {
    /// The descriptor of the epoll instance.
    pub epoll: u32,
    /// The number that the registered descriptor had.
    pub target: u32,
    /// Which of several registrations with that number, in the order of `/proc/PID/fdinfo`; from 0.
    pub offset: u32,
}

/// kcmp(2), `KCMP_EPOLL_TFD` (Linux 4.13): how the open file description of descriptor `fd` of process `pid` compares with that
/// which a registration means, of an epoll instance of process `epoll_pid`: as [`kcmp`].
///
/// # Errors
/// As for [`kcmp`]; `ENOENT` where there is no such registration.
pub fn kcmp_epoll(pid: i32, fd: i32, epoll_pid: i32, slot: EpollSlot) -> Result<u64, Errno> {
    // include/uapi/linux/kcmp.h
    const KCMP_EPOLL_TFD: u32 = 7;
    // SAFETY: `slot` is read, and lives over the call.
    unsafe { syscall!(nr::__NR_kcmp, pid, epoll_pid, KCMP_EPOLL_TFD, fd, &raw const slot) }
}

/// tgkill(2): sends a signal to one thread of a process.
///
/// # Errors
/// `ESRCH` where the thread has ended, `EPERM` where the caller may not signal it.
pub fn tgkill(process: i32, thread: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_tgkill, process, thread, signal) }.map(|_| ())
}

/// sigprocmask(2): blocks a set of signals in this thread.
///
/// # Errors
/// None are documented for a set in memory of the caller.
pub fn block(set: SignalSet) -> Result<(), Errno> {
    // SAFETY: the set has the size that is passed, and lives over the call.
    unsafe { syscall!(nr::__NR_rt_sigprocmask, nr::SIG_BLOCK, set.as_ptr(), 0, size_of::<SignalSet>()) }.map(|_| ())
}

/// sigqueue(3): sends a signal with a value to a process.
///
/// # Errors
/// `ESRCH` where the process has ended, `EPERM` where the caller may not signal it, `EAGAIN` where the queue is full.
pub fn queue(process: i32, signal: i32, value: u64) -> Result<(), Errno> {
    // SAFETY: both take no argument and cannot fail.
    let (pid, uid) = unsafe { (syscall!(nr::__NR_getpid).unwrap_or(0), syscall!(nr::__NR_getuid).unwrap_or(0)) };
    // A siginfo: signal, error; code, padding; pid, uid; value.
    let mut info = [0u64; 16];
    info[..4].copy_from_slice(&[signal as u64, u64::from(nr::SI_QUEUE as u32), uid << 32 | pid, value]);
    // SAFETY: `info` has the 128 bytes of a siginfo, and is only read.
    unsafe { syscall!(nr::__NR_rt_sigqueueinfo, process, signal, info.as_ptr()) }.map(|_| ())
}

/// unshare(2) with `CLONE_NEWTIME` (Linux 5.6): children of the caller are born in a new time namespace; the caller stays in its own.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` where the kernel lacks time namespaces.
pub fn unshare_time() -> Result<(), Errno> {
    // SAFETY: takes no pointer, and nothing that this process uses becomes another.
    unsafe { syscall!(nr::__NR_unshare, nr::CLONE_NEWTIME) }.map(|_| ())
}

/// How a thread is scheduled: `struct sched_attr` (include/uapi/linux/sched/types.h) as of Linux 5.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttributes {
    /// Bytes of this struct.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// `SCHED_DEADLINE`: nanoseconds; so for the next two.
    pub runtime: u64,
    /// See `runtime`.
    pub deadline: u64,
    /// See `runtime`.
    pub period: u64,
    /// Utilisation clamps.
    pub util_min: u32,
    /// See `util_min`.
    pub util_max: u32,
}

/// sched_getattr(2) of a thread.
///
/// # Errors
/// `ESRCH` where the thread has ended.
pub fn sched_getattr(thread: i32) -> Result<SchedAttributes, Errno> {
    let mut attributes = SchedAttributes::default();
    let size = size_of::<SchedAttributes>();
    // SAFETY: the kernel writes at most `size` bytes to `attributes`, which has as many.
    unsafe { syscall!(nr::__NR_sched_getattr, thread, &raw mut attributes, size, 0) }?;
    Ok(attributes)
}

/// `KCMP_VM`, `KCMP_FILES`, `KCMP_FS` (include/uapi/linux/kcmp.h): whether two tasks share what is named.
pub mod shared {
    /// Memory.
    pub const VM: u32 = 1;
    /// The table of descriptors.
    pub const FILES: u32 = 2;
    /// Root, working directory, umask.
    pub const FS: u32 = 3;
}

/// ioprio_get(2) of a thread.
///
/// # Errors
/// `ESRCH` where the thread has ended.
pub fn ioprio_get(thread: i32) -> Result<u32, Errno> {
    // include/uapi/linux/ioprio.h
    const IOPRIO_WHO_PROCESS: u32 = 1;
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_ioprio_get, IOPRIO_WHO_PROCESS, thread) }.map(|value| value as u32)
}

/// `PTRACE_GETSIGMASK` (ptrace(2), Linux 3.11): the signals that a stopped tracee blocks.
///
/// # Errors
/// `ESRCH` where the thread is no stopped tracee of the caller.
pub fn blocked_signals(tracee: i32) -> Result<u64, Errno> {
    let mut set = 0u64;
    // SAFETY: the third argument is the size of a kernel signal set, the fourth is written with one.
    unsafe { syscall!(nr::__NR_ptrace, ptrace::PTRACE_GETSIGMASK, tracee, size_of::<u64>(), &raw mut set) }.map(|_| set)
}

/// `PTRACE_SETSIGMASK` (ptrace(2), Linux 3.11): sets the signals that a stopped tracee blocks.
///
/// # Errors
/// `ESRCH` where the thread is no stopped tracee of the caller.
pub fn set_blocked_signals(tracee: i32, set: u64) -> Result<(), Errno> {
    // SAFETY: the third argument is the size of a kernel signal set, the fourth is read as one.
    unsafe { syscall!(nr::__NR_ptrace, ptrace::PTRACE_SETSIGMASK, tracee, size_of::<u64>(), &raw const set) }.map(|_| ())
}

/// `PTRACE_PEEKSIGINFO` (ptrace(2), Linux 3.10): the `siginfo_t`s of the signals that are queued for a stopped tracee's whole process from
/// place `from` of the queue on, as many as fit into `infos`; gives how many that are.
///
/// # Errors
/// `ESRCH` where the thread is no stopped tracee of the caller.
pub fn peek_signals_of_process(tracee: i32, from: u64, infos: &mut [[u8; 128]]) -> Result<usize, Errno> {
    let most = u64::from(u32::try_from(infos.len()).unwrap_or(0));
    // struct ptrace_peeksiginfo_args: off; flags and nr, 32 bits each.
    let arguments = [from, u64::from(ptrace::PTRACE_PEEKSIGINFO_SHARED) | most << 32];
    // SAFETY: the arguments are read; at most `nr` siginfos of 128 bytes are written to `infos`, which has room for as many.
    unsafe { syscall!(nr::__NR_ptrace, ptrace::PTRACE_PEEKSIGINFO, tracee, arguments.as_ptr(), infos.as_mut_ptr()) }
        .map(|count| count as usize)
}

/// `PTRACE_CONT` (ptrace(2)): lets a stopped tracee go on, with a signal if that is not 0.
///
/// # Errors
/// `ESRCH` where the thread is no stopped tracee of the caller.
pub fn resume_tracee(tracee: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer: the third argument is not looked at.
    unsafe { syscall!(nr::__NR_ptrace, ptrace::PTRACE_CONT, tracee, 0, signal) }.map(|_| ())
}

/// `PTRACE_SYSCALL` (ptrace(2)): as [`resume_tracee`], up to the begin or end of a system call.
///
/// # Errors
/// `ESRCH` where the thread is no stopped tracee of the caller.
pub fn resume_tracee_to_call(tracee: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer: the third argument is not looked at.
    unsafe { syscall!(nr::__NR_ptrace, ptrace::PTRACE_SYSCALL, tracee, 0, signal) }.map(|_| ())
}

/// The restartable sequences area of a thread (`struct ptrace_rseq_configuration`, include/uapi/linux/ptrace.h).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RseqConfiguration {
    /// Its address; 0: none.
    pub address: u64,
    /// Its registered size.
    pub len: u32,
    /// The signature before abort handlers.
    pub signature: u32,
    /// 0.
    flags: u32,
    pad: u32,
}

/// `PTRACE_GET_RSEQ_CONFIGURATION` (Linux 5.13) of a stopped tracee.
///
/// # Errors
/// `ESRCH` where it is no tracee of the calling thread, or not stopped.
pub fn rseq_of_tracee(tracee: i32) -> Result<RseqConfiguration, Errno> {
    const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
    let mut found = RseqConfiguration::default();
    let size = size_of::<RseqConfiguration>();
    // SAFETY: the kernel writes no more than `size` bytes to `found`.
    unsafe { syscall!(nr::__NR_ptrace, PTRACE_GET_RSEQ_CONFIGURATION, tracee, size, &raw mut found) }?;
    Ok(found)
}

/// How a tracee has stopped: the low byte is a signal, the next an event of ptrace(2) if it is not 0. Nothing while it runs. A tracee that has
/// ended is left to its parent to wait for.
///
/// # Errors
/// `ECHILD` where it has ended, or is no tracee of the calling thread.
pub fn look_at_tracee(tracee: i32) -> Result<Option<i32>, Errno> {
    const CLD_DUMPED: i32 = nr::CLD_DUMPED as i32;
    // A siginfo: signal, error, code, then from the fifth word pid, uid, status. The signal stays 0 when there is nothing to tell.
    let mut info = [0i32; 32];
    let options = nr::WSTOPPED | nr::WNOHANG | nr::__WALL | nr::__WNOTHREAD;
    for what in [nr::WEXITED | nr::WNOWAIT, 0] {
        info = [0; 32];
        // SAFETY: a siginfo of 128 bytes is written, and lives over the call.
        unsafe { syscall!(nr::__NR_waitid, nr::P_PID, tracee, info.as_mut_ptr(), options | what, 0) }?;
        match info {
            [0, ..] => return Ok(None),
            [_, _, (..=CLD_DUMPED), ..] => return Err(Errno(ECHILD as i32)),
            _ => (),
        }
    }
    Ok(Some(info[6]))
}
