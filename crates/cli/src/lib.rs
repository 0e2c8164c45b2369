//! The command line that `ckpt-launch` and `ckpt-restart` share: options, exit codes, and how a job is brought back.
#![forbid(unsafe_code)]

mod options;
pub mod owner;
mod restart;
pub mod resume;

pub use options::{RunOptions, parse};
pub use restart::restart;

/// Exit codes of the tools' own; those between are the job's.
pub mod exit {
    /// Bad usage.
    pub const USAGE: u8 = 120;
    /// The job cannot be launched.
    pub const CANNOT_LAUNCH: u8 = 121;
    /// The job cannot be restored.
    pub const CANNOT_RESTORE: u8 = 122;
    /// No image can be used.
    pub const IMAGE_INVALID: u8 = 124;
    /// Stopped after a good checkpoint, unless the user wants another.
    pub const STOPPED: u8 = 85;

    /// For `--help`.
    pub const HELP: &str = "\
Exit codes: the command's own (128+N when signal N ended it); 85 stopped after a good checkpoint (see --checkpoint-exit-code);
120 bad usage; 121 the job cannot be launched; 122 it cannot be restored; 123 the scheduler refused (kept for that: a refused requeue
ends with 85, since the job is stopped and its image good); 124 no image is valid.";
}
