//! Observing a pidfd.

use super::PidfdState;
use crate::descriptor::{SeenDescriptor, info_field};
use crate::event::{self, EventError};
use crate::{HostPid, NsPid};

/// The pidfd that a descriptor of a frozen process is. `in_job` gives the id that a process has in the job, if it is there.
///
/// # Errors
/// fdinfo cannot be read, or the process is none of the job's.
pub fn observe(descriptor: &SeenDescriptor, in_job: impl FnOnce(HostPid) -> Option<NsPid>) -> Result<PidfdState, EventError> {
    let info = &descriptor.info;
    let pid =
        info_field(info, "Pid:").and_then(|text| text.parse().ok()).ok_or_else(|| event::not_understood("a pidfd", info))?;
    match pid {
        -1 => Ok(PidfdState { process: None }),
        // 0: a process that this namespace does not show.
        pid => in_job(HostPid(pid)).map(|pid| PidfdState { process: Some(pid) }).ok_or(EventError::Foreign),
    }
}
