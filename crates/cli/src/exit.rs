//! The exit codes of all tools. `ckpt-launch` and `ckpt-restart` otherwise end with the job's own exit code.

use std::process::ExitCode;

use clap::Parser;

/// Bad usage.
pub const USAGE: u8 = 120;
/// The job cannot be launched.
pub const CANNOT_LAUNCH: u8 = 121;
/// The job cannot be restarted.
pub const CANNOT_RESTART: u8 = 122;
/// No image can be used, or an image is not valid.
pub const IMAGE_INVALID: u8 = 124;
/// The job refused a request of `ckpt-ctl`, or the output of `ckpt-inspect` could not be written.
pub const FAILED: u8 = 125;
/// Stopped after a good checkpoint, unless the user chooses another code.
pub const STOPPED: u8 = 85;

/// For `--help` of `ckpt-launch` and `ckpt-restart`.
pub const HELP: &str = "\
Exit codes:
  the command's own (128+N if signal N ended it)
  85   stopped after a good checkpoint (see --checkpoint-exit-code), also when the scheduler refused a requeue
  120  bad usage
  121  the job cannot be launched
  122  the job cannot be restarted
  123  reserved for a requeue that the scheduler refused
  124  no image is valid";

/// Reads the command line.
///
/// # Errors
///
/// The exit code, if the command line is wrong, or if it asks for help or the version. The text is printed.
pub fn read_command_line<P: Parser>() -> Result<P, ExitCode> {
    P::try_parse().map_err(|error| {
        // Help and version come as errors too. If they cannot be printed, nothing can.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
    })
}
