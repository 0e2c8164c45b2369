//! `cargo xtask test`: all checks that a change must pass. The test runner's summary comes last.

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

/// Installs the requirements of the tests, checks style, imports and dependencies, and runs the tests. With a filter, runs only the
/// tests whose names contain it, without the checks.
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
    // The tests run the tools but do not link them, so building the tests alone would leave old tools.
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
    // The runner prints the last lines, even if tests fail.
    let status = run(&mut tests, TEST_LIMIT)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a step and runs it.
fn step(command: &mut Command, limit: Duration) -> Result<()> {
    say!("$ {}", shown(command));
    run_well(command, limit)
}
