//! Handlers of the program's own for shielded signals: the kernel is given a stub (`stubs`), which lets through what the shield does not hold back.
//! This is the table of the handlers that the stubs stand for.
//!
//! Which handler a stub stands for never changes. So the kernel's own table says which is in force, at every instant, in children of fork and vfork, and after a
//! restart, and setting one needs no lock. A program has few different handlers; one for which no stub is left is installed as it is.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::action::{SA_NODEFER, SA_SIGINFO};

/// How many stubs there are.
pub const STUBS: usize = 128;
/// Bytes of one.
const STUB_SIZE: u64 = 16;

/// A handler of the program's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handler {
    /// Its address.
    pub address: u64,
    /// Its flags. A stub stands for `SA_SIGINFO` and `SA_NODEFER` of them.
    pub flags: u64,
    /// The signals that it blocks beside its own. A stub blocks all, so that no checkpoint finds it at work.
    pub mask: u64,
}

/// A handler that a stub stands for.
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

unsafe extern "C" {
    /// The first stub.
    fn ckpt_stubs();
}

fn stubs() -> u64 {
    ckpt_stubs as *const () as u64
}

/// The stub that stands for a handler. It is to be installed with `SA_SIGINFO` and every signal in its mask.
pub fn stub_for(handler: Handler) -> Option<u64> {
    let handler = Handler { flags: handler.flags & (SA_SIGINFO | SA_NODEFER), ..handler };
    let index = ENTRIES.iter().position(|entry| entry.stands_for(handler))?;
    Some(stubs() + index as u64 * STUB_SIZE)
}

/// The program's handler that a stub stands for; `None` for any other handler.
pub fn wrapped(handler: u64) -> Option<Handler> {
    let index = handler.checked_sub(stubs())? / STUB_SIZE;
    stub(usize::try_from(index).ok()?)
}

/// The program's handler that the stub of this number stands for.
pub fn stub(number: usize) -> Option<Handler> {
    ENTRIES.get(number)?.handler()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_stands_for_one_handler_for_ever() {
        let own = Handler { address: 0x1000, flags: SA_SIGINFO | 1, mask: 2 };
        let stub = stub_for(own).unwrap();
        assert_eq!(stub_for(own), Some(stub));
        assert!(wrapped(stub) == Some(Handler { flags: SA_SIGINFO, ..own }));
        assert_ne!(stub_for(Handler { mask: 3, ..own }), Some(stub));
        assert!(wrapped(0x1000).is_none() && wrapped(u64::MAX).is_none());
    }
}
