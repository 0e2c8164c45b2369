//! The effect of touched files on the pause: the same job with more and more of them.
//!
//! Each job makes its files, changes every tenth before each checkpoint, and sleeps. `CKPT_BENCH_REPS` (default 5) is the number of
//! checkpoints of each. The first, for which every file is new, is shown separately.
#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ckpt_benches::figures::{Figure, table};
use ckpt_benches::machine;
use xtask::processes::{adopt_orphans, kill_descendants, run_well, spawn};
use xtask::tools::{Profile, Tools, target_dir};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes `$1` small files. Each line from the named pipe makes it rewrite every tenth.
const JOB: &str = r#"
mkdir files; for ((i = 0; i < $1; i++)); do echo "file $i" > "files/$i"; done
exec 3<> told
while touch ready; read -r line <&3; do for ((i = 0; i < $1; i += 10)); do echo "$line $i" > "files/$i"; done; done
"#;

fn main() -> Result<()> {
    adopt_orphans()?;
    let tools = Tools::build(Profile::Release)?;
    let repetitions: usize =
        env::var("CKPT_BENCH_REPS").map_or(Ok(5), |text| text.parse()).context("CKPT_BENCH_REPS is no number")?;
    let mut rows = Vec::new();
    for count in [0, 10, 1000, 10_000] {
        eprintln!("{count} files");
        let folder = tempfile::tempdir_in(target_dir()?).context("failed to make a folder")?;
        let measured = measure(&tools, folder.path(), count, repetitions);
        kill_descendants()?;
        let (first, later) = measured?;
        rows.push(vec![count.to_string(), first.shown(1.0, 0, " ms"), later.shown(1.0, 0, " ms")]);
    }
    println!("\nOne job each, {repetitions} checkpoints after its first; {}.\n", machine::described(&target_dir()?));
    println!("{}", table(&["files touched", "pause of the first checkpoint", "of later ones, a tenth changed"], &rows));
    Ok(())
}

/// The pauses, in milliseconds, of the first checkpoint and of those after it.
fn measure(tools: &Tools, dir: &Path, count: usize, repetitions: usize) -> Result<(Figure, Figure)> {
    run_well(Command::new("mkfifo").arg(dir.join("told")), LIMIT)?;
    let mut launch = Command::new(tools.program("ckpt-launch"));
    launch.args(["-d", "images", "--", "bash", "-c", JOB, "job", &count.to_string()]).current_dir(dir);
    launch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(dir.join("said")).context("failed to make a file")?);
    let _job = spawn(&mut launch)?;
    let mut pauses = Vec::new();
    for checkpoint in 0..=repetitions {
        wait_for(&dir.join("ready"))?;
        let mut ask = Command::new(tools.program("ckpt-ctl"));
        run_well(ask.args(["-d", "images", "checkpoint"]).current_dir(dir).stdout(Stdio::null()), LIMIT)?;
        pauses = said_pauses(&fs::read_to_string(dir.join("said")).context("failed to read what was said")?);
        if pauses.len() != checkpoint + 1 {
            bail!("{} pauses were told after {} checkpoints", pauses.len(), checkpoint + 1);
        }
        fs::remove_file(dir.join("ready")).context("failed to remove a file")?;
        fs::write(dir.join("told"), "again\n").context("failed to tell the job")?;
    }
    Ok((Figure(pauses[..1].to_vec()), Figure(pauses[1..].to_vec())))
}

fn wait_for(path: &Path) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !path.exists() {
        if Instant::now() > end {
            bail!("the job did not get ready");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The pauses that the launcher reported, in milliseconds.
fn said_pauses(said: &str) -> Vec<f64> {
    let pause = |line: &str| line.split_once("paused ")?.1.split_once(" ms")?.0.parse().ok();
    said.lines().filter_map(pause).collect()
}
