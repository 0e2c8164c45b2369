//! `cargo xtask programs`: installs and runs the real programs of `tests/real`, and writes the table of the results.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use xtask::processes::{adopt_orphans, run, run_well, shown};
use xtask::say;
use xtask::tools::{Profile, Tools, cargo};

use crate::provide;

/// How long all of them may take: some fifty programs, each of some three minutes with its restarts.
const PROGRAMS_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);
/// How long the table may take, with the build of the test that writes it.
const TABLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs and runs the programs whose `GROUP::NAME` contains the filter, at full length, and writes
/// `docs/programs.md` anew. Rows of programs that are not run stay as they are.
pub fn programs(filter: Option<&str>) -> Result<ExitCode> {
    adopt_orphans()?;
    provide::packages()?;
    provide::programs(|name, _| filter.is_none_or(|filter| name.contains(filter)))?;
    // What users install: pauses are measured.
    let tools = Tools::build(Profile::Release)?;
    let mut tests = cargo();
    tests.args(["test", "-p", "ckpt-tests", "--test", "real_programs", "--"]).args(filter);
    tests.env("CKPT_PROGRAMS", "full").env("CKPT_BIN", &tools.dir);
    say!("$ {}", shown(&tests));
    let status = run(&mut tests, PROGRAMS_LIMIT)?;
    let mut table = cargo();
    table.args(["test", "--quiet", "-p", "ckpt-tests", "--test", "docs", "table_of_programs"]).env("CKPT_UPDATE_DOCS", "1");
    run_well(&mut table, TABLE_LIMIT)?;
    say!("the table is docs/programs.md");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
