//! Calls on descriptors that rustix lacks. They keep their pointers inside, so they are safe to call with any argument.

use linux_raw_sys::errno::EINVAL;
use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// Bytes of the longest file handle (`MAX_HANDLE_SZ`, include/linux/exportfs.h).
const MAX_HANDLE_SIZE: usize = 128;

/// signalfd(2) on a descriptor that is a signalfd already: sets the signals that it accepts, bit `n - 1` for signal `n`.
///
/// # Errors
/// `EINVAL` where the descriptor is no signalfd.
pub fn signalfd_set_mask(fd: i32, mask: u64) -> Result<(), Errno> {
    // SAFETY: `mask` is read, and lives over the call. With -1 a descriptor is made, which is nobody else's.
    unsafe { syscall!(nr::__NR_signalfd4, fd, &raw const mask, size_of::<u64>(), 0) }.map(|_| ())
}

/// Sets the number of expirations that a read of a timerfd gives; not to 0. Only kernels with `CONFIG_CHECKPOINT_RESTORE` can.
///
/// # Errors
/// `ENOTTY` on kernels that cannot, `EINVAL` for 0.
pub fn timerfd_set_ticks(fd: i32, ticks: u64) -> Result<(), Errno> {
    // SAFETY: `ticks` is read, and lives over the call; whatever the descriptor is open on, the request's number says that eight bytes are read.
    unsafe { syscall!(nr::__NR_ioctl, fd, linux_raw_sys::ioctl::TFD_IOC_SET_TICKS, &raw const ticks) }.map(|_| ())
}

/// open_by_handle_at(2) with `O_PATH`: opens the file that `handle`, of this type, means in the file system of the descriptor
/// `mount`, for as long as `with` looks at it. Needs `CAP_DAC_READ_SEARCH` in the first user namespace.
///
/// # Errors
/// `EINVAL` for a handle that is too long, `ESTALE` for a file that is gone, `EPERM` without the capability.
pub fn with_file_handle<T>(mount: i32, handle_type: i32, handle: &[u8], with: impl FnOnce(i32) -> T) -> Result<T, Errno> {
    /// `struct file_handle` with room for any.
    #[repr(C)]
    struct FileHandle {
        bytes: u32,
        handle_type: i32,
        handle: [u8; MAX_HANDLE_SIZE],
    }
    let mut buffer = FileHandle { bytes: handle.len() as u32, handle_type, handle: [0; MAX_HANDLE_SIZE] };
    buffer.handle.get_mut(..handle.len()).ok_or(Errno(EINVAL as i32))?.copy_from_slice(handle);
    // SAFETY: `buffer` is a whole file handle, read, and lives over the call.
    let fd = unsafe { syscall!(nr::__NR_open_by_handle_at, mount, &raw const buffer, nr::O_PATH | nr::O_CLOEXEC) }? as i32;
    let result = with(fd);
    // SAFETY: the descriptor was made here, and `with` could not take it over.
    let _ = unsafe { syscall!(nr::__NR_close, fd) };
    Ok(result)
}

/// fcntl(2) with a command that takes a number, or nothing.
///
/// # Errors
/// `EINVAL` for a command that takes a pointer, and for one that the kernel does not know.
pub fn fcntl(fd: i32, command: u32, argument: u64) -> Result<u64, Errno> {
    // Commands of x86-64 that take a pointer: F_GETLK to F_SETLKW, F_SETOWN_EX to F_GETOWNER_UIDS, F_OFD_*, F_*_RW_HINT.
    if matches!(command, 5..=7 | 15..=17 | 36..=38 | 1035..=1038) {
        return Err(Errno(EINVAL as i32));
    }
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_fcntl, fd, command, argument) }
}

/// fcntl(2), `F_OFD_SETLK`: sets a record lock of an open file description, given as a `struct flock` of x86-64.
///
/// # Errors
/// `EAGAIN` where another lock is in the way.
pub fn set_record_lock(fd: i32, lock: &[u64; 4]) -> Result<(), Errno> {
    // SAFETY: `lock` is read, has the size of the struct, and lives over the call.
    unsafe { syscall!(nr::__NR_fcntl, fd, nr::F_OFD_SETLK, lock.as_ptr()) }.map(|_| ())
}

/// fcntl(2), `F_GETOWN_EX`: the kind (`F_OWNER_*`) and number of the process, thread or group that a descriptor sends signals to; the number 0
/// is nobody's.
///
/// # Errors
/// `EBADF` where the descriptor is not open.
pub fn owner(fd: i32) -> Result<(i32, i32), Errno> {
    let mut owner = [0i32; 2];
    // SAFETY: the command writes two numbers of four bytes, and `owner` lives over the call.
    unsafe { syscall!(nr::__NR_fcntl, fd, nr::F_GETOWN_EX, owner.as_mut_ptr()) }.map(|_| (owner[0], owner[1]))
}
