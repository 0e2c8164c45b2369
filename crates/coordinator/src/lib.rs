//! The coordinator of a job: it finds the tree, freezes it, collects what it is made of, compresses, commits, and decides when.
//!
//! It runs in `ckpt-launch`, and in `ckpt-restart` once a job is back. Bringing a job back is `ckpt-restore`'s part.
#![deny(unsafe_code)]

pub mod batch;
mod calls;
mod checkpoint;
pub mod control;
mod diagnosis;
mod dump;
pub mod files;
mod freeze;
mod hand_over;
mod held;
mod hooks;
pub mod ipc;
mod launch;
pub mod machine;
mod nesting;
pub mod options;
mod output;
pub mod probe;
mod run;
mod schedule;
mod second_door;
mod separate;
pub mod servants;
mod signals;
mod standard;
mod survey;
mod timers;
mod tree;

pub use checkpoint::{CheckpointError, Taken};
pub use launch::{Launch, LaunchError, Restarted, coordinate_restarted, job_name, launch};
pub use nesting::{Nested, leave_other_jobs};
