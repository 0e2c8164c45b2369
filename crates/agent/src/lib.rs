//! The engine's part inside the job: it runs in the checkpoint signal's handler, and only there.
//!
//! It freezes the threads of its process, observes what can only be seen from inside, hands the pages over, and lets the threads
//! go on. Compression, files and policy are the coordinator's; there is nothing here about a restart but [`leave`].
//!
//! The interrupted thread may hold any lock of any library, so nothing here calls libc, allocates, uses thread-local storage
//! or panics. Between checkpoints nothing of it runs but [`touched`], for calls that change files.
//!
//! The modules, from the ground up; none uses one of a later line:
//!
//! - `call`, `ready`, `shared`, `siginfo`, `stack`, `state`, `timeout`: the ground.
//! - `action`, `blocking`, `code`, `pages`, `procfs`: what the kernel tells, and the program's code.
//! - `ignored`, `rendezvous`, `timers`, `transfer`, `wrapped`, [`touched`]: one subject each.
//! - `dump`: handing pages over. `interrupted`: system calls that are made again.
//! - `own_handler`: the program's handler for the number of the checkpoint signal.
//! - `leave`, `pending`, `shield`: the end of a restart, pending signals, signals from outside of the job.
//! - `observe`: what a process tells of itself. `stubs`: what stands before the program's handlers.
//! - `freeze`: the threads.
//! - `snapshot`: the copy-on-write twin.
//! - `handler`: the whole conversation with the coordinator.
#![no_std]

mod action;
mod blocking;
mod call;
mod code;
mod dump;
mod freeze;
mod handler;
mod ignored;
mod interrupted;
mod leave;
mod observe;
mod own_handler;
mod pages;
mod pending;
mod procfs;
mod ready;
mod rendezvous;
mod shared;
mod shield;
mod siginfo;
mod snapshot;
mod stack;
mod state;
mod stubs;
mod timeout;
mod timers;
pub mod touched;
mod transfer;
mod wrapped;

pub use action::{Action, IGNORED_BY_DEFAULT, is_ignored, is_shield};
pub use call::change_mask;
pub use handler::on_checkpoint_signal;
pub use ignored::{ignored, wait_while_frozen};
pub use leave::leave;
pub use own_handler::{believe, believed_action};
pub use shield::on_shielded_signal;
pub use state::{CONFIG, Config, OWNER};
pub use wrapped::{Handler, stub_for, wrapped};
