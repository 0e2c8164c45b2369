//! Handlers of the program's own for shielded signals: the kernel is given a stub, which lets through what the shield does not hold back.
//!
//! Which handler a stub stands for never changes. So the kernel's own table says which is in force, at every instant, in children of fork and vfork, and after a
//! restart, and setting one needs no lock. A program has few different handlers; one for which no stub is left is installed as it is.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

use crate::interrupted;
use crate::shield::{SA_RESTART, Siginfo, is_held_back};

/// How many stubs there are.
const STUBS: usize = 128;
/// Bytes of one.
const STUB_SIZE: u64 = 16;
const SA_SIGINFO: u64 = 4;
const SA_NODEFER: u64 = 0x4000_0000;

/// A handler of the program's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handler {
    /// Its address.
    pub address: u64,
    /// Its flags, of which a stub stands for `SA_SIGINFO`, which a stub always asks for, and `SA_NODEFER`.
    pub flags: u64,
    /// What it blocks beside the signal itself. A stub blocks all, so that no checkpoint finds it at work.
    pub mask: u64,
}

/// What a stub stands for.
struct Entry {
    /// [`FREE`], [`TAKEN`] or [`SET`].
    state: AtomicU32,
    address: AtomicU64,
    flags: AtomicU64,
    mask: AtomicU64,
}

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const SET: u32 = 2;

impl Entry {
    const fn new() -> Self {
        Self { state: AtomicU32::new(FREE), address: AtomicU64::new(0), flags: AtomicU64::new(0), mask: AtomicU64::new(0) }
    }

    fn handler(&self) -> Option<Handler> {
        let is_set = self.state.load(Acquire) == SET;
        is_set.then(|| Handler {
            address: self.address.load(Relaxed),
            flags: self.flags.load(Relaxed),
            mask: self.mask.load(Relaxed),
        })
    }

    /// Whether it stands for this handler, or does from now on.
    fn stands_for(&self, handler: Handler) -> bool {
        if self.state.compare_exchange(FREE, TAKEN, AcqRel, Acquire).is_ok() {
            self.address.store(handler.address, Relaxed);
            self.flags.store(handler.flags, Relaxed);
            self.mask.store(handler.mask, Relaxed);
            self.state.store(SET, Release);
        }
        self.handler() == Some(handler)
    }
}

static ENTRIES: [Entry; STUBS] = [const { Entry::new() }; STUBS];

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

unsafe extern "C" {
    /// The first stub.
    fn ckpt_stubs();
}

fn stubs() -> u64 {
    ckpt_stubs as *const () as u64
}

/// The handler that is to run, 0 for none: the signal is held back then.
///
/// # Safety
/// A stub calls it with what the kernel gave that, and the stub's number.
unsafe extern "C" fn decide(signal: i32, info: *const Siginfo, frame: *mut UContext, stub: usize) -> u64 {
    let Some(handler) = ENTRIES.get(stub).and_then(Entry::handler) else { return 0 };
    // SAFETY: the caller's promise.
    unsafe {
        if is_held_back(signal, &*info) {
            let mut action = [0u64; 4];
            let _ = syscall!(nr::__NR_rt_sigaction, signal, 0, action.as_mut_ptr(), 8);
            interrupted::leave_as_found_by(frame, action[1] & SA_RESTART != 0);
            return 0;
        }
        // What the kernel would have blocked.
        let itself = if handler.flags & SA_NODEFER == 0 { 1 << (signal - 1) } else { 0 };
        let mask = (*frame).sigmask | handler.mask | itself;
        let _ = syscall!(nr::__NR_rt_sigprocmask, nr::SIG_SETMASK, &raw const mask, 0, 8);
    }
    handler.address
}

/// The stub that stands for a handler. It is to be installed with `SA_SIGINFO` and every signal in its mask.
pub fn stub_for(handler: Handler) -> Option<u64> {
    let handler = Handler { flags: handler.flags & (SA_SIGINFO | SA_NODEFER), ..handler };
    let index = ENTRIES.iter().position(|entry| entry.stands_for(handler))?;
    Some(stubs() + index as u64 * STUB_SIZE)
}

/// The program's handler that a stub stands for; `None` for what is no stub.
pub fn wrapped(handler: u64) -> Option<Handler> {
    let index = handler.checked_sub(stubs())? / STUB_SIZE;
    ENTRIES.get(usize::try_from(index).ok()?)?.handler()
}
