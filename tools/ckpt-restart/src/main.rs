//! `ckpt-restart`: restarts a job from its images, and is its coordinator from then on. This is the command line; `ckpt-restore` and
//! `ckpt-coordinator` do the work.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use ckpt_cli::owner::{become_owner, drop_file_privileges};
use ckpt_cli::{RunOptions, exit, parse, restart};
use ckpt_image::generations::{Check, open_newest};
use clap::Parser;

/// Restart a job from its newest complete image. Options that are not given keep their values of the launch.
#[derive(Parser)]
#[command(version, after_help = exit::HELP, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    run: RunOptions,
    /// Images; the newest complete generation among them is used
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match parse::<Arguments>(exit::CANNOT_RESTART) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let reporter = arguments.run.reporter();
    if let Err(error) = drop_file_privileges() {
        reporter.error(format_args!(
            "failed to give up what this program's file grants: {error}; take it away with setcap -r and chmod ug-s"
        ));
        return ExitCode::from(exit::CANNOT_RESTART);
    }
    let selected = match open_newest(&arguments.images, Check::EveryByte, arguments.run.trust()) {
        Ok(selected) => selected,
        Err(error) => {
            reporter.error(error);
            return ExitCode::from(exit::IMAGE_INVALID);
        }
    };
    if let Err(error) = become_owner(&selected.image, &arguments.run) {
        reporter.error(error);
        return ExitCode::from(exit::CANNOT_RESTART);
    }
    ExitCode::from(restart(&selected, None, &arguments.run, |launch| arguments.run.restart_settings(launch), reporter))
}
