//! What the agent and the coordinator share: messages on a UNIX socket, one shared memory object per process and checkpoint, the
//! variables of the environment, and the list of the paths that the job touches.
//!
//! - [`environment`]: the names of the variables, the checkpoint signal, the name of the socket.
//! - [`messages`]: the messages on the socket, and in the value of a signal.
//! - [`memory`]: the shared memory object, drawn there.
//! - [`records`]: what the agent observes and the coordinator plans, in that memory.
//! - [`touched`]: the files of the list of touched paths.
//!
//! Both sides are of one build, since the coordinator starts the agent. So the layout has no version of its own beyond [`PROTOCOL`],
//! which tells an agent that has outlived an upgrade of the tools.
//!
//! Everything that a job sends is untrusted: a program may overwrite its agent's memory. The coordinator copies a value out before
//! it checks it, and never reads it a second time.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod environment;
pub mod memory;
pub mod messages;
pub mod records;
pub mod secret;
pub mod touched;

pub use environment::*;
pub use memory::*;
pub use messages::*;
pub use records::*;
pub use secret::{SOCKET_NAME_LEN, SOCKET_PREFIX, Secret};

/// Version of everything in this crate.
pub const PROTOCOL: u32 = 6;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;
