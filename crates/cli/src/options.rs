//! Options of a run, be it a job's first or a later one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use ckpt_coordinator::leave_other_jobs;
use ckpt_coordinator::options::{BeforeEnd, Given, On, Reactions, SavePattern, Time, parse_interval};
use ckpt_image::Codec;
use ckpt_session::job::{Hooks, Interval, Settings};
use ckpt_session::{Reporter, Verbosity};
use clap::{Args, Parser};

use crate::exit;

/// How often machines fail unless the user says: once a day.
const MTBF: f64 = 86400.0;

/// What both tools take. An option that `ckpt-restart` is not given is as it was at the launch.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Take a checkpoint every TIME: seconds (fractions allowed), 5m, 1h; or auto: as often as loses the least time, by what a checkpoint costs and --mtbf
    #[arg(short, long, value_name = "TIME|auto", value_parser = parse_interval)]
    interval: Option<Interval>,
    /// The time between failures of the machine, on average, for --interval auto [default: 24h]
    #[arg(long, value_name = "TIME")]
    mtbf: Option<Time>,
    /// Where images go [default: the working directory, or CKPT_DIR]
    #[arg(short, long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many complete generations to keep [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Keep the images of a job that has ended with exit code 0; without this they are removed, so that nothing resumes it by mistake
    #[arg(long)]
    keep_on_success: bool,
    /// How images are compressed: none, lz4, zstd[:LEVEL] [default: zstd:1]
    #[arg(long, value_name = "CODEC")]
    compress: Option<Codec>,
    /// Keep files that match PATTERN in images, and bring them back: small scratch files that the next machine does not have. Relative to the directory of
    /// the launch, directories with all that is in them, at most 1 GiB in all; may be given several times
    #[arg(long, value_name = "PATTERN")]
    save_files: Vec<SavePattern>,
    /// Most bytes of the job's files that an image holds, for files that somebody changes or that the next machine does not have: 500M, 2GiB
    /// [default: a tenth of the free space, 1 GiB at most]
    #[arg(long, value_name = "SIZE")]
    file_budget: Option<ByteSize>,
    /// At a restart: write variables of the new batch job (SLURM_*, _CONDOR_*, TMPDIR, ...) into the environments of the job's processes, where they
    /// are no longer than the old ones. The file CKPT_ENV_FILE has them in any case
    #[arg(long)]
    refresh_env: bool,
    /// What SIGNAL sent to this process does: checkpoint, stop, requeue or forward; may be given several times
    /// [default: USR1=checkpoint, USR2=stop, TERM=a checkpoint if it fits, then forward; INT, HUP, QUIT, WINCH=forward]
    #[arg(long, value_name = "SIGNAL=ACTION")]
    on: Vec<On>,
    /// Give the job's first process a signal too that is acted on: with checkpoint when the image is durable, with stop or requeue before that is taken.
    /// For a program that catches it; any other is ended. Without SIGNAL: all; may be given several times
    #[arg(long, value_name = "SIGNAL", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    forward: Vec<Given>,
    /// Take a checkpoint after TIME and stop
    #[arg(long, value_name = "TIME")]
    stop_after: Option<Time>,
    /// Take the last checkpoint so that it is durable TIME before the end of the batch job, and stop; or another ACTION: checkpoint, requeue.
    /// The end is that of --time-limit, else Slurm's
    #[arg(long, value_name = "TIME[=ACTION]")]
    before_end: Option<BeforeEnd>,
    /// How long this run may last, for --before-end where no Slurm tells
    #[arg(long, value_name = "TIME")]
    time_limit: Option<Time>,
    /// The exit code after a checkpoint that stopped the job [default: 85]
    #[arg(long, value_name = "N")]
    checkpoint_exit_code: Option<u8>,
    /// Run CMD by the shell before each checkpoint, with CKPT_IMAGE and CKPT_GENERATION; may be given several times
    #[arg(long, value_name = "CMD")]
    hook_before: Vec<String>,
    /// The same when an image is durable
    #[arg(long, value_name = "CMD")]
    hook_after: Vec<String>,
    /// The same before the job is brought back from an image
    #[arg(long, value_name = "CMD")]
    hook_restart: Vec<String>,
    /// At a restart: where files of the job are now whose paths began with OLD; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map)]
    pub map: Vec<(PathBuf, PathBuf)>,
    /// At a restart: bring the job back although it lives: a second copy beside it, with the same files
    #[arg(long)]
    pub again: bool,
    /// At a restart: use images that are another user's files. Whoever owns an image decides what runs
    #[arg(long)]
    pub trust_owner: bool,
    /// Refuse a checkpoint while a socket leads outside of the job, and the restart of a job that had such, instead of losing that connection
    #[arg(long)]
    pub strict: bool,
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long)]
    verbose: bool,
}

/// `OLD=NEW`, both absolute: NEW may be given relative to the working directory.
fn parse_map(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (old, new) = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty()).ok_or("write OLD=NEW")?;
    Ok((absolute(Path::new(old)), absolute(Path::new(new))))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A directory that is made unless it is there. What cannot be made is found out in time, and said.
fn made(dir: &Path) -> PathBuf {
    let dir = absolute(dir);
    let _ = std::fs::create_dir_all(&dir);
    dir
}

/// Reads the command line; where that is not good, or help was asked for, the exit code, which is `nested` where this is part of a job.
pub fn parse<P: Parser>(nested: u8) -> Result<P, ExitCode> {
    if let Err(error) = leave_other_jobs() {
        Reporter(Verbosity::Normal).error(error);
        return Err(ExitCode::from(nested));
    }
    P::try_parse().map_err(|error| {
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 })
    })
}

impl RunOptions {
    /// How much is said.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter(match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        })
    }

    /// Where images of a job that is launched go.
    #[must_use]
    pub fn launch_dir(&self) -> PathBuf {
        let by_environment = || std::env::var_os("CKPT_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        absolute(&self.dir.clone().or_else(by_environment).unwrap_or_else(|| ".".into()))
    }

    /// The settings of a job that is launched.
    #[must_use]
    pub fn launch_settings(&self) -> Settings {
        self.restart_settings(&Settings {
            dir: self.launch_dir().into(),
            mtbf: MTBF,
            keep: 2,
            compress: Codec::Zstd(1).to_string(),
            stop_exit_code: exit::STOPPED,
            ..Settings::default()
        })
    }

    /// The settings of the launch, changed by what the user says now.
    #[must_use]
    pub fn restart_settings(&self, launch: &Settings) -> Settings {
        let seconds = |time: &Option<Time>| time.map(|Time(time)| time.as_secs_f64());
        let hooks = |now: &Vec<String>, launch: &Vec<String>| if now.is_empty() { launch.clone() } else { now.clone() };
        Settings {
            interval: self.interval.or(launch.interval),
            mtbf: seconds(&self.mtbf).unwrap_or(launch.mtbf),
            stop_after: seconds(&self.stop_after).or(launch.stop_after),
            before_end: self
                .before_end
                .map(|end| (end.time.as_secs_f64(), end.action.to_string()))
                .or_else(|| launch.before_end.clone()),
            time_limit: seconds(&self.time_limit).or(launch.time_limit),
            dir: self.dir.as_deref().map_or_else(|| launch.dir.clone(), |dir| made(dir).into()),
            keep: self.keep.unwrap_or(launch.keep),
            keep_on_success: self.keep_on_success || launch.keep_on_success,
            compress: self.compress.map_or_else(|| launch.compress.clone(), |codec| codec.to_string()),
            on: Reactions::from_settings(&launch.on, &self.on).to_settings(),
            forward: match &self.forward[..] {
                [] => launch.forward.clone(),
                now => now.iter().map(|given| given.to_setting()).collect(),
            },
            strict: self.strict || launch.strict,
            stop_exit_code: self.checkpoint_exit_code.unwrap_or(launch.stop_exit_code),
            hooks: Hooks {
                before: hooks(&self.hook_before, &launch.hooks.before),
                after: hooks(&self.hook_after, &launch.hooks.after),
                restart: hooks(&self.hook_restart, &launch.hooks.restart),
            },
            save_files: match self.save_files.as_slice() {
                [] => launch.save_files.clone(),
                now => now.iter().map(|pattern| pattern.0.clone()).collect(),
            },
            file_budget: self.file_budget.map(|size| size.0).or(launch.file_budget),
            refresh_env: self.refresh_env || launch.refresh_env,
            self_contained: launch.self_contained,
            wait_all: launch.wait_all,
        }
    }
}
