//! A file as the `*at` calls name it, and the calls that look at it.

use core::ffi::{c_char, c_int};

use ckpt_sys::raw::Errno;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::touched::Identity;
use linux_raw_sys::errno::EFBIG;
use linux_raw_sys::general as nr;

use crate::call::{self, Fd};

/// A file as the `*at` calls name it.
#[derive(Clone, Copy)]
pub struct Place {
    /// The directory that the path is relative to.
    pub dir: c_int,
    /// The path; null: the file that `dir` is open on.
    pub path: *const c_char,
    /// `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`.
    pub flags: u32,
}

impl Place {
    /// A path, its last symbolic link followed.
    pub fn followed(dir: c_int, path: *const c_char) -> Self {
        Self { dir, path, flags: 0 }
    }

    /// A path, its last symbolic link not followed.
    pub fn itself(dir: c_int, path: *const c_char) -> Self {
        Self { dir, path, flags: nr::AT_SYMLINK_NOFOLLOW }
    }

    /// What a descriptor is open on.
    pub fn descriptor(fd: c_int) -> Self {
        Self { dir: fd, path: core::ptr::null(), flags: nr::AT_EMPTY_PATH }
    }

    /// Whether its last symbolic link is followed.
    pub fn follows(&self) -> bool {
        self.flags & nr::AT_SYMLINK_NOFOLLOW == 0
    }
}

/// The fields that tell one file from another. The times of changes are not among them: after a look at those, the kernel gives the next write a time of its own, and
/// writes the inode (multigrain timestamps, Linux 6.13), which takes longer than all the rest.
pub const WHO: u32 = nr::STATX_TYPE | nr::STATX_NLINK | nr::STATX_INO | nr::STATX_BTIME;
/// The fields that a record has.
pub const ALL: u32 = nr::STATX_BASIC_STATS | nr::STATX_BTIME;

/// Asks for the state of a file: `wanted` is of `STATX_*`, `sync` of `AT_STATX_SYNC_TYPE`.
///
/// # Safety
/// The path must be null, or what the program passed to a system call.
#[inline]
pub unsafe fn state(place: Place, sync: u32, wanted: u32) -> Result<nr::statx, Errno> {
    let path = if place.path.is_null() { c"".as_ptr() } else { place.path };
    let mut stat = core::mem::MaybeUninit::<nr::statx>::uninit();
    // SAFETY: the kernel checks the path, and fills in the whole structure if it succeeds.
    unsafe {
        syscall!(nr::__NR_statx, place.dir, path, place.flags | sync, wanted, stat.as_mut_ptr())?;
        Ok(stat.assume_init())
    }
}

/// The identity of a file.
pub fn identity(stat: &nr::statx) -> Identity {
    let (major, minor) = (u64::from(stat.stx_dev_major), u64::from(stat.stx_dev_minor));
    // makedev(3).
    let device = (major & !0xfff) << 32 | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (minor & 0xff);
    let born_ns = if stat.stx_mask & nr::STATX_BTIME != 0 { nanoseconds(&stat.stx_btime) } else { 0 };
    Identity { device, inode: stat.stx_ino, born_ns }
}

/// Nanoseconds since the epoch.
pub fn nanoseconds(time: &nr::statx_timestamp) -> i64 {
    time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(i64::from(time.tv_nsec))
}

/// The file type of a mode.
pub fn kind(stat: &nr::statx) -> u32 {
    u32::from(stat.stx_mode) & nr::S_IFMT
}

/// A write has failed. Where it went past `RLIMIT_FSIZE`, the kernel has sent a signal that is not meant for the program.
pub fn after_failed_write(errno: Errno) {
    if errno.0 == EFBIG as i32 {
        let set = SignalSet::of(nr::SIGXFSZ as i32);
        let no_wait = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time live over the call. The signal is blocked: see `note::Quiet`.
        let _ = unsafe { syscall!(nr::__NR_rt_sigtimedwait, set.as_ptr(), 0, &raw const no_wait, 8) };
    }
}

/// Makes a call again as long as it is interrupted.
pub fn again(mut call: impl FnMut() -> Result<u64, Errno>) -> Result<u64, Errno> {
    loop {
        match call() {
            Err(Errno(call::nr_errno::EINTR)) => (),
            result => return result,
        }
    }
}

/// Opens a path relative to a directory.
///
/// # Safety
/// The path must be a C string, or what the kernel has read already.
pub unsafe fn open_at(dir: c_int, path: *const c_char, flags: u32) -> Result<Fd, Errno> {
    const OWNER_ONLY: u32 = 0o600;
    // SAFETY: the caller's promise.
    let fd = again(|| unsafe { syscall!(nr::__NR_openat, dir, path, flags | nr::O_CLOEXEC, OWNER_ONLY) })?;
    Ok(Fd(fd as i32))
}
