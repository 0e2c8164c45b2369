//! Rebuilds signalfds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use ckpt_sys::descriptor::signalfd_set_mask;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::SignalfdState;
use crate::event::{self, failed};
use crate::rebuild::RebuildError;

/// Makes a signalfd with its mask and status flags.
///
/// # Errors
/// No descriptor is left.
pub fn rebuild(state: &SignalfdState, flags: u32) -> Result<OwnedFd, RebuildError> {
    // nix knows no real-time signals: the mask is set as a whole afterwards.
    let fd = SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_CLOEXEC).map_err(failed("make a signalfd"))?;
    let fd = OwnedFd::from(fd);
    signalfd_set_mask(fd.as_raw_fd(), state.mask)
        .map_err(|error| failed("set the signals of a signalfd")(io::Error::from_raw_os_error(error.0)))?;
    event::set_flags(&fd, flags).map_err(failed("set the flags of a signalfd"))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::super::observe;
    use super::*;

    #[test]
    fn its_signals_are_the_same_but_for_the_checkpoint_signal() {
        // SIGHUP, SIGUSR1 and the last real-time signals; SIGKILL cannot be asked for.
        let mask = 1 | 1 << 9 | 1 << 62 | 1 << 63;
        let fd = rebuild(&SignalfdState { mask }, (OFlags::RDWR | OFlags::NONBLOCK).bits()).unwrap();
        assert_eq!(observe(&event::seen(&fd), 40).unwrap(), SignalfdState { mask });
        assert_eq!(observe(&event::seen(&fd), 63).unwrap(), SignalfdState { mask: 1 | 1 << 9 | 1 << 63 });
        assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
        assert!(!fcntl_getfl(rebuild(&SignalfdState { mask }, 2).unwrap()).unwrap().contains(OFlags::NONBLOCK));
    }
}
