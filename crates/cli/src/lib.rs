//! The command line that the tools share: options, exit codes, and how a job is restarted.
#![forbid(unsafe_code)]

pub mod exit;
mod options;
pub mod owner;
mod restart;
pub mod resume;

pub use options::{RunOptions, parse};
pub use restart::restart;
