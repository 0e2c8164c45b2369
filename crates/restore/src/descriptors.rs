//! The descriptor table of one process: each number refers to what it did, and nothing else is open.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

use ckpt_sys::number;

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

/// Brings every descriptor to its number and closes all others. Every descriptor of the process is replaced or closed, even one that some
/// value still owns: only the targets may be used afterwards.
///
/// # Errors
///
/// When a number is beyond the limit on open files.
pub fn arrange(moves: &[Move]) -> Result<(), ProcessError> {
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
        let failed = || ProcessError::raw(format!("give a file the number {}", next.to));
        if next.from != next.to {
            number::give(next.from, next.to, next.close_on_exec).map_err(failed())?;
        }
        number::set_close_on_exec(next.to, next.close_on_exec).map_err(failed())?;
    }
    close_all_but(&targets)
}

/// Duplicates a descriptor to a number that is not a target.
fn evacuate(fd: RawFd, targets: &BTreeSet<RawFd>) -> Result<RawFd, ProcessError> {
    let mut lowest = 0;
    loop {
        while targets.contains(&lowest) {
            lowest += 1;
        }
        let what = "move a file out of the way of the job's numbers";
        let number = number::duplicate(fd, lowest).map_err(ProcessError::raw(what))?;
        if !targets.contains(&number) {
            return Ok(number);
        }
        // A target that is free as yet: give it back, and look further.
        number::close(number);
        lowest = number + 1;
    }
}

/// Closes all descriptors but these, even those that some value still owns. No other may be used afterwards.
///
/// # Errors
///
/// When the kernel has no close_range(2).
pub fn close_all_but(kept: &BTreeSet<RawFd>) -> Result<(), ProcessError> {
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
    number::close_range(first, last).map_err(ProcessError::raw("close files"))
}

#[cfg(test)]
#[expect(unsafe_code, reason = "the table of a child is arranged, and looked at by numbers")]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use rustix::io::FdFlags;

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
            let ok = arrange(&moves).is_ok();
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
