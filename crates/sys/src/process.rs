//! Calls about other processes that rustix lacks. They take no pointer, so they are safe to call with any argument.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// `KCMP_FILE` (include/uapi/linux/kcmp.h): whether two descriptors refer to the same open file description.
pub const KCMP_FILE: u32 = 0;

/// kcmp(2): how two resources of two processes compare: 0 the same, 1 less, 2 greater, 3 different.
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
pub fn kcmp_epoll(pid: i32, fd: i32, epoll_pid: i32, slot: EpollSlot) -> Result<u64, Errno> {
    const KCMP_EPOLL_TFD: u32 = 7;
    // SAFETY: `slot` is read, and lives over the call.
    unsafe { syscall!(nr::__NR_kcmp, pid, epoll_pid, KCMP_EPOLL_TFD, fd, &raw const slot) }
}

/// tgkill(2): sends a signal to one thread of a process.
pub fn tgkill(process: i32, thread: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_tgkill, process, thread, signal) }.map(|_| ())
}

/// unshare(2) with `CLONE_NEWTIME` (Linux 5.6): children of the caller are born in a new time namespace; the caller stays in its own.
pub fn unshare_time() -> Result<(), Errno> {
    const CLONE_NEWTIME: u32 = 0x80;
    // SAFETY: takes no pointer, and nothing that this process uses becomes another.
    unsafe { syscall!(nr::__NR_unshare, CLONE_NEWTIME) }.map(|_| ())
}

/// ioprio_get(2) of a thread.
pub fn ioprio_get(thread: i32) -> Result<u32, Errno> {
    const IOPRIO_WHO_PROCESS: u32 = 1;
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_ioprio_get, IOPRIO_WHO_PROCESS, thread) }.map(|value| value as u32)
}
