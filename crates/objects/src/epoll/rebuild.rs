//! Rebuilds epoll instances, and registers the files that they wait for.
//!
//! The kernel knows a registration by an open file description and the number that its descriptor had. So each description is given
//! that number for a moment; it is registered, and stays so when the number is another's again.
//!
//! 1. [`register_common`], in the process that builds all files: those that have fired first, then all others; but for those below.
//! 2. [`register_own`], in each process of the job: signalfds, which wait for the signals of the process that registers them, and
//!    files that each process opens by itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ckpt_sys::number;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, Result};

use super::Registration;
use crate::context::Context;
use crate::descriptor::FdEntry;
use crate::event::{self, failed};
use crate::open_file::OpenFile;
use crate::process::LiveProcess;
use crate::rebuild::RebuildError;
use crate::{FileIndex, NsPid, Objects};

/// Makes an epoll instance with its status flags, which waits for nothing yet.
///
/// # Errors
/// No descriptor is left.
pub fn rebuild(flags: u32) -> std::result::Result<OwnedFd, RebuildError> {
    let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("make an epoll instance"))?;
    event::set_flags(&fd, flags).map_err(failed("set the flags of an epoll instance"))?;
    Ok(fd)
}

/// Registers the file that has the number `registration.fd` in this process now; it may be closed afterwards.
fn register(epoll: impl AsFd, registration: &Registration) -> Result<()> {
    let epoll = epoll.as_fd().as_raw_fd();
    ckpt_sys::epoll::add(epoll, registration.fd, registration.events, registration.data).map_err(errno)
}

/// As [`register`], for a one-shot registration that has fired. Must be called before all that have not: it takes what is ready.
///
/// The kernel adds errors and hang-ups to whatever is registered, so a registration that waits for nothing comes only from one
/// that fired. Where the file is not ready for anything, and later has an error or hang-up, that is reported once.
fn register_spent(epoll: impl AsFd, registration: &Registration) -> Result<()> {
    let &Registration { fd, events: private, data, .. } = registration;
    let number = epoll.as_fd().as_raw_fd();
    let anything = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::PRI | epoll::EventFlags::RDHUP;
    ckpt_sys::epoll::add(number, fd, anything.bits() | private, data).map_err(errno)?;
    let mut events = Vec::with_capacity(1);
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match epoll::wait(&epoll, spare_capacity(&mut events), Some(&at_once))? {
        0 => ckpt_sys::epoll::modify(number, fd, private, data).map_err(errno),
        _ => Ok(()),
    }
}

fn errno(ckpt_sys::raw::Errno(errno): ckpt_sys::raw::Errno) -> Errno {
    Errno::from_raw_os_error(errno)
}

/// An epoll instance of the job: its index in [`Objects::open_files`], and what it waits for.
fn instances(objects: Objects<'_>) -> impl Iterator<Item = (FileIndex, &[Registration])> {
    (0u32..).map(FileIndex).zip(objects.open_files).filter_map(|(index, file)| Some((index, &file.epoll()?.registrations[..])))
}

/// Registers what any process may register. `open` are all files of the job, by index in [`Objects::open_files`].
///
/// # Errors
/// The kernel refuses a registration: the file cannot be waited for, or watches are used up.
pub fn register_common(context: &dyn Context, open: &[Option<OwnedFd>]) -> std::result::Result<(), RebuildError> {
    let fd_of = |file: FileIndex| open.get(file.at()).and_then(Option::as_ref).map(AsFd::as_fd);
    let is_own = |one: &Registration| is_of_one_process(context.objects(), one.file);
    for (instance, registrations) in instances(context.objects()) {
        let common = || registrations.iter().filter(|one| !is_own(one));
        for registration in common().filter(|one| one.is_spent()).chain(common().filter(|one| !one.is_spent())) {
            join(context, fd_of(instance), fd_of(registration.file), registration, registration.is_spent())?;
        }
    }
    Ok(())
}

/// Registers what only `pid` may register. `fd_of` gives the descriptor that this process has of a file now.
///
/// # Errors
/// As for [`register_common`].
pub fn register_own<'a>(
    context: &dyn Context,
    pid: NsPid,
    fd_of: impl Fn(FileIndex) -> Option<BorrowedFd<'a>>,
) -> std::result::Result<(), RebuildError> {
    let objects = context.objects();
    for (instance, registrations) in instances(objects) {
        for registration in registrations.iter().filter(|one| is_of_one_process(objects, one.file)) {
            if owner(context.objects(), instance, registration) != Some(pid) {
                continue;
            }
            match fd_of(registration.file) {
                // None of them can have errors or hang-ups while it waits for nothing.
                Some(fd) => join(context, fd_of(instance), Some(fd), registration, false)?,
                None => context.note(format!(
                    "process {pid}: its epoll instance no longer waits for descriptor {}, which only another process has",
                    registration.fd
                )),
            }
        }
    }
    Ok(())
}

fn is_of_one_process(objects: Objects<'_>, file: FileIndex) -> bool {
    objects.open_files.get(file.at()).is_some_and(OpenFile::is_of_one_process)
}

/// The process that is taken to have made a registration: the first that has both files open, best under the same number.
fn owner(objects: Objects<'_>, instance: FileIndex, registration: &Registration) -> Option<NsPid> {
    let having =
        |is_it: &dyn Fn(&LiveProcess) -> bool| objects.living().find(|(_, live)| is_it(live)).map(|(process, _)| process.pid);
    let has_instance = |live: &LiveProcess| live.descriptors.iter().any(|entry| entry.file == instance);
    let has = |live: &LiveProcess, number: Option<i32>| {
        let is_it = |entry: &FdEntry| entry.file == registration.file && number.is_none_or(|number| entry.fd == number);
        has_instance(live) && live.descriptors.iter().any(is_it)
    };
    let same_number = having(&|live| has(live, Some(registration.fd)));
    same_number.or_else(|| having(&|live| has(live, None))).or_else(|| having(&has_instance))
}

/// Registers `target` with an instance.
fn join(
    context: &dyn Context,
    instance: Option<BorrowedFd<'_>>,
    target: Option<BorrowedFd<'_>>,
    registration: &Registration,
    spent: bool,
) -> std::result::Result<(), RebuildError> {
    let (Some(instance), Some(target)) = (instance, target) else {
        return Err(RebuildError::Incomplete("what an epoll instance waits for"));
    };
    let number = registration.fd;
    let failed = |error: Errno| RebuildError::call(format!("register descriptor {number} with its epoll instance"))(error);
    // Duplicates: what is moved out of the way below may be one of the two.
    let (instance, target) = (duplicate(instance, number).map_err(failed)?, duplicate(target, number).map_err(failed)?);
    let act = || if spent { register_spent(&instance, registration) } else { register(&instance, registration) };
    let result = number::lend(target.as_raw_fd(), number, act).map_err(errno).flatten();
    let inherited = context.objects().open_files.get(registration.file.at()).is_some_and(|file| file.inherited.is_some());
    match result {
        // The restart's own input or output is of another kind than the launcher's was.
        Err(Errno::PERM) if inherited => {
            context.note(format!(
                "descriptor {number}, which epoll waited for, is now a file that is always ready, and not waited for"
            ));
            Ok(())
        }
        result => result.map_err(failed),
    }
}

/// A duplicate that has not this number.
fn duplicate(fd: BorrowedFd<'_>, not: RawFd) -> Result<OwnedFd> {
    let first = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
    if first.as_raw_fd() == not { rustix::io::fcntl_dupfd_cloexec(fd, 0) } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::FdFlags;
    use rustix::pipe::pipe;

    use super::super::{EpollState, observe};
    use super::*;
    use crate::FileIndex;
    use crate::descriptor::SeenDescriptor;

    const IN: u32 = epoll::EventFlags::IN.bits();
    const OUT: u32 = epoll::EventFlags::OUT.bits();
    const ALWAYS: u32 = epoll::EventFlags::ERR.bits() | epoll::EventFlags::HUP.bits();
    const EDGE: u32 = epoll::EventFlags::ET.bits();
    const ONE_SHOT: u32 = epoll::EventFlags::ONESHOT.bits();
    const EXCLUSIVE: u32 = epoll::EventFlags::EXCLUSIVE.bits();

    fn new() -> OwnedFd {
        rebuild(OFlags::RDWR.bits()).unwrap()
    }

    fn add(epoll: &OwnedFd, fd: impl AsFd, events: u32, data: u64) {
        let registration = Registration { fd: fd.as_fd().as_raw_fd(), file: FileIndex(0), events, data };
        register(epoll, &registration).unwrap();
    }

    /// What is ready now: events and data, in the order of data.
    fn ready(epoll: &OwnedFd) -> Vec<(u32, u64)> {
        let mut events = Vec::with_capacity(16);
        epoll::wait(epoll, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        let mut ready: Vec<_> = events.iter().map(|event| ({ event.flags }.bits(), event.data.u64())).collect();
        ready.sort_by_key(|(_, data)| *data);
        ready
    }

    /// An instance with the same registrations, of the same files under the same numbers.
    fn again(state: &EpollState) -> OwnedFd {
        let epoll = new();
        for registration in state.registrations.iter().filter(|registration| registration.is_spent()) {
            register_spent(&epoll, registration).unwrap();
        }
        for registration in state.registrations.iter().filter(|registration| !registration.is_spent()) {
            register(&epoll, registration).unwrap();
        }
        epoll
    }

    fn all_seen(files: &[BorrowedFd<'_>]) -> Vec<SeenDescriptor> {
        files.iter().map(event::seen).collect()
    }

    #[test]
    fn every_registration_comes_back() {
        let (reader, writer) = pipe().unwrap();
        let semaphore = eventfd(1, EventfdFlags::empty()).unwrap();
        let exclusive = eventfd(0, EventfdFlags::empty()).unwrap();
        let (inner, old) = (new(), new());
        add(&inner, &reader, IN, 7);
        add(&old, &inner, IN, 1);
        add(&old, &reader, IN | EDGE, u64::MAX);
        add(&old, &writer, OUT | EDGE | ONE_SHOT, 3);
        add(&old, &semaphore, IN | ONE_SHOT, 4);
        add(&old, &exclusive, IN | EXCLUSIVE, 5);
        let files = [semaphore.as_fd(), inner.as_fd(), exclusive.as_fd(), reader.as_fd(), writer.as_fd()];
        let state = observe(&event::seen(&old), &all_seen(&files)).unwrap();
        let of = |data| *state.registrations.iter().find(|one| one.data == data).unwrap();
        let fd = |at: usize| files[at].as_raw_fd();
        assert_eq!(of(1), Registration { fd: fd(1), file: FileIndex(1), events: IN | ALWAYS, data: 1 });
        assert_eq!(of(u64::MAX), Registration { fd: fd(3), file: FileIndex(3), events: IN | EDGE | ALWAYS, data: u64::MAX });
        assert_eq!(of(3), Registration { fd: fd(4), file: FileIndex(4), events: OUT | EDGE | ONE_SHOT | ALWAYS, data: 3 });
        assert_eq!(of(4), Registration { fd: fd(0), file: FileIndex(0), events: IN | ONE_SHOT | ALWAYS, data: 4 });
        assert_eq!(of(5), Registration { fd: fd(2), file: FileIndex(2), events: IN | EXCLUSIVE | ALWAYS, data: 5 });
        let new = again(&state);
        assert_eq!(observe(&event::seen(&new), &all_seen(&files)).unwrap(), state);
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(ready(&new), [(IN, 1), (OUT, 3), (IN, 4), (IN, u64::MAX)]);
        // The one-shots have fired and the edge is over; the nested one is ready until the byte is read.
        assert_eq!(ready(&new), [(IN, 1)]);
    }

    #[test]
    fn a_one_shot_that_has_fired_stays_silent() {
        let (reader, writer) = pipe().unwrap();
        let old = new();
        add(&old, &writer, OUT | ONE_SHOT, 1);
        assert_eq!(ready(&old), [(OUT, 1)]);
        let files = [writer.as_fd(), reader.as_fd()];
        let state = observe(&event::seen(&old), &all_seen(&files)).unwrap();
        assert_eq!(state.registrations, [Registration { fd: writer.as_raw_fd(), file: FileIndex(0), events: ONE_SHOT, data: 1 }]);
        let new = again(&state);
        assert_eq!(observe(&event::seen(&new), &all_seen(&files)).unwrap(), state);
        // Not even the end of its last reader is reported.
        drop(reader);
        assert_eq!(ready(&new), []);
        // It can be armed again, so it is registered.
        epoll::modify(&new, &writer, epoll::EventData::new_u64(2), epoll::EventFlags::ERR).unwrap();
        assert_eq!(ready(&new), [(epoll::EventFlags::ERR.bits(), 2)]);
    }

    #[test]
    fn a_closed_descriptor_that_is_still_registered_is_found() {
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        let other = eventfd(0, EventfdFlags::empty()).unwrap();
        let old = new();
        // Two registrations under one number, of two descriptions, neither of which has it any more.
        let number = 400;
        let mut registered = rustix::io::fcntl_dupfd_cloexec(&event, number).unwrap();
        let number = registered.as_raw_fd();
        add(&old, &registered, IN, 1);
        rustix::io::dup2(&other, &mut registered).unwrap();
        add(&old, &registered, IN, 2);
        drop(registered);
        let files = [other.as_fd(), event.as_fd()];
        let state = observe(&event::seen(&old), &all_seen(&files)).unwrap();
        let mut found: Vec<_> = state.registrations.iter().map(|one| (one.fd, one.file.0, one.data)).collect();
        found.sort_by_key(|(_, _, data)| *data);
        assert_eq!(found, [(number, 1, 1), (number, 0, 2)]);
        let error = observe(&event::seen(&old), &all_seen(&files[..1])).unwrap_err();
        assert!(error.to_string().contains(&format!("(it was descriptor {number})")), "{error}");
    }

    #[test]
    fn status_flags_come_back() {
        let fd = rebuild((OFlags::RDWR | OFlags::NONBLOCK).bits()).unwrap();
        assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn a_number_is_lent_and_given_back() {
        let file = rustix::fs::memfd_create("lent", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 77).unwrap();
        let size = |number: i32| std::fs::metadata(format!("/proc/self/fd/{number}")).map_or(0, |meta| meta.len());
        // One that nobody has: above all that other tests open at the same time.
        assert_eq!(number::lend(file.as_raw_fd(), 500, || size(500)), Ok(77));
        assert!(!std::fs::exists("/proc/self/fd/500").unwrap());
        for flags in [FdFlags::CLOEXEC, FdFlags::empty()] {
            let taken = eventfd(0, EventfdFlags::empty()).unwrap();
            rustix::io::fcntl_setfd(&taken, flags).unwrap();
            let lent = number::lend(file.as_raw_fd(), taken.as_raw_fd(), || size(taken.as_raw_fd()));
            assert_eq!(lent, Ok(77));
            assert_eq!(rustix::io::fcntl_getfd(&taken), Ok(flags));
            assert_eq!(rustix::io::write(&taken, &1u64.to_ne_bytes()), Ok(8));
        }
        assert_ne!(duplicate(file.as_fd(), 0).unwrap().as_raw_fd(), 0);
    }
}
