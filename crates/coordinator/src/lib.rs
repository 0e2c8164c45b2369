//! The coordinator of a job: it finds the tree, freezes it, collects what it is made of, compresses, commits, and decides when.
//!
//! It runs in `ckpt-launch`, and in `ckpt-restart` once a job is back. Bringing a job back is `ckpt-restore`'s part.
#![deny(unsafe_code)]

pub mod batch;
mod checkpoint;
pub mod control;
mod diagnosis;
mod dump;
mod error;
pub mod files;
mod freeze;
mod frozen;
mod hand_over;
mod held_signals;
mod helpers;
mod hooks;
mod launch;
pub mod machine;
mod nesting;
pub mod options;
mod output;
pub mod probe;
mod ptrace;
mod room;
mod run;
mod schedule;
mod signals;
mod snapshot;
mod standstill;
mod survey;
mod tree;
mod uninterruptible;

pub use checkpoint::CheckpointSummary;
pub use error::{CheckpointError, LaunchError};
pub use launch::{Launch, Restarted, coordinate_restarted, job_name, launch};
pub use nesting::{Nested, leave_other_jobs};
