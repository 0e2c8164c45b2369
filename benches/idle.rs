//! The cost of running under `ckpt-launch` without checkpoints, which should be nothing.
//!
//! Each kind of work runs plainly and under `ckpt-launch` in turns. Ratios of the time and of the processor time are computed per
//! pair. `CKPT_BENCH_REPS` (default 9) changes the number of pairs.
#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ckpt_benches::figures::{Figure, table};
use ckpt_benches::machine;
use ckpt_benches::subjects::compile;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
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

/// Measurements of one side, in seconds.
#[derive(Default)]
struct Measured {
    time: Figure,
    processor: Figure,
}

/// The clock that counts.
#[derive(Clone, Copy)]
enum Timed {
    /// The program's own, which it prints: it excludes the start of a job.
    Inside,
    /// This bench's: it includes everything from the start to the end.
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
        inside("300,000 `open` for reading and `close`", "open"),
        inside("100,000 `open` for appending, `write`, `close`", "append"),
        inside("30,000 `open` with `O_TRUNC`, `write`, `close`", "truncate"),
        inside("20,000 files made, written and removed", "create"),
        outside(
            "bash appending 50,000 times (`>>`)",
            vec!["bash", "-c", "for ((i = 0; i < 50000; i++)); do echo line >> loop.out; done; rm loop.out"],
        ),
        outside("bash running `/bin/true` 2000 times", vec!["bash", "-c", "for ((i = 0; i < 2000; i++)); do /bin/true; done"]),
        outside("`/bin/true` alone: a job's start and end", vec!["/bin/true"]),
    ];
    let mut rows = Vec::new();
    for work in &works {
        eprintln!("{} pairs of {}", pairs, work.name);
        let (mut plain, mut launched) = (Measured::default(), Measured::default());
        for pair in 0..pairs {
            // Sides alternate in being first, so its effect is the same on both.
            let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
            for under in order {
                let (time, processor) = run_once(work, under.then_some(tools), dir)?;
                let measured = if under { &mut launched } else { &mut plain };
                measured.time.0.push(time);
                measured.processor.0.push(processor);
            }
        }
        rows.push(vec![
            work.name.to_owned(),
            plain.time.shown(1e3, 1, " ms"),
            launched.time.shown(1e3, 1, " ms"),
            launched.time.per(&plain.time).shown(1.0, 3, ""),
            launched.processor.per(&plain.processor).shown(1.0, 3, ""),
        ]);
    }
    println!("\nMedians of {pairs} pairs (least–greatest); {}.\n", machine::described(dir));
    println!("{}", table(&["work", "plain", "under `ckpt-launch`", "ratio", "of processor time"], &rows));
    Ok(())
}

/// Runs the work once, plainly or under the launcher of `tools`. Returns the seconds of time and of processor time.
fn run_once(work: &Work<'_>, tools: Option<&Tools>, dir: &Path) -> Result<(f64, f64)> {
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
    let (start, processor) = (Instant::now(), processor_seconds()?);
    run_well(&mut command, RUN_LIMIT)?;
    match work.timed {
        Timed::Outside => Ok((start.elapsed().as_secs_f64(), processor_seconds()? - processor)),
        Timed::Inside => {
            let text = fs::read_to_string(&output).context("failed to read a file")?;
            let mut nanoseconds = text.split_whitespace().map(str::parse::<f64>);
            match (nanoseconds.next(), nanoseconds.next()) {
                (Some(Ok(time)), Some(Ok(processor))) => Ok((time / 1e9, processor / 1e9)),
                _ => bail!("{} wrote {text:?}", work.name),
            }
        }
    }
}

/// Processor seconds of all descendants that have been waited for.
fn processor_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("failed to ask for processor times")?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
