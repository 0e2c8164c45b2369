//! `cargo xtask demo`: kills a job with children at a random moment and restarts it, before the user's eyes.
//!
//! It runs the commands of a user in a separate folder, and judges by the bytes of the job's output only.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtask::processes::{adopt_orphans, descendants, kill_descendants, run, spawn};
use xtask::say;
use xtask::tools::{Profile, Tools};

const JOB: &str = include_str!("job.sh");
/// How long the job may take, plain or restarted: it takes some 7 seconds on a quiet machine.
const JOB_LIMIT: Duration = Duration::from_secs(120);
/// The job is killed at a random moment of this span after its first checkpoint.
const KILL_SPAN_MS: u64 = 4000;
/// How often the job's output is read.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the demo; `seed` decides when the job is killed. Fails when the outputs differ.
pub fn demo(seed: Option<u64>) -> Result<ExitCode> {
    adopt_orphans()?;
    say!("building the tools …");
    let tools = Tools::build(Profile::Dev)?;
    let folder = tempfile::Builder::new().prefix("ckpt-demo-").tempdir().context("failed to make a temporary folder")?;
    let shown = play(&tools, folder.path(), seed.unwrap_or_else(|| fastrand::u64(1..1_000_000)));
    // Nothing of the job stays behind, even after a failure.
    let ended = kill_descendants();
    if shown.is_err() {
        say!("its files are in {}", folder.keep().display());
    }
    shown.and(ended.map(|_| ExitCode::SUCCESS))
}

fn play(tools: &Tools, dir: &Path, seed: u64) -> Result<()> {
    let script = dir.join("job.sh");
    fs::write(&script, JOB).context("failed to write the job")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).context("failed to make the job executable")?;

    heading("a plain run, for the expected output");
    let plain_dir = dir.join("plain");
    fs::create_dir(&plain_dir).context("failed to make a folder")?;
    let mut plain = typed(tools, &plain_dir, "../job.sh > out")?;
    let expected_status = run(&mut plain, JOB_LIMIT)?;
    let expected = fs::read(plain_dir.join("out")).context("failed to read the plain run's output")?;
    if !expected_status.success() {
        bail!("the plain run failed: {expected_status}");
    }
    say!("  {} lines, {} bytes", expected.split(|&byte| byte == b'\n').count() - 1, expected.len());

    heading("the same job with a checkpoint every 2 s");
    let job_dir = dir.join("job");
    fs::create_dir(&job_dir).context("failed to make a folder")?;
    let mut watch = Watch::new(&job_dir.join("out"))?;
    let mut job = spawn(&mut typed(tools, &job_dir, "ckpt-launch -i 2 ../job.sh > out")?)?;
    let after = Duration::from_millis(fastrand::Rng::with_seed(seed).u64(0..KILL_SPAN_MS));
    match watch.until(&mut job, || has_image(&job_dir))? {
        Some(status) => bail!("the job ended before its first checkpoint: {status}"),
        None => say!("  the first image is there; seed {seed}: SIGKILL to all in {} ms", after.as_millis()),
    }
    let moment = Instant::now() + after;
    if let Some(status) = watch.until(&mut job, || Instant::now() >= moment)? {
        bail!("the job ended before it was killed: {status}");
    }
    let alive = descendants().len();
    kill_descendants()?;
    watch.look()?;
    say!("  killed {alive} processes; the output has {} of {} bytes", watch.position, expected.len());

    heading("back from the newest image");
    let mut job = spawn(&mut typed(tools, &job_dir, "ckpt-restart ckpt_*.img >> out")?)?;
    let status = watch.until(&mut job, || false)?.context("the restarted job was not waited for")?;
    watch.look()?;
    say!("  the job ended: {status}");

    let output = fs::read(job_dir.join("out")).context("failed to read the output")?;
    if status != expected_status {
        bail!("the restarted job ended with {status}, the plain run with {expected_status}");
    }
    if output != expected {
        bail!("the outputs differ: compare {} with {}", job_dir.join("out").display(), plain_dir.join("out").display());
    }
    heading("the output is byte for byte that of the plain run");
    Ok(())
}

fn heading(text: &str) {
    say!("\n== {text}");
}

/// A line as a user types it, printed and run by a shell in `dir`. The shell replaces itself with the command, so the
/// process to wait for is that command.
fn typed(tools: &Tools, dir: &Path, line: &str) -> Result<Command> {
    say!("$ {line}");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}")]).current_dir(dir);
    tools.on_path_of(&mut command)?;
    Ok(command)
}

fn has_image(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("ckpt_") && name.ends_with(".img")
    })
}

/// The job's output file, shown as it grows.
struct Watch {
    file: File,
    /// Bytes shown so far.
    position: u64,
}

impl Watch {
    fn new(path: &Path) -> Result<Self> {
        // The shell will truncate and fill the same file.
        File::create(path)
            .and_then(|_| File::open(path))
            .map(|file| Self { file, position: 0 })
            .context("failed to make the output file")
    }

    /// Shows new output until `done` (returns nothing) or until `job` ends (returns its status).
    fn until(&mut self, job: &mut Child, done: impl Fn() -> bool) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + JOB_LIMIT;
        while !done() {
            if let Some(status) = job.try_wait().context("failed to wait for the job")? {
                return Ok(Some(status));
            }
            if Instant::now() > end {
                bail!("the job has not reached this point within {} s", JOB_LIMIT.as_secs());
            }
            self.look()?;
            thread::sleep(LOOK);
        }
        Ok(None)
    }

    /// Shows new complete lines. A restart cuts the output back to its state at the checkpoint.
    fn look(&mut self) -> Result<()> {
        let size = self.file.metadata().context("failed to look at the output")?.len();
        if size < self.position {
            say!("  (cut back from {} bytes to the {size} of the checkpoint)", self.position);
            self.position = size;
        }
        self.file.seek(SeekFrom::Start(self.position)).context("failed to read the output")?;
        let mut new = Vec::new();
        self.file.read_to_end(&mut new).context("failed to read the output")?;
        let lines = new.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        for line in new[..lines].split_inclusive(|&byte| byte == b'\n') {
            let _ = std::io::stdout().write_all(&[b"  | ", line].concat());
        }
        self.position += lines as u64;
        Ok(())
    }
}
