//! System calls that rustix lacks, and kernel structures. `no_std`, and free of libc: the agent, inside the job's signal handler, stands
//! on it.
//!
//! Other crates make their system calls through [`raw`] and the functions here. Machine code of their own have only those that take over a
//! thread's registers or stack: the agent (`leave`, `stack`, `stubs`, `transfer`), the preloaded library, the restorer.
#![no_std]

pub mod blocked;
pub mod child;
pub mod cpu;
pub mod descriptor;
pub mod epoll;
pub mod fork;
pub mod mqueue;
pub mod number;
pub mod pagemap;
pub mod prctl;
pub mod probe;
pub mod process;
pub mod program;
pub mod raw;
pub mod sigframe;
pub mod signal_set;
pub mod signals;
pub mod socket;
pub mod sysv;
pub mod terminal;
pub mod timer;
