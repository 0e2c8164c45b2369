//! System calls that rustix lacks, and kernel structures. The only home of raw `asm!` beside the restorer and the preload.
//!
//! `no_std`, and free of libc: the agent, inside the job's signal handler, stands on it.
#![no_std]

pub mod blocked;
pub mod cpu;
pub mod descriptor;
pub mod fork;
pub mod mqueue;
pub mod pagemap;
pub mod prctl;
pub mod probe;
pub mod process;
pub mod program;
pub mod raw;
pub mod sigframe;
pub mod signal_set;
pub mod socket;
pub mod sysv;
pub mod terminal;
