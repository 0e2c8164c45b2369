//! What runs of real programs have given: kept in `real/results/GROUP.jsonl`, a line for each program and identity, and shown in
//! `docs/programs.md`. A run replaces its own line and no other.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{GROUPS, Length, Program, folder, programs};
use crate::{Identity, Output};

/// One run of a program that was killed and brought back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// The program.
    pub name: String,
    /// Who ran it.
    pub identity: String,
    /// The options of `ckpt-launch` that it had.
    pub options: Vec<String>,
    /// What it says of its version.
    pub version: String,
    /// How long an uninterrupted run takes, in seconds.
    pub seconds: f64,
    /// The most processes that were brought back at once.
    pub processes: u64,
    /// The most threads that were brought back at once.
    pub threads: u64,
    /// The size of the largest image, as the tools told it.
    pub image: String,
    /// The median of the pauses, in milliseconds.
    pub pause: f64,
    /// The longest of the pauses, in milliseconds.
    pub longest_pause: f64,
    /// How many kills it came back from.
    pub kills: usize,
    /// What the tools told beside checkpoints and restarts, each once.
    pub remarks: Vec<String>,
    /// What went wrong.
    pub failure: Option<String>,
    /// The system that it ran on.
    pub system: String,
}

impl Run {
    /// Of a program that is going to be run.
    #[must_use]
    pub fn new(name: &str, identity: Identity, options: &[String]) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/etc/os-release");
        let system =
            release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("an unknown system").trim_matches('"');
        let system = format!("Linux {} of {system}", read("/proc/sys/kernel/osrelease").trim());
        let (name, identity) = (name.to_owned(), name_of(identity).to_owned());
        Self { name, identity, options: options.to_vec(), system, ..Self::default() }
    }

    /// Takes over what the tools told in a run.
    pub fn observe(&mut self, output: &Output) {
        self.kills = output.restarts;
        let (mut pauses, mut largest) = (Vec::new(), 0.0);
        let mut remarks = BTreeSet::new();
        for line in output.stderr.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("ckpt: ")) {
            if let Some((rest, pause)) = line.strip_prefix("checkpoint ").and_then(|line| line.split_once(" on disk, paused ")) {
                pauses.extend(quantity(pause.split(',').next().unwrap_or_default()));
                let size = rest.rsplit_once(" → ").map_or("", |(_, size)| size);
                let bytes = quantity(size).unwrap_or_default();
                if bytes > largest {
                    (largest, self.image) = (bytes, size.to_owned());
                }
            } else if let Some((_, what)) = line.strip_prefix("restarted from checkpoint ").and_then(|line| line.split_once(" ("))
            {
                let mut counts = what.split(", ").map(|part| part.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0));
                self.processes = self.processes.max(counts.next().unwrap_or(0));
                self.threads = self.threads.max(counts.next().unwrap_or(0));
            } else {
                remarks.insert(line.to_owned());
            }
        }
        self.remarks = remarks.into_iter().collect();
        pauses.sort_by(f64::total_cmp);
        self.pause = pauses.get(pauses.len() / 2).copied().unwrap_or_default();
        self.longest_pause = pauses.last().copied().unwrap_or_default();
    }

    /// Puts the run into the results of its group, in place of the one before.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn record(&self, group: &str) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _writing = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runs = of_group(group);
        runs.retain(|run| (&run.name, &run.identity) != (&self.name, &self.identity));
        runs.push(self.clone());
        let known = programs();
        let place = |run: &Run| (known.iter().position(|program| program.name == run.name), run.identity != "user");
        // Those of programs that are gone, or run as somebody else now, are of no use.
        runs.retain(|run| {
            let program = known.iter().find(|program| program.name == run.name);
            program.is_some_and(|program| program.identities(Length::Full).into_iter().any(|it| name_of(it) == run.identity))
        });
        runs.sort_by_key(place);
        let lines: String = runs.iter().map(|run| serde_json::to_string(run).expect("a run is plain data") + "\n").collect();
        let path = path(group);
        fs::write(&path, lines).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// How an identity is called in the results.
fn name_of(identity: Identity) -> &'static str {
    if identity == Identity::Root { "root" } else { "user" }
}

/// A number with its unit as the tools tell it, in bytes or milliseconds.
fn quantity(text: &str) -> Option<f64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let factor = match unit {
        "B" | "ms" => 1.0,
        "s" => 1000.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn path(group: &str) -> PathBuf {
    folder().join("results").join(group).with_extension("jsonl")
}

/// The results of a group.
fn of_group(group: &str) -> Vec<Run> {
    let text = fs::read_to_string(path(group)).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", path(group).display())))
        .collect()
}

/// `docs/programs.md`, as the descriptions and the results have it.
#[must_use]
pub fn document() -> String {
    let all: Vec<Program> = programs();
    let systems: BTreeSet<String> = GROUPS.iter().flat_map(|(group, _)| of_group(group)).map(|run| run.system).collect();
    let systems: Vec<String> = systems.into_iter().collect();
    let mut text = format!(
        "\
# Real programs

Generated by `cargo xtask programs [FILTER]`, which installs these programs from their packages. It runs each program uninterrupted. Then it
runs it under `ckpt-launch`, kills it with SIGKILL at {} random moments, and restarts it each time from the newest image. The output must
equal that of the uninterrupted run byte for byte, or pass the program's own check. Descriptions, scripts and results are in
[`tests/real`](../tests/real). Every run of the tests includes the programs marked with a star, with less work; their run as root here has
less work too. Programs that use one core run two at a time, the others alone.

Time is that of the uninterrupted run. Image is the largest image. Pause is the median over all checkpoints, and the longest. The last
runs were on {}.
",
        super::KILLS,
        systems.join(", and on ")
    );
    for (group, title) in GROUPS {
        let programs: Vec<&Program> = all.iter().filter(|program| program.group == group).collect();
        if !programs.is_empty() {
            write_group(&mut text, title, &programs, &of_group(group));
        }
    }
    text
}

fn write_group(text: &mut String, title: &str, programs: &[&Program], runs: &[Run]) {
    let _ = write!(
        text,
        "\n## {title}\n\n\
        | program | version | job | time | processes | threads | image | pause | kills survived | as | result |\n\
        |---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    let mut notes = Vec::new();
    for program in programs {
        let runs: Vec<&Run> = runs.iter().filter(|run| run.name == program.name).collect();
        let star = if program.short.is_some() { "\\*" } else { "" };
        // What is shown was measured with the options of the run; the description may have others by now.
        let options = runs.first().map_or(&program.options, |run| &run.options);
        let options = if options.is_empty() { String::new() } else { format!(" (`{}`)", options.join(" ")) };
        let does = program.does.clone() + &options;
        let Some(first) = runs.first() else {
            let _ = writeln!(text, "| {}{star} | | {does} | | | | | | | | not run yet |", program.name);
            continue;
        };
        let most = |of: fn(&Run) -> f64| runs.iter().map(|run| of(run)).fold(0.0, f64::max);
        let failed: Vec<&&Run> = runs.iter().filter(|run| run.failure.is_some()).collect();
        let result = match (&failed[..], &program.check) {
            ([], None) => "the same output".to_owned(),
            ([], Some(_)) => "right by its check".to_owned(),
            ([failed, ..], _) => {
                let symptom = failed.failure.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
                let because = program.fails.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("**fails** as {}: {}{because}", failed.identity, symptom.replace('|', "\\|"))
            }
        };
        let _ = writeln!(
            text,
            "| {}{star} | {} | {does} | {:.0} s | {} | {} | {} | {:.0} ms, {:.0} ms | {} | {} | {result} |",
            program.name,
            first.version.replace('|', "\\|"),
            first.seconds,
            most(|run| run.processes as f64),
            most(|run| run.threads as f64),
            first.image,
            most(|run| run.pause),
            most(|run| run.longest_pause),
            runs.iter().map(|run| run.kills).sum::<usize>(),
            runs.iter().map(|run| run.identity.as_str()).collect::<Vec<_>>().join(", "),
        );
        let remarks: BTreeSet<&String> = runs.iter().flat_map(|run| &run.remarks).collect();
        // One of each kind: what follows the colon are names of this run.
        let mut kinds = BTreeSet::new();
        let remarks = remarks.iter().filter(|remark| kinds.insert(remark.split(": ").next()));
        notes.extend(remarks.take(4).map(|remark| format!("- {}: `ckpt: {remark}`\n", program.name)));
    }
    if !notes.is_empty() {
        let _ = write!(text, "\nOther messages of the tools:\n\n{}", notes.concat());
    }
}
