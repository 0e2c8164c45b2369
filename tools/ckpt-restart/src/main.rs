//! `ckpt-restart`: brings a job back from its images, and is its coordinator from then on. Here is the command line; the work is
//! `ckpt-restore`'s and `ckpt-coordinator`'s.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ckpt_coordinator::options::{On, Reactions, Time, Verbosity};
use ckpt_coordinator::{Reporter, Restarted, coordinate_restarted};
use ckpt_image::Codec;
use ckpt_image::generations::{Check, open_newest};
use ckpt_objects::JobState;
use ckpt_objects::job::Settings;
use ckpt_objects::terminal::OwnTerminal;
use ckpt_restore::{Options, RestoreError, RestoredJob, read_job, restore};
use clap::Parser;

/// Bad usage.
const USAGE: u8 = 120;
/// The job cannot be restored.
const CANNOT_RESTORE: u8 = 122;
/// No image can be used.
const IMAGE_INVALID: u8 = 124;

const EXIT_CODES: &str = "\
Exit codes: the job's own (128+N when signal N ended it); 85 stopped after a good checkpoint (see --checkpoint-exit-code);
120 bad usage; 121 the job cannot be launched; 122 it cannot be restored; 123 the scheduler refused; 124 an image is invalid.";

/// Bring a job back from its newest complete image.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 120)]
struct Arguments {
    /// Take a checkpoint every TIME: seconds (fractions allowed), or 5m, 1h [default: as the job was launched]
    #[arg(short, long, value_name = "TIME")]
    interval: Option<Time>,
    /// Where images go [default: as the job was launched]
    #[arg(short, long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many complete generations to keep [default: as the job was launched]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// How images are compressed: none, lz4, zstd[:LEVEL] [default: as the job was launched]
    #[arg(long, value_name = "CODEC")]
    compress: Option<Codec>,
    /// What SIGNAL sent to ckpt-restart does: checkpoint, stop, requeue or forward; may be given several times
    #[arg(long, value_name = "SIGNAL=ACTION")]
    on: Vec<On>,
    /// The exit code after a checkpoint that stopped the job [default: as the job was launched]
    #[arg(long, value_name = "N")]
    checkpoint_exit_code: Option<u8>,
    /// Where files of the job are now whose paths began with OLD; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map)]
    map: Vec<(PathBuf, PathBuf)>,
    /// Refuse a job with sockets that led outside of it, instead of letting it find them disconnected
    #[arg(long)]
    strict: bool,
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long)]
    verbose: bool,
    /// Images; the newest complete generation among them is used
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// `OLD=NEW`, both absolute: NEW may be given relative to the working directory.
fn parse_map(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (old, new) = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty()).ok_or("write OLD=NEW")?;
    let absolute = |path: &str| std::path::absolute(path).map_err(|error| error.to_string());
    Ok((absolute(old)?, absolute(new)?))
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
    ExitCode::from(run(&arguments, reporter))
}

/// Restarts the job and stays with it. Gives the exit code.
fn run(arguments: &Arguments, reporter: Reporter) -> u8 {
    let selected = match open_newest(&arguments.images, Check::EveryByte) {
        Ok(selected) => selected,
        Err(error) => {
            reporter.error(error);
            return IMAGE_INVALID;
        }
    };
    for skipped in &selected.skipped {
        reporter.error(format_args!("passed over: {}", skipped.reason));
    }
    let terminal = OwnTerminal::find();
    let restored = read_job(&selected.image).and_then(|job| {
        let options = Options { maps: arguments.map.clone(), strict: arguments.strict };
        restore(&selected.image, &job, &options, terminal.as_ref(), &|what| reporter.event(what)).map(|restored| (job, restored))
    });
    let (job, restored) = match restored {
        Ok(both) => both,
        Err(error) => return refuse(&error, reporter),
    };
    announce(&job, &restored, reporter);
    let RestoredJob { stand_in, listener, ends, shares_session, makers, mut info, .. } = restored;
    info.settings = settings(&info.settings, arguments);
    find_directory(&mut info.settings, selected.image.path(), reporter);
    let restarted = Restarted { info, reaper: stand_in, listener, report: ends, terminal, shares_session, makers };
    match coordinate_restarted(restarted, reporter) {
        Ok(code) => code,
        Err(error) => {
            reporter.error(error);
            CANNOT_RESTORE
        }
    }
}

fn refuse(error: &RestoreError, reporter: Reporter) -> u8 {
    reporter.error(error);
    if error.is_of_image() { IMAGE_INVALID } else { CANNOT_RESTORE }
}

fn announce(job: &JobState, restored: &RestoredJob, reporter: Reporter) {
    for note in &restored.notes {
        reporter.event(note);
    }
    let RestoredJob { processes, threads, .. } = restored;
    let s = |count: &usize| if *count == 1 { "" } else { "s" };
    let es = if *processes == 1 { "" } else { "es" };
    let generation = job.info.generation;
    reporter
        .event(format_args!("restarted from checkpoint {generation} ({processes} process{es}, {threads} thread{})", s(threads)));
}

/// Where images are to go may be gone with the machine that the job was on: then they go where this one is, which has been found.
fn find_directory(settings: &mut Settings, image: &Path, reporter: Reporter) {
    let dir = settings.dir.as_path();
    let home = image.canonicalize().ok().and_then(|image| image.parent().map(Path::to_path_buf));
    if let Some(home) = home.filter(|_| !dir.exists()) {
        reporter.event(format_args!("{} is gone; images go to {}", dir.display(), home.display()));
        settings.dir = home.into();
    }
}

/// The settings of the launch, changed by what the user says now.
fn settings(launch: &Settings, arguments: &Arguments) -> Settings {
    let mut settings = launch.clone();
    if let Some(interval) = arguments.interval {
        settings.interval = Some(interval.0.as_secs_f64());
    }
    if let Some(dir) = &arguments.dir {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        // As at a launch. What cannot be made is found out in time, and said.
        let _ = std::fs::create_dir_all(&dir);
        settings.dir = dir.into();
    }
    if let Some(keep) = arguments.keep {
        settings.keep = keep;
    }
    if let Some(codec) = arguments.compress {
        settings.compress = codec.to_string();
    }
    if let Some(code) = arguments.checkpoint_exit_code {
        settings.stop_exit_code = code;
    }
    settings.on = Reactions::from_settings(&launch.on, &arguments.on).to_settings();
    settings
}
