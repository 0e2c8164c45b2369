//! Descriptors by their numbers, where the number itself matters and nobody in this process owns it.

use linux_raw_sys::errno::EBADF;
use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// dup3(2): has `number` refer to what `fd` is open on. Whatever had that number is closed.
///
/// # Errors
/// `EBADF` where a number is not open, or beyond the limit.
pub fn give(fd: i32, number: i32, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec { nr::O_CLOEXEC } else { 0 };
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_dup3, fd, number, flags) }.map(|_| ())
}

/// close(2).
pub fn close(number: i32) {
    // SAFETY: takes a number only. An error tells nothing that could be done: the number is free.
    let _ = unsafe { syscall!(nr::__NR_close, number) };
}

/// close_range(2): closes all numbers from `first` to `last`.
///
/// # Errors
/// `EINVAL` where `first` is above `last`.
pub fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_close_range, first, last, 0) }.map(|_| ())
}

/// A duplicate, closed by execve(2), with the first free number from `lowest` on.
///
/// # Errors
/// `EBADF`; `EMFILE` where no number is left.
pub fn duplicate(fd: i32, lowest: i32) -> Result<i32, Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_fcntl, fd, nr::F_DUPFD_CLOEXEC, lowest) }.map(|fd| fd as i32)
}

/// Sets whether execve(2) closes a number.
///
/// # Errors
/// `EBADF`.
pub fn set_close_on_exec(number: i32, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec { nr::FD_CLOEXEC } else { 0 };
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_fcntl, number, nr::F_SETFD, flags) }.map(|_| ())
}

/// Gives a file a number for as long as `with` runs. What had that number has it again afterwards. `fd` must have another one.
///
/// # Errors
/// `EMFILE` where what had the number cannot be put elsewhere; `EBADF`.
pub fn lend<T>(fd: i32, number: i32, with: impl FnOnce() -> T) -> Result<T, Errno> {
    const BAD: i32 = EBADF as i32;
    // SAFETY: takes numbers only.
    let flags = unsafe { syscall!(nr::__NR_fcntl, number, nr::F_GETFD) };
    let kept = match flags {
        Ok(flags) => Some((duplicate(number, 0)?, flags as u32 & nr::FD_CLOEXEC != 0)),
        Err(Errno(BAD)) => None,
        Err(error) => return Err(error),
    };
    give(fd, number, true)?;
    let result = with();
    match kept {
        Some((kept, close_on_exec)) => {
            give(kept, number, close_on_exec)?;
            close(kept);
        }
        None => close(number),
    }
    Ok(result)
}
