//! Jobs under a real Slurm.

use std::path::Path;

use ckpt_tests::slurm::{Batch, Cluster, Configuration, Tracking};
use ckpt_tests::{Identity, Sandbox};

/// What Slurm is told beside the recipe: where output goes, and how long `my_script.sh` is.
const USUAL: &[&str] = &["--output=out", "--error=err"];

/// Whoever runs jobs has a folder with the recipes and the programs in them.
fn folder(identity: Identity) -> Sandbox {
    let sandbox = Sandbox::new(identity);
    for entry in std::fs::read_dir(examples()).expect("examples/slurm").flatten() {
        let contents = std::fs::read(entry.path()).expect("an example");
        sandbox.write(&entry.file_name().to_string_lossy(), contents);
    }
    sandbox
}

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/slurm"))
}

/// Submits a recipe with so many rounds of `my_script.sh`.
fn submit<'a>(cluster: &'a Cluster, sandbox: &'a Sandbox, rounds: u32, options: &[&str]) -> Batch<'a> {
    cluster.submit(sandbox, &[&format!("ROUNDS={rounds}")], &[USUAL, options].concat())
}

/// What `my_script.sh` prints.
fn output(rounds: u32) -> String {
    let mut sum = 0;
    (1..=rounds)
        .map(|round| {
            sum = (sum * 31 + round) % 1_000_003;
            format!("round {round}: {sum}\n")
        })
        .collect()
}

/// How often a text is in a file of the sandbox.
fn count(sandbox: &Sandbox, file: &str, text: &str) -> usize {
    sandbox.read_text(file).matches(text).count()
}

const RESTARTED: &str = "ckpt: restarted from checkpoint";

/// What was killed in one job goes on in another.
fn killed(identity: Identity, tracking: Tracking) {
    let Some(cluster) = Cluster::start_with(Configuration { tracking, ..Configuration::default() }) else { return };
    let sandbox = folder(identity);
    let append = "--open-mode=append";
    let job = submit(&cluster, &sandbox, 30, &[append, "--wrap=exec ckpt-launch -i 0.3 ./my_script.sh"]);
    job.until_says("out", "round 10:", 1);
    job.scancel(&[]);
    job.until_state("CANCELLED");
    let next = submit(&cluster, &sandbox, 30, &[append, "--wrap=exec ckpt-restart ckpt_*.img"]);
    next.until_state("COMPLETED");
    assert_eq!(count(&sandbox, "err", RESTARTED), 1, "{}", next.told());
    assert_eq!(sandbox.read_text("out"), output(30), "{}", next.told());
}

#[test]
fn a_killed_job_goes_on_in_another_as_user_with_control_groups() {
    killed(Identity::User, Tracking::Cgroup);
}

#[test]
fn a_killed_job_goes_on_in_another_as_root() {
    killed(Identity::Root, Tracking::Linuxproc);
}
