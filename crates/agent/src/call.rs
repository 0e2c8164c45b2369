//! The few system calls that the agent makes, thinly.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use ckpt_sys::process;
use ckpt_sys::raw::Errno;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

/// A descriptor that is closed when dropped.
pub struct Fd(pub i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is the agent's own; nobody else uses its number.
        let _ = unsafe { syscall!(nr::__NR_close, self.0) };
    }
}

/// `getpid`.
pub fn getpid() -> i32 {
    // SAFETY: takes no argument and cannot fail.
    unsafe { syscall!(nr::__NR_getpid) }.unwrap_or(0) as i32
}

/// `getppid`: 0 for a parent in another pid namespace.
pub fn getppid() -> i32 {
    // SAFETY: takes no argument and cannot fail.
    unsafe { syscall!(nr::__NR_getppid) }.unwrap_or(0) as i32
}

/// `gettid`.
pub fn gettid() -> i32 {
    // SAFETY: takes no argument and cannot fail.
    unsafe { syscall!(nr::__NR_gettid) }.unwrap_or(0) as i32
}

/// A directory that no path leads to from below another root: a process that changes its root keeps it open.
pub struct Outside(AtomicI32);

/// `/proc`, which the agent reads.
pub static PROC: Outside = Outside::new();

impl Outside {
    /// One that is not kept open.
    pub const fn new() -> Self {
        Self(AtomicI32::new(-1))
    }

    /// Keeps it open, by a number that programs hardly use.
    pub fn keep(&self, directory: &Fd) {
        const LOWEST: u32 = 900;
        // SAFETY: takes numbers only.
        let duplicate = |lowest: u32| unsafe { syscall!(nr::__NR_fcntl, directory.0, nr::F_DUPFD_CLOEXEC, lowest) };
        // The limit may be lower (RLIMIT_NOFILE).
        if let Ok(kept) = duplicate(LOWEST).or_else(|_| duplicate(3)) {
            self.0.store(kept as i32, Ordering::Release);
        }
    }

    /// Its descriptor where one was kept. A program that closes all its descriptors may have given the number to another file.
    pub fn get(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Acquire)).filter(|&directory| directory >= 0)
    }
}

/// A path, and the directory that it is relative to: `/proc` where that is kept open, for a path that leads there.
pub fn at_proc(path: &[u8]) -> (i32, &[u8]) {
    match (PROC.get(), path.strip_prefix(b"/proc/")) {
        (Some(proc), Some(below)) => (proc, below),
        _ => (nr::AT_FDCWD, path),
    }
}

/// Opens `path`, which ends with a zero byte, for reading.
pub fn open(path: &[u8]) -> Result<Fd, Errno> {
    open_with(path, nr::O_RDONLY)
}

/// Opens `path`, which ends with a zero byte.
pub fn open_with(path: &[u8], flags: u32) -> Result<Fd, Errno> {
    if path.last() != Some(&0) {
        return Err(Errno(nr_errno::EINVAL));
    }
    let (dir, path) = at_proc(path);
    // SAFETY: the path is a string that ends with a zero byte.
    let fd = unsafe { syscall!(nr::__NR_openat, dir, path.as_ptr(), flags | nr::O_CLOEXEC, 0) }?;
    Ok(Fd(fd as i32))
}

/// Reads once.
pub fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is writable for its length.
    let n = unsafe { syscall!(nr::__NR_read, fd.0, buffer.as_mut_ptr(), buffer.len()) }?;
    Ok(n as usize)
}

/// Reads into raw memory at an offset of the file.
///
/// # Safety
/// `to` must be writable for `len` bytes.
pub unsafe fn pread(fd: &Fd, to: *mut u8, len: usize, offset: u64) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let n = unsafe { syscall!(nr::__NR_pread64, fd.0, to, len, offset) }?;
    Ok(n as usize)
}

/// Writes once.
pub fn write(fd: &Fd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the bytes are readable for their length.
    let n = unsafe { syscall!(nr::__NR_write, fd.0, bytes.as_ptr(), bytes.len()) }?;
    Ok(n as usize)
}

/// What a descriptor is open on: the file type of its mode (`S_IFMT`).
pub fn file_kind(fd: i32) -> Option<u32> {
    // SAFETY: all fields of a `stat` are numbers, and the call writes one.
    unsafe {
        let mut stat: nr::stat = core::mem::zeroed();
        syscall!(nr::__NR_fstat, fd, &raw mut stat).ok()?;
        Some(stat.st_mode & nr::S_IFMT)
    }
}

/// Waits while `word` is `expected`, at most `timeout_ms` (negative: without end). May return early.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout_ms: i64, shared: bool) {
    let timeout = nr::__kernel_timespec { tv_sec: timeout_ms / 1000, tv_nsec: timeout_ms % 1000 * 1_000_000 };
    let timeout_ptr = if timeout_ms < 0 { core::ptr::null() } else { &raw const timeout };
    let op = nr::FUTEX_WAIT | if shared { 0 } else { nr::FUTEX_PRIVATE_FLAG };
    // SAFETY: the word and the time-out live over the call.
    let _ = unsafe { syscall!(nr::__NR_futex, word.as_ptr(), op, expected, timeout_ptr, 0, 0) };
}

/// Wakes all who wait on `word`.
pub fn futex_wake(word: &AtomicU32, shared: bool) {
    let op = nr::FUTEX_WAKE | if shared { 0 } else { nr::FUTEX_PRIVATE_FLAG };
    // SAFETY: the word lives over the call.
    let _ = unsafe { syscall!(nr::__NR_futex, word.as_ptr(), op, i32::MAX, 0, 0, 0) };
}

/// `mmap` of fresh memory or of a descriptor, shared.
pub fn mmap(len: usize, prot: u32, flags: u32, fd: i32) -> Result<*mut u8, Errno> {
    // SAFETY: without MAP_FIXED the kernel chooses a free range: no mapping of the job is touched.
    let at = unsafe { syscall!(nr::__NR_mmap, 0, len, prot, flags, fd, 0) }?;
    Ok(at as *mut u8)
}

/// Unmaps what [`mmap`] gave.
///
/// # Safety
/// Nothing may use the range any more.
pub unsafe fn munmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { syscall!(nr::__NR_munmap, at, len) };
}

/// Whether this process has its memory in common with another one, as a child of `vfork` with its parent.
pub fn shares_memory_with(other: i32) -> bool {
    other != 0 && process::kcmp(getpid(), other, process::shared::VM, 0, 0) == Ok(0)
}

/// Changes the signal mask of the calling thread (`SIG_BLOCK`, `SIG_UNBLOCK`, `SIG_SETMASK`); gives the mask before.
pub fn change_mask(how: u32, set: SignalSet) -> SignalSet {
    let mut before = SignalSet::EMPTY;
    // SAFETY: both sets live over the call, and have the size that is passed.
    let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, how, set.as_ptr(), before.as_mut_ptr(), size_of::<SignalSet>()) };
    before
}

/// Waits a moment.
pub fn pause_us(microseconds: i64) {
    let time = nr::__kernel_timespec { tv_sec: 0, tv_nsec: microseconds * 1000 };
    // SAFETY: the time lives over the call.
    let _ = unsafe { syscall!(nr::__NR_nanosleep, &raw const time, 0) };
}

/// Error numbers as [`Errno`] has them.
pub mod nr_errno {
    use linux_raw_sys::errno;

    /// No such process.
    pub const ESRCH: i32 = errno::ESRCH as i32;
    /// Interrupted system call.
    pub const EINTR: i32 = errno::EINTR as i32;
    /// Try again.
    pub const EAGAIN: i32 = errno::EAGAIN as i32;
    /// Invalid argument.
    pub const EINVAL: i32 = errno::EINVAL as i32;
    /// In use already.
    pub const EBUSY: i32 = errno::EBUSY as i32;
    /// Not allowed.
    pub const EPERM: i32 = errno::EPERM as i32;
    /// Not a request of this file.
    pub const ENOTTY: i32 = errno::ENOTTY as i32;
}
