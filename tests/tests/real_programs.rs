//! Real programs, one test for each program of `real/` and each identity: `GROUP::PROGRAM::as_user`.
//!
//! The sample, those with a `short` length, is in every run of the tests. With `CKPT_PROGRAMS=full`, as `cargo xtask programs` sets it, all
//! are run at their full length and one at a time, and what comes of it is recorded.

use std::process::ExitCode;

use ckpt_tests::Identity;
use ckpt_tests::real::{Length, programs, sample};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let length = if std::env::var("CKPT_PROGRAMS").is_ok_and(|value| value == "full") { Length::Full } else { Length::Short };
    if length == Length::Full {
        arguments.test_threads = Some(1);
    }
    let mut trials = Vec::new();
    for program in programs() {
        if program.work(length).is_none() {
            continue;
        }
        for identity in program.identities(length) {
            let who = if identity == Identity::Root { "as_root" } else { "as_user" };
            let name = format!("{}::{}::{who}", program.group, program.name);
            let program = program.clone();
            trials.push(Trial::test(name, move || {
                if length == Length::Short {
                    return sample(&program, identity).map_err(Failed::from);
                }
                let run = program.run(identity, length);
                run.record(&program.group);
                run.failure.map_or(Ok(()), |failure| Err(failure.into()))
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
