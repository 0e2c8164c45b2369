//! The engine's part inside the job: it runs in the checkpoint signal's handler, and only there.
//!
//! It freezes the threads of its process, observes what can only be seen from inside, hands the pages over, and lets the threads
//! go on. Compression, files and policy are the coordinator's; there is nothing here about a restart but [`leave`].
//!
//! The interrupted thread may hold any lock of any library, so nothing here calls libc, allocates, uses thread-local storage
//! or panics. Between checkpoints nothing of it runs but [`touched`], for calls that change files.
#![no_std]

mod call;
mod dump;
mod freeze;
mod handler;
mod ignored;
mod interrupted;
mod observe;
mod pages;
mod procfs;
mod rendezvous;
mod shield;
mod snapshot;
mod stack;
mod state;
mod timers;
pub mod touched;
mod transfer;
mod wrapped;

pub use handler::on_checkpoint_signal;
pub use ignored::{BY_DEFAULT as IGNORED_BY_DEFAULT, ignored, is_ignored, wait_while_frozen};
pub use shield::{is_shield, on_shielded_signal};
pub use state::{CONFIG, Config, OWNER, leave};
pub use wrapped::{Handler, stub_for, wrapped};
