//! The system call instruction.

use core::arch::asm;

/// A failed system call's error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Makes system call `nr`. Returns what the kernel returns: `-errno` when it fails.
///
/// # Safety
/// The arguments must be right for the call: the kernel may read and write the memory they point to, and the call may
/// change anything of the process.
#[inline(always)]
#[must_use]
pub unsafe fn syscall(nr: u32, args: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the x86-64 calling convention for system calls; rcx and r11 are the only registers it clobbers. That the call itself
    // is sound is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(nr) => ret,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    ret
}

/// Makes a system call of up to six arguments, each cast to `u64`; gives `Result<u64, Errno>`.
///
/// Must stand in an `unsafe` block: see [`syscall`].
#[macro_export]
macro_rules! syscall {
    ($nr:expr $(, $arg:expr)* $(,)?) => {{
        let mut args = [0u64; 6];
        let given = [$($arg as u64),*];
        args[..given.len()].copy_from_slice(&given);
        $crate::raw::check($crate::raw::syscall($nr, args))
    }};
}

/// Splits what a system call returned into its value and its error.
///
/// # Errors
/// The error that the system call returned.
#[inline(always)]
pub fn check(ret: i64) -> Result<u64, Errno> {
    if (-4095..0).contains(&ret) { Err(Errno(-ret as i32)) } else { Ok(ret as u64) }
}
