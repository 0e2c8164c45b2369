//! Receivers of signals, set again.

use linux_raw_sys::general as nr;

use crate::deferred::{Argument, Deferred, OnFailure, Purpose};
use crate::{NsPid, Objects};

/// Calls by which process `pid` sets whom its descriptions send signals. Those must exist by then.
#[must_use]
pub fn arm(objects: Objects<'_>, pid: NsPid) -> Deferred {
    let mut deferred = Deferred::default();
    let set = |deferred: &mut Deferred, on_failure, fd: i32, command: u32, argument: Argument| {
        deferred.call(Purpose::Owner, on_failure, nr::__NR_fcntl, &[fd.into(), command.into(), argument]);
    };
    for one in objects.signalling.iter().filter(|one| one.pid == pid) {
        if one.signal != 0 {
            set(&mut deferred, OnFailure::Fail, one.fd, nr::F_SETSIG, one.signal.into());
        }
        if let Some((kind, owner)) = one.owner {
            let owner = deferred.put(&[kind.to_ne_bytes(), owner.0.to_ne_bytes()].concat());
            // A thread of another process may not be there yet.
            set(&mut deferred, OnFailure::Report, one.fd, nr::F_SETOWN_EX, owner);
        }
        let flags = objects.open_files.get(one.file.at()).map_or(0, |file| file.flags);
        if one.on {
            set(&mut deferred, OnFailure::Fail, one.fd, nr::F_SETFL, flags.into());
        }
    }
    deferred
}
