//! Options of a run, for a job's launch and for its restarts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use ckpt_coordinator::leave_other_jobs;
use ckpt_coordinator::options::{BeforeEnd, Given, On, Reactions, SavePattern, Time, parse_interval};
use ckpt_image::Codec;
use ckpt_session::job::{Hooks, Interval, Settings};
use ckpt_session::{Reporter, Verbosity};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser};

use crate::exit;

/// The default time between failures of a machine, in seconds: a day.
const MTBF: f64 = 86400.0;

/// Options of both `ckpt-launch` and `ckpt-restart`. An option that `ckpt-restart` is not given keeps its value of the launch.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    /// Take a checkpoint every TIME: seconds (fractions allowed), 5m, 1h; or auto: the interval that loses the least time, computed from the cost of a
    /// checkpoint and --mtbf
    #[arg(short, long, value_name = "TIME|auto", value_parser = parse_interval)]
    interval: Option<Interval>,
    /// The mean time between failures of the machine, for --interval auto [default: 24h]
    #[arg(long, value_name = "TIME")]
    mtbf: Option<Time>,
    /// The directory for images [default: the working directory; at a restart the directory of the launch]
    #[arg(short, long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    dir: Option<PathBuf>,
    /// The number of complete generations to keep [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Keep the images of a job that ends with exit code 0. By default they are removed, so that nothing resumes the job by mistake
    #[arg(long)]
    keep_on_success: bool,
    /// The compression of images: none, lz4, zstd[:LEVEL] [default: zstd:1]
    #[arg(long, value_name = "CODEC")]
    compress: Option<Codec>,
    /// Save files that match PATTERN in images, and restore them: small scratch files that the next machine does not have. PATTERN is relative to the
    /// directory of the launch; a directory includes everything below it; at most 1 GiB in all. May be repeated
    #[arg(long, value_name = "PATTERN")]
    save_files: Vec<SavePattern>,
    /// The most bytes of the job's files in an image: 500M, 2GiB. A restart restores these files if they have changed or are missing
    /// [default: a tenth of the free space, 1 GiB at most]
    #[arg(long, value_name = "SIZE")]
    file_budget: Option<ByteSize>,
    /// At a restart: write the variables of the new batch job (SLURM_*, _CONDOR_*, TMPDIR, ...) into the environments of the job's processes, if they
    /// are no longer than the old ones. The file CKPT_ENV_FILE has them in any case
    #[arg(long)]
    refresh_env: bool,
    /// The ACTION when this process gets SIGNAL: checkpoint, stop, requeue or forward. May be repeated
    /// [default: USR1=checkpoint, USR2=stop, TERM=a checkpoint if there is time, then forward; INT, HUP, QUIT, WINCH=forward]
    #[arg(long, value_name = "SIGNAL=ACTION")]
    on: Vec<On>,
    /// Also give the job's first process a signal that has an action: with checkpoint when the image is durable, with stop or requeue before the
    /// checkpoint. For a program that catches the signal; it ends any other. Without SIGNAL: all such signals. May be repeated
    #[arg(long, value_name = "SIGNAL", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    forward: Vec<Given>,
    /// Take a checkpoint after TIME, and stop
    #[arg(long, value_name = "TIME")]
    stop_after: Option<Time>,
    /// Take the last checkpoint TIME before the end of the batch job, or earlier if it needs longer, and stop; or another ACTION: checkpoint, requeue.
    /// The end comes from --time-limit, otherwise from Slurm
    #[arg(long, value_name = "TIME[=ACTION]")]
    before_end: Option<BeforeEnd>,
    /// The time limit of this run, for --before-end without Slurm
    #[arg(long, value_name = "TIME")]
    time_limit: Option<Time>,
    /// The exit code after a checkpoint that stopped the job [default: 85]
    #[arg(long, value_name = "N")]
    checkpoint_exit_code: Option<u8>,
    /// Run CMD with the shell before each checkpoint, with CKPT_IMAGE and CKPT_GENERATION. May be repeated
    #[arg(long, value_name = "CMD")]
    hook_before: Vec<String>,
    /// The same, after an image is durable
    #[arg(long, value_name = "CMD")]
    hook_after: Vec<String>,
    /// The same, before the job is restarted from an image
    #[arg(long, value_name = "CMD")]
    hook_restart: Vec<String>,
    /// At a restart: use paths that begin with NEW for the job's paths that begin with OLD. May be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map)]
    pub map: Vec<(PathBuf, PathBuf)>,
    /// At a restart: start a second copy of a job that lives, with the same files
    #[arg(long)]
    pub again: bool,
    /// At a restart: end what still lives of the job first, as when only its launcher was killed
    #[arg(long, conflicts_with = "again")]
    pub replace: bool,
    /// At a restart: use image files that belong to another user. The owner of an image decides what runs
    #[arg(long)]
    pub trust_owner: bool,
    /// Refuse a checkpoint or restart that loses a connection to the outside of the job, and a restart that cannot restore a file
    #[arg(long)]
    pub strict: bool,
    /// Print errors only
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more
    #[arg(short, long)]
    verbose: bool,
}

/// Parses `OLD=NEW`. Relative paths begin in the working directory.
fn parse_map(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (old, new) = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty()).ok_or("write OLD=NEW")?;
    Ok((absolute(Path::new(old)), absolute(Path::new(new))))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Creates a directory if it is missing. If that fails, the first checkpoint reports it.
fn created(dir: &Path) -> PathBuf {
    let dir = absolute(dir);
    let _ = std::fs::create_dir_all(&dir);
    dir
}

/// Reads the command line of a tool that becomes a job's launcher.
///
/// # Errors
///
/// The exit code, with a message printed: `nested` if this process belongs to a job, otherwise as [`exit::read_command_line`].
pub fn parse<P: Parser>(nested: u8) -> Result<P, ExitCode> {
    if let Err(error) = leave_other_jobs() {
        Reporter(Verbosity::Normal).error(error);
        return Err(ExitCode::from(nested));
    }
    exit::read_command_line()
}

impl RunOptions {
    /// The reporter for `--quiet` and `--verbose`.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        Reporter(match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        })
    }

    /// The image directory of a job that is launched.
    #[must_use]
    pub fn launch_dir(&self) -> PathBuf {
        absolute(self.dir().unwrap_or(Path::new(".")))
    }

    /// The value of `--dir`. An empty one, as of an empty CKPT_DIR, counts as none.
    fn dir(&self) -> Option<&Path> {
        self.dir.as_deref().filter(|dir| !dir.as_os_str().is_empty())
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

    /// The settings of the launch, changed by the options of this run.
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
            dir: self.dir().map_or_else(|| launch.dir.clone(), |dir| created(dir).into()),
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
            io_uring: launch.io_uring,
            wait_all: launch.wait_all,
        }
    }
}
