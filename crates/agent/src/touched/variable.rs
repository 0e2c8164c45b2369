//! The variable that says where the job's list is.

use core::cell::UnsafeCell;
use core::ffi::CStr;

use ckpt_wire::touched::{ENV_TOUCHED, VARIABLE_SIZE};

use crate::call::Outside;

/// `CKPT_TOUCHED=DIRECTORY`, as a C string. A restart writes here where the directory is now.
struct Variable(UnsafeCell<[u8; VARIABLE_SIZE]>);

// SAFETY: written by the constructor, while the process has one thread, and by a restart, before any thread runs.
unsafe impl Sync for Variable {}

static VARIABLE: Variable = Variable(UnsafeCell::new([0; VARIABLE_SIZE]));

/// Keeps the variable with this value, unless the value is too long.
///
/// # Safety
/// Only from the constructor.
pub unsafe fn keep_variable(value: &[u8]) {
    // SAFETY: the caller's promise: nobody else looks.
    let room = unsafe { &mut *VARIABLE.0.get() };
    let start = ENV_TOUCHED.len() + 1;
    // The zero byte behind it is there already.
    if value.is_empty() || start + value.len() >= room.len() {
        return;
    }
    let parts = [ENV_TOUCHED.as_bytes(), b"=", value];
    for (to, from) in room.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
}

/// The variable as it is now; `None` where there is none.
pub fn variable() -> Option<&'static CStr> {
    // SAFETY: see the Sync implementation: no one writes while the program runs.
    let bytes = unsafe { &*VARIABLE.0.get() };
    if bytes[0] == 0 {
        return None;
    }
    CStr::from_bytes_until_nul(bytes).ok()
}

/// The address of the variable.
pub fn variable_address() -> u64 {
    VARIABLE.0.get() as u64
}

/// The job's list in a process that has changed its root.
pub static LIST: Outside = Outside::new();

/// The directory of the job's list.
pub fn directory() -> Option<&'static CStr> {
    let bytes = variable()?.to_bytes_with_nul().get(ENV_TOUCHED.len() + 1..)?;
    CStr::from_bytes_with_nul(bytes).ok()
}

/// Whether there is a list.
pub fn is_set() -> bool {
    // SAFETY: as in `variable`.
    unsafe { (*VARIABLE.0.get())[0] != 0 }
}
