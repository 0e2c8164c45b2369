//! The calls that change files. Each is noted before it is made (`ckpt_agent::touched`), where the job has a list of touched paths.
//!
//! The 64-bit variants are the plain ones on x86-64. What a program does by descriptors that it has opened before is not seen here, but
//! for calls that cut a file or change its attributes.

use core::ffi::{CStr, c_char, c_int, c_void};

use ckpt_agent::touched::{self, Found, Place, Touch};
use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use linux_raw_sys::errno::EEXIST;
use linux_raw_sys::general as nr;

use crate::libc::{self, ENOSYS};
use crate::next;
use crate::started;

type Text = *const c_char;
type Mode = u32;

/// The working directory, for the calls that take a directory.
pub const HERE: c_int = nr::AT_FDCWD;

/// What a system call gave, as libc returns it.
pub fn returned(result: Result<u64, Errno>) -> c_int {
    result.map_or_else(|Errno(errno)| libc::fail(errno), |value| value as c_int)
}

/// A file that was made is known from then on.
///
/// # Safety
/// As for open(2).
unsafe fn opened(found: Found, fd: c_int) -> c_int {
    if found == Found::Absent && fd >= 0 {
        // SAFETY: no path.
        unsafe { touched::after_creation(Place::descriptor(fd)) };
    }
    fd
}

/// Opens a file by `call`, which is given the flags.
///
/// # Safety
/// As for openat(2).
#[inline]
pub unsafe fn open_file(dir: c_int, path: Text, flags: c_int, call: impl Fn(c_int) -> c_int) -> c_int {
    let bits = flags.cast_unsigned();
    // SAFETY: the caller's promise.
    if bits & nr::O_ACCMODE == nr::O_RDONLY && unsafe { started::is_asked(path) } {
        let fd = call(flags);
        if fd >= 0 {
            started::replace(fd);
        }
        return fd;
    }
    let creates = bits & nr::O_CREAT != 0;
    // SAFETY: the caller's promise.
    unsafe {
        if touched::opens_first(bits) {
            let errno = libc::errno();
            let fd = call((bits & !nr::O_CREAT).cast_signed());
            if fd >= 0 {
                if touched::after_open(fd, bits) {
                    return fd;
                }
                let second = call(flags);
                touched::discard(fd);
                return second;
            }
            // It may fail for another reason where the file is to be made, but not by a signal that it will not see again.
            if !creates || libc::errno() == libc::EINTR {
                return fd;
            }
            libc::set_errno(errno);
        }
        let found = touched::before_open(dir, path, bits);
        opened(found, call(flags))
    }
}

/// Opens a file by `call`, whatever that is. What is at the path is noted before.
///
/// # Safety
/// As for openat(2).
pub unsafe fn open_by_path(dir: c_int, path: Text, flags: u32, call: impl FnOnce() -> c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let found = touched::before_open(dir, path, flags);
        opened(found, call())
    }
}

/// Functions that open a file by flags, in brackets, and what does the same where the C library lacks them.
macro_rules! opens {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal: ($($before:ident: $before_type:ty,)* [$flags:ident] $(, $after:ident: $after_type:ty)*), $dir:expr, $path:expr, $mode:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($before: $before_type,)* $flags: c_int $(, $after: $after_type)*) -> c_int {
            type Call = unsafe extern "C" fn($($before_type,)* c_int $(, $after_type)*) -> c_int;
            // SAFETY: the caller's promise.
            unsafe {
                open_file($dir, $path, $flags, |$flags| match next!($symbol as Call) {
                    Some(call) => call($($before,)* $flags $(, $after)*),
                    None => returned(syscall!(nr::__NR_openat, $dir, $path, $flags, $mode)),
                })
            }
        }
    )*};
}

// Those that are variadic take the mode where others take it, and do not look at it where there is none.
opens! {
    /// open(2).
    open, c"open": (path: Text, [flags], mode: Mode), HERE, path, mode;
    /// open(2).
    open64, c"open64": (path: Text, [flags], mode: Mode), HERE, path, mode;
    /// openat(2).
    openat, c"openat": (dir: c_int, path: Text, [flags], mode: Mode), dir, path, mode;
    /// openat(2).
    openat64, c"openat64": (dir: c_int, path: Text, [flags], mode: Mode), dir, path, mode;
    /// open(2), as programs built with checks call it; so for the next three.
    __open_2, c"__open_2": (path: Text, [flags]), HERE, path, 0;
    /// open(2).
    __open64_2, c"__open64_2": (path: Text, [flags]), HERE, path, 0;
    /// openat(2).
    __openat_2, c"__openat_2": (dir: c_int, path: Text, [flags]), dir, path, 0;
    /// openat(2).
    __openat64_2, c"__openat64_2": (dir: c_int, path: Text, [flags]), dir, path, 0;
}

/// creat(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn creat(path: Text, mode: Mode) -> c_int {
    const FLAGS: c_int = (nr::O_WRONLY | nr::O_CREAT | nr::O_TRUNC) as c_int;
    // SAFETY: the caller's promise.
    unsafe { open(path, FLAGS, mode) }
}

/// creat(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn creat64(path: Text, mode: Mode) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { creat(path, mode) }
}

/// The flags of open(2) that a mode of fopen(3) stands for.
///
/// # Safety
/// The mode must be a C string.
unsafe fn stream_flags(mode: Text) -> u32 {
    // SAFETY: the caller's promise.
    let mode = unsafe { CStr::from_ptr(mode) }.to_bytes();
    // What follows a comma names a coding.
    let options = mode.split(|&byte| byte == b',').next().unwrap_or(mode);
    let access = if options.contains(&b'+') { nr::O_RDWR } else { nr::O_WRONLY };
    let exclusive = if options.contains(&b'x') { nr::O_EXCL } else { 0 };
    match options.first() {
        Some(b'w') => access | exclusive | nr::O_CREAT | nr::O_TRUNC,
        Some(b'a') => access | exclusive | nr::O_CREAT | nr::O_APPEND,
        Some(b'r') if access == nr::O_RDWR => access,
        _ => nr::O_RDONLY,
    }
}

/// Opens a stream by `call`.
///
/// # Safety
/// As for fopen(3).
unsafe fn open_stream(path: Text, mode: Text, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise.
    if unsafe { started::is_asked(path) } {
        let stream = call();
        // SAFETY: it was opened just now.
        unsafe { started::replace_of_stream(stream) };
        return stream;
    }
    // The stream that is opened again may have no new path.
    if path.is_null() || mode.is_null() || !touched::is_on() {
        return call();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let found = touched::before_open(HERE, path, stream_flags(mode));
        let stream = call();
        if found == Found::Absent && !stream.is_null() {
            touched::after_creation(Place::followed(HERE, path));
        }
        stream
    }
}

/// Functions that open a stream.
macro_rules! opens_stream {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal: ($($arg:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: Text, mode: Text, $($arg: $type),*) -> *mut c_void {
            type Call = unsafe extern "C" fn(Text, Text, $($type),*) -> *mut c_void;
            let Some(call) = next!($symbol as Call) else {
                libc::fail(ENOSYS);
                return core::ptr::null_mut();
            };
            // SAFETY: the caller's promise.
            unsafe { open_stream(path, mode, || call(path, mode, $($arg),*)) }
        }
    )*};
}

opens_stream! {
    /// fopen(3).
    fopen, c"fopen": ();
    /// fopen(3).
    fopen64, c"fopen64": ();
    /// freopen(3).
    freopen, c"freopen": (stream: *mut c_void);
    /// freopen(3).
    freopen64, c"freopen64": (stream: *mut c_void);
}

/// posix_spawn_file_actions_addopen(3): the child opens the file later, by a call that is not seen.
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawn_file_actions_addopen(
    actions: *mut c_void,
    fd: c_int,
    path: Text,
    flags: c_int,
    mode: Mode,
) -> c_int {
    type Call = unsafe extern "C" fn(*mut c_void, c_int, Text, c_int, Mode) -> c_int;
    let Some(call) = next!(c"posix_spawn_file_actions_addopen" as Call) else { return ENOSYS };
    // SAFETY: the caller's promise.
    unsafe {
        touched::before_open(HERE, path, flags.cast_unsigned());
        call(actions, fd, path, flags, mode)
    }
}

/// Functions that touch a file: how it is noted, and the system call that is made where the C library lacks the function.
macro_rules! touches {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal: ($($arg:ident: $type:ty),*), $before:expr, $number:expr, ($($raw:expr),*);)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            type Call = unsafe extern "C" fn($($type),*) -> c_int;
            // SAFETY: the caller's promise.
            unsafe {
                $before;
                match next!($symbol as Call) {
                    Some(call) => call($($arg),*),
                    None => returned(syscall!($number, $($raw),*)),
                }
            }
        }
    )*};
}

/// Notes a file that is about to be removed.
///
/// # Safety
/// As for unlink(2).
pub unsafe fn goes(dir: c_int, path: Text) {
    // SAFETY: the caller's promise; so below.
    unsafe { touched::before(Place::itself(dir, path), Touch::Removes, false) };
}

/// Notes a path at which something is about to be made.
///
/// # Safety
/// As for mkdir(2).
pub unsafe fn comes(dir: c_int, path: Text) {
    // SAFETY: as above.
    unsafe { touched::before(Place::itself(dir, path), Touch::Nothing, true) };
}

/// Notes a file whose attributes are about to change.
///
/// # Safety
/// As for fchmodat(2).
pub unsafe fn changes(dir: c_int, path: Text, flags: c_int) {
    let flags = flags.cast_unsigned() & (nr::AT_SYMLINK_NOFOLLOW | nr::AT_EMPTY_PATH);
    // The calls that take no path then mean the descriptor.
    let place = if path.is_null() { Place::descriptor(dir) } else { Place { dir, path, flags } };
    // SAFETY: as above.
    unsafe { touched::before(place, Touch::Attributes, false) };
}

/// Notes a file that is about to get a size.
///
/// # Safety
/// As for truncate(2).
pub unsafe fn cuts(place: Place, size: i64) {
    if let Ok(size) = u64::try_from(size) {
        // SAFETY: as above.
        unsafe { touched::before(place, Touch::Resizes(size), false) };
    }
}

/// No path: the descriptor is meant.
pub const NONE: Text = core::ptr::null();
/// The flag of calls that do not follow the last symbolic link.
pub const NOFOLLOW: c_int = nr::AT_SYMLINK_NOFOLLOW as c_int;

touches! {
    /// unlink(2).
    unlink, c"unlink": (path: Text), goes(HERE, path), nr::__NR_unlink, (path);
    /// unlinkat(2).
    unlinkat, c"unlinkat": (dir: c_int, path: Text, flags: c_int), goes(dir, path), nr::__NR_unlinkat, (dir, path, flags);
    /// remove(3).
    remove, c"remove": (path: Text), goes(HERE, path), nr::__NR_unlink, (path);
    /// rmdir(2).
    rmdir, c"rmdir": (path: Text), goes(HERE, path), nr::__NR_rmdir, (path);
    /// link(2).
    link, c"link": (old: Text, new: Text), comes(HERE, new), nr::__NR_link, (old, new);
    /// linkat(2).
    linkat, c"linkat": (old_dir: c_int, old: Text, new_dir: c_int, new: Text, flags: c_int), comes(new_dir, new),
        nr::__NR_linkat, (old_dir, old, new_dir, new, flags);
    /// symlink(2).
    symlink, c"symlink": (text: Text, path: Text), comes(HERE, path), nr::__NR_symlink, (text, path);
    /// symlinkat(2).
    symlinkat, c"symlinkat": (text: Text, dir: c_int, path: Text), comes(dir, path), nr::__NR_symlinkat, (text, dir, path);
    /// mkdir(2).
    mkdir, c"mkdir": (path: Text, mode: Mode), comes(HERE, path), nr::__NR_mkdir, (path, mode);
    /// mkdirat(2).
    mkdirat, c"mkdirat": (dir: c_int, path: Text, mode: Mode), comes(dir, path), nr::__NR_mkdirat, (dir, path, mode);
    /// mkfifo(3).
    mkfifo, c"mkfifo": (path: Text, mode: Mode), comes(HERE, path), nr::__NR_mknod, (path, mode | nr::S_IFIFO, 0);
    /// mkfifoat(3).
    mkfifoat, c"mkfifoat": (dir: c_int, path: Text, mode: Mode), comes(dir, path),
        nr::__NR_mknodat, (dir, path, mode | nr::S_IFIFO, 0);
    /// mknod(2).
    mknod, c"mknod": (path: Text, mode: Mode, device: u64), comes(HERE, path), nr::__NR_mknod, (path, mode, device);
    /// mknodat(2).
    mknodat, c"mknodat": (dir: c_int, path: Text, mode: Mode, device: u64), comes(dir, path),
        nr::__NR_mknodat, (dir, path, mode, device);
    /// mknod(2), as old programs call it.
    __xmknod, c"__xmknod": (version: c_int, path: Text, mode: Mode, device: *const u64), comes(HERE, path),
        nr::__NR_mknod, (path, mode, *device);
    /// mknodat(2), as old programs call it.
    __xmknodat, c"__xmknodat": (version: c_int, dir: c_int, path: Text, mode: Mode, device: *const u64), comes(dir, path),
        nr::__NR_mknodat, (dir, path, mode, *device);
    /// truncate(2).
    truncate, c"truncate": (path: Text, size: i64), cuts(Place::followed(HERE, path), size), nr::__NR_truncate, (path, size);
    /// truncate(2).
    truncate64, c"truncate64": (path: Text, size: i64), cuts(Place::followed(HERE, path), size), nr::__NR_truncate, (path, size);
    /// ftruncate(2).
    ftruncate, c"ftruncate": (fd: c_int, size: i64), cuts(Place::descriptor(fd), size), nr::__NR_ftruncate, (fd, size);
    /// ftruncate(2).
    ftruncate64, c"ftruncate64": (fd: c_int, size: i64), cuts(Place::descriptor(fd), size), nr::__NR_ftruncate, (fd, size);
    /// bind(2), which makes a UNIX socket.
    bind, c"bind": (fd: c_int, address: *const c_void, len: u32), binds(address, len), nr::__NR_bind, (fd, address, len);
    /// chmod(2).
    chmod, c"chmod": (path: Text, mode: Mode), changes(HERE, path, 0), nr::__NR_chmod, (path, mode);
    /// fchmod(2).
    fchmod, c"fchmod": (fd: c_int, mode: Mode), changes(fd, NONE, 0), nr::__NR_fchmod, (fd, mode);
    /// fchmodat(2).
    fchmodat, c"fchmodat": (dir: c_int, path: Text, mode: Mode, flags: c_int), changes(dir, path, flags),
        nr::__NR_fchmodat2, (dir, path, mode, flags);
    /// chown(2).
    chown, c"chown": (path: Text, uid: u32, gid: u32), changes(HERE, path, 0), nr::__NR_chown, (path, uid, gid);
    /// fchown(2).
    fchown, c"fchown": (fd: c_int, uid: u32, gid: u32), changes(fd, NONE, 0), nr::__NR_fchown, (fd, uid, gid);
    /// lchown(2).
    lchown, c"lchown": (path: Text, uid: u32, gid: u32), changes(HERE, path, NOFOLLOW), nr::__NR_lchown, (path, uid, gid);
    /// fchownat(2).
    fchownat, c"fchownat": (dir: c_int, path: Text, uid: u32, gid: u32, flags: c_int), changes(dir, path, flags),
        nr::__NR_fchownat, (dir, path, uid, gid, flags);
    /// utime(2).
    utime, c"utime": (path: Text, times: *const c_void), changes(HERE, path, 0), nr::__NR_utime, (path, times);
    /// utimes(2).
    utimes, c"utimes": (path: Text, times: *const c_void), changes(HERE, path, 0), nr::__NR_utimes, (path, times);
    /// futimesat(2).
    futimesat, c"futimesat": (dir: c_int, path: Text, times: *const c_void), changes(dir, path, 0),
        nr::__NR_futimesat, (dir, path, times);
    /// utimensat(2).
    utimensat, c"utimensat": (dir: c_int, path: Text, times: *const c_void, flags: c_int), changes(dir, path, flags),
        nr::__NR_utimensat, (dir, path, times, flags);
    /// futimens(3).
    futimens, c"futimens": (fd: c_int, times: *const c_void), changes(fd, NONE, 0), nr::__NR_utimensat, (fd, NONE, times, 0);
}

/// Functions that the kernel has no call for.
macro_rules! touches_times {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal: ($arg:ident: $type:ty), $before:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($arg: $type, times: *const c_void) -> c_int {
            type Call = unsafe extern "C" fn($type, *const c_void) -> c_int;
            let Some(call) = next!($symbol as Call) else { return libc::fail(ENOSYS) };
            // SAFETY: the caller's promise.
            unsafe {
                $before;
                call($arg, times)
            }
        }
    )*};
}

touches_times! {
    /// lutimes(3).
    lutimes, c"lutimes": (path: Text), changes(HERE, path, NOFOLLOW);
    /// futimes(3).
    futimes, c"futimes": (fd: c_int), changes(fd, NONE, 0);
}

/// The path that bind(2) makes: `sun_path` need not end with a zero byte, and begins with one where it is no path.
///
/// # Safety
/// `address` must be null or readable for `len` bytes.
unsafe fn binds(address: *const c_void, len: u32) {
    const AF_UNIX: u16 = 1;
    const FAMILY: usize = size_of::<u16>();
    let mut path = [0u8; 109];
    let len = (len as usize).saturating_sub(FAMILY).min(path.len() - 1);
    // SAFETY: the caller's promise.
    unsafe {
        if address.is_null() || len == 0 || address.cast::<u16>().read_unaligned() != AF_UNIX {
            return;
        }
        core::ptr::copy_nonoverlapping(address.cast::<u8>().add(FAMILY), path.as_mut_ptr(), len);
        if path[0] != 0 {
            comes(HERE, path.as_ptr().cast());
        }
    }
}

type Rename = unsafe extern "C" fn(Text, Text) -> c_int;
type RenameAt = unsafe extern "C" fn(c_int, Text, c_int, Text) -> c_int;
type RenameAt2 = unsafe extern "C" fn(c_int, Text, c_int, Text, u32) -> c_int;

/// rename(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(old: Text, new: Text) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        touched::rename(Place::itself(HERE, old), Place::itself(HERE, new), 0, || match next!(c"rename" as Rename) {
            Some(call) => call(old, new),
            None => returned(syscall!(nr::__NR_rename, old, new)),
        })
    }
}

/// renameat(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat(old_dir: c_int, old: Text, new_dir: c_int, new: Text) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        touched::rename(Place::itself(old_dir, old), Place::itself(new_dir, new), 0, || match next!(c"renameat" as RenameAt) {
            Some(call) => call(old_dir, old, new_dir, new),
            None => returned(syscall!(nr::__NR_renameat, old_dir, old, new_dir, new)),
        })
    }
}

/// renameat2(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat2(old_dir: c_int, old: Text, new_dir: c_int, new: Text, flags: u32) -> c_int {
    let call = || match next!(c"renameat2" as RenameAt2) {
        // SAFETY: the caller's promise; so below.
        Some(call) => unsafe { call(old_dir, old, new_dir, new, flags) },
        // SAFETY: as above.
        None => returned(unsafe { syscall!(nr::__NR_renameat2, old_dir, old, new_dir, new, flags) }),
    };
    // SAFETY: as above.
    unsafe { touched::rename(Place::itself(old_dir, old), Place::itself(new_dir, new), flags, call) }
}

/// chroot(2).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn chroot(path: Text) -> c_int {
    type Call = unsafe extern "C" fn(Text) -> c_int;
    // SAFETY: the caller's promise.
    unsafe {
        touched::chroot(path, || match next!(c"chroot" as Call) {
            Some(call) => call(path),
            None => returned(syscall!(nr::__NR_chroot, path)),
        })
    }
}

/// Where the C libraries have shared memory, with a slash behind it.
const SHARED_MEMORY: &[u8] = b"/dev/shm/";
/// Where glibc has semaphores, with the prefix of their names. Those of musl have none.
const SEMAPHORES: &[u8] = b"/dev/shm/sem.";

/// Calls `f` with the path that a name stands for: of a shared memory object (shm_overview(7)), or a semaphore (sem_overview(7)).
///
/// # Safety
/// `name` must be a C string.
unsafe fn with_shared_memory(before: &[u8], name: Text, f: impl FnOnce(Text)) {
    let mut path = [0u8; SEMAPHORES.len() + 256];
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let start = name.iter().position(|&byte| byte != b'/').unwrap_or(name.len());
    let name = name.get(start..).unwrap_or(b"");
    if before.len() + name.len() < path.len() {
        for (to, from) in path.iter_mut().zip(before.iter().chain(name)) {
            *to = *from;
        }
        f(path.as_ptr().cast());
    }
}

/// shm_open(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_open(name: Text, flags: c_int, mode: Mode) -> c_int {
    type Call = unsafe extern "C" fn(Text, c_int, Mode) -> c_int;
    let Some(call) = next!(c"shm_open" as Call) else { return libc::fail(ENOSYS) };
    let mut found = Found::Other;
    // SAFETY: the caller's promise.
    unsafe {
        with_shared_memory(SHARED_MEMORY, name, |path| {
            found = touched::before_open(HERE, path, flags.cast_unsigned() | nr::O_NOFOLLOW)
        });
        opened(found, call(name, flags, mode))
    }
}

/// shm_unlink(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shm_unlink(name: Text) -> c_int {
    type Call = unsafe extern "C" fn(Text) -> c_int;
    let Some(call) = next!(c"shm_unlink" as Call) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe {
        with_shared_memory(SHARED_MEMORY, name, |path| goes(HERE, path));
        call(name)
    }
}

fn semaphores() -> &'static [u8] {
    type Version = unsafe extern "C" fn() -> Text;
    if next!(c"gnu_get_libc_version" as Version).is_some() { SEMAPHORES } else { SHARED_MEMORY }
}

/// sem_open(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_open(name: Text, flags: c_int, mode: Mode, value: u32) -> *mut c_void {
    type Call = unsafe extern "C" fn(Text, c_int, Mode, u32) -> *mut c_void;
    let Some(call) = next!(c"sem_open" as Call) else {
        libc::fail(ENOSYS);
        return core::ptr::null_mut();
    };
    // The semaphore is written to, through a mapping.
    let bits = flags.cast_unsigned() & (nr::O_CREAT | nr::O_EXCL) | nr::O_RDWR | nr::O_NOFOLLOW;
    // SAFETY: the caller's promise.
    unsafe {
        if !touched::is_on() {
            return call(name, flags, mode, value);
        }
        let mut found = Found::Other;
        with_shared_memory(semaphores(), name, |path| found = touched::before_open(HERE, path, bits));
        let semaphore = call(name, flags, mode, value);
        if found == Found::Absent && !semaphore.is_null() {
            with_shared_memory(semaphores(), name, |path| touched::after_creation(Place::itself(HERE, path)));
        }
        semaphore
    }
}

/// sem_unlink(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sem_unlink(name: Text) -> c_int {
    type Call = unsafe extern "C" fn(Text) -> c_int;
    let Some(call) = next!(c"sem_unlink" as Call) else { return libc::fail(ENOSYS) };
    // SAFETY: the caller's promise.
    unsafe {
        if touched::is_on() {
            with_shared_memory(semaphores(), name, |path| goes(HERE, path));
        }
        call(name)
    }
}

/// The part of a template of mkstemp(3) that random letters replace.
const MARK: &[u8; 6] = b"XXXXXX";
/// Names that are tried, as many as glibc does (`TMP_MAX`).
const ATTEMPTS: u32 = 62 * 62 * 62;

/// Fills a template with random letters and calls `make`, again with others as long as a file has that name. The C library's own
/// functions hide the name until the file is there, too late to note it.
///
/// # Safety
/// The template must be a C string that may be changed.
unsafe fn make_temporary(template: *mut c_char, suffix: c_int, make: impl Fn(Text) -> Result<u64, Errno>) -> c_int {
    const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    // SAFETY: the caller's promise.
    let len = unsafe { CStr::from_ptr(template) }.count_bytes();
    let mark = usize::try_from(suffix).ok().and_then(|suffix| len.checked_sub(suffix)?.checked_sub(MARK.len()));
    // SAFETY: the mark lies within the template.
    let Some(mark) = mark.map(|at| unsafe { &mut *template.add(at).cast::<[u8; 6]>() }).filter(|mark| *mark == MARK) else {
        return libc::fail(libc::EINVAL);
    };
    for attempt in 0..ATTEMPTS {
        let mut random = random(u64::from(attempt));
        for letter in mark.iter_mut() {
            *letter = LETTERS[(random % LETTERS.len() as u64) as usize];
            random /= LETTERS.len() as u64;
        }
        match make(template) {
            Err(Errno(errno)) if errno == EEXIST as i32 => (),
            result => return returned(result),
        }
    }
    libc::fail(EEXIST as i32)
}

/// A random number; another one for each attempt where the kernel has none to give.
fn random(attempt: u64) -> u64 {
    let mut random = 0u64;
    let size = size_of::<u64>();
    // SAFETY: the number is writable for its size; so is the time.
    unsafe {
        if syscall!(nr::__NR_getrandom, &raw mut random, size, nr::GRND_NONBLOCK) != Ok(size as u64) {
            let mut now = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = syscall!(nr::__NR_clock_gettime, nr::CLOCK_MONOTONIC, &raw mut now);
            random = (now.tv_nsec.cast_unsigned() ^ attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    random
}

/// Functions that make a file with a random name, and open it.
macro_rules! temporary {
    ($($(#[$doc:meta])* $name:ident, $symbol:literal: ($($arg:ident),*), $suffix:expr, $flags:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for the C function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(template: *mut c_char $(, $arg: c_int)*) -> c_int {
            type Call = unsafe extern "C" fn(*mut c_char $(, temporary!(@int $arg))*) -> c_int;
            // SAFETY: the caller's promise.
            unsafe {
                if !touched::is_on() {
                    let Some(call) = next!($symbol as Call) else { return libc::fail(ENOSYS) };
                    return call(template $(, $arg)*);
                }
                let flags: c_int = $flags;
                let flags = flags.cast_unsigned() & !nr::O_ACCMODE | nr::O_RDWR | nr::O_CREAT | nr::O_EXCL;
                let fd = make_temporary(template, $suffix, |path| {
                    touched::before_open(HERE, path, flags);
                    syscall!(nr::__NR_openat, HERE, path, flags, 0o600)
                });
                opened(Found::Absent, fd)
            }
        }
    )*};
    (@int $arg:ident) => { c_int };
}

temporary! {
    /// mkstemp(3).
    mkstemp, c"mkstemp": (), 0, 0;
    /// mkstemp(3).
    mkstemp64, c"mkstemp64": (), 0, 0;
    /// mkostemp(3).
    mkostemp, c"mkostemp": (flags), 0, flags;
    /// mkostemp(3).
    mkostemp64, c"mkostemp64": (flags), 0, flags;
    /// mkstemps(3).
    mkstemps, c"mkstemps": (suffix), suffix, 0;
    /// mkstemps(3).
    mkstemps64, c"mkstemps64": (suffix), suffix, 0;
    /// mkostemps(3).
    mkostemps, c"mkostemps": (suffix, flags), suffix, flags;
    /// mkostemps(3).
    mkostemps64, c"mkostemps64": (suffix, flags), suffix, flags;
}

/// mkdtemp(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdtemp(template: *mut c_char) -> *mut c_char {
    type Call = unsafe extern "C" fn(*mut c_char) -> *mut c_char;
    // SAFETY: the caller's promise.
    unsafe {
        if !touched::is_on() {
            let Some(call) = next!(c"mkdtemp" as Call) else {
                libc::fail(ENOSYS);
                return core::ptr::null_mut();
            };
            return call(template);
        }
        let made = make_temporary(template, 0, |path| {
            comes(HERE, path);
            syscall!(nr::__NR_mkdir, path, 0o700)
        });
        if made < 0 { core::ptr::null_mut() } else { template }
    }
}
