//! Children that do one thing and end, and the end of this process.

use linux_raw_sys::errno::{EBUSY, EEXIST, EINTR};
use linux_raw_sys::general as nr;

use crate::fork::{Fork, fork};
use crate::raw::Errno;
use crate::syscall;

/// A pid that is in use.
const IN_USE: i32 = EEXIST as i32;
/// What a child may share, or have of its own.
const FLAGS: u32 = nr::CLONE_FILES | nr::CLONE_NEWNS;

/// Forks a child that does `work` and exits with the code that it gives; `flags` are `CLONE_FILES` and `CLONE_NEWNS`. It has `pid`
/// where that is named and free. Gives its pid; the caller waits for it.
///
/// With `CLONE_FILES` both have one descriptor table: what `work` owns is the child's to close.
///
/// # Errors
///
/// `EBUSY` where this process has more than one thread: another may hold a lock that the child would wait for. Else what clone3(2) gives.
pub fn spawn(flags: u32, pid: Option<i32>, work: impl FnOnce() -> u8) -> Result<i32, Errno> {
    wait_for_threads()?;
    // SAFETY: this process has one thread, so that no lock is held but by itself; the child ends without returning from here.
    let forked = match unsafe { fork(u64::from(flags & FLAGS), pid) } {
        // SAFETY: as above.
        Err(Errno(IN_USE)) if pid.is_some() => unsafe { fork(u64::from(flags & FLAGS), None) },
        forked => forked,
    };
    match forked? {
        Fork::Child => exit(work().into()),
        Fork::Parent(child) => {
            core::mem::forget(work);
            Ok(child)
        }
    }
}

/// Makes a child that shares this process's descriptors until this process is gone. `own` is a pidfd of this process.
///
/// Closing a file may wait for its file system (`f_op->flush` of FUSE and NFS). A process that ends closes its files, and is gone only then. With
/// such a child, that is the child's to do.
///
/// # Errors
///
/// What clone3(2) gives.
pub fn leave_descriptors(own: i32) -> Result<i32, Errno> {
    // SAFETY: other threads may hold any lock; the child takes none, makes system calls only, and ends without returning from here.
    match unsafe { fork(u64::from(nr::CLONE_FILES), None) }? {
        Fork::Parent(child) => Ok(child),
        Fork::Child => {
            let mut gone = nr::pollfd { fd: own, events: nr::POLLIN as i16, revents: 0 };
            // SAFETY: `gone` lives over the call, there is no time-out and no mask.
            while unsafe { syscall!(nr::__NR_ppoll, &raw mut gone, 1, 0, 0, 0) } == Err(Errno(EINTR as i32)) {}
            for standard in 0..3 {
                // Whoever reads what the process has written waits for no disk. SAFETY: takes a number only.
                let _ = unsafe { syscall!(nr::__NR_close, standard) };
            }
            exit(0)
        }
    }
}

/// Ends this process, and all its threads, without running what anybody registered for its end.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes a number only, and does not return.
        let _ = unsafe { syscall!(nr::__NR_exit_group, code) };
    }
}

/// Waits until this process has no thread but this one. The kernel counts one that has been joined for a moment longer.
fn wait_for_threads() -> Result<(), Errno> {
    let pause = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    const PAUSES: u32 = 1000;
    for _ in 0..PAUSES {
        if has_one_thread()? {
            return Ok(());
        }
        // SAFETY: the time is read, and lives over the call; what is left of it is not wanted.
        let _ = unsafe { syscall!(nr::__NR_nanosleep, &raw const pause, 0) };
    }
    Err(Errno(EBUSY as i32))
}

/// Whether this process has one thread: its task directory has two links more than it has threads.
fn has_one_thread() -> Result<bool, Errno> {
    let mut stat = core::mem::MaybeUninit::<nr::stat>::zeroed();
    let path = c"/proc/self/task";
    // SAFETY: the path ends with a zero byte, and `stat` is written; both live over the call.
    unsafe { syscall!(nr::__NR_newfstatat, nr::AT_FDCWD, path.as_ptr(), stat.as_mut_ptr(), 0) }?;
    // SAFETY: the call succeeded; and zeroes are a valid value.
    Ok(unsafe { stat.assume_init() }.st_nlink == 3)
}
