//! `clone3` as a fork that chooses the child's pid and namespaces.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The child.
    Child,
    /// The parent; the child's pid as the parent sees it.
    Parent(i32),
}

/// Forks with `flags` (`CLONE_NEW*`), giving the child `pid` in its pid namespace where one is named (Linux 5.5; needs
/// `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` in the namespace). The child's end is told to the parent by `SIGCHLD`.
///
/// # Errors
/// `EAGAIN`, `ENOMEM` where a limit is reached, `EEXIST` where the pid is taken, `EPERM` without the capability.
///
/// # Safety
/// As fork(2) without libc's knowledge: the process must have one thread, and hold no lock that the child may want.
pub unsafe fn fork(flags: u64, pid: Option<i32>) -> Result<Fork, Errno> {
    // SAFETY: the caller's promise.
    unsafe { fork_telling(flags, pid, nr::SIGCHLD as i32) }
}

/// As [`fork`], with another signal that tells the parent of the child's end; 0: none.
///
/// # Errors
/// As for [`fork`].
///
/// # Safety
/// As for [`fork`].
pub unsafe fn fork_telling(flags: u64, pid: Option<i32>, exit_signal: i32) -> Result<Fork, Errno> {
    let pids = [pid.unwrap_or(0)];
    let args = nr::clone_args {
        flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(exit_signal.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: if pid.is_some() { pids.as_ptr() as u64 } else { 0 },
        set_tid_size: u64::from(pid.is_some()),
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM the child has a copy of all memory and goes on from here; `args` and `pids` live over the call.
    match unsafe { syscall!(nr::__NR_clone3, &raw const args, size_of::<nr::clone_args>()) }? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(child as i32)),
    }
}
