//! Observing an eventfd.

use std::io;
use std::os::fd::AsFd;

use super::EventfdState;
use crate::descriptor::{SeenDescriptor, info_field};
use crate::event::{self, EventError};

/// The eventfd that a descriptor of a frozen process is open on.
///
/// Kernels before 6.5 do not show `EFD_SEMAPHORE` (`eventfd-semaphore` in fdinfo): there it is found out by a read that is made good
/// at once, and where the process may not be traced, taken not to be set.
///
/// # Errors
/// fdinfo cannot be read, or the count that a read took cannot be given back.
pub fn observe(descriptor: &SeenDescriptor) -> Result<EventfdState, EventError> {
    let info = &descriptor.info;
    let count = event::number(info, "eventfd-count:", 16).ok_or_else(|| event::not_understood("an eventfd", info))?;
    let semaphore = match info_field(info, "eventfd-semaphore:") {
        Some(text) => text != "0",
        None => event::duplicate(descriptor).is_ok_and(|fd| is_semaphore(&fd, count).unwrap_or(false)),
    };
    Ok(EventfdState { count, semaphore })
}

/// Whether a read takes one. Leaves the count as it is, which must be `count`: nobody else may use the eventfd.
fn is_semaphore(fd: impl AsFd, count: u64) -> io::Result<bool> {
    let read = || -> io::Result<u64> {
        let mut taken = [0; 8];
        rustix::io::read(&fd, &mut taken)?;
        Ok(u64::from_ne_bytes(taken))
    };
    let write = |more: u64| rustix::io::write(&fd, &more.to_ne_bytes()).map(|_| ());
    // With two or more in it, what a read takes tells.
    let added = 2u64.saturating_sub(count);
    if added > 0 {
        write(added)?;
    }
    let semaphore = read()? == 1;
    match (semaphore, added) {
        (true, 0) => write(1)?,
        (true, _) => (1..added).try_for_each(|_| read().map(|_| ()))?,
        (false, _) if count > 0 => write(count)?,
        (false, _) => (),
    }
    Ok(semaphore)
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn count_and_mode_are_seen_and_stay() {
        for (count, semaphore) in [(0u32, false), (1, true), (7, false), (u32::MAX, true)] {
            let mode = if semaphore { EventfdFlags::SEMAPHORE } else { EventfdFlags::empty() };
            let fd = eventfd(count, mode).unwrap();
            let state = EventfdState { count: count.into(), semaphore };
            assert_eq!(observe(&event::seen(&fd)).unwrap(), state);
            assert_eq!(is_semaphore(&fd, count.into()).unwrap(), semaphore);
            // As on a kernel that does not show the mode.
            let mut older = event::seen(&fd);
            older.info = format!("eventfd-count: {count:16x}\n").into_bytes();
            assert_eq!(observe(&older).unwrap(), state);
            assert_eq!(observe(&event::seen(&fd)).unwrap(), state);
        }
    }
}
