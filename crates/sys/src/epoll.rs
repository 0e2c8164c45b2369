//! epoll_ctl(2) by numbers: a registration keeps the number that its file had.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// `EPOLL_CTL_ADD`.
///
/// # Errors
/// `EEXIST`, `EPERM` for a file that cannot be waited for, `ENOSPC`: see epoll_ctl(2).
pub fn add(epoll: i32, fd: i32, events: u32, data: u64) -> Result<(), Errno> {
    control(epoll, nr::EPOLL_CTL_ADD, fd, events, data)
}

/// `EPOLL_CTL_MOD`.
///
/// # Errors
/// `ENOENT` where it was not added.
pub fn modify(epoll: i32, fd: i32, events: u32, data: u64) -> Result<(), Errno> {
    control(epoll, nr::EPOLL_CTL_MOD, fd, events, data)
}

fn control(epoll: i32, operation: u32, fd: i32, events: u32, data: u64) -> Result<(), Errno> {
    let event = nr::epoll_event { events, data };
    // SAFETY: `event` is read, and lives over the call.
    unsafe { syscall!(nr::__NR_epoll_ctl, epoll, operation, fd, &raw const event) }.map(|_| ())
}
