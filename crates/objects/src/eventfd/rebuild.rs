//! Rebuilds eventfds.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

use super::EventfdState;
use crate::event::{self, failed};
use crate::rebuild::RebuildError;

/// Makes an eventfd with its count, mode and status flags.
///
/// # Errors
/// No descriptor is left.
pub fn rebuild(state: &EventfdState, flags: u32) -> Result<OwnedFd, RebuildError> {
    let mode = if state.semaphore { EventfdFlags::SEMAPHORE } else { EventfdFlags::empty() };
    let fd = eventfd(0, mode | EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed("make an eventfd"))?;
    if state.count > 0 {
        // The last value is the kernel's own mark of an overflow, which no program can write.
        let count = state.count.min(u64::MAX - 1);
        rustix::io::write(&fd, &count.to_ne_bytes()).map_err(failed("set the count of an eventfd"))?;
    }
    event::set_flags(&fd, flags).map_err(failed("set the flags of an eventfd"))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::super::observe;
    use super::*;

    #[test]
    fn it_is_what_it_was() {
        for state in [
            EventfdState { count: 0, semaphore: false },
            EventfdState { count: 3, semaphore: true },
            EventfdState { count: u64::MAX - 1, semaphore: false },
        ] {
            let fd = rebuild(&state, OFlags::RDWR.bits()).unwrap();
            assert_eq!(observe(&event::seen(&fd)).unwrap(), state);
            assert!(!fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
        }
        let fd = rebuild(&EventfdState { count: 0, semaphore: false }, (OFlags::RDWR | OFlags::NONBLOCK).bits()).unwrap();
        assert_eq!(rustix::io::read(&fd, &mut [0; 8]), Err(rustix::io::Errno::AGAIN));
    }
}
