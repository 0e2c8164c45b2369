//! Operations of the restorer that take each process's POSIX locks, and set the receivers of its descriptions' signals. The receivers must
//! exist by then.

use ckpt_objects::NsPid;
use ckpt_objects::file_lock::{self, Holder};
use ckpt_session::JobState;
use linux_raw_sys::general as nr;

use crate::restorer::{Check, Operations, Region, RegionFull, Step};

/// Adds the operations by which a process takes its POSIX locks.
pub fn record_locks(job: &JobState, pid: NsPid, region: &mut Region, list: &mut Operations) -> Result<(), RegionFull> {
    for lock in &job.locks {
        if lock.holder == Holder::Process(pid) {
            let record = region.put_words(&file_lock::record(lock))?;
            let fd = u64::from(lock.fd.cast_unsigned());
            list.call(Step::FileLock, Check::Success, nr::__NR_fcntl, &[fd, nr::F_SETLK.into(), record]);
        }
    }
    Ok(())
}

/// Adds the operations by which a process sets whom its descriptions send signals.
pub fn signals(job: &JobState, pid: NsPid, region: &mut Region, list: &mut Operations) -> Result<(), RegionFull> {
    for one in job.signalling.iter().filter(|one| one.pid == pid) {
        let fd = u64::from(one.fd.cast_unsigned());
        if one.signal != 0 {
            let signal = u64::from(one.signal.cast_unsigned());
            list.call(Step::Owner, Check::Success, nr::__NR_fcntl, &[fd, nr::F_SETSIG.into(), signal]);
        }
        if let Some((kind, owner)) = one.owner {
            let owner = region.put(&[kind.to_ne_bytes(), owner.0.to_ne_bytes()].concat())?;
            // A thread of another process may not be there yet.
            list.call(Step::Owner, Check::Report, nr::__NR_fcntl, &[fd, nr::F_SETOWN_EX.into(), owner]);
        }
        let flags = job.open_files.get(one.file.at()).map_or(0, |file| file.flags);
        if one.on {
            list.call(Step::Owner, Check::Success, nr::__NR_fcntl, &[fd, nr::F_SETFL.into(), flags.into()]);
        }
    }
    Ok(())
}
