//! The stubs before the program's handlers for shielded signals: see `wrapped`.

use ckpt_sys::sigframe::UContext;
use ckpt_sys::signal_set::SignalSet;
use linux_raw_sys::general as nr;

use crate::action::{self, SA_NODEFER, SA_RESTART};
use crate::shield::is_held_back;
use crate::siginfo::Siginfo;
use crate::wrapped::{self, STUBS};
use crate::{call, interrupted};

// A stub tells by its address which it is. The program's handler is entered just as the kernel would enter it: it may look at the stack, unwind it, or never return.
core::arch::global_asm!(
    ".pushsection .text.ckpt_stubs, \"ax\", @progbits",
    ".balign 16",
    ".globl ckpt_stubs",
    ".hidden ckpt_stubs",
    ".type ckpt_stubs, @function",
    "ckpt_stubs:",
    ".rept {count}",
    "lea rax, [rip]",
    "jmp 2f",
    ".balign 16",
    ".endr",
    "2:",
    "push rdi",
    "push rsi",
    "push rdx",
    "lea rcx, [rip + ckpt_stubs]",
    "sub rax, rcx",
    "shr rax, 4",
    "mov rcx, rax",
    "call {decide}",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "test rax, rax",
    "jz 3f",
    "jmp rax",
    "3:",
    "ret",
    ".size ckpt_stubs, . - ckpt_stubs",
    ".popsection",
    count = const STUBS,
    decide = sym decide,
);

/// The handler that is to run, 0 for none: the signal is held back then.
///
/// # Safety
/// A stub calls it with the arguments that the kernel gave to the stub, and the stub's number.
unsafe extern "C" fn decide(signal: i32, info: *const Siginfo, frame: *mut UContext, stub: usize) -> u64 {
    let Some(handler) = wrapped::stub(stub) else { return 0 };
    // SAFETY: the caller's promise.
    unsafe {
        if is_held_back(signal, &*info) {
            let [_, flags, ..] = action::of(signal).unwrap_or_default();
            interrupted::leave_as_found_by(frame, flags & SA_RESTART != 0);
            return 0;
        }
        // The signals that the kernel would have blocked.
        let mask = SignalSet::from_bits((*frame).sigmask | handler.mask);
        let mask = if handler.flags & SA_NODEFER == 0 { mask.with(signal) } else { mask };
        call::change_mask(nr::SIG_SETMASK, mask);
    }
    handler.address
}
