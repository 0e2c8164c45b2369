//! Running programs with a time limit, and ending whole process trees.
//!
//! After [`adopt_orphans`] this process is the ancestor of every process it starts, however often they fork: none can escape
//! [`kill_descendants`].

use std::collections::HashSet;
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{self, Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, set_child_subreaper};

/// How long killed processes may take to disappear. A process in the middle of writing a gigabyte takes its time.
const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// Makes this process the parent of every descendant whose own parent ends (prctl(2), `PR_SET_CHILD_SUBREAPER`).
pub fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("failed to become a subreaper")
}

/// Runs `command` to its end with empty standard input. If it has not ended after `limit`, kills it and everything else
/// below this process.
pub fn run(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let mut child = spawn(command)?;
    let status = wait(&mut child, limit)?;
    status.with_context(|| {
        kill_descendants().err().map_or_else(
            || format!("{} has not ended after {} s and was killed", shown(command), limit.as_secs()),
            |e| format!("{} has not ended after {} s, and {e:#}", shown(command), limit.as_secs()),
        )
    })
}

/// As [`run`], and fails when the command does.
pub fn run_well(command: &mut Command, limit: Duration) -> Result<()> {
    let status = run(command, limit)?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Starts `command` with empty standard input.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).spawn().with_context(|| format!("failed to start {}", shown(command)))
}

/// Waits until `child` has ended, at most for `limit`. Wakes at once when it ends, so that its time can be measured.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("failed to watch process {pid}"))?;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("failed to wait for process {pid}"))? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left.as_secs().try_into()?, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).with_context(|| format!("failed to watch process {pid}")),
        }
    }
}

/// The processes below this one, parents before their children; those that have ended and are not reaped included.
#[must_use]
pub fn descendants() -> Vec<Pid> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut parents = vec![getpid()];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            if seen.insert(child) {
                found.push(child);
                parents.push(child);
            }
        }
    }
    found
}

/// Kills every process below this one, reaps them, and returns how many there were. Nothing is left when it succeeds.
pub fn kill_descendants() -> Result<usize> {
    let end = Instant::now() + DEATH_LIMIT;
    let mut killed = HashSet::new();
    loop {
        let found = descendants();
        if found.is_empty() {
            return Ok(killed.len());
        }
        for &pid in &found {
            // One that has ended in between is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
            killed.insert(pid);
        }
        // Those that were deeper in the tree become children of this process as their parents go.
        // (`waitpid` would look only for children in this process group.)
        while matches!(process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        if Instant::now() > end {
            bail!("failed to end processes {found:?} with SIGKILL within {} s", DEATH_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The children of all threads of `parent` (proc_tid_children(5)).
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// A command as a person would type it, for messages.
#[must_use]
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
