//! Timers of timer_create(2) and clocks by their numbers, those of processes and threads too.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// timer_create(2); `event` is a `struct sigevent`. Gives the kernel's id of the timer.
///
/// # Errors
/// `EAGAIN` at the limit on queued signals, `EINVAL` for an unknown clock or thread, `EPERM`.
pub fn create(clock: i32, event: &[u64; 8]) -> Result<i32, Errno> {
    let mut id = -1i32;
    // SAFETY: the event is read and the id written; both live over the call. A timer that starts nothing by itself is made.
    unsafe { syscall!(nr::__NR_timer_create, clock, event.as_ptr(), &raw mut id) }.map(|_| id)
}

/// timer_delete(2).
///
/// # Errors
/// `EINVAL` where there is none.
pub fn delete(id: i32) -> Result<(), Errno> {
    // SAFETY: takes a number only.
    unsafe { syscall!(nr::__NR_timer_delete, id) }.map(|_| ())
}

/// clock_gettime(2): seconds and nanoseconds.
///
/// # Errors
/// `EINVAL` for an unknown clock.
pub fn now(clock: i32) -> Result<[u64; 2], Errno> {
    let mut now = [0u64; 2];
    // SAFETY: the time is written, and lives over the call.
    unsafe { syscall!(nr::__NR_clock_gettime, clock, now.as_mut_ptr()) }.map(|_| now)
}

/// clock_getres(2): seconds and nanoseconds.
///
/// # Errors
/// `EINVAL` for an unknown clock, or where no clock of real time can wake the machine.
pub fn resolution(clock: i32) -> Result<[u64; 2], Errno> {
    let mut resolution = [0u64; 2];
    // SAFETY: the time is written, and lives over the call.
    unsafe { syscall!(nr::__NR_clock_getres, clock, resolution.as_mut_ptr()) }.map(|_| resolution)
}
