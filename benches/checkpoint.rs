//! The pause of a checkpoint, the time to write its image and the time to restart, compared with the machine's limits for the
//! same bytes, and with other engines.
//!
//! `CKPT_BENCH_MIB` (default 1024), `CKPT_BENCH_REPS` (default 5) and `CKPT_BENCH_DIR` (default: the build folder) change
//! the job's size, the number of repetitions and the folder of the images.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ckpt_benches::engines::{Engine, said};
use ckpt_benches::figures::{Figure, table};
use ckpt_benches::limits::Limits;
use ckpt_benches::machine;
use ckpt_benches::subjects::{compile, next_note, notes, now_ns};
use xtask::processes::{adopt_orphans, kill_descendants, run_well};
use xtask::tools::{Profile, Tools, target_dir};

/// How long a subject may take to fill its memory.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a restart may take.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// How long a subject runs before it is checkpointed, and how long its notes are still watched after.
const SETTLE: Duration = Duration::from_millis(300);

/// Measurements of an engine.
#[derive(Default)]
struct Measured {
    /// Seconds that the ticker stood still.
    pause: Figure,
    /// Seconds from the request to the durable image.
    dump: Figure,
    /// Seconds from the start of the restart to the ticker's first tick.
    restart: Figure,
    /// Bytes of the image.
    size: Figure,
}

/// Measurements of the machine, in seconds.
#[derive(Default)]
struct Best {
    memcpy: Figure,
    write: Figure,
    zstd: Figure,
    zstd_size: Figure,
}

/// An engine and its measurements.
struct Contender {
    engine: Engine,
    measured: Measured,
    /// Why it was excluded.
    failure: Option<String>,
}

fn main() -> Result<()> {
    adopt_orphans()?;
    let tools = Tools::build(Profile::Release)?;
    let place = env::var_os("CKPT_BENCH_DIR").map_or_else(target_dir, |dir| Ok(PathBuf::from(dir)))?;
    let folder = tempfile::Builder::new()
        .prefix("ckpt-bench-")
        .tempdir_in(&place)
        .with_context(|| format!("failed to make a folder in {}", place.display()))?;
    let done = compare(&tools, folder.path(), number("CKPT_BENCH_MIB", 1024)?, number("CKPT_BENCH_REPS", 5)?);
    done.and(kill_descendants().map(drop))
}

fn compare(tools: &Tools, dir: &Path, mib: u64, repetitions: u64) -> Result<()> {
    // The job, the contents twice, and everything that is written once in the page cache.
    let needed = (mib * 6) << 20;
    if machine::available_memory() < needed {
        bail!("to measure a job of {mib} MiB takes {} GiB of free memory: set CKPT_BENCH_MIB to less", needed >> 30);
    }
    let subject = compile("memory", dir)?;
    let mut limits = Limits::new(contents(&subject, mib, dir)?, dir)?;
    let mut best = Best::default();

    let (peers, left_out) = Engine::peers();
    let ours = ["zstd:1", "lz4", "none"].map(|codec| Engine::Ckpt(tools.clone(), codec));
    let contenders = ours.into_iter().chain(peers);
    let mut contenders: Vec<_> =
        contenders.map(|engine| Contender { engine, measured: Measured::default(), failure: None }).collect();

    for repetition in 1..=repetitions {
        best.memcpy.0.push(limits.memcpy());
        best.write.0.push(limits.write()?);
        let (seconds, size) = limits.zstd()?;
        best.zstd.0.push(seconds);
        best.zstd_size.0.push(size as f64);
        for contender in contenders.iter_mut().filter(|contender| contender.failure.is_none()) {
            eprintln!("repetition {repetition} of {repetitions}: {}", contender.engine.name());
            let done = measure(&contender.engine, &subject, mib, dir, &mut contender.measured);
            match (done, &contender.engine) {
                (Err(e), Engine::Ckpt(..)) => return Err(e),
                // A peer that fails here is left out.
                (Err(e), _) => contender.failure = Some(format!("{e:#}")),
                (Ok(()), _) => {}
            }
        }
    }

    println!("\n{repetitions} repetitions of a job of {mib} MiB, half random, half text; {}.\n", machine::described(dir));
    report(&best, &contenders, mib);
    for remark in left_out {
        println!("{remark}.");
    }
    for failure in contenders.into_iter().filter_map(|contender| contender.failure) {
        println!("{failure}.");
    }
    Ok(())
}

/// One checkpoint, kill and restart of a new job.
fn measure(engine: &Engine, subject: &Path, mib: u64, dir: &Path, measured: &mut Measured) -> Result<()> {
    let folder = tempfile::tempdir_in(dir).context("failed to make a folder")?;
    let dir = folder.path();
    let done =
        cycle(engine, subject, mib, dir, measured).with_context(|| format!("{} failed, it said: {}", engine.name(), said(dir)));
    // Nothing of this round may run during the next one.
    done.and(kill_descendants().map(drop))
}

fn cycle(engine: &Engine, subject: &Path, mib: u64, dir: &Path, measured: &mut Measured) -> Result<()> {
    let noted = dir.join("notes");
    let words = [subject.to_string_lossy().into_owned(), mib.to_string(), noted.to_string_lossy().into_owned()];
    let job = engine.launch(&words, dir)?;
    next_note(&noted, 0, READY_LIMIT).context("the job has not started")?;
    thread::sleep(SETTLE);

    let asked = now_ns();
    let start = Instant::now();
    engine.checkpoint(&job, dir)?;
    let dump = start.elapsed();
    thread::sleep(SETTLE);
    let pause = notes(&noted)?.iter().filter(|note| note.time > asked).map(|note| note.gap).max().unwrap_or_default();
    let size = engine.image_bytes(dir)?;
    kill_descendants()?;

    let asked = now_ns();
    let mut restarted = engine.restart(dir)?;
    let back = next_note(&noted, asked, RESTART_LIMIT)?;
    if let Some(status) = restarted.try_wait().context("failed to look at the restart")? {
        bail!("the restart has ended: {status}");
    }
    measured.pause.0.push(pause as f64 / 1e9);
    measured.dump.0.push(dump.as_secs_f64());
    measured.restart.0.push((back.time - asked) as f64 / 1e9);
    measured.size.0.push(size as f64);
    Ok(())
}

fn report(best: &Best, contenders: &[Contender], mib: u64) {
    let gib = mib as f64 / 1024.0;
    let rate = |time: &Figure| format!("{:.2} GiB/s", gib / time.median());
    let row = |name: &str, time: &Figure, size: String| vec![name.to_owned(), time.shown(1.0, 2, " s"), rate(time), size];
    let mebibytes = |size: &Figure| format!("{:.0} MiB", size.median() / f64::from(1 << 20));
    let rows = [
        row("memcpy, one thread", &best.memcpy, "–".into()),
        row("`write` and `fsync`", &best.write, format!("{mib} MiB")),
        row("`zstd -1 -T0` and `fsync`", &best.zstd, mebibytes(&best.zstd_size)),
    ];
    println!("{}", table(&["limit", "time", "rate", "size"], &rows));

    let rows: Vec<_> = contenders
        .iter()
        .filter(|contender| contender.failure.is_none())
        .map(|Contender { engine, measured, .. }| {
            let ratio = |time: &Figure, other: &Figure| time.per(other).shown(1.0, 2, "");
            vec![
                engine.name(),
                measured.pause.shown(1e3, 0, " ms"),
                measured.dump.shown(1.0, 2, " s"),
                rate(&measured.dump),
                measured.restart.shown(1.0, 2, " s"),
                mebibytes(&measured.size),
                ratio(&measured.dump, &best.memcpy),
                ratio(&measured.dump, &best.write),
                ratio(&measured.dump, &best.zstd),
                ratio(&measured.restart, &best.memcpy),
            ]
        })
        .collect();
    let head = [
        "engine",
        "pause",
        "dump",
        "rate",
        "restart",
        "image",
        "dump ÷ memcpy",
        "dump ÷ write",
        "dump ÷ zstd",
        "restart ÷ memcpy",
    ];
    println!("{}", table(&head, &rows));
}

/// The bytes of the job's memory.
fn contents(subject: &Path, mib: u64, dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join("bytes");
    let file = fs::File::create(&path).context("failed to make a file")?;
    run_well(Command::new(subject).arg(mib.to_string()).stdout(file), READY_LIMIT)?;
    let bytes = fs::read(&path).context("failed to read the job's bytes")?;
    fs::remove_file(&path).context("failed to remove a file")?;
    Ok(bytes)
}

/// A number from the environment.
fn number(name: &str, default: u64) -> Result<u64> {
    env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} is {text:?}, which is no number")))
}
