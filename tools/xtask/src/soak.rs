//! `cargo xtask soak [MINUTES]`: kills at random moments, for as long as one likes, and writes the table of the outcomes.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::processes::{adopt_orphans, run, shown};
use xtask::say;
use xtask::tools::{Profile, Tools, cargo, root};

/// The page with the table, which stands between these marks.
const PAGE: &str = "docs/reliability.md";
const MARKS: [&str; 2] = ["<!-- soak: written by `cargo xtask soak` -->\n", "<!-- soak: end -->\n"];
/// What a soak takes beside its minutes: the build, and rounds that are not over.
const MARGIN: Duration = Duration::from_secs(15 * 60);

/// Soaks for so many minutes, half of them as root where this is root, half as an ordinary user.
pub fn soak(minutes: f64) -> Result<ExitCode> {
    ensure!(minutes > 0.0, "a number of minutes is more than 0");
    adopt_orphans()?;
    Tools::build(Profile::Dev)?;
    let report = root().join("target/soak.md");
    let _ = fs::remove_file(&report);
    let mut tests = cargo();
    tests.args(["test", "-p", "ckpt-tests", "--test", "soak", "--", "--test-threads", "1"]);
    tests.env("CKPT_SOAK_MINUTES", (minutes / 2.0).to_string()).env("CKPT_SOAK_REPORT", &report);
    say!("$ {}", shown(&tests));
    let status = run(&mut tests, Duration::from_secs_f64(60.0 * minutes) + MARGIN)?;
    let table = fs::read_to_string(&report).context("the soak has left no table")?;
    let page = root().join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("failed to read {PAGE}"))?;
    let (before, rest) = text.split_once(MARKS[0]).with_context(|| format!("{PAGE} has lost its marks"))?;
    let (_, after) = rest.split_once(MARKS[1]).with_context(|| format!("{PAGE} has lost its marks"))?;
    fs::write(&page, format!("{before}{}\n{table}{}{after}", MARKS[0], MARKS[1]))?;
    say!("the table is {PAGE}");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
