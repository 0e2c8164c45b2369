//! Everything a contributor runs: `cargo xtask build|demo|test|imports|programs|soak|objects|bench`.
//!
//! Every step has a time limit, and no process is left running. The engine is not here: these commands use the tools as a
//! user does.
#![forbid(unsafe_code)]

mod demo;
mod dependencies;
mod imports;
mod programs;
mod provide;
mod soak;
mod test;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::processes::{adopt_orphans, run_well};
use xtask::say;
use xtask::tools::{Profile, Tools, cargo};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  build [--release]  build the tools and the agent
  demo [SEED]        kill a real job at a random moment, restart it, compare its output
  test [FILTER]      install what the tests need, check the style, build, and run all tests;
                     with FILTER only build and run the tests whose names contain it
  programs [FILTER]  install the real programs of tests/real, run them, and write docs/programs.md anew;
                     with FILTER only those whose GROUP::NAME contains it
  soak [MINUTES]     kill launchers, twins, processes and restarts at random moments, and write docs/reliability.md anew
  objects            write docs/objects.md anew from what the test programs declare
  imports            check imports against tools/xtask/rooms.toml, and write the lists in docs/architecture.md anew
  bench              measure; see docs/benchmarks.md";

/// How long the benches may take: some hundred runs of jobs of a gigabyte.
const BENCH_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How long the table of objects may take, with the build of the tests.
const OBJECTS_LIMIT: Duration = Duration::from_secs(20 * 60);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["build"] => build(Profile::Dev),
        ["build", "--release"] => build(Profile::Release),
        ["demo"] => demo::demo(None),
        ["demo", seed] => seed.parse().context("a seed is a number").and_then(|seed| demo::demo(Some(seed))),
        ["test"] => test::test(None),
        ["test", filter] => test::test(Some(filter)),
        ["programs"] => programs::programs(None),
        ["programs", filter] => programs::programs(Some(filter)),
        ["soak"] => soak::soak(10.0),
        ["soak", minutes] => minutes.parse().context("MINUTES is a number").and_then(soak::soak),
        ["objects"] => objects(),
        ["imports"] => imports::imports(true).and_then(|()| dependencies::check()).map(|()| ExitCode::SUCCESS),
        ["bench"] => bench(),
        ["help" | "--help" | "-h"] => {
            say!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|e| {
        eprintln!("xtask: {e:#}");
        ExitCode::FAILURE
    })
}

fn build(profile: Profile) -> Result<ExitCode> {
    adopt_orphans()?;
    say!("the tools and the agent are in {}", Tools::build(profile)?.dir.display());
    Ok(ExitCode::SUCCESS)
}

fn objects() -> Result<ExitCode> {
    adopt_orphans()?;
    let mut command = cargo();
    command.args(["test", "--quiet", "-p", "ckpt-tests", "--test", "objects_table"]).env("CKPT_UPDATE_DOCS", "1");
    run_well(&mut command, OBJECTS_LIMIT)?;
    Ok(ExitCode::SUCCESS)
}

fn bench() -> Result<ExitCode> {
    adopt_orphans()?;
    run_well(cargo().args(["bench", "-p", "ckpt-benches"]), BENCH_LIMIT)?;
    Ok(ExitCode::SUCCESS)
}
