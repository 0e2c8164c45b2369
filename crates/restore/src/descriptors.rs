//! The descriptor table of one process: each number refers to what it did, and nothing else is open.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};

use rustix::io::{Errno, FdFlags};

use crate::error::ProcessError;

/// A descriptor that is to have a certain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its number now. Several may come from the same.
    pub from: RawFd,
    /// The number it is to have.
    pub to: RawFd,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
}

/// Brings every descriptor to its number and closes all others.
///
/// # Safety
/// Every descriptor of the process is replaced or closed, whoever owns it: only `moves` may be used afterwards.
pub unsafe fn arrange(moves: &[Move]) -> Result<(), ProcessError> {
    let targets: BTreeSet<RawFd> = moves.iter().map(|one| one.to).collect();
    let mut pending = moves.to_vec();
    while let Some(next) = pending.pop() {
        // What still waits at this number must make room; it may be wanted several times.
        if next.from != next.to && pending.iter().any(|other| other.from == next.to) {
            let refuge = evacuate(next.to, &targets)?;
            for other in pending.iter_mut().filter(|other| other.from == next.to) {
                other.from = refuge;
            }
        }
        let failed = |error: Errno| ProcessError::call(format!("give a file the number {}", next.to))(error);
        if next.from != next.to {
            // SAFETY: takes numbers only; the caller gave up all descriptors. Raw, because nobody owns them here.
            let new = unsafe { libc::dup2(next.from, next.to) };
            if new != next.to {
                return Err(ProcessError::call(format!("give a file the number {}", next.to))(std::io::Error::last_os_error()));
            }
        }
        let flags = if next.close_on_exec { FdFlags::CLOEXEC } else { FdFlags::empty() };
        // SAFETY: the descriptor is open, and borrowed for this call only.
        rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(next.to) }, flags).map_err(failed)?;
    }
    // SAFETY: the caller gave up all descriptors.
    unsafe { close_all_but(&targets) }
}

/// Duplicates a descriptor to a number that is not a target.
fn evacuate(fd: RawFd, targets: &BTreeSet<RawFd>) -> Result<RawFd, ProcessError> {
    let mut lowest = 0;
    loop {
        while targets.contains(&lowest) {
            lowest += 1;
        }
        // SAFETY: the descriptor is one of the pending ones, which are open.
        let new = rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(fd) }, lowest)
            .map_err(ProcessError::call("move a file out of the way of the job's numbers"))?;
        let number = new.into_raw_fd();
        if !targets.contains(&number) {
            return Ok(number);
        }
        // A target that is free as yet: give it back, and look further.
        ckpt_sys::number::close(number);
        lowest = number + 1;
    }
}

/// Closes all descriptors but these.
///
/// # Safety
/// Nobody may use any other descriptor afterwards.
pub unsafe fn close_all_but(kept: &BTreeSet<RawFd>) -> Result<(), ProcessError> {
    let mut next: u32 = 0;
    for &fd in kept {
        let fd = fd.cast_unsigned();
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), ProcessError> {
    // SAFETY: takes numbers only; the callers' callers gave these descriptors up.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(ProcessError::call("close files")(std::io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// In a forked child: opens pipes so that `from` numbers hold recognisable bytes, arranges, and checks every target.
    fn check(pairs: &[(RawFd, RawFd)]) {
        let moves: Vec<Move> = pairs.iter().map(|&(from, to)| Move { from, to, close_on_exec: to % 2 == 0 }).collect();
        // SAFETY: the child makes system calls and simple allocations, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let sources: BTreeSet<RawFd> = moves.iter().map(|one| one.from).collect();
            for &from in &sources {
                let memfd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::empty()).unwrap();
                rustix::fs::ftruncate(&memfd, from.unsigned_abs().into()).unwrap();
                // SAFETY: the child uses no descriptor but these.
                unsafe {
                    libc::dup2(memfd.as_raw_fd(), from);
                    if memfd.as_raw_fd() != from && !sources.contains(&memfd.as_raw_fd()) {
                        drop(memfd);
                    } else {
                        std::mem::forget(memfd);
                    }
                }
            }
            // SAFETY: as above.
            let ok = unsafe { arrange(&moves) }.is_ok();
            let right = moves.iter().all(|one| {
                // SAFETY: only borrowed for the call.
                let fd = unsafe { BorrowedFd::borrow_raw(one.to) };
                let size = rustix::fs::fstat(fd).map(|stat| stat.st_size);
                let flags = rustix::io::fcntl_getfd(fd).map(|flags| flags.contains(FdFlags::CLOEXEC));
                size == Ok(one.from.into()) && flags == Ok(one.close_on_exec)
            });
            let mut others = (0..64).filter(|fd| !moves.iter().any(|one| one.to == *fd));
            // SAFETY: only asks.
            let closed = others.all(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1);
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!(ok && right && closed))) };
        }
        let mut status = 0;
        // SAFETY: `status` lives over the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "{pairs:?}");
    }

    #[test]
    fn numbers_that_are_in_each_others_way() {
        check(&[(40, 3), (41, 4), (42, 5)]);
        check(&[(30, 31), (31, 30)]);
        check(&[(30, 31), (31, 32), (32, 30), (30, 33), (32, 34), (35, 35), (35, 36)]);
        check(&[(10, 0), (10, 1), (10, 2), (0, 10), (1, 11)]);
        check(&[(5, 5), (6, 6)]);
    }
}
