//! `struct sigaction`, as the kernel has it and as the C libraries have it.

use core::ffi::c_int;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ckpt_sys::signal_set::SignalSet;

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
pub type KernelAction = ckpt_agent::Action;

/// `SIG_DFL`.
pub const DEFAULT: usize = 0;

/// A [`KernelAction`] that handlers are installed with, and that threads change.
#[repr(transparent)]
pub struct Action([AtomicU64; 4]);

impl Action {
    /// Zeroes.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 4])
    }

    /// Sets all of it; every signal is in the mask.
    pub fn set(&self, handler: u64, flags: u64, restorer: u64) {
        for (word, value) in self.0.iter().zip([handler, flags, restorer, SignalSet::ALL.bits()]) {
            word.store(value, Relaxed);
        }
    }

    /// Takes signals into the mask; whether one of them was not there.
    pub fn block(&self, set: SignalSet) -> bool {
        !SignalSet::from_bits(self.0[3].fetch_or(set.bits(), Relaxed)).contains_all(set)
    }

    /// Leaves signals out of the mask; whether one of them was there.
    pub fn leave_out(&self, set: SignalSet) -> bool {
        self.0[3].fetch_and(!set.bits(), Relaxed) & set.bits() != 0
    }

    /// Whether a flag is set.
    pub fn has_flag(&self, flag: u32) -> bool {
        self.0[1].load(Relaxed) & u64::from(flag) != 0
    }

    /// Clears a flag; whether it was set.
    pub fn clear_flag(&self, flag: u32) -> bool {
        self.0[1].fetch_and(!u64::from(flag), Relaxed) & u64::from(flag) != 0
    }
}

/// `sigset_t` of glibc and musl: 128 bytes, the kernel knows the first word.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SigSet(pub [u64; 16]);

/// `struct sigaction` of glibc and musl on x86-64.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SigAction {
    pub handler: usize,
    pub mask: SigSet,
    pub flags: c_int,
    pub restorer: usize,
}

impl SigAction {
    /// The action of a signal for which none was set.
    pub const DEFAULT: Self = Self { handler: DEFAULT, mask: SigSet([0; 16]), flags: 0, restorer: 0 };

    /// To the kernel's.
    pub fn to_kernel(self) -> KernelAction {
        [self.handler as u64, u64::from(self.flags.cast_unsigned()), self.restorer as u64, self.mask.0[0]]
    }

    /// From the kernel's.
    pub fn of_kernel([handler, flags, restorer, mask]: KernelAction) -> Self {
        let mut set = [0; 16];
        set[0] = mask;
        Self { handler: handler as usize, mask: SigSet(set), flags: flags as c_int, restorer: restorer as usize }
    }
}
