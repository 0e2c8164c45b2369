//! The recipe of `examples/htcondor`, as it stands, under what HTCondor does to a job.

use std::time::Duration;

use ckpt_tests::condor::{Condor, Ended, Start};
use ckpt_tests::examples::{output, path};
use ckpt_tests::{Identity, tool};

const RESTARTED: &str = "ckpt: restarted from checkpoint";

/// Submits `job.sub` for so many rounds of `my_script.sh`, with a checkpoint home every so often.
fn submit(stop_after: &str, rounds: u32) -> Condor {
    let files = [tool("ckpt-launch"), tool("libckpt_preload.so"), path("slurm/my_script.sh")];
    let rounds = format!("environment = \"ROUNDS={rounds} PATH=/usr/bin:/bin\"");
    Condor::submit(Identity::User, &path("htcondor/job.sub"), &[("STOP_AFTER", stop_after)], &[&rounds], &files)
}

/// It runs to its end, wherever it is, in the same directory after each checkpoint.
fn to_the_end(condor: &Condor, mut start: Start, rounds: u32) -> String {
    loop {
        match condor.wait(&mut start) {
            Ended::Checkpointed => start = condor.again(start),
            ended => {
                assert_eq!(ended, Ended::Finished(0), "{}", start.stderr());
                break;
            }
        }
    }
    let said = condor.sandbox.read_text("submit/job.err");
    assert_eq!(condor.sandbox.read_text("submit/job.out"), output(rounds), "neither doubled nor lost\n{said}");
    assert!(condor.sandbox.images("submit/ckpt").is_empty(), "a job that ended well leaves no image");
    said
}

#[test]
fn checkpoints_go_home_and_the_job_goes_on_where_it_is() {
    let mut condor = submit("1.2s", 30);
    let start = condor.start();
    let said = to_the_end(&condor, start, 30);
    assert!(said.matches(RESTARTED).count() >= 2, "{said}");
}

#[test]
fn a_lost_machine_costs_what_was_done_since_the_last_checkpoint() {
    let mut condor = submit("1s", 30);
    for round in ["round 12:", "round 22:"] {
        let mut start = condor.start();
        assert_eq!(condor.wait(&mut start), Ended::Checkpointed, "{}", start.stderr());
        start = condor.again(start);
        start.until_prints(round);
        condor.lose(start);
    }
    let start = condor.start();
    to_the_end(&condor, start, 30);
}

#[test]
fn an_evicted_job_goes_on_in_another_directory() {
    let mut condor = submit("1h", 30);
    for round in ["round 8:", "round 16:", "round 24:"] {
        let mut start = condor.start();
        start.until_prints(round);
        condor.evict(start, Duration::from_secs(20));
    }
    let start = condor.start();
    let said = to_the_end(&condor, start, 30);
    assert_eq!(said.matches(RESTARTED).count(), 3, "{said}");
}

/// What sites teach, for programs that save their state themselves.
#[test]
fn the_recipe_of_sites_works_as_ever() {
    let files = [path("sites/timeout.sh"), path("sites/own-trap.sh")];
    let append = ["environment = \"ROUNDS=20 STOP_AFTER=0.8s PATH=/usr/bin:/bin\""];
    let mut condor = Condor::submit(Identity::User, &path("sites/timeout.sub"), &[], &append, &files);
    let mut start = condor.start();
    while condor.wait(&mut start) == Ended::Checkpointed {
        condor.lose(start);
        start = condor.start();
    }
    let out = condor.sandbox.read_text("submit/job.out");
    assert!(out.contains("saved at round") && out.ends_with("round 20\n"), "{out}\n{}", start.stderr());
}
