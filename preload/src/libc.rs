//! What this library takes from the C library that happens to be there, at run time: the next definition of a function that is
//! interposed, `errno`, `environ`. All are weak: a program without them loads all the same.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// `RTLD_NEXT`.
const RTLD_NEXT: isize = -1;

core::arch::global_asm!(
    ".weak dlsym",
    ".weak __libc_dlsym",
    ".weak __libc_dlopen_mode",
    ".weak environ",
    ".weak __errno_location",
    ".weak __rseq_offset",
    ".weak __rseq_size",
    // Addresses of weak symbols, 0 where there are none: stable Rust has no weak externals.
    ".macro ckpt_weak name, symbol",
    ".hidden \\name",
    ".globl \\name",
    ".type \\name, @function",
    "\\name:",
    "mov rax, qword ptr [rip + \\symbol@GOTPCREL]",
    "ret",
    ".endm",
    "ckpt_weak ckpt_dlsym, dlsym",
    "ckpt_weak ckpt_libc_dlsym, __libc_dlsym",
    "ckpt_weak ckpt_libc_dlopen, __libc_dlopen_mode",
    "ckpt_weak ckpt_environ, environ",
    "ckpt_weak ckpt_errno, __errno_location",
    "ckpt_weak ckpt_rseq_offset, __rseq_offset",
    "ckpt_weak ckpt_rseq_size, __rseq_size",
);

unsafe extern "C" {
    safe fn ckpt_dlsym() -> usize;
    safe fn ckpt_libc_dlsym() -> usize;
    safe fn ckpt_libc_dlopen() -> usize;
    safe fn ckpt_environ() -> usize;
    safe fn ckpt_errno() -> usize;
    safe fn ckpt_rseq_offset() -> usize;
    safe fn ckpt_rseq_size() -> usize;
}

/// Where the next definition of an interposed function is kept once it is known.
pub struct Next {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Next {
    /// For the function of this name.
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicUsize::new(0) }
    }

    /// Its address, looked up at the first call; 0 where there is none.
    pub fn address(&self) -> usize {
        let known = self.address.load(Relaxed);
        if known != 0 {
            return known;
        }
        let dlsym = ckpt_dlsym();
        if dlsym == 0 {
            let found = address_in_libc(self.name);
            self.address.store(found, Relaxed);
            return found;
        }
        type Dlsym = unsafe extern "C" fn(isize, *const c_char) -> usize;
        // SAFETY: the C library's dlsym has this signature.
        let dlsym = unsafe { core::mem::transmute::<usize, Dlsym>(dlsym) };
        // SAFETY: the name is a C string. dlsym finds the caller's library by its return address, so this must not be a tail call:
        // the store below sees to that.
        let found = unsafe { dlsym(RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Relaxed);
        found
    }
}

/// The C library's definition of a function, by its own door: before glibc 2.34, dlsym(3) is there only in programs that link to libdl.
#[cold]
fn address_in_libc(name: &CStr) -> usize {
    const RTLD_LAZY: i32 = 1;
    /// The caller is the C library's own (`__RTLD_DLOPEN`, glibc's include/dlfcn.h).
    const RTLD_DLOPEN: i32 = i32::MIN;
    type Open = unsafe extern "C" fn(*const c_char, i32) -> usize;
    type Symbol = unsafe extern "C" fn(usize, *const c_char) -> usize;
    let (open, symbol) = (ckpt_libc_dlopen(), ckpt_libc_dlsym());
    if open == 0 || symbol == 0 {
        return 0;
    }
    // SAFETY: glibc defines both with these signatures, and the names are C strings. The library that is asked for is loaded already.
    unsafe {
        let open = core::mem::transmute::<usize, Open>(open);
        let symbol = core::mem::transmute::<usize, Symbol>(symbol);
        match open(c"libc.so.6".as_ptr(), RTLD_LAZY | RTLD_DLOPEN) {
            0 => 0,
            libc => symbol(libc, name.as_ptr()),
        }
    }
}

/// The next definition of a function, as a function pointer of the given type, or `None`.
#[macro_export]
macro_rules! next {
    ($name:literal as $signature:ty) => {{
        static NEXT: $crate::libc::Next = $crate::libc::Next::new($name);
        match NEXT.address() {
            0 => None,
            #[allow(unused_unsafe, reason = "the macro is used within unsafe blocks too")]
            // SAFETY: the function of this name, which is interposed here, has this signature.
            address => Some(unsafe { core::mem::transmute::<usize, $signature>(address) }),
        }
    }};
}

/// Sets `errno`; gives -1.
pub fn fail(errno: i32) -> i32 {
    set_errno(errno);
    -1
}

/// Sets `errno`.
pub fn set_errno(errno: i32) {
    if let Some(location) = errno_location() {
        // SAFETY: it is writable.
        unsafe { *location = errno };
    }
}

/// `errno`; 0 where there is none.
pub fn errno() -> i32 {
    // SAFETY: it is readable.
    errno_location().map_or(0, |location| unsafe { *location })
}

fn errno_location() -> Option<*mut i32> {
    match ckpt_errno() {
        0 => None,
        // SAFETY: both glibc and musl define it with this signature.
        location => Some(unsafe { core::mem::transmute::<usize, extern "C" fn() -> *mut i32>(location) }()),
    }
}

/// The environment; null where there is none.
pub fn environ() -> *const *const c_char {
    match ckpt_environ() {
        0 => core::ptr::null(),
        // SAFETY: `environ` is a pointer variable of the C library's.
        variable => unsafe { *(variable as *const *const *const c_char) },
    }
}

/// Distance of the restartable sequences area from the thread pointer, and its size; size 0 where the C library registers none.
pub fn rseq() -> (isize, u32) {
    match (ckpt_rseq_offset(), ckpt_rseq_size()) {
        // SAFETY: glibc 2.35 and later define them: a ptrdiff_t and an unsigned int.
        (offset @ 1.., size @ 1..) => unsafe { (*(offset as *const isize), *(size as *const u32)) },
        _ => (0, 0),
    }
}

/// `ENOSYS`: where the C library lacks a function that a program called all the same.
pub const ENOSYS: i32 = 38;
/// `EINTR`: a signal came.
pub const EINTR: i32 = 4;
/// `EINVAL`: an invalid argument.
pub const EINVAL: i32 = 22;
