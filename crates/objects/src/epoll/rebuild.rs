//! Epoll instances made anew.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Result;

use super::Registration;
use crate::event::{self, failed};
use crate::rebuild::RebuildError;

/// Makes an epoll instance with its status flags, which waits for nothing yet.
pub fn rebuild(flags: u32) -> std::result::Result<OwnedFd, RebuildError> {
    let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("make an epoll instance"))?;
    event::set_flags(&fd, flags).map_err(failed("set the flags of an epoll instance"))?;
    Ok(fd)
}

/// Registers a file, whose descriptor must have the number `registration.fd` in this process; it may be closed afterwards.
pub fn register(epoll: impl AsFd, target: BorrowedFd<'_>, registration: &Registration) -> Result<()> {
    epoll::add(epoll, target, data(registration), epoll::EventFlags::from_bits_retain(registration.events))
}

/// As [`register`], for a one-shot registration that has fired. Must be called before all that have not: it takes what is ready.
///
/// The kernel adds errors and hang-ups to whatever is registered, so a registration that waits for nothing comes only from one
/// that fired. Where the file is not ready for anything, and later has an error or hang-up, that is reported once.
pub fn register_spent(epoll: impl AsFd, target: BorrowedFd<'_>, registration: &Registration) -> Result<()> {
    let private = epoll::EventFlags::from_bits_retain(registration.events);
    let anything = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::PRI | epoll::EventFlags::RDHUP;
    epoll::add(&epoll, target, data(registration), anything | private)?;
    let mut events = Vec::with_capacity(1);
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match epoll::wait(&epoll, spare_capacity(&mut events), Some(&at_once))? {
        0 => epoll::modify(epoll, target, data(registration), private),
        _ => Ok(()),
    }
}

fn data(registration: &Registration) -> epoll::EventData {
    epoll::EventData::new_u64(registration.data)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{OFlags, fcntl_getfl};
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
        register(epoll, fd.as_fd(), &registration).unwrap();
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
    fn again(state: &EpollState, files: &[BorrowedFd<'_>]) -> OwnedFd {
        let epoll = new();
        for registration in state.registrations.iter().filter(|registration| registration.is_spent()) {
            register_spent(&epoll, files[registration.file.at()], registration).unwrap();
        }
        for registration in state.registrations.iter().filter(|registration| !registration.is_spent()) {
            register(&epoll, files[registration.file.at()], registration).unwrap();
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
        let new = again(&state, &files);
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
        let new = again(&state, &files);
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
}
