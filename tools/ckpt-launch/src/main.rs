//! `ckpt-launch`: runs a command so that it can be checkpointed and restarted. This is the command line; `ckpt-coordinator` does the work.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use ckpt_cli::owner::drop_file_privileges;
use ckpt_cli::resume::{Found, Passed, find};
use ckpt_cli::{RunOptions, exit, parse, restart};
use ckpt_coordinator::{Launch, batch, job_name, launch, probe};
use ckpt_session::Reporter;
use ckpt_session::io_uring::IoUring;
use ckpt_session::job::Settings;
use clap::{Parser, ValueEnum};

/// Run a command so that it can be checkpointed, and restarted with ckpt-restart.
#[derive(Parser)]
#[command(version, after_help = exit::HELP, max_term_width = 120, mut_arg("dir", |dir| dir.env("CKPT_DIR").hide_env_values(true)))]
struct Arguments {
    #[command(flatten)]
    run: RunOptions,
    /// Save program and library pages in images too, for machines where those files differ
    #[arg(long)]
    self_contained: bool,
    /// Let programs use io_uring by the C library's syscall() too. A job cannot be checkpointed while it has a ring, so by default they are told that
    /// the kernel has none, and do without
    #[arg(long, conflicts_with = "no_io_uring")]
    io_uring: bool,
    /// Let no program use io_uring, however it makes its calls. A filter of system calls does that, after which no program gains privileges (sudo)
    #[arg(long)]
    no_io_uring: bool,
    /// Stay until the last process of the job has ended, not only the first
    #[arg(long)]
    wait_all: bool,
    /// Continue from the newest complete image of this job in DIR; without one, start COMMAND. An image is of this job if user, COMMAND, job name, array
    /// task and rank are the same. If all its images are damaged, only =fresh starts COMMAND. =require starts nothing without an image
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "if-any")]
    resume: Option<Resume>,
    /// What tells this job from others with the same COMMAND in DIR [default: SLURM_JOB_NAME]
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Print what this machine supports, and exit: with 0 if jobs can be checkpointed and restarted, otherwise with 121
    #[arg(long)]
    check: bool,
    /// The command and its arguments
    #[arg(required_unless_present = "check", trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The action of `--resume` without a usable image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Resume {
    /// Starts the command, unless there are damaged images.
    #[value(hide = true)]
    IfAny,
    /// Starts the command in any case.
    Fresh,
    /// Starts nothing.
    Require,
}

impl Arguments {
    fn io_uring(&self) -> IoUring {
        match (self.io_uring, self.no_io_uring) {
            (true, _) => IoUring::Allowed,
            (_, true) => IoUring::Forbidden,
            _ => IoUring::default(),
        }
    }
}

fn main() -> ExitCode {
    match parse::<Arguments>(exit::CANNOT_LAUNCH) {
        Ok(arguments) => run(arguments),
        Err(code) => code,
    }
}

fn run(arguments: Arguments) -> ExitCode {
    let reporter = arguments.run.reporter();
    if let Err(error) = drop_file_privileges() {
        reporter.error(format_args!(
            "failed to give up what this program's file grants: {error}; take it away with setcap -r and chmod ug-s"
        ));
        return ExitCode::from(exit::CANNOT_LAUNCH);
    }
    let Arguments { self_contained, wait_all, .. } = arguments;
    let io_uring = arguments.io_uring();
    let settings = Settings { self_contained, wait_all, io_uring, ..arguments.run.launch_settings() };
    let dir = settings.dir.as_path();
    if arguments.check {
        return check(dir);
    }
    let key = batch::key(arguments.job.as_deref());
    let command = arguments.command;
    if let Some(resume) = arguments.resume {
        match find(dir, &command, &key, arguments.run.trust()) {
            Ok(Found::Image { selected, held, older }) => {
                let path = selected.image.path();
                let slurm = batch::Slurm::here().map_or_else(String::new, |slurm| format!(" ({slurm})"));
                reporter.event(format_args!("resuming {} from {}{slurm}", job_name(&command), path.display()));
                if older > 0 {
                    reporter.event(format_args!("{older} older such jobs have images there too; --job NAME tells jobs apart"));
                }
                return ExitCode::from(restart(&selected, held, &arguments.run, |_| settings.clone(), reporter));
            }
            Ok(Found::Nothing(passed)) => {
                if !starts_without(resume, dir, &passed, &job_name(&command), reporter) {
                    return ExitCode::from(exit::IMAGE_INVALID);
                }
            }
            Err(error) => {
                reporter.error(format_args!("failed to look for images in {}: {error}; nothing is started", dir.display()));
                return ExitCode::from(exit::CANNOT_LAUNCH);
            }
        }
    }
    match launch(Launch { command, key, settings, reporter }) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            reporter.error(error);
            ExitCode::from(exit::CANNOT_LAUNCH)
        }
    }
}

/// Explains why no image is resumed. Returns whether the command is started instead.
fn starts_without(resume: Resume, dir: &Path, passed: &[Passed], name: &str, reporter: Reporter) -> bool {
    for passed in passed {
        match passed {
            Passed::Skipped(skipped) => reporter.error(format_args!("passed over: {}", skipped.reason)),
            Passed::Runs(path) => reporter.error(format_args!(
                "passed over: the job of {} runs, or its launcher does; this is taken for another (--job NAME tells jobs apart)",
                path.display()
            )),
        }
    }
    let dir = dir.display();
    match resume {
        Resume::Require => {
            reporter.error(format_args!("nothing to resume in {dir}, and --resume=require was given: {name} is not started"));
            return false;
        }
        Resume::IfAny if passed.iter().any(Passed::is_damaged) => {
            reporter.error(format_args!(
                "every image of {name} in {dir} is damaged, so it is not started: it might write over its results; \
                 --resume=fresh starts it from the beginning"
            ));
            return false;
        }
        Resume::IfAny | Resume::Fresh => reporter.event(format_args!("nothing to resume in {dir}: starting {name}")),
    }
    true
}

/// Prints what this machine supports.
fn check(dir: &Path) -> ExitCode {
    let findings = probe::check(dir);
    // A reader that stops reading needs only the exit code.
    let _ = write!(std::io::stdout(), "{findings}");
    ExitCode::from(if findings.suffices() { 0 } else { exit::CANNOT_LAUNCH })
}
