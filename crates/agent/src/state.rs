//! What the agent keeps: its configuration, and the state that holds only during a checkpoint.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64};

use ckpt_wire::Control;

/// What the constructor found in the environment. Set once, before any handler can run.
pub struct Config {
    /// The job's id.
    pub job: [u8; 32],
    /// Bytes of `job` in use; 0: not a job of ours.
    pub job_len: usize,
    /// The checkpoint signal.
    pub signal: i32,
    /// The launcher's pid; a restarted job has a stand-in with that number.
    pub launcher: i32,
    /// The set of the signals that are shielded from.
    pub shielded: u64,
    /// Distance of the rseq area from the thread pointer, and its size, as the C library tells them; size 0: none.
    pub rseq_offset: isize,
    /// See `rseq_offset`.
    pub rseq_size: u32,
    /// The variables that a program keeps even when it cleans its environment, as `NAME=VALUE`, each with its zero byte, one after the other.
    /// Here, beside the rest, so that the constructor touches one page.
    pub kept: [u8; KEPT_SIZE],
    /// Bytes of `kept` in use.
    pub kept_len: usize,
}

/// Room for the variables that are kept: three of them are paths.
pub const KEPT_SIZE: usize = 4 * 4096;

/// The process-wide configuration.
pub struct ConfigCell(core::cell::UnsafeCell<Config>);

// SAFETY: written only by the constructor, while the process has one thread and no handler of ours; read after that.
unsafe impl Sync for ConfigCell {}

impl ConfigCell {
    /// The configuration, to be filled in.
    ///
    /// # Safety
    /// Only from the constructor, before the handler is installed.
    #[allow(clippy::mut_from_ref, reason = "the caller promises to be alone")]
    pub unsafe fn get_mut(&self) -> &mut Config {
        // SAFETY: the caller's promise: nobody else looks.
        unsafe { &mut *self.0.get() }
    }

    /// The configuration.
    pub fn get(&self) -> &Config {
        // SAFETY: see the Sync implementation: no one writes any more.
        unsafe { &*self.0.get() }
    }
}

/// See [`Config`].
pub static CONFIG: ConfigCell = ConfigCell(core::cell::UnsafeCell::new(Config {
    job: [0; 32],
    job_len: 0,
    signal: 0,
    launcher: 0,
    shielded: 0,
    rseq_offset: 0,
    rseq_size: 0,
    kept: [0; KEPT_SIZE],
    kept_len: 0,
}));

/// No checkpoint is going on in this process.
pub const IDLE: u32 = 0;
/// A leader is at work.
pub const BUSY: u32 = 1;

/// State that holds only during a checkpoint, or until a restart. That fills it with zeroes, which means: idle.
#[repr(C)]
pub struct Transient {
    /// [`IDLE`] or [`BUSY`].
    pub phase: AtomicU32,
    /// How many threads have yet to leave the restorer; used by [`leave`] alone.
    pub leaving: AtomicU32,
    /// Rises whenever a thread has changed its record's status. A futex of the leader's.
    pub changed: AtomicU32,
    /// How many parked threads may be using the shared memory object.
    pub users: AtomicU32,
    /// The signals that are held back.
    pub held: [HeldSignal; 64],
    /// The set of those that were held back and are to come through now.
    pub let_in: AtomicU64,
    /// The set of the signals that the process ignores, while a leader is at work.
    pub ignored: AtomicU64,
    /// The shared memory object.
    pub control: AtomicPtr<Control>,
}

/// A signal that is held back: see [`crate::shield`].
pub struct HeldSignal {
    /// The process that holds it in the upper half (a child has its parent's notes), who sent it in the lower; 0: nobody holds it.
    pub holder_and_sender: AtomicU64,
    /// The sender's real user id.
    pub uid: AtomicU32,
}

/// See [`Transient`].
pub static TRANSIENT: Transient = Transient {
    phase: AtomicU32::new(IDLE),
    leaving: AtomicU32::new(0),
    changed: AtomicU32::new(0),
    users: AtomicU32::new(0),
    held: [const { HeldSignal { holder_and_sender: AtomicU64::new(0), uid: AtomicU32::new(0) } }; 64],
    let_in: AtomicU64::new(0),
    ignored: AtomicU64::new(0),
    control: AtomicPtr::new(core::ptr::null_mut()),
};

/// The process that this copy of the agent's memory belongs to, set by the constructor; in a child of `fork`, its parent until its first checkpoint.
pub static OWNER: AtomicI32 = AtomicI32::new(0);

/// Time-outs of system calls that are made again with less time than before: one per thread that needs it.
///
/// The program's own `timespec` must not be changed (it may be a constant that is used again), so the call is given one of these.
/// The kernel copies it when the call begins.
#[repr(C)]
pub struct TimeoutSlot {
    /// The thread that uses it.
    pub owner: AtomicI32,
    /// `tv_sec`.
    pub seconds: AtomicU64,
    /// `tv_nsec`.
    pub nanoseconds: AtomicU64,
}

/// How many threads can have such a time-out at once before they must share.
pub const TIMEOUT_SLOTS: usize = 512;

/// See [`TimeoutSlot`].
pub static TIMEOUTS: [TimeoutSlot; TIMEOUT_SLOTS] =
    [const { TimeoutSlot { owner: AtomicI32::new(0), seconds: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) } };
        TIMEOUT_SLOTS];

/// Where a restored thread leaves the restorer for its own code.
///
/// In: `rdi`, `rsi` address and length of the restorer's memory; `rdx` the thread's `ucontext`; `rcx` the count of threads that have yet to
/// leave ([`Transient::leaving`]). The thread that brings the count to zero unmaps the restorer: nobody runs in it any more. It
/// must lie here, since no code can unmap itself and go on.
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
