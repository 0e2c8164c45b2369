//! What a job pays for being under `ckpt-launch` while no checkpoint is made: nothing, if all is well.
//!
//! Each kind of work runs plainly and under `ckpt-launch` in turns, and the ratio is taken pair by pair. `CKPT_BENCH_REPS`
//! (default 9) changes the number of pairs.
#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ckpt_benches::figures::{Figure, table};
use ckpt_benches::machine;
use ckpt_benches::subjects::compile;
use xtask::processes::{adopt_orphans, kill_descendants, run_well};
use xtask::tools::{Profile, Tools, target_dir};

/// How long one run may take.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A kind of work.
struct Work<'a> {
    name: &'static str,
    words: Vec<&'a str>,
    timed: Timed,
}

/// Whose clock counts.
#[derive(Clone, Copy)]
enum Timed {
    /// The program's own, which it writes to its standard output: the start of a job is not in it.
    Inside,
    /// This bench's: everything from the start to the end is in it.
    Outside,
}

fn main() -> Result<()> {
    adopt_orphans()?;
    let tools = Tools::build(Profile::Release)?;
    let folder = tempfile::tempdir_in(target_dir()?).context("failed to make a folder")?;
    let pairs = env::var("CKPT_BENCH_REPS").map_or(Ok(9), |text| text.parse()).context("CKPT_BENCH_REPS is no number")?;
    let done = compare(&tools, folder.path(), pairs);
    done.and(kill_descendants().map(drop))
}

fn compare(tools: &Tools, dir: &Path, pairs: usize) -> Result<()> {
    let subject = compile("loop", dir)?;
    let subject = subject.to_string_lossy();
    let inside = |name, kind| Work { name, words: vec![&subject, kind], timed: Timed::Inside };
    let outside = |name, words| Work { name, words, timed: Timed::Outside };
    let works = [
        inside("2 million `getpid` and one-byte `read`", "calls"),
        inside("40 million `malloc` and `free`", "malloc"),
        inside("100 million uncontended mutexes", "mutex"),
        outside("bash running `/bin/true` 2000 times", vec!["bash", "-c", "for ((i = 0; i < 2000; i++)); do /bin/true; done"]),
        outside("`/bin/true` alone: a job's start and end", vec!["/bin/true"]),
    ];
    let mut rows = Vec::new();
    for work in &works {
        eprintln!("{} pairs of {}", pairs, work.name);
        let (mut plain, mut launched) = (Figure::default(), Figure::default());
        for pair in 0..pairs {
            // Whatever the first of a pair has from being first falls on both sides in turns.
            let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
            for under in order {
                let seconds = seconds_of(work, under.then_some(tools), dir)?;
                if under { &mut launched } else { &mut plain }.0.push(seconds);
            }
        }
        rows.push(vec![
            work.name.to_owned(),
            plain.shown(1e3, 1, " ms"),
            launched.shown(1e3, 1, " ms"),
            launched.per(&plain).shown(1.0, 3, ""),
            format!("{:.3}", launched.least() / plain.least()),
        ]);
    }
    println!("\nMedians of {pairs} pairs (least–greatest); {}.\n", machine::described(dir));
    println!("{}", table(&["work", "plain", "under `ckpt-launch`", "ratio", "least ÷ least"], &rows));
    Ok(())
}

/// Runs the work once, plainly or under the launcher of `tools`.
fn seconds_of(work: &Work<'_>, tools: Option<&Tools>, dir: &Path) -> Result<f64> {
    let mut command = match tools {
        Some(tools) => {
            let mut command = Command::new(tools.program("ckpt-launch"));
            command.args(["-q", "--"]).args(&work.words);
            command
        }
        None => {
            let mut command = Command::new(work.words[0]);
            command.args(&work.words[1..]);
            command
        }
    };
    let output = dir.join("output");
    command.current_dir(dir).stdout(File::create(&output).map(Stdio::from).context("failed to make a file")?);
    let start = Instant::now();
    run_well(&mut command, RUN_LIMIT)?;
    let elapsed = start.elapsed().as_secs_f64();
    match work.timed {
        Timed::Outside => Ok(elapsed),
        Timed::Inside => {
            let text = fs::read_to_string(&output).context("failed to read a file")?;
            let nanoseconds: f64 = text.trim().parse().with_context(|| format!("{} wrote {text:?}", work.name))?;
            Ok(nanoseconds / 1e9)
        }
    }
}
