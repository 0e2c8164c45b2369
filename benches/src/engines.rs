//! The engines that are compared: this project's tools, and DMTCP and CRIU if they are installed. Each is used as its manual
//! says, with a single job in a separate folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtask::processes::{run_well, spawn};
use xtask::tools::Tools;

/// How long a checkpoint may take.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(120);
/// How long DMTCP's coordinator may take to report its port.
const PORT_LIMIT: Duration = Duration::from_secs(10);

/// A way to checkpoint and restart a job.
pub enum Engine {
    /// This project, with a value of `--compress`.
    Ckpt(Tools, &'static str),
    /// DMTCP, compressing with its gzip or not.
    Dmtcp {
        /// Whether it compresses.
        gzip: bool,
    },
    /// CRIU, which needs root.
    Criu,
}

impl Engine {
    /// As in the first column of a table.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Ckpt(_, codec) => format!("`{codec}`"),
            Self::Dmtcp { gzip: true } => "DMTCP, gzip".into(),
            Self::Dmtcp { gzip: false } => "DMTCP, uncompressed".into(),
            Self::Criu => "CRIU, uncompressed, not synced".into(),
        }
    }

    /// The installed peers, and a line about each that is missing.
    #[must_use]
    pub fn peers() -> (Vec<Self>, Vec<&'static str>) {
        let (mut found, mut left_out) = (Vec::new(), Vec::new());
        if is_on_path("dmtcp_launch") {
            found.extend([Self::Dmtcp { gzip: false }, Self::Dmtcp { gzip: true }]);
        } else {
            left_out.push("DMTCP is left out: there is no `dmtcp_launch` on the search path");
        }
        match (is_on_path("criu"), rustix::process::geteuid().is_root()) {
            (true, true) => found.push(Self::Criu),
            (true, false) => left_out.push("CRIU is left out: it needs root"),
            (false, _) => left_out.push("CRIU is left out: there is no `criu` on the search path"),
        }
        (found, left_out)
    }

    /// Starts `words` as a job in `dir`, where its images will be. Returns the process to wait for.
    pub fn launch(&self, words: &[String], dir: &Path) -> Result<Child> {
        let mut command = match self {
            Self::Ckpt(tools, codec) => {
                let mut command = Command::new(tools.program("ckpt-launch"));
                command.args(["-q", "--compress", codec, "--"]);
                command
            }
            Self::Dmtcp { gzip } => {
                let mut command = Command::new("dmtcp_launch");
                command.args(["--new-coordinator", "--coord-port", "0", "--port-file", "port"]);
                command.arg(if *gzip { "--gzip" } else { "--no-gzip" });
                command
            }
            Self::Criu => {
                // It must lead a session, and have no growing file open.
                return spawn(Command::new("setsid").args(words).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null()));
            }
        };
        spawn(command.args(words).current_dir(dir).stdout(Stdio::null()).stderr(log(dir)?))
    }

    /// Takes a checkpoint of the job in `dir`; returns when the engine reports its end.
    pub fn checkpoint(&self, job: &Child, dir: &Path) -> Result<()> {
        let mut command = match self {
            Self::Ckpt(tools, _) => {
                let mut command = Command::new(tools.program("ckpt-ctl"));
                command.arg("-d").arg(dir).arg("checkpoint");
                command
            }
            Self::Dmtcp { .. } => {
                let mut command = Command::new("dmtcp_command");
                command.args(["--coord-port", &port(dir)?, "--bcheckpoint"]);
                command
            }
            Self::Criu => {
                // The process that was started as `setsid` has become the job.
                let job = job.id().to_string();
                let mut command = Command::new("criu");
                command.args(["dump", "--leave-running", "--images-dir", ".", "--log-file", "dump.log", "--tree", &job]);
                command
            }
        };
        run_well(command.current_dir(dir).stdout(Stdio::null()).stderr(log(dir)?), CHECKPOINT_LIMIT)
    }

    /// Starts a restart of the job from its images in `dir`; it is complete when the subject runs.
    pub fn restart(&self, dir: &Path) -> Result<Child> {
        let mut command = match self {
            Self::Ckpt(tools, _) => {
                let mut command = Command::new(tools.program("ckpt-restart"));
                command.arg("-q").args(images(dir)?);
                command
            }
            Self::Dmtcp { .. } => {
                let mut command = Command::new("dmtcp_restart");
                command.args(["--new-coordinator", "--coord-port", "0", "--port-file", "port"]).args(images(dir)?);
                command
            }
            Self::Criu => {
                let mut command = Command::new("criu");
                command.args(["restore", "--images-dir", ".", "--log-file", "restore.log"]);
                command
            }
        };
        spawn(command.current_dir(dir).stdout(Stdio::null()).stderr(log(dir)?))
    }

    /// Bytes of the images in `dir`.
    pub fn image_bytes(&self, dir: &Path) -> Result<u64> {
        let images = images(dir)?;
        let sizes = images.iter().map(|image| fs::metadata(image).map(|metadata| metadata.len()));
        sizes.sum::<Result<_, _>>().context("failed to look at the images")
    }
}

/// The last lines of the engine and the job, for error messages.
#[must_use]
pub fn said(dir: &Path) -> String {
    let texts = ["stderr", "dump.log", "restore.log"].map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default());
    let last = texts.iter().filter_map(|text| text.lines().next_back());
    last.collect::<Vec<_>>().join("; ")
}

/// The images of any engine in `dir`.
fn images(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("failed to list {}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "img" || ending == "dmtcp"));
    found.sort();
    Ok(found)
}

fn log(dir: &Path) -> Result<fs::File> {
    fs::File::options().create(true).append(true).open(dir.join("stderr")).context("failed to open a log")
}

fn port(dir: &Path) -> Result<String> {
    let end = Instant::now() + PORT_LIMIT;
    while Instant::now() < end {
        match fs::read_to_string(dir.join("port")) {
            Ok(port) if !port.trim().is_empty() => return Ok(port.trim().to_owned()),
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
    bail!("dmtcp_launch has not written the port of its coordinator")
}

fn is_on_path(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).is_file())
}
