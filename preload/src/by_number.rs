//! `syscall`, the function that makes a system call by its number: calls that change files are noted like the functions of `touched`, and
//! io_uring_setup(2) fails as on a kernel without, so that what has a ring in the reserve (libuv) does without. Every other number goes on with all arguments where they are, by a jump, so that what a call may do to its stack (`vfork`, `clone`) it does to
//! the caller's. That costs a look into a table.

use core::ffi::{c_char, c_int, c_long};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ckpt_agent::CONFIG;
use ckpt_agent::touched::{self, Place};
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

use crate::libc::{self, ENOSYS, Next};
use crate::touched::{HERE, NOFOLLOW, NONE, changes, comes, cuts, goes, open_by_path, open_file, returned};

/// The numbers of the calls that are looked at.
const NUMBERS: [u32; 33] = [
    nr::__NR_open,
    nr::__NR_creat,
    nr::__NR_openat,
    nr::__NR_openat2,
    nr::__NR_rename,
    nr::__NR_renameat,
    nr::__NR_renameat2,
    nr::__NR_mkdir,
    nr::__NR_mkdirat,
    nr::__NR_mknod,
    nr::__NR_mknodat,
    nr::__NR_link,
    nr::__NR_linkat,
    nr::__NR_symlink,
    nr::__NR_symlinkat,
    nr::__NR_unlink,
    nr::__NR_unlinkat,
    nr::__NR_rmdir,
    nr::__NR_truncate,
    nr::__NR_ftruncate,
    nr::__NR_chmod,
    nr::__NR_fchmod,
    nr::__NR_fchmodat,
    nr::__NR_fchmodat2,
    nr::__NR_chown,
    nr::__NR_fchown,
    nr::__NR_lchown,
    nr::__NR_fchownat,
    nr::__NR_utime,
    nr::__NR_utimes,
    nr::__NR_futimesat,
    nr::__NR_utimensat,
    nr::__NR_io_uring_setup,
];

/// One more than the largest of them.
const COUNT: usize = nr::__NR_fchmodat2 as usize + 1;

/// 1 for each number that is noted.
static IS_NOTED: [u8; COUNT] = {
    let mut table = [0; COUNT];
    let mut at = 0;
    while at < NUMBERS.len() {
        table[NUMBERS[at] as usize] = 1;
        at += 1;
    }
    table
};

/// Where the next definition of `syscall` is; 0 where there is none, or it was not looked for yet.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Looks for the next definition. Not at the first call: an allocator may make that, which dlsym(3) may need.
pub fn prepare() {
    static FOUND: Next = Next::new(c"syscall");
    NEXT.store(FOUND.address(), Relaxed);
}

/// syscall(2).
///
/// # Safety
/// As for the C function.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall() -> c_long {
    // Only r10 and r11 are free: rax belongs to the convention of variadic functions.
    core::arch::naked_asm!(
        "mov r10d, edi",
        "cmp r10d, {count}",
        "jae 2f",
        "lea r11, [rip + {is_noted}]",
        "cmp byte ptr [r11 + r10], 0",
        "jne {note_and_call}",
        "2:",
        "mov r11, qword ptr [rip + {next}]",
        "test r11, r11",
        "jz 3f",
        "jmp r11",
        // There is no other: as the C library does it. The sixth argument is on the stack.
        "3:",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, qword ptr [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 4f",
        "ret",
        "4:",
        "mov rdi, rax",
        "jmp {fail}",
        count = const COUNT,
        is_noted = sym IS_NOTED,
        note_and_call = sym note_and_call,
        next = sym NEXT,
        fail = sym fail,
    )
}

extern "C" fn fail(returned: c_long) -> c_long {
    c_long::from(libc::fail(returned.wrapping_neg() as i32))
}

/// What a call is given; those that are noted take no more.
type Arguments = [u64; 5];

/// Makes a call.
///
/// # Safety
/// As for syscall(2).
unsafe fn pass_on(number: u32, [a, b, c, d, e]: Arguments) -> c_int {
    type Call = unsafe extern "C" fn(c_long, ...) -> c_long;
    // SAFETY: the caller's promise.
    unsafe {
        match NEXT.load(Relaxed) {
            0 => returned(syscall!(number, a, b, c, d, e)),
            // SAFETY: the next definition has this signature.
            next => core::mem::transmute::<usize, Call>(next)(c_long::from(number), a, b, c, d, e) as c_int,
        }
    }
}

/// Notes what a call is about to touch, and makes it.
///
/// # Safety
/// As for syscall(2).
unsafe extern "C" fn note_and_call(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64) -> c_long {
    let number = number as u32;
    let text = |argument: u64| argument as *const c_char;
    let int = |argument: u64| argument as c_int;
    // SAFETY: the caller's promise; so below.
    let call = || unsafe { pass_on(number, [a, b, c, d, e]) };
    // SAFETY: as above.
    let result = unsafe {
        match number {
            nr::__NR_io_uring_setup if CONFIG.get().hides_io_uring => libc::fail(ENOSYS),
            nr::__NR_open => open_file(HERE, text(a), int(b), |flags| pass_on(number, [a, flags as u64, c, d, e])),
            nr::__NR_openat => open_file(int(a), text(b), int(c), |flags| pass_on(number, [a, b, flags as u64, d, e])),
            nr::__NR_creat => open_by_path(HERE, text(a), nr::O_WRONLY | nr::O_CREAT | nr::O_TRUNC, call),
            nr::__NR_openat2 => openat2(int(a), text(b), c as *const nr::open_how, d, call),
            nr::__NR_rename => touched::rename(Place::itself(HERE, text(a)), Place::itself(HERE, text(b)), 0, call),
            nr::__NR_renameat | nr::__NR_renameat2 => {
                let flags = if number == nr::__NR_renameat2 { e as u32 } else { 0 };
                touched::rename(Place::itself(int(a), text(b)), Place::itself(int(c), text(d)), flags, call)
            }
            _ => {
                note(number, [a, b, c, d, e]);
                call()
            }
        }
    };
    c_long::from(result)
}

/// Notes what a call is about to touch that needs nothing afterwards.
///
/// # Safety
/// As for the call.
unsafe fn note(number: u32, [a, b, c, d, e]: Arguments) {
    let text = |argument: u64| argument as *const c_char;
    let int = |argument: u64| argument as c_int;
    // SAFETY: the caller's promise.
    unsafe {
        match number {
            nr::__NR_mkdir | nr::__NR_mknod => comes(HERE, text(a)),
            nr::__NR_link | nr::__NR_symlink => comes(HERE, text(b)),
            nr::__NR_mkdirat | nr::__NR_mknodat => comes(int(a), text(b)),
            nr::__NR_symlinkat => comes(int(b), text(c)),
            nr::__NR_linkat => comes(int(c), text(d)),
            nr::__NR_unlink | nr::__NR_rmdir => goes(HERE, text(a)),
            nr::__NR_unlinkat => goes(int(a), text(b)),
            nr::__NR_truncate => cuts(Place::followed(HERE, text(a)), b.cast_signed()),
            nr::__NR_ftruncate => cuts(Place::descriptor(int(a)), b.cast_signed()),
            nr::__NR_chmod | nr::__NR_chown | nr::__NR_utime | nr::__NR_utimes => changes(HERE, text(a), 0),
            nr::__NR_lchown => changes(HERE, text(a), NOFOLLOW),
            nr::__NR_fchmod | nr::__NR_fchown => changes(int(a), NONE, 0),
            nr::__NR_fchmodat | nr::__NR_futimesat => changes(int(a), text(b), 0),
            nr::__NR_fchmodat2 | nr::__NR_utimensat => changes(int(a), text(b), int(d)),
            nr::__NR_fchownat => changes(int(a), text(b), int(e)),
            _ => (),
        }
    }
}

/// openat2(2).
///
/// # Safety
/// As for the call.
unsafe fn openat2(dir: c_int, path: *const c_char, how: *const nr::open_how, size: u64, call: impl FnOnce() -> c_int) -> c_int {
    // The kernel refuses a smaller one.
    if how.is_null() || size < size_of::<nr::open_how>() as u64 {
        return call();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let how = how.read_unaligned();
        let flags = how.flags as u32;
        if how.resolve & u64::from(nr::RESOLVE_IN_ROOT) == 0 {
            return open_by_path(dir, path, flags, call);
        }
        // The path means another file to the calls that are made for noting.
        let fd = call();
        if fd >= 0 && flags & nr::O_ACCMODE != 0 && flags & nr::O_PATH == 0 && touched::is_on() {
            touched::after_open(fd, flags);
        }
        fd
    }
}
