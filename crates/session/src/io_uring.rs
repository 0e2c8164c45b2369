//! Programs of a job that would use io_uring(7): requests in flight cannot be seen, so that a job with a ring cannot be checkpointed.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};
use serde::{Deserialize, Serialize};

/// Whether programs may make rings. Those that may not are told that the kernel has none (`ENOSYS`), for which they must be prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoUring {
    /// Not by the C library's `syscall`, which the agent's library has in its hands: libuv (Node.js, uvloop) does so.
    #[default]
    ByItself,
    /// In any way.
    Allowed,
    /// In no way: a filter of system calls forbids it.
    Forbidden,
}

/// Forbids this process, and all that descend from it, to use io_uring. None of them gains privileges by exec(2) any more
/// (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// The kernel has no filters of system calls.
pub fn forbid() -> io::Result<()> {
    filter().map_err(io::Error::other)
}

fn filter() -> Result<(), seccompiler::Error> {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules: BTreeMap<i64, Vec<_>> = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let told = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, told, TargetArch::x86_64)?.try_into()?;
    apply_filter_all_threads(&filter)
}
