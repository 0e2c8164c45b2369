//! The list of loaded objects: this library comes last in it. It is the first that the linker has loaded, and AddressSanitizer does not start a
//! program in which another library comes before its own.

use core::ffi::{c_int, c_void};

use crate::next;

/// The part of `struct dl_phdr_info` that tells objects apart (dl_iterate_phdr(3)).
#[repr(C)]
pub struct Info {
    base: usize,
}

type Callback = unsafe extern "C" fn(*mut Info, usize, *mut c_void) -> c_int;

unsafe extern "C" {
    /// The first byte of this library, which is its base: the linker defines it.
    static __ehdr_start: u8;
}

/// The program's callback, and whether it is called for this library or for all others.
struct Walk {
    callback: Callback,
    data: *mut c_void,
    for_own: bool,
}

/// # Safety
/// `walk` is a [`Walk`] whose callback may be called so.
unsafe extern "C" fn step(info: *mut Info, size: usize, walk: *mut c_void) -> c_int {
    // SAFETY: the caller's promise; the C library hands out a valid `info`.
    let (walk, base) = unsafe { (&*walk.cast::<Walk>(), (*info).base) };
    if (base == &raw const __ehdr_start as usize) != walk.for_own {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { (walk.callback)(info, size, walk.data) }
}

/// dl_iterate_phdr(3). Unwinders call it: each call of theirs is made under the linker's lock, as they expect.
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dl_iterate_phdr(callback: Callback, data: *mut c_void) -> c_int {
    type Call = unsafe extern "C" fn(unsafe extern "C" fn(*mut Info, usize, *mut c_void) -> c_int, *mut c_void) -> c_int;
    let Some(call) = next!(c"dl_iterate_phdr" as Call) else { return 0 };
    for for_own in [false, true] {
        let mut walk = Walk { callback, data, for_own };
        // SAFETY: `walk` lives over the call; the rest is the caller's promise.
        let result = unsafe { call(step, (&raw mut walk).cast()) };
        if result != 0 {
            return result;
        }
    }
    0
}
