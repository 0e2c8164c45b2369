//! Sleeping for a time: the kernel says how much of it is left when a signal interrupts it, if it is given a place to say so. Where a program gives
//! none, we do, so that a sleep that we interrupt lasts as long as it would have.

use core::ffi::c_int;

use linux_raw_sys::general::__kernel_timespec as Time;

use crate::libc::{self, ENOSYS};
use crate::next;

/// Calls `f` with a place for the time that is left.
fn with_room(left: *mut Time, f: impl FnOnce(*mut Time) -> c_int) -> c_int {
    if !left.is_null() {
        return f(left);
    }
    let mut own = Time { tv_sec: 0, tv_nsec: 0 };
    f(&raw mut own)
}

/// nanosleep(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
#[allow(private_interfaces, reason = "C programs call it, with the C library's type")]
pub unsafe extern "C" fn nanosleep(time: *const Time, left: *mut Time) -> c_int {
    type Call = unsafe extern "C" fn(*const Time, *mut Time) -> c_int;
    let Some(call) = next!(c"nanosleep" as Call) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    with_room(left, |left| unsafe { call(time, left) })
}

/// clock_nanosleep(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
#[allow(private_interfaces, reason = "C programs call it, with the C library's type")]
pub unsafe extern "C" fn clock_nanosleep(clock: c_int, flags: c_int, time: *const Time, left: *mut Time) -> c_int {
    type Call = unsafe extern "C" fn(c_int, c_int, *const Time, *mut Time) -> c_int;
    let Some(call) = next!(c"clock_nanosleep" as Call) else { return ENOSYS };
    // SAFETY: the caller's promise.
    with_room(left, |left| unsafe { call(clock, flags, time, left) })
}
