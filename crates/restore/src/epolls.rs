//! What epoll instances wait for, registered anew.
//!
//! The kernel knows a registration by an open file description and the number that its descriptor had. So each description is given
//! that number for a moment; it is registered, and stays so when the number is another's again.
//!
//! 1. [`register_common`], in the process that builds all files: those that have fired first, then all others; but for those below.
//! 2. [`register_own`], in each process of the job: signalfds, which wait for the signals of the process that registers them, and
//!    files that each process opens by itself.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use ckpt_objects::NsPid;
use ckpt_objects::epoll::{self, Registration};
use ckpt_objects::file::OpenFileKind;
use ckpt_objects::process::Life;
use ckpt_session::JobState;
use rustix::io::{Errno, FdFlags};

use crate::control::Report;
use crate::error::ProcessError;
use crate::restart::Restart;

/// An epoll instance of the job: its index in [`JobState::open_files`], and what it waits for.
fn instances(job: &JobState) -> impl Iterator<Item = (u32, &[Registration])> {
    (0u32..).zip(&job.open_files).filter_map(|(index, file)| match &file.kind {
        OpenFileKind::Epoll(state) if file.inherited.is_none() => Some((index, &state.registrations[..])),
        _ => None,
    })
}

/// Whether a file must be registered by the process that did so at first.
fn is_own(job: &JobState, file: u32) -> bool {
    let description = job.open_files.get(file as usize);
    description.is_some_and(|file| {
        file.inherited.is_none()
            && match &file.kind {
                OpenFileKind::Signalfd(_) | OpenFileKind::Proc { .. } => true,
                OpenFileKind::Pidfd(pidfd) => pidfd.process.is_some(),
                _ => false,
            }
    })
}

/// Registers what any process may register. `open` are all files of the job, by index in [`JobState::open_files`].
pub fn register_common(restart: &Restart<'_>, open: &[Option<RawFd>]) -> Result<(), ProcessError> {
    let fd_of = |file: u32| open.get(file as usize).copied().flatten();
    for (instance, registrations) in instances(restart.job) {
        let common = || registrations.iter().filter(|one| !is_own(restart.job, one.file));
        for registration in common().filter(|one| one.is_spent()).chain(common().filter(|one| !one.is_spent())) {
            register(restart, fd_of(instance), fd_of(registration.file), registration, registration.is_spent())?;
        }
    }
    Ok(())
}

/// Registers what only `pid` may register. `fd_of` gives the descriptor that this process has of a file now.
pub fn register_own(restart: &Restart<'_>, pid: NsPid, fd_of: impl Fn(u32) -> Option<RawFd>) -> Result<(), ProcessError> {
    for (instance, registrations) in instances(restart.job) {
        for registration in registrations.iter().filter(|one| is_own(restart.job, one.file)) {
            if owner(restart.job, instance, registration) != Some(pid) {
                continue;
            }
            match fd_of(registration.file) {
                // None of them can have errors or hang-ups while it waits for nothing.
                Some(fd) => register(restart, fd_of(instance), Some(fd), registration, false)?,
                None => restart.report(&Report::Note(format!(
                    "process {pid}: its epoll instance no longer waits for descriptor {}, which only another process has",
                    registration.fd
                ))),
            }
        }
    }
    Ok(())
}

/// The process that is taken to have made a registration: the first that has both files open, best under the same number.
fn owner(job: &JobState, instance: u32, registration: &Registration) -> Option<NsPid> {
    let having = |rank: fn(i32, i32) -> bool| {
        job.processes.iter().find_map(|process| {
            let Life::Alive(live) = &process.life else { return None };
            let has_instance = live.descriptors.iter().any(|entry| entry.file == instance);
            let mut of_file = live.descriptors.iter().filter(|entry| entry.file == registration.file);
            (has_instance && of_file.any(|entry| rank(entry.fd, registration.fd))).then_some(process.pid)
        })
    };
    having(|fd, registered| fd == registered).or_else(|| having(|_, _| true)).or_else(|| {
        job.processes.iter().find_map(|process| match &process.life {
            Life::Alive(live) if live.descriptors.iter().any(|entry| entry.file == instance) => Some(process.pid),
            _ => None,
        })
    })
}

fn register(
    restart: &Restart<'_>,
    instance: Option<RawFd>,
    target: Option<RawFd>,
    registration: &Registration,
    spent: bool,
) -> Result<(), ProcessError> {
    let (Some(instance), Some(target)) = (instance, target) else {
        return Err(ProcessError::Incomplete("what an epoll instance waits for"));
    };
    // SAFETY: both are open in this process, and stay so over this call.
    let (instance, target) = unsafe { (BorrowedFd::borrow_raw(instance), BorrowedFd::borrow_raw(target)) };
    let number = registration.fd;
    let failed = |error: Errno| ProcessError::call(format!("register descriptor {number} with its epoll instance"))(error);
    // Duplicates: what is moved out of the way below may be one of the two.
    let (instance, target) = (duplicate(instance, number).map_err(failed)?, duplicate(target, number).map_err(failed)?);
    let result = with_number(&target, number, |target| {
        if spent {
            epoll::register_spent(&instance, target, registration)
        } else {
            epoll::register(&instance, target, registration)
        }
    });
    let inherited = restart.job.open_files.get(registration.file as usize).is_some_and(|file| file.inherited.is_some());
    match result {
        // The restart's own input or output is of another kind than the launcher's was.
        Err(Errno::PERM) if inherited => {
            let text =
                format!("descriptor {number}, which epoll waited for, is now a file that is always ready, and not waited for");
            restart.report(&Report::Note(text));
            Ok(())
        }
        result => result.map_err(failed),
    }
}

/// A duplicate that has not this number.
fn duplicate(fd: BorrowedFd<'_>, not: RawFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let first = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
    if first.as_raw_fd() == not { rustix::io::fcntl_dupfd_cloexec(fd, 0) } else { Ok(first) }
}

/// Gives a file a number for as long as `with` looks at it. Who had that number has it again afterwards.
pub fn with_number<T>(fd: &OwnedFd, number: RawFd, with: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>) -> Result<T, Errno> {
    use std::os::fd::AsRawFd;
    let dup2 = |from: RawFd, flags: i32| {
        // SAFETY: takes numbers only. Whoever owns `number` finds it as it was when this function returns.
        match unsafe { libc::dup3(from, number, flags) } {
            -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::BADF)),
            _ => Ok(()),
        }
    };
    // SAFETY: only borrowed to be duplicated, which fails where it is not open.
    let present = unsafe { BorrowedFd::borrow_raw(number) };
    let kept = match (rustix::io::fcntl_dupfd_cloexec(present, 0), rustix::io::fcntl_getfd(present)) {
        (Ok(kept), Ok(flags)) => Some((kept, flags)),
        (Err(Errno::BADF), _) => None,
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    dup2(fd.as_raw_fd(), libc::O_CLOEXEC)?;
    // SAFETY: it is open, as has just been done, and closed or replaced only below.
    let result = with(unsafe { BorrowedFd::borrow_raw(number) });
    match kept {
        Some((kept, flags)) => {
            let flags = if flags.contains(FdFlags::CLOEXEC) { libc::O_CLOEXEC } else { 0 };
            dup2(kept.as_raw_fd(), flags)?;
        }
        // SAFETY: it was made here, and nobody else has it.
        None => drop(unsafe { crate::files::take(number) }),
    }
    result
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn a_number_is_lent_and_given_back() {
        let file = rustix::fs::memfd_create("lent", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 77).unwrap();
        let size = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| stat.st_size);
        // One that nobody has: above all that other tests open at the same time.
        assert_eq!(with_number(&file, 500, size), Ok(77));
        // SAFETY: only asks whether it is open.
        assert_eq!(rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(500) }), Err(Errno::BADF));
        for flags in [FdFlags::CLOEXEC, FdFlags::empty()] {
            let taken = eventfd(0, EventfdFlags::empty()).unwrap();
            rustix::io::fcntl_setfd(&taken, flags).unwrap();
            assert_eq!(with_number(&file, taken.as_raw_fd(), size), Ok(77));
            assert_eq!(rustix::io::fcntl_getfd(&taken), Ok(flags));
            assert_eq!(rustix::io::write(&taken, &1u64.to_ne_bytes()), Ok(8));
        }
        assert_ne!(duplicate(file.as_fd(), 0).unwrap().as_raw_fd(), 0);
    }
}
