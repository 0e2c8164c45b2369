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

/// tgkill(2): sends a signal to one thread of a process.
pub fn tgkill(process: i32, thread: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_tgkill, process, thread, signal) }.map(|_| ())
}

/// ioprio_get(2) of a thread.
pub fn ioprio_get(thread: i32) -> Result<u32, Errno> {
    const IOPRIO_WHO_PROCESS: u32 = 1;
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_ioprio_get, IOPRIO_WHO_PROCESS, thread) }.map(|value| value as u32)
}
