//! Keeping the contents of a file before they change: by a second name where the file is about to lose its last one, else by a copy.

use core::ffi::c_char;

use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::touched::UNDO_PREFIX;
use linux_raw_sys::errno::{ENXIO, EPERM};
use linux_raw_sys::{general as nr, ioctl};

use super::path::Target;
use super::place::{after_failed_write, again, open_at};
use crate::call::{self, Fd};
use crate::procfs::{self, descriptor_link};

/// A file below this size is copied rather than given a second name. A program may ask by `st_nlink` whether its lock file is still there.
const SMALL: u64 = 64 << 10;
/// What is left free on the file system, beside as much again as is copied.
const MARGIN: u64 = 64 << 20;
/// Bytes that are copied at once where the kernel does not do it.
const BLOCK: usize = 2048;

/// The name of a file with kept contents.
pub struct Name(procfs::Path);

impl Name {
    /// A name that no other file has.
    pub fn new(segment: u64) -> Self {
        let mut now = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is written to `now`.
        let _ = unsafe { syscall!(nr::__NR_clock_gettime, nr::CLOCK_REALTIME, &raw mut now) };
        let now = now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec).cast_unsigned();
        let mut digits = [0u8; 16];
        for (i, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(now >> (4 * i)) as usize % 16];
        }
        let name = procfs::Path::new().text(UNDO_PREFIX.as_bytes()).number(segment).text(b".");
        Self(name.number(call::gettid() as u64).text(b".").text(&digits))
    }

    /// Its characters.
    pub fn text(&self) -> &[u8] {
        self.0.as_bytes().strip_suffix(b"\0").unwrap_or(b"")
    }

    fn as_ptr(&self) -> *const c_char {
        self.0.as_bytes().as_ptr().cast()
    }
}

/// Removes kept contents.
pub fn remove(dir: &Fd, name: &Name) {
    // SAFETY: the name is a C string.
    let _ = unsafe { syscall!(nr::__NR_unlinkat, dir.0, name.as_ptr(), 0) };
}

/// Keeps the contents of a file under this name; false where they cannot be. `largest` is the most bytes that are kept.
pub fn keep(dir: &Fd, largest: u64, target: &Target, stat: &nr::statx, goes: bool, name: &Name) -> bool {
    // A file with holes takes less than its size.
    let bytes = stat.stx_size.min(stat.stx_blocks.saturating_mul(512));
    if bytes > largest {
        return false;
    }
    let may_link = goes && stat.stx_nlink == 1;
    let by_link = || may_link && link(dir, target, name);
    let by_copy = || has_room(dir, bytes) && copy(dir, target, stat.stx_size, name);
    let links_first = stat.stx_size >= SMALL;
    links_first && by_link() || by_copy() || !links_first && by_link()
}

fn link(dir: &Fd, target: &Target, name: &Name) -> bool {
    let path = descriptor_link(target.fd());
    let (proc, from) = call::at_proc(path.as_bytes());
    let from = from.as_ptr();
    // SAFETY: both paths end with a zero byte.
    unsafe { syscall!(nr::__NR_linkat, proc, from, dir.0, name.as_ptr(), nr::AT_SYMLINK_FOLLOW) }.is_ok()
}

fn has_room(dir: &Fd, bytes: u64) -> bool {
    // SAFETY: all fields are numbers, and the call writes one structure.
    let stat = unsafe {
        let mut stat: nr::statfs = core::mem::zeroed();
        if syscall!(nr::__NR_fstatfs, dir.0, &raw mut stat).is_err() {
            return false;
        }
        stat
    };
    (stat.f_bavail as u64).saturating_mul(stat.f_bsize as u64) >= bytes.saturating_mul(2).saturating_add(MARGIN)
}

fn copy(dir: &Fd, target: &Target, size: u64, name: &Name) -> bool {
    let Some(from) = open_contents(target) else { return false };
    let flags = nr::O_WRONLY | nr::O_CREAT | nr::O_EXCL;
    // SAFETY: the name is a C string.
    let to = unsafe { open_at(dir.0, name.as_ptr(), flags) };
    let copied = to.is_ok_and(|to| {
        let copied = copy_contents(&from, &to, size);
        if !copied {
            remove(dir, name);
        }
        copied
    });
    close(from);
    copied
}

fn open_contents(target: &Target) -> Option<Fd> {
    let path = descriptor_link(target.fd());
    let (proc, path) = call::at_proc(path.as_bytes());
    let path = path.as_ptr().cast();
    let flags = nr::O_RDONLY | nr::O_NONBLOCK | nr::O_NOCTTY;
    // SAFETY: the path ends with a zero byte.
    unsafe {
        match open_at(proc, path, flags | nr::O_NOATIME) {
            Err(Errno(errno)) if errno == EPERM as i32 => open_at(proc, path, flags).ok(),
            opened => opened.ok(),
        }
    }
}

/// Closes a file of the program's. That would take away all record locks that the process has on it (fcntl(2)): where there may be such a lock it is left
/// open.
pub fn close(file: Fd) {
    // A lock of an open file description is in the way of any other, so asking by one shows the process's own.
    let mut lock = nr::flock { l_type: nr::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the lock is a `struct flock`, which is written.
    let asked = unsafe { syscall!(nr::__NR_fcntl, file.0, nr::F_OFD_GETLK, &raw mut lock) };
    // The owner of a lock of an open file description is -1.
    if asked.is_ok() && lock.l_type != nr::F_UNLCK as i16 && lock.l_pid != -1 {
        core::mem::forget(file);
    }
}

fn copy_contents(from: &Fd, to: &Fd, size: u64) -> bool {
    if size <= BLOCK as u64 {
        return copy_range(from, to, 0, size);
    }
    // SAFETY: takes numbers only.
    if unsafe { syscall!(nr::__NR_ioctl, to.0, ioctl::FICLONE, from.0) }.is_ok() {
        return true;
    }
    let mut at = 0;
    while at < size {
        let (start, end) = data_from(from, at, size);
        if start < end && !copy_data(from, to, start, end) {
            return false;
        }
        at = end;
    }
    // The file may end with a hole.
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_ftruncate, to.0, size) }.map_err(after_failed_write).is_ok()
}

/// The next range that has data; an empty one at the end where there is none.
fn data_from(from: &Fd, at: u64, size: u64) -> (u64, u64) {
    // SAFETY: takes numbers only; the offset of this open file is nobody else's.
    let seek = |at: u64, whence: u32| unsafe { syscall!(nr::__NR_lseek, from.0, at, whence) };
    match seek(at, nr::SEEK_DATA) {
        Ok(start) if start < size => {
            let end = seek(start, nr::SEEK_HOLE).unwrap_or(size).min(size);
            (start, if end > start { end } else { size })
        }
        Ok(_) => (size, size),
        Err(Errno(errno)) if errno == ENXIO as i32 => (size, size),
        Err(_) => (at, size),
    }
}

/// How many bytes a call has copied; nothing where copying by this call ends: the file has been cut meanwhile, or the call cannot copy it.
fn copied_by(outcome: Result<u64, Errno>) -> Option<u64> {
    match outcome {
        Ok(0) => None,
        Ok(copied) => Some(copied),
        Err(Errno(call::nr_errno::EINTR)) => Some(0),
        Err(errno) => {
            after_failed_write(errno);
            None
        }
    }
}

/// Copies a range by the first call that can.
fn copy_data(from: &Fd, to: &Fd, start: u64, end: u64) -> bool {
    let mut at = start;
    while at < end {
        let (mut source, mut sink) = (at, at);
        // SAFETY: both offsets are written, and live over the call.
        let copied = unsafe { syscall!(nr::__NR_copy_file_range, from.0, &raw mut source, to.0, &raw mut sink, end - at, 0) };
        let Some(copied) = copied_by(copied) else { break };
        at += copied;
    }
    // SAFETY: takes numbers only.
    if at < end && unsafe { syscall!(nr::__NR_lseek, to.0, at, nr::SEEK_SET) }.is_err() {
        return false;
    }
    while at < end {
        let mut source = at;
        // SAFETY: the offset is written, and lives over the call.
        let copied = unsafe { syscall!(nr::__NR_sendfile, to.0, from.0, &raw mut source, end - at) };
        let Some(copied) = copied_by(copied) else { break };
        at += copied;
    }
    copy_range(from, to, at, end)
}

/// Copies a range by reading and writing.
#[inline(never)]
fn copy_range(from: &Fd, to: &Fd, start: u64, end: u64) -> bool {
    let mut buffer = [0u8; BLOCK];
    let mut at = start;
    while at < end {
        let len = (end - at).min(BLOCK as u64);
        // SAFETY: the buffer is writable for its length.
        let read = again(|| unsafe { syscall!(nr::__NR_pread64, from.0, buffer.as_mut_ptr(), len, at) });
        let Ok(read @ 1..) = read else { return false };
        // SAFETY: the buffer is readable for its length.
        let written = again(|| unsafe { syscall!(nr::__NR_pwrite64, to.0, buffer.as_ptr(), read, at) });
        match written {
            Ok(written @ 1..) => at += written,
            Ok(_) => return false,
            Err(errno) => {
                after_failed_write(errno);
                return false;
            }
        }
    }
    true
}
