//! The signal frame of x86-64 (arch/x86/include/uapi/asm/sigcontext.h, include/uapi/asm-generic/ucontext.h).

/// `struct sigcontext_64`: the registers of an interrupted thread.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the names are the registers'")]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs_gs_fs_ss: u64,
    pub err: u64,
    pub trapno: u64,
    pub oldmask: u64,
    pub cr2: u64,
    /// Address of the XSAVE area, 64-byte aligned, higher up in the same frame.
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// `struct ucontext`: what `rt_sigreturn` puts back.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct UContext {
    /// `UC_FP_XSTATE`, `UC_SIGCONTEXT_SS`, `UC_STRICT_RESTORE_SS`.
    pub flags: u64,
    /// Unused by the kernel.
    pub link: u64,
    /// `stack_t`: the alternate stack's address.
    pub stack_sp: u64,
    /// Its flags (the low 32 bits).
    pub stack_flags: u64,
    /// Its size.
    pub stack_size: u64,
    /// The registers.
    pub context: SigContext,
    /// The signal mask: bit `n - 1` for signal `n`.
    pub sigmask: u64,
}
