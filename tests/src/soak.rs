//! Kills at every step of a job's life, at moments that a seed decides: of its launcher, of a twin, of a process, of everything, of a restart.
//! Afterwards the job runs on, or its newest image restarts to the right output; nothing waits, and nothing is left over.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::job::{IMAGES, await_image};
use crate::sandbox::{BOUND, Running};
use crate::{Identity, Job, Sandbox, tree};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Launcher and job, at one instant.
    Everything,
    /// The launcher alone.
    Launcher,
    /// The copy of a process that a checkpoint is written from.
    Twin,
    /// One process of the job.
    Process,
    /// `ckpt-restart` alone, while it brings the job back or just after.
    Restart,
    /// The same, by SIGTERM.
    RestartTerminated,
    /// The launcher, by SIGTERM.
    LauncherTerminated,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Everything,
        Self::Launcher,
        Self::Twin,
        Self::Process,
        Self::Restart,
        Self::RestartTerminated,
        Self::LauncherTerminated,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Everything => "launcher and job, SIGKILL",
            Self::Launcher => "the launcher alone, SIGKILL",
            Self::Twin => "a twin, SIGKILL",
            Self::Process => "one process of the job, SIGKILL",
            Self::Restart => "ckpt-restart alone, SIGKILL",
            Self::RestartTerminated => "ckpt-restart, SIGTERM",
            Self::LauncherTerminated => "the launcher, SIGTERM",
        }
    }
}

/// How often each point had each outcome.
pub type Outcomes = BTreeMap<(Point, &'static str), u32>;

const RAN_ON: &str = "the job ran on to the right output";
const RESTARTED: &str = "restarted to the right output";
const ENDED: &str = "the job ended by it, as it would have without us";
const NOT_SEEN: &str = "no twin was seen in time, so none was killed";
const MISSED: &str = "the job had ended before";

/// A pipeline of four processes, with a file that it appends to and short-lived children.
const SCRIPT: &str = r#"
set -eu
seq 50 | while read -r i; do echo "line $i" >> log; sleep 0.03; echo "$i"; done | awk '{ s += $1; print s; fflush() } END { print "sum", s }'
wc -l < log
"#;

fn job() -> Job {
    Job::in_directory("work", "bash", SCRIPT).interval("0.1").option("--keep").option("3")
}

fn expected() -> String {
    let sums = (1..=50).scan(0, |sum, i| {
        *sum += i;
        Some(*sum)
    });
    let mut text: String = sums.map(|sum| format!("{sum}\n")).collect();
    text += "sum 1275\n50\n";
    text
}

/// One job that is hit once.
struct Round {
    sandbox: Sandbox,
    job: Job,
    moments: fastrand::Rng,
    runs: usize,
}

/// Launches a job, hits it at `point`, and looks what becomes of it.
///
/// # Errors
/// With what went wrong, and all that was said.
///
/// # Panics
/// When something waits for ever.
pub fn round(point: Point, seed: u64, identity: Identity) -> Result<&'static str, String> {
    let job = job();
    let sandbox = job.sandbox(identity);
    let mut round = Round { sandbox, job, moments: fastrand::Rng::with_seed(seed), runs: 1 };
    let mut running = round.job.launch(&round.sandbox);
    await_image(&round.sandbox, &mut running, None);
    if running.ends_within(round.moment(700)) {
        return round.is_right().map(|()| MISSED);
    }
    let outcome = match point {
        Point::Everything => {
            running.kill();
            round.restarts()
        }
        Point::Launcher => {
            round.hit(&mut running, None, Signal::SIGKILL)?;
            round.is_right().map(|()| RAN_ON)
        }
        Point::LauncherTerminated => {
            round.hit(&mut running, None, Signal::SIGTERM)?;
            round.restarts()
        }
        Point::Twin => round.kill_twin(&mut running),
        Point::Process => round.kill_process(&mut running),
        Point::Restart | Point::RestartTerminated => {
            running.kill();
            round.hit_restart(point)
        }
    };
    outcome.map_err(|what| round.told(&what))
}

impl Round {
    fn moment(&mut self, most_ms: u64) -> Duration {
        Duration::from_millis(self.moments.u64(0..most_ms))
    }

    /// Signals a process, else the running one, and waits until nothing runs or waits in the sandbox any more.
    fn hit(&self, running: &mut Running, victim: Option<i32>, signal: Signal) -> Result<(), String> {
        // It may have ended this moment.
        let _ = kill(Pid::from_raw(victim.unwrap_or(running.pid())), signal);
        running.wait(BOUND);
        self.nothing_waits()
    }

    fn nothing_waits(&self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let left = tree::working_in(self.sandbox.path());
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                let trees: String = left.into_iter().map(tree::describe_tree).collect();
                return Err(format!("these still wait:\n{trees}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_right(&self) -> Result<(), String> {
        let (out, log) = (self.sandbox.read_text("out"), self.sandbox.read_text("work/log"));
        let lines: String = (1..=50).map(|i| format!("line {i}\n")).collect();
        if out == expected() && log == lines { Ok(()) } else { Err(format!("wrong output:\n{out}\nwrong log:\n{log}")) }
    }

    /// The newest image restarts, and nothing is left beside where images were.
    fn restarts(&mut self) -> Result<&'static str, String> {
        let mut running = self.restart();
        let code = running.wait(BOUND);
        if code != 0 {
            return Err(format!("the restart ended with {code}"));
        }
        self.nothing_waits()?;
        self.is_right()?;
        let left: Vec<_> = std::fs::read_dir(self.sandbox.join(IMAGES)).into_iter().flatten().flatten().collect();
        if left.is_empty() { Ok(RESTARTED) } else { Err(format!("left over: {left:?}")) }
    }

    fn restart(&mut self) -> Running {
        let running = self.job.restart(&self.sandbox, &self.sandbox.images(IMAGES), self.runs);
        self.runs += 1;
        running
    }

    fn kill_twin(&mut self, running: &mut Running) -> Result<&'static str, String> {
        let first = tree::children(running.pid());
        let end = Instant::now() + Duration::from_secs(1);
        let mut hit = false;
        while !hit && Instant::now() < end {
            if let Some(twin) = tree::children(running.pid()).into_iter().find(|pid| !first.contains(pid)) {
                hit = kill(Pid::from_raw(twin), Signal::SIGKILL).is_ok();
            }
        }
        let code = running.wait(BOUND);
        if code != 0 {
            return Err(format!("the job ended with {code}"));
        }
        self.nothing_waits()?;
        self.is_right().map(|()| if hit { RAN_ON } else { NOT_SEEN })
    }

    fn kill_process(&mut self, running: &mut Running) -> Result<&'static str, String> {
        let family = tree::family(running.pid());
        let victim = family[self.moments.usize(1..family.len().max(2)).min(family.len() - 1)];
        if victim == running.pid() {
            return Ok(MISSED);
        }
        self.hit(running, Some(victim), Signal::SIGKILL)?;
        Ok(ENDED)
    }

    fn hit_restart(&mut self, point: Point) -> Result<&'static str, String> {
        let mut running = self.restart();
        let moment = self.moment(300);
        if !running.ends_within(moment) {
            let signal = if point == Point::Restart { Signal::SIGKILL } else { Signal::SIGTERM };
            self.hit(&mut running, None, signal)?;
        }
        if self.is_right().is_ok() { Ok(RAN_ON) } else { self.restarts() }
    }

    fn told(&self, what: &str) -> String {
        let mut told = format!("{what}\nin {}\n", self.sandbox.path().display());
        for run in 0..self.runs {
            let _ = write!(told, "run {run}:\n{}", self.sandbox.read_text(&format!("err.{run}")));
        }
        told
    }
}

/// The table of points and outcomes.
#[must_use]
pub fn table(outcomes: &Outcomes) -> String {
    let mut text = "| what was killed, at a random moment | what came of it | how often |\n|---|---|---|\n".to_owned();
    for ((point, outcome), count) in outcomes {
        let _ = writeln!(text, "| {} | {outcome} | {count} |", point.name());
    }
    text
}
