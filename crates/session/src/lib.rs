//! One run of a job, as launcher and restart both know it: what an image says of the job, what lies beside its images and in `/tmp`, the
//! socket that its agents connect to, and how the user is told.
//!
//! Nothing here freezes a process, writes an image or brings a job back.
#![forbid(unsafe_code)]

pub mod environment;
pub mod files;
pub mod io_uring;
pub mod job;
pub mod library;
mod listener;
pub mod living;
mod objects;
mod private;
pub mod report;

pub use ckpt_objects::Bytes;
pub use job::JobState;
pub use listener::{Connection, HeldSignal, Listener, Received, abstract_sockets};
pub use report::{Reporter, Took, Verbosity, harmless};
