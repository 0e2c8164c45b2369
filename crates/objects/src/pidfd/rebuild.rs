//! Rebuilds pidfds.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::NsPid;
use crate::event::{self, failed};
use crate::rebuild::RebuildError;

/// Opens a pidfd of a process that is there, alive or not yet waited for, with its status flags.
///
/// # Errors
/// No process has that number.
pub fn rebuild(process: NsPid, flags: u32) -> Result<OwnedFd, RebuildError> {
    let failed_to_open = failed("open a pidfd of a process of the job");
    let Some(pid) = Pid::from_raw(process.0) else { return Err(failed_to_open(rustix::io::Errno::SRCH)) };
    // PIDFD_THREAD (Linux 6.9), which for the first thread differs in when it reports the end.
    let thread = PidfdFlags::from_bits_retain(flags & OFlags::EXCL.bits());
    let fd = pidfd_open(pid, thread).map_err(failed_to_open)?;
    event::set_flags(&fd, flags).map_err(failed("set the flags of a pidfd"))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use rustix::fs::fcntl_getfl;

    use super::super::{PidfdState, observe};
    use super::*;
    use crate::HostPid;
    use crate::event::EventError;

    #[test]
    fn it_is_of_the_same_process() {
        let own = std::process::id().cast_signed();
        let fd = rebuild(NsPid(own), (OFlags::RDWR | OFlags::NONBLOCK).bits()).unwrap();
        assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
        let in_job = |pid: HostPid| (pid.0 == own).then_some(NsPid(77));
        assert_eq!(observe(&event::seen(&fd), in_job).unwrap(), PidfdState { process: Some(NsPid(77)) });
        assert!(matches!(observe(&event::seen(&fd), |_| None), Err(EventError::Foreign)));
    }

    #[test]
    fn a_process_that_is_gone_is_seen_to_be() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let fd = rebuild(NsPid(child.id().cast_signed()), 2).unwrap();
        child.wait().unwrap();
        assert_eq!(observe(&event::seen(&fd), |_| None).unwrap(), PidfdState { process: None });
    }
}
