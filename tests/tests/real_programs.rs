//! Real programs, one test for each program of `real/` and each identity: `GROUP::PROGRAM::as_user`.
//!
//! The sample, those with a `short` length, is in every run of the tests. With `CKPT_PROGRAMS=full`, as `cargo xtask programs` sets it, all
//! are run at their full length, and what comes of it is recorded: two at a time of those that one core is enough for, the others alone.

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use ckpt_tests::Identity;
use ckpt_tests::real::{Length, programs, sample};
use libtest_mimic::{Arguments, Failed, Trial};

/// Held by every program at full length, for itself by those that run alone.
static MACHINE: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let length = if std::env::var("CKPT_PROGRAMS").is_ok_and(|value| value == "full") { Length::Full } else { Length::Short };
    if length == Length::Full {
        arguments.test_threads = Some(2);
    }
    let mut trials = Vec::new();
    let mut programs = programs();
    // Else two that may run beside each other would wait for one that may not.
    programs.sort_by_key(|program| program.alone);
    for program in programs {
        if program.work(length).is_none() {
            continue;
        }
        for identity in program.identities(length) {
            let who = if identity == Identity::Root { "as_root" } else { "as_user" };
            let name = format!("{}::{}::{who}", program.group, program.name);
            let program = program.clone();
            // The same again, by somebody else: what matters is that it works as well.
            let again = identity == Identity::Root && program.short.is_some() && program.identities(length).len() > 1;
            let work = if again { Length::Short } else { length };
            trials.push(Trial::test(name, move || {
                if length == Length::Short {
                    return sample(&program, identity).map_err(Failed::from);
                }
                let alone = program.alone.then(|| MACHINE.write().unwrap_or_else(PoisonError::into_inner));
                let beside = alone.is_none().then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner));
                let run = program.run(identity, work);
                drop((alone, beside));
                run.record(&program.group);
                run.failure.map_or(Ok(()), |failure| Err(failure.into()))
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
