//! `ckpt-launch`: runs a command so that it can be checkpointed and restarted. Here is the command line; the work is `ckpt-coordinator`'s.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ckpt_coordinator::options::{On, Reactions, Time, Verbosity};
use ckpt_coordinator::{Launch, Reporter, launch, probe};
use ckpt_image::Codec;
use ckpt_objects::job::Settings;
use clap::Parser;

/// Bad usage.
const USAGE: u8 = 120;
/// The job cannot be launched.
const CANNOT_LAUNCH: u8 = 121;

const EXIT_CODES: &str = "\
Exit codes: the command's own (128+N when signal N ended it); 85 stopped after a good checkpoint (see --checkpoint-exit-code);
120 bad usage; 121 the job cannot be launched; 122 it cannot be restored; 123 the scheduler refused; 124 an image is invalid.";

/// Run a command so that it can be checkpointed, and restarted with ckpt-restart.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Arguments {
    /// Take a checkpoint every TIME: seconds (fractions allowed), or 5m, 1h
    #[arg(short, long, value_name = "TIME")]
    interval: Option<Time>,
    /// Where images go
    #[arg(short, long, value_name = "DIR", env = "CKPT_DIR", default_value = ".")]
    dir: PathBuf,
    /// How many complete generations to keep
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// How images are compressed: none, lz4, zstd[:LEVEL]
    #[arg(long, value_name = "CODEC", default_value = "zstd:1")]
    compress: Codec,
    /// Keep program and library pages in images too, for machines where those files differ
    #[arg(long)]
    self_contained: bool,
    /// What SIGNAL sent to ckpt-launch does: checkpoint, stop, requeue or forward; may be given several times
    #[arg(long, value_name = "SIGNAL=ACTION")]
    on: Vec<On>,
    /// The exit code after a checkpoint that stopped the job
    #[arg(long, value_name = "N", default_value_t = 85)]
    checkpoint_exit_code: u8,
    /// Stay until the last process of the job has ended, not only the first
    #[arg(long)]
    wait_all: bool,
    /// Refuse a checkpoint while a socket leads outside of the job, instead of losing that connection at a restart
    #[arg(long)]
    strict: bool,
    /// Print what this machine allows, and exit: with 0 where jobs can be checkpointed and restarted, else with 121
    #[arg(long)]
    check: bool,
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments
    #[arg(required_unless_present = "check", trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let reporter = Reporter(match (arguments.quiet, arguments.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    });
    let dir = std::path::absolute(&arguments.dir).unwrap_or(arguments.dir);
    if arguments.check {
        return check(&dir);
    }
    let settings = Settings {
        interval: arguments.interval.map(|time| time.0.as_secs_f64()),
        dir: dir.into(),
        keep: arguments.keep,
        compress: arguments.compress.to_string(),
        self_contained: arguments.self_contained,
        wait_all: arguments.wait_all,
        strict: arguments.strict,
        on: Reactions::new(&arguments.on).to_settings(),
        stop_exit_code: arguments.checkpoint_exit_code,
    };
    match launch(Launch { command: arguments.command, settings, reporter }) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            reporter.error(error);
            ExitCode::from(CANNOT_LAUNCH)
        }
    }
}

/// Prints what this machine allows.
fn check(dir: &Path) -> ExitCode {
    let findings = probe::check(dir);
    // Whoever reads no further wants no more than the exit code.
    let _ = write!(std::io::stdout(), "{findings}");
    ExitCode::from(if findings.suffices() { 0 } else { CANNOT_LAUNCH })
}
