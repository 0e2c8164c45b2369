//! Running on another stack: the leader must not need more of the interrupted thread's than the kernel's frame took.

use core::cell::UnsafeCell;

/// Bytes of the leader's stack.
const STACK_SIZE: usize = 96 << 10;
/// Bytes of the stack of the short-lived child that forks the twin.
const HELPER_STACK_SIZE: usize = 16 << 10;

#[repr(C, align(64))]
struct Stack<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: used by one thread at a time: a process has one leader, and the leader waits for its helper.
unsafe impl<const N: usize> Sync for Stack<N> {}

static LEADER: Stack<STACK_SIZE> = Stack(UnsafeCell::new([0; STACK_SIZE]));
static HELPER: Stack<HELPER_STACK_SIZE> = Stack(UnsafeCell::new([0; HELPER_STACK_SIZE]));

/// Calls `f(argument)` on the leader's stack.
///
/// # Safety
/// Only the leader may call this, and not from within itself.
pub unsafe fn call_on_leader_stack(f: unsafe extern "C" fn(*mut u8), argument: *mut u8) {
    let top = LEADER.0.get() as u64 + STACK_SIZE as u64;
    // SAFETY: `top` is 64-byte aligned, as the ABI wants before a call; the stack is nobody else's (the caller's promise).
    unsafe { switch(f, argument, top) }
}

#[unsafe(naked)]
unsafe extern "C" fn switch(f: unsafe extern "C" fn(*mut u8), argument: *mut u8, top: u64) {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rdx",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}

/// Runs `f(argument)` in a child that shares this process's memory but not its descriptors, and sends no signal when it ends; returns
/// its pid once it has ended (or `-errno`). The child must be waited for with `__WALL`.
///
/// # Safety
/// Only the leader may call this. `f` must leave memory sound for the parent, and must not return into code that assumes the parent's pid.
pub unsafe fn run_in_helper(f: unsafe extern "C" fn(*mut u8), argument: *mut u8) -> i64 {
    let top = HELPER.0.get() as u64 + HELPER_STACK_SIZE as u64;
    // SAFETY: the helper's stack is free: the last helper has ended (CLONE_VFORK suspends the parent until then).
    unsafe { clone_helper(f, argument, top) }
}

#[unsafe(naked)]
unsafe extern "C" fn clone_helper(f: unsafe extern "C" fn(*mut u8), argument: *mut u8, top: u64) -> i64 {
    core::arch::naked_asm!(
        "push rbx",
        "push r12",
        "mov rbx, rdi",
        "mov r12, rsi",
        "mov rsi, rdx",
        "mov edi, 0x4100", // CLONE_VM | CLONE_VFORK, no exit signal
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "mov eax, 56", // clone
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "mov rdi, r12",
        "call rbx",
        "xor edi, edi",
        "mov eax, 60", // exit
        "syscall",
        "ud2",
        "2:",
        "pop r12",
        "pop rbx",
        "ret",
    )
}
