//! The way from the restorer back into the job's own code. It must lie in the agent, since no code can unmap itself and go on.

/// Where a restored thread leaves the restorer for its own code.
///
/// In: `rdi`, `rsi` address and length of the restorer's memory; `rdx` the thread's `ucontext`; `rcx` the count of threads that have yet to
/// leave ([`Transient::leaving`](crate::state::Transient::leaving)). The thread that brings the count to zero unmaps the restorer: nobody runs
/// in it any more.
///
/// # Safety
/// Only the restorer jumps here, with the registers as above, when the frame is in place and nothing of the restorer is needed any more.
#[unsafe(naked)]
pub unsafe extern "C" fn leave() -> ! {
    core::arch::naked_asm!(
        "lock dec dword ptr [rcx]",
        "jnz 2f",
        "mov eax, 11", // munmap
        "syscall",
        "2:",
        // As in the handler: the stack below the frame is free, and the registers are what the frame says.
        "mov rbx, rdx",
        "lea rsp, [rdx - 16]",
        "mov rdi, rdx",
        "call {on_leave}",
        "mov rsp, rbx",
        "mov eax, 15", // rt_sigreturn
        "syscall",
        "ud2",
        on_leave = sym crate::interrupted::on_leave,
    )
}
