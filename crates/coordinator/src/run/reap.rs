//! Learns which processes have ended: the coordinator's own children, and what the stand-in reports after a restart.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use ckpt_objects::HostPid;
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};

use super::{Coordinator, LOOK, Watch};

impl Coordinator {
    /// Waits for processes that have ended: the first, orphans of the job's, twins.
    pub(super) fn reap(&mut self) {
        // When the checkpoint is over, this is looked after.
        let checkpointer = Arc::clone(&self.checkpointer);
        let Some(_nobody_traces) = checkpointer.waiting.to_wait() else { return };
        loop {
            match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid.as_raw(), code << 8),
                Ok(WaitStatus::Signaled(pid, signal, core)) => {
                    self.ended(pid.as_raw(), signal as i32 | if core { 0x80 } else { 0 });
                }
                Ok(WaitStatus::StillAlive) => {
                    // Only the children that it had before the job are left.
                    let anchor = &checkpointer.anchor;
                    self.all_ended |= self.first_status.is_some() && anchor.has_earlier() && anchor.scan().is_empty();
                    break;
                }
                Ok(_) => (),
                // A real-time signal ended it, for which nix has no name, or there is no child any more.
                Err(nix::Error::EINVAL) => (),
                Err(_) => {
                    if matches!(self.watch, Watch::Child(_)) {
                        self.all_ended = true;
                    }
                    break;
                }
            }
        }
        if let Watch::Report(report) = &self.watch
            && !self.all_ended
        {
            let mut fds = [PollFd::new(report, PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
                let mut status = [0u8; 4];
                match rustix::io::read(report, &mut status) {
                    Ok(4) => match i32::from_le_bytes(status) {
                        signal @ ..0 => {
                            // As if it had been sent here, as it was before the restart.
                            if let Some(signal) = Signal::from_named_raw(-signal) {
                                let _ = kill_process(rustix::process::getpid(), signal);
                            }
                        }
                        status => {
                            self.first_status = Some(status);
                            self.info.first_status = Some(status);
                        }
                    },
                    _ => self.all_ended = true,
                }
            }
        }
    }

    pub(super) fn ended(&mut self, pid: i32, status: i32) {
        self.helpers.ended(pid, ExitStatus::from_raw(status));
        self.checkpointer.anchor.reaped(HostPid(pid));
        if matches!(self.watch, Watch::Child(first) if first.as_raw_nonzero().get() == pid) {
            self.first_status = Some(status);
            self.info.first_status = Some(status);
        }
    }

    /// Waits for something that depends on commands of its own, which only this thread reaps.
    pub(super) fn wait_for<T>(&mut self, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            self.reap();
            if let Some(found) = look(self) {
                return found;
            }
            std::thread::sleep(LOOK);
        }
    }
}
