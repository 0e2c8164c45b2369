//! Signal-driven I/O: which signal a description sends, and to whom (`F_SETOWN`, `F_SETSIG`, `O_ASYNC`).
//!
//! Only those who have a description can tell: it is asked through a duplicate, for kinds of files that can send such signals, and for
//! those with leases. A directory that has an owner is one that `F_NOTIFY` watches, which nothing else shows.

use std::io;
use std::os::fd::AsRawFd;

use ckpt_sys::descriptor::{fcntl, owner};
use linux_raw_sys::general::F_GETSIG;
pub use linux_raw_sys::general::{F_OWNER_PGRP, F_OWNER_TID};
use serde::{Deserialize, Serialize};

use crate::descriptor::SeenDescriptor;
use crate::{FileIndex, HostPid, NsPid, event};

mod rebuild;

pub use rebuild::arm;

/// Whom a description sends a signal, when, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalling {
    /// Index into `JobState::open_files`.
    pub file: FileIndex,
    /// A process that has it open, which is to set it.
    pub pid: NsPid,
    /// The descriptor there: the signal's `si_fd`.
    pub fd: i32,
    /// `F_OWNER_*`, and the thread, process or group; nothing where that has ended.
    pub owner: Option<(i32, NsPid)>,
    /// `F_GETSIG`; 0: SIGIO without details.
    pub signal: i32,
    /// `O_ASYNC`.
    pub on: bool,
}

/// Why it cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum SignallingError {
    /// dnotify.
    #[error("a directory that is watched by F_NOTIFY")]
    DirectoryNotify,
    /// The owner is not the job's.
    #[error("a file that sends signals to a process outside of the job")]
    Foreign,
}

/// Whether a description may have anything to tell.
fn may_signal(descriptor: &SeenDescriptor) -> bool {
    let kind = descriptor.mode & libc::S_IFMT;
    let has_lease = || descriptor.info.windows(6).any(|word| word == b" LEASE");
    descriptor.flags & libc::O_PATH as u32 == 0
        && (descriptor.flags & libc::O_ASYNC as u32 != 0
            || matches!(kind, libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFDIR)
            || kind == libc::S_IFCHR && crate::terminal::is_terminal(descriptor)
            || kind == libc::S_IFREG && has_lease())
}

/// What a description is set to. `in_job` gives the job's number of a thread or process (`F_OWNER_TID`, `F_OWNER_PID`) or group.
///
/// # Errors
/// It watches a directory (dnotify), or signals a process outside of the job.
pub fn observe(
    file: FileIndex,
    pid: NsPid,
    descriptor: &SeenDescriptor,
    in_job: impl FnOnce(i32, HostPid) -> Option<NsPid>,
) -> Result<Option<Signalling>, SignallingError> {
    let on = descriptor.flags & libc::O_ASYNC as u32 != 0;
    if !may_signal(descriptor) {
        return Ok(None);
    }
    let seen = event::duplicate(descriptor).and_then(|duplicate| {
        let error = |error: ckpt_sys::raw::Errno| io::Error::from_raw_os_error(error.0);
        let signal = fcntl(duplicate.as_raw_fd(), F_GETSIG, 0).map_err(error)?;
        // One whose owner has ended gives ESRCH.
        let owner = owner(duplicate.as_raw_fd()).unwrap_or((0, 0));
        Ok((owner, i32::try_from(signal).unwrap_or(0)))
    });
    // Where nobody may look, what shows is all there is to know.
    let ((kind, host), signal) = seen.unwrap_or(((0, 0), 0));
    if descriptor.mode & libc::S_IFMT == libc::S_IFDIR {
        return if host == 0 { Ok(None) } else { Err(SignallingError::DirectoryNotify) };
    }
    if host == 0 && signal == 0 && !on {
        return Ok(None);
    }
    let owner = match host {
        0 => None,
        host => Some((kind, in_job(kind, HostPid(host)).ok_or(SignallingError::Foreign)?)),
    };
    Ok(Some(Signalling { file, pid, fd: descriptor.fd, owner, signal, on }))
}
