//! What the agent keeps: its configuration, and the state that holds only during a checkpoint.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64};

use ckpt_sys::signal_set::SignalSet;
use ckpt_wire::{Control, Secret};

/// What the constructor has found in the environment. Set once, before any handler can run.
pub struct Config {
    /// What the name of the coordinator's socket is made from.
    pub secret: Secret,
    /// The checkpoint signal.
    pub signal: i32,
    /// The launcher's pid; a restarted job has a stand-in with that number.
    pub launcher: i32,
    /// The signals that the process is shielded from.
    pub shielded: SignalSet,
    /// The address of the shield, as a handler.
    pub shield: u64,
    /// Programs are told that the kernel has no io_uring.
    pub hides_io_uring: bool,
    /// Bytes from the thread pointer to the rseq area, as the C library tells them.
    pub rseq_offset: isize,
    /// Bytes of the rseq area; 0: none.
    pub rseq_size: u32,
    /// The variables that a program keeps even when it cleans its environment: `NAME=VALUE` with a zero byte behind it, one after the other.
    /// They are here so that the constructor touches one page.
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
    secret: Secret(0),
    signal: 0,
    launcher: 0,
    shielded: SignalSet::EMPTY,
    shield: 0,
    hides_io_uring: false,
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
    /// How many threads have yet to leave the restorer; used by [`leave`](crate::leave) alone.
    pub leaving: AtomicU32,
    /// Rises whenever a thread has changed its record's status. A futex of the leader's.
    pub changed: AtomicU32,
    /// How many parked threads may be using the shared memory object.
    pub users: AtomicU32,
    /// The signals that are held back.
    pub held: [SignalNote; 64],
    /// The set of those that were held back and come through next.
    pub let_in: AtomicU64,
    /// The set of the signals that the process ignores, while a leader is at work.
    pub ignored: AtomicU64,
    /// The shared memory object.
    pub control: AtomicPtr<Control>,
}

/// A signal that is held back: see [`crate::shield`].
pub struct SignalNote {
    /// In the upper half the process that holds it (a child has a copy of its parent's notes), in the lower its sender; 0: no process holds it.
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
    held: [const { SignalNote { holder_and_sender: AtomicU64::new(0), uid: AtomicU32::new(0) } }; 64],
    let_in: AtomicU64::new(0),
    ignored: AtomicU64::new(0),
    control: AtomicPtr::new(core::ptr::null_mut()),
};

/// The process that this copy of the agent's memory belongs to, set by the constructor. In a child of `fork` it is the parent until the child's first
/// checkpoint.
pub static OWNER: AtomicI32 = AtomicI32::new(0);
