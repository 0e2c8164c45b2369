//! What HTCondor does to a job, as its manual says (condor_submit(1), "Self-Checkpointing Applications"), for one job at a time and without a pool.
//!
//! - Each start is in a fresh directory, with the input files and what was kept of the last checkpoint in it.
//! - A job that exits with `checkpoint_exit_code` has its `transfer_checkpoint_files` kept, with its standard output and error so far, and is
//!   started again at once, with the same arguments in the same directory.
//! - One that is evicted gets `kill_sig`, and is killed when it takes too long. Its directory is gone with what was not kept.
//! - One that ends otherwise has ended: its output files are delivered.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::sandbox::BOUND;
use crate::{Identity, Running, Sandbox};

/// Standard output and error while the job runs.
const STREAMS: [(&str, &str); 2] = [("output", "_condor_stdout"), ("error", "_condor_stderr")];

/// Commands of a submit file that are understood here; any other is a mistake.
const KNOWN: [&str; 13] = [
    "executable",
    "arguments",
    "environment",
    "transfer_input_files",
    "transfer_output_files",
    "transfer_checkpoint_files",
    "should_transfer_files",
    "when_to_transfer_output",
    "checkpoint_exit_code",
    "kill_sig",
    "output",
    "error",
    "log",
];

/// A job that has been submitted.
pub struct Condor {
    /// Where it was submitted from, in `submit`, what is kept of it, in `spool`, and where it runs, in `dir_N`.
    pub sandbox: Sandbox,
    commands: HashMap<String, String>,
    starts: u32,
}

/// A start of it.
pub struct Start {
    running: Running,
    dir: PathBuf,
}

/// How a start ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the exit code that says that there is a checkpoint: it was kept.
    Checkpointed,
    /// With another exit code (128+N for signal N), and its output was delivered.
    Finished(i32),
    /// It would be held, for this reason.
    Held(String),
}

impl Condor {
    /// Submits a job: `condor_submit FILE MACRO=VALUE… -append LINE…`, from a folder with these files in it.
    ///
    /// # Panics
    /// When the submit file is not understood.
    #[must_use]
    pub fn submit(identity: Identity, file: &Path, macros: &[(&str, &str)], append: &[&str], files: &[PathBuf]) -> Self {
        let sandbox = Sandbox::new(identity);
        sandbox.make_dir("submit");
        sandbox.make_dir("spool");
        for file in files {
            let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
            sandbox
                .write(&format!("submit/{name}"), fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
        }
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let lines = text.lines().chain(append.iter().copied()).map(str::trim);
        let mut commands = HashMap::new();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#') && *line != "queue") {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no command of a submit file: {line}"));
            let name = name.trim().to_lowercase();
            assert!(KNOWN.contains(&name.as_str()), "what {name} does is not known here");
            commands.insert(name, expand(value.trim(), macros));
        }
        Self { sandbox, commands, starts: 0 }
    }

    fn command(&self, name: &str) -> &str {
        self.commands.get(name).map_or("", String::as_str)
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.command(name).split(',').map(str::trim).filter(|item| !item.is_empty())
    }

    /// Starts it on another machine: in a fresh directory.
    #[must_use]
    pub fn start(&mut self) -> Start {
        self.starts += 1;
        let name = format!("dir_{}", 1000 + 17 * self.starts);
        let dir = self.sandbox.make_dir(&name);
        let submit = self.sandbox.join("submit");
        let executable = dir.join("condor_exec.exe");
        self.copy(&submit.join(self.command("executable")), &executable);
        for file in self.list("transfer_input_files") {
            self.copy(&submit.join(file), &dir.join(Path::new(file).file_name().expect("a file has a name")));
        }
        for entry in fs::read_dir(self.sandbox.join("spool")).into_iter().flatten().flatten() {
            self.copy(&entry.path(), &dir.join(entry.file_name()));
        }
        self.start_in(dir)
    }

    /// Starts it in a directory.
    fn start_in(&self, dir: PathBuf) -> Start {
        let mut command = self.sandbox.command(dir.join("condor_exec.exe"));
        command.args(self.command("arguments").split_whitespace()).current_dir(&dir);
        command.env_remove("HOME").envs(["TMPDIR", "_CONDOR_SCRATCH_DIR", "_CONDOR_JOB_IWD"].map(|name| (name, &dir)));
        command.env("_CONDOR_SLOT", format!("slot1_{}", self.starts));
        let environment = self.command("environment").trim_matches('"');
        command.envs(environment.split_whitespace().filter_map(|variable| variable.split_once('=')));
        // Appended to where a checkpoint is kept (VanillaProc::outputOpenFlags).
        let name = dir.file_name().expect("it has a name").to_string_lossy().into_owned();
        command.stdout(self.sandbox.output_file(&format!("{name}/{}", STREAMS[0].1), true));
        command.stderr(self.sandbox.output_file(&format!("{name}/{}", STREAMS[1].1), true));
        Start { running: Running::start(command, dir.join(STREAMS[1].1)), dir }
    }

    /// Waits until a start has ended, and does what is to be done then.
    #[must_use]
    pub fn wait(&self, start: &mut Start) -> Ended {
        let code = start.running.wait(BOUND);
        if self.command("checkpoint_exit_code") == code.to_string() {
            return match self.keep(&start.dir, "transfer_checkpoint_files") {
                Ok(()) => Ended::Checkpointed,
                Err(reason) => Ended::Held(reason),
            };
        }
        for (command, stream) in STREAMS {
            self.copy(&start.dir.join(stream), &self.sandbox.join("submit").join(self.command(command)));
        }
        for file in self.list("transfer_output_files") {
            if !start.dir.join(file).exists() {
                return Ended::Held(format!("there is no {file} to transfer"));
            }
            self.copy(&start.dir.join(file), &self.sandbox.join("submit").join(file));
        }
        Ended::Finished(code)
    }

    /// Starts a job again that has made a checkpoint: in the same directory.
    #[must_use]
    pub fn again(&self, start: Start) -> Start {
        self.start_in(start.dir.clone())
    }

    /// Evicts a start: `kill_sig`, and what it leaves within the grace is kept where the submit file says so.
    ///
    /// # Panics
    /// When what it leaves would have it held.
    pub fn evict(&self, mut start: Start, grace: Duration) {
        let signal = self.commands.get("kill_sig").map_or("SIGTERM", String::as_str);
        start.running.signal(signal.parse::<Signal>().expect("a signal"));
        let in_time = start.running.ends_within(grace);
        start.running.kill();
        if in_time && self.command("when_to_transfer_output") == "ON_EXIT_OR_EVICT" {
            self.keep(&start.dir, "transfer_output_files").unwrap_or_else(|reason| panic!("held: {reason}"));
        }
    }

    /// The machine is gone, and the directory with it.
    pub fn lose(&self, mut start: Start) {
        start.running.kill();
    }

    /// Keeps the files of a list, and the streams.
    fn keep(&self, dir: &Path, list: &str) -> Result<(), String> {
        let kept: Vec<&str> = self.list(list).chain(STREAMS.map(|(_, stream)| stream)).collect();
        for name in &kept {
            let path = dir.join(name);
            if !path.exists() {
                return Err(format!("there is no {name} to transfer"));
            }
            plain(&path)?;
        }
        for name in kept {
            let place = self.sandbox.join("spool").join(name);
            let _ = fs::remove_dir_all(&place);
            self.copy(&dir.join(name), &place);
        }
        Ok(())
    }

    /// Copies a file or folder as a transfer does: no times and no owners, but who may run it.
    fn copy(&self, from: &Path, to: &Path) {
        let mut command = Command::new("cp");
        command.args(["--recursive", "--no-target-directory", "--preserve=mode"]).arg(from).arg(to);
        self.sandbox.identity.apply(&mut command);
        assert!(command.status().is_ok_and(|status| status.success()), "cannot copy {} to {}", from.display(), to.display());
    }
}

impl Start {
    /// Waits until there is some text on the standard output, be it of an earlier start.
    pub fn until_prints(&mut self, text: &str) {
        let path = self.dir.join(STREAMS[0].1);
        self.running.until(&format!("{text:?}"), BOUND, |running| {
            let said = fs::read_to_string(&path).unwrap_or_default().contains(text);
            assert!(said || running.ended().is_none(), "it ended without {text:?}:\n{}", running.stderr());
            said.then_some(())
        });
    }

    /// What is on the standard error, of earlier starts too.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.running.kill();
    }
}

/// Only files and folders can be transferred, no links to folders and nothing else.
fn plain(path: &Path) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| error.to_string())?.flatten() {
            plain(&entry.path())?;
        }
    } else if !metadata.is_file() || metadata.permissions().mode() & 0o400 == 0 {
        return Err(format!("{} is no plain file", path.display()));
    }
    Ok(())
}

/// Replaces `$(NAME)` and `$(NAME:DEFAULT)`.
fn expand(value: &str, macros: &[(&str, &str)]) -> String {
    let Some((before, rest)) = value.split_once("$(") else { return value.to_owned() };
    let (inside, after) = rest.split_once(')').unwrap_or_else(|| panic!("no end of a macro: {value}"));
    let (name, default) = inside.split_once(':').unwrap_or((inside, ""));
    let value = macros.iter().find(|(known, _)| *known == name).map_or(default, |(_, value)| value);
    format!("{before}{value}{}", expand(after, macros))
}
