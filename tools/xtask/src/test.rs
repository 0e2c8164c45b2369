//! `cargo xtask test`: everything that must hold before a change is good, with the test runner's closing lines last.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;
use xtask::processes::{adopt_orphans, run, run_well, shown};
use xtask::say;
use xtask::tools::{Profile, Tools, cargo};

use crate::{dependencies, imports, provide};

/// How long a check of the style, with the compilation it needs, may take.
const CHECK_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long the tests, with their own compilation, may take.
const TEST_LIMIT: Duration = Duration::from_secs(36 * 60);

/// Installs what the tests need, checks the style and runs the tests; with a filter, only the tests whose names contain
/// it, and without the checks of the style.
///
/// As root, the tests of the engine run each of their jobs as an ordinary user as well; as an ordinary user, only so.
pub fn test(filter: Option<&str>) -> Result<ExitCode> {
    adopt_orphans()?;
    provide::packages()?;
    provide::programs(|_, in_sample| in_sample)?;
    let path = provide::python()?;
    if filter.is_none() {
        provide::style_checkers()?;
        say!("$ cargo xtask imports");
        imports::imports(false)?;
        dependencies::check()?;
        step(cargo().args(["fmt", "--all", "--check"]), CHECK_LIMIT)?;
        step(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]), CHECK_LIMIT)?;
    }
    // The tests run the tools, and link to neither them nor the agent: building the tests alone would leave old ones.
    Tools::build(Profile::Dev)?;
    let mut tests = cargo();
    if provide::has_nextest() {
        tests.args(["nextest", "run", "--workspace"]).args(filter);
    } else {
        say!("cargo-nextest is not installed: cargo test stands in, without a time limit for each test");
        tests.args(["test", "--workspace", "--no-fail-fast"]).args(filter).args(["--", "--test-threads", "2"]);
    }
    if let Some(path) = path {
        tests.env("PATH", path);
    }
    say!("$ {}", shown(&tests));
    // The runner has the last word, also when tests fail.
    let status = run(&mut tests, TEST_LIMIT)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one step, and says which it is.
fn step(command: &mut Command, limit: Duration) -> Result<()> {
    say!("$ {}", shown(command));
    run_well(command, limit)
}
