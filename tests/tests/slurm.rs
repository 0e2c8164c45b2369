//! The recipes of `examples/slurm`, as they stand, under a real Slurm: first runs, requeued runs, resubmitted ones.
//!
//! What is shortened is shortened from outside, by options of `sbatch`, which override those in the script.

use std::process::Command;

use ckpt_tests::examples::{self, output};
use ckpt_tests::slurm::{Batch, Cluster, Configuration, Tracking};
use ckpt_tests::{Identity, Sandbox, not_run};

/// What Slurm is told beside the recipe: where output goes, and how long `my_script.sh` is.
const USUAL: &[&str] = &["--output=out", "--error=err"];

/// Whoever runs jobs has a folder with the recipes and the programs in them.
fn folder(identity: Identity) -> Sandbox {
    let sandbox = Sandbox::new(identity);
    examples::copy("slurm", &sandbox);
    examples::copy("sites", &sandbox);
    sandbox
}

/// Submits a recipe with so many rounds of `my_script.sh`.
fn submit<'a>(cluster: &'a Cluster, sandbox: &'a Sandbox, rounds: u32, options: &[&str]) -> Batch<'a> {
    cluster.submit(sandbox, &[&format!("ROUNDS={rounds}")], &[USUAL, options].concat())
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

/// The two lines: run, warned and requeued, killed and submitted again, and at last run to its end; then there is nothing left to resume.
fn two_lines(identity: Identity, tracking: Tracking) {
    let Some(cluster) = Cluster::start_with(Configuration { tracking, ..Configuration::default() }) else { return };
    let sandbox = folder(identity);
    let job = submit(&cluster, &sandbox, 60, &["job.sh"]);
    job.until_says("out", "round 10:", 1);
    job.scancel(&["--signal=USR2", "--batch"]);
    job.until_says("err", RESTARTED, 1);
    assert_eq!(job.record()["Restarts"], "1", "{}", job.told());
    job.until_says("out", "round 25:", 1);
    job.scancel(&["--signal=USR1", "--batch"]);
    job.until_says("err", "ckpt: checkpoint 2", 1);
    job.scancel(&[]);
    job.until_state("CANCELLED");
    let again = submit(&cluster, &sandbox, 60, &["job.sh"]);
    again.until_state("COMPLETED");
    assert_eq!(count(&sandbox, "err", RESTARTED), 2, "{}", again.told());
    assert_eq!(sandbox.read_text("out"), output(60), "{}", again.told());
    assert!(sandbox.images("").is_empty(), "a job that ended well leaves no image: {:?}\n{}", sandbox.images(""), again.told());
    let anew = submit(&cluster, &sandbox, 3, &["--output=out.anew", "job.sh"]);
    anew.until_state("COMPLETED");
    assert_eq!(sandbox.read_text("out.anew"), output(3), "{}", anew.told());
}

#[test]
fn two_lines_as_user() {
    two_lines(Identity::User, Tracking::Linuxproc);
}

#[test]
fn two_lines_as_root_with_control_groups() {
    two_lines(Identity::Root, Tracking::Cgroup);
}

#[test]
fn a_requeue_that_is_refused_is_said_and_the_exit_code_is_85() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 100, &["--no-requeue", "job.sh"]);
    job.until_says("out", "round 5:", 1);
    job.scancel(&["--signal=USR2", "--batch"]);
    let record = job.until_state("FAILED");
    assert_eq!(record["ExitCode"], "85:0", "{}", job.told());
    let said = sandbox.read_text("err");
    let refused: Vec<&str> = said.lines().filter(|line| line.contains("requeue")).collect();
    assert_eq!(refused.len(), 1, "one line says that it was refused: {refused:?}\n{}", job.told());
    let again = submit(&cluster, &sandbox, 100, &["job.sh"]);
    again.until_says("err", RESTARTED, 1);
    again.scancel(&[]);
}

#[test]
fn the_exit_code_requeues_where_slurm_is_told_so() {
    let Some(cluster) = Cluster::start_with(Configuration { requeue_exit: Some(85), ..Configuration::default() }) else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 30, &["exit-code.sh"]);
    job.until_says("out", "round 10:", 1);
    job.scancel(&["--signal=USR2", "--batch"]);
    let record = job.until_state("COMPLETED");
    assert_eq!((record["Restarts"].as_str(), sandbox.read_text("out")), ("1", output(30)), "{}", job.told());
}

#[test]
fn tasks_of_an_array_have_images_of_their_own() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 30, &["--output=out.%a", "--error=err.%a", "array.sh"]);
    let tasks = [job.task(1), job.task(2)];
    for (task, out) in tasks.iter().zip(["out.1", "out.2"]) {
        task.until_says(out, "round 8:", 1);
        task.scancel(&["--signal=USR2", "--batch"]);
    }
    for (task, number) in tasks.iter().zip(1..) {
        let record = task.until_state("COMPLETED");
        assert_eq!(record["Restarts"], "1", "{}", task.told());
        assert_eq!(count(&sandbox, &format!("err.{number}"), RESTARTED), 1, "{}", task.told());
        assert_eq!(sandbox.read_text(&format!("out.{number}")), output(30), "{}", task.told());
    }
}

#[test]
fn tasks_of_a_step_are_kept_apart() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 30, &["tasks.sh"]);
    job.until_says("out", "round 10:", 2);
    job.scancel(&["--signal=USR2"]);
    let record = job.until_state("COMPLETED");
    assert_eq!((record["Restarts"].as_str(), count(&sandbox, "err", RESTARTED)), ("1", 2), "{}", job.told());
    // Two tasks write to one file: line by line, each has all of its own.
    let out = sandbox.read_text("out");
    for line in output(30).lines() {
        assert_eq!(out.lines().filter(|said| *said == line).count(), 2, "{line}\n{}", job.told());
    }
}

/// A step whose every process gets the signal, `sleep` too, which has no handler.
fn step_is_signalled(options: &[&str]) {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 40, &["srun.sh"]);
    job.until_says("out", "round 10:", 1);
    for checkpoint in 1..=3 {
        job.scancel(options);
        job.until_says("err", &format!("ckpt: checkpoint {checkpoint}:"), 1);
    }
    job.until_state("COMPLETED");
    assert_eq!(sandbox.read_text("out"), output(40) + "ended with 0\n", "{}", job.told());
    // bash tells of children that were killed.
    assert!(!sandbox.read_text("err").contains("User defined signal"), "{}", job.told());
}

#[test]
fn helpers_survive_a_signal_to_the_whole_step() {
    step_is_signalled(&["--signal=USR1"]);
}

#[test]
fn a_step_is_warned_and_requeued() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 30, &["srun.sh"]);
    job.until_says("out", "round 10:", 1);
    job.scancel(&["--signal=USR2"]);
    let record = job.until_state("COMPLETED");
    assert_eq!((record["Restarts"].as_str(), count(&sandbox, "err", RESTARTED)), ("1", 1), "{}", job.told());
    assert_eq!(sandbox.read_text("out"), output(30) + "ended with 0\n", "{}", job.told());
}

#[test]
fn helpers_survive_a_signal_to_the_batch_script_and_all_it_started() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 40, &["job.sh"]);
    job.until_says("out", "round 10:", 1);
    for checkpoint in 1..=2 {
        job.scancel(&["--signal=USR1", "--full"]);
        job.until_says("err", &format!("ckpt: checkpoint {checkpoint}:"), 1);
    }
    job.scancel(&["--signal=USR2", "--full"]);
    let record = job.until_state("COMPLETED");
    assert_eq!((record["Restarts"].as_str(), sandbox.read_text("out")), ("1", output(40)), "{}", job.told());
}

#[test]
fn a_batch_script_that_is_not_replaced_passes_the_signal_on() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 30, &["trap.sh"]);
    job.until_says("out", "round 10:", 1);
    job.scancel(&["--signal=USR2", "--batch"]);
    let record = job.until_state("COMPLETED");
    assert_eq!(record["Restarts"], "1", "{}", job.told());
    assert_eq!(sandbox.read_text("out"), output(30) + "ended with 0\n", "{}", job.told());
}

/// SIGTERM to everybody, and `KillWait` later SIGKILL, as at the time limit.
#[test]
fn what_slurm_ends_can_be_resumed() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    for (recipe, times) in [("job.sh", 1), ("srun.sh", 2)] {
        let job = submit(&cluster, &sandbox, 35, &["--job-name=same", recipe]);
        job.until_says("out", &format!("round {}:", 10 * times), 1);
        job.scancel(&["--full"]);
        job.until_state("CANCELLED");
        assert_eq!(count(&sandbox, "err", "ckpt: checkpoint"), times, "{}", job.told());
    }
    let job = submit(&cluster, &sandbox, 35, &["--job-name=same", "job.sh"]);
    job.until_state("COMPLETED");
    assert_eq!(count(&sandbox, "err", RESTARTED), 2, "{}", job.told());
    // What a step prints goes through a pipe: what it printed between the image and its end cannot be taken back.
    let out = sandbox.read_text("out");
    let lines: Vec<&str> = out.lines().collect();
    let (mut once, doubled) = (lines.clone(), lines.len() - 35);
    once.sort_unstable();
    once.dedup();
    assert!(
        once.len() == 35 && doubled <= 1 && output(35).lines().all(|line| once.binary_search(&line).is_ok()),
        "{}",
        job.told()
    );
}

/// A job whose last checkpoint is to be durable 8 s before its end, which is 16 s after its start. It starts when there is a file `go`.
fn end_is_known(tell: &str, ask: impl FnOnce(&Batch)) {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let wrap = format!("--wrap=while [ ! -e go ]; do sleep 0.1; done; {tell} exec ./before-end.sh");
    let options = [USUAL, &["--requeue", "--open-mode=append", "--time=2", &wrap]].concat();
    let job = cluster.submit(&sandbox, &["ROUNDS=150", "MARGIN=8s"], &options);
    job.until_state("RUNNING");
    ask(&job);
    sandbox.write("go", "");
    job.until_says("err", RESTARTED, 1);
    assert_eq!(job.record()["Restarts"], "1", "{}", job.told());
    job.scancel(&[]);
    job.until_state("CANCELLED");
    let out = sandbox.read_text("out");
    assert!(out.lines().count() > 40 && output(150).starts_with(&out), "neither doubled nor lost\n{}", job.told());
}

#[test]
fn the_end_is_asked_for() {
    end_is_known("", |job| job.update("EndTime=now+16"));
}

#[test]
fn the_end_is_told() {
    // As newer Slurms do, for each run anew.
    end_is_known("export SLURM_JOB_END_TIME=$(($(date +%s) + 16));", |_| ());
}

/// A training of so many epochs is preempted once it has come to one of them, and what it prints is what it prints alone.
fn is_preempted(training: &[&str], epochs: u32, at: &str, recipe: &[&str]) {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let epochs = format!("EPOCHS={epochs}");
    let (code, plain, _) = cluster.run(&sandbox, "env", [&[epochs.as_str()], training].concat());
    assert_eq!(code, 0);
    let job = cluster.submit(&sandbox, &[&epochs], &[USUAL, &["--exclusive"], recipe].concat());
    job.until_says("out", at, 1);
    let urgent = cluster.submit(&sandbox, &[], &["--output=out.urgent", "--partition=high", "--exclusive", "--wrap=sleep 1"]);
    urgent.until_state("COMPLETED");
    let record = job.until_state("COMPLETED");
    assert_eq!((record["Restarts"].as_str(), count(&sandbox, "err", RESTARTED)), ("1", 1), "{}", job.told());
    assert_eq!(sandbox.read_text("out"), plain, "{}", job.told());
}

#[test]
fn a_training_is_preempted_and_goes_on() {
    is_preempted(&["python3", "train.py"], 2000, "epoch 50:", &["preemptible.sh"]);
}

/// The workers of such a training catch SIGTERM themselves, which Slurm sends to all; planned checkpoints may be under way just then.
#[test]
fn a_training_in_pytorch_is_preempted_and_goes_on() {
    let command = "--wrap=exec ckpt-launch -i 1 --resume /usr/bin/python3 train_torch.py";
    is_preempted(&["/usr/bin/python3", "train_torch.py"], 40, "epoch 3:", &["--requeue", "--open-mode=append", command]);
}

/// A program that catches SIGTERM itself is given it when the image is durable, and one that catches SIGUSR2 where it is passed on.
#[test]
fn programs_keep_handlers_of_their_own() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let recipe = ["--open-mode=append", "--wrap=exec ckpt-launch --resume ./own-trap.sh"];
    let job = submit(&cluster, &sandbox, 30, &recipe);
    job.until_says("out", "round 5\n", 1);
    job.scancel(&["--signal=USR1", "--batch"]);
    job.until_says("err", "ckpt: checkpoint 1", 1);
    job.scancel(&["--full"]);
    job.until_state("CANCELLED");
    assert_eq!(count(&sandbox, "out", "saved at round"), 1, "{}", job.told());
    // The image is of a job that knows nothing of it.
    assert_eq!(sandbox.images("").len(), 2, "{}", job.told());
    let again = submit(&cluster, &sandbox, 30, &recipe);
    again.until_state("COMPLETED");
    assert_eq!(count(&sandbox, "err", RESTARTED), 1, "{}", again.told());
    let all: String = (1..=30).map(|round| format!("round {round}\n")).collect();
    assert_eq!(sandbox.read_text("out"), all, "{}", again.told());

    let sandbox = folder(Identity::User);
    let job = submit(&cluster, &sandbox, 100, &["own-handler.sh"]);
    job.until_says("out", "round 5\n", 1);
    job.scancel(&["--signal=USR1", "--batch"]);
    job.until_says("err", "ckpt: checkpoint 1", 1);
    job.scancel(&["--signal=USR2", "--batch"]);
    let record = job.until_state("FAILED");
    assert_eq!((record["ExitCode"].as_str(), count(&sandbox, "out", "saved at round")), ("85:0", 1), "{}", job.told());
}

/// `mpirun` and its ranks, on a machine that dies, and brought back on another.
#[test]
fn ranks_of_mpi_are_one_job() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let (source, program) = (examples::path("slurm/my_mpi_program.c"), sandbox.join("my_mpi_program"));
    match Command::new("mpicc").arg("-o").arg(program).arg(source).status() {
        Ok(status) => assert!(status.success(), "mpicc: {status}"),
        Err(error) => return not_run(&format!("no mpicc: {error}")),
    }
    let job = submit(&cluster, &sandbox, 30, &["mpirun.sh"]);
    job.until_says("out", "round 10:", 1);
    job.scancel(&["--signal=USR1", "--batch"]);
    job.until_says("err", "ckpt: checkpoint 1:", 1);
    drop(cluster);

    let Some(cluster) = Cluster::start() else { return };
    let job = submit(&cluster, &sandbox, 30, &["mpirun.sh"]);
    job.until_state("COMPLETED");
    let mut sum = 0;
    let expected = (1..=30).map(|round| {
        sum = (2 * (sum + round) + 1) % 1_000_003;
        format!("round {round}: {sum}\n")
    });
    assert_eq!(sandbox.read_text("out"), expected.collect::<String>(), "{}", job.told());
    assert_eq!(count(&sandbox, "err", RESTARTED), 1, "{}", job.told());
}

/// A node dies, and the scratch on its disk with it.
#[test]
fn scratch_comes_along_to_the_next_node() {
    let Some(cluster) = Cluster::start() else { return };
    let sandbox = folder(Identity::User);
    let scratch = format!("SCRATCH={}", sandbox.join("scratch").display());
    let options = [USUAL, &["scratch.sh"]].concat();
    let job = cluster.submit(&sandbox, &["ROUNDS=30", &scratch], &options);
    job.until_says("out", "round 10\n", 1);
    job.scancel(&["--signal=USR1", "--batch"]);
    job.until_says("err", "ckpt: checkpoint 1:", 1);
    drop(cluster);
    let numbers = sandbox.read_text("scratch/numbers").lines().count();
    std::fs::remove_dir_all(sandbox.join("scratch")).expect("it is there");

    let Some(cluster) = Cluster::start() else { return };
    let job = cluster.submit(&sandbox, &["ROUNDS=30", &scratch], &options);
    job.until_state("COMPLETED");
    assert!((10..30).contains(&numbers) && count(&sandbox, "err", RESTARTED) == 1, "{}", job.told());
    let rounds: String = (1..=30).map(|round| format!("round {round}\n")).collect();
    assert!(sandbox.read_text("out").starts_with(&rounds), "{}", job.told());
    assert_eq!(sandbox.read_text("scratch/log"), rounds, "{}", job.told());
    assert_eq!(sandbox.read_text("scratch/numbers").lines().count(), 30, "{}", job.told());
}

/// What Slurm itself sends, when it looks at its jobs: once in 30 s, so all at once.
#[test]
fn warnings_and_time_limits_of_slurm_itself() {
    let Some(cluster) = Cluster::start() else { return };
    let folders = ["exec", "step", "limit"].map(|_| folder(Identity::User));
    let [exec, step, limit] = &folders;
    let warned = submit(&cluster, exec, 500, &["--time=2", "--signal=B:USR2@120", "job.sh"]);
    let warned_step = submit(&cluster, step, 500, &["--time=2", "--signal=USR2@120", "srun.sh"]);
    let ended = submit(&cluster, limit, 500, &["--time=1", "--signal=B:USR1@1", "job.sh"]);
    ended.until_says("out", "round 5:", 1);
    ended.update("EndTime=now+20");
    ended.until_state("TIMEOUT");
    let resumed = submit(&cluster, limit, 500, &["job.sh"]);
    resumed.until_says("err", RESTARTED, 1);
    resumed.scancel(&[]);
    let out = limit.read_text("out");
    assert!(output(500).starts_with(&out), "neither doubled nor lost\n{}", ended.told());
    for (job, folder) in [(&warned, exec), (&warned_step, step)] {
        job.until_says("err", RESTARTED, 1);
        assert_eq!(job.record()["Restarts"], "1", "{}", job.told());
        job.scancel(&[]);
        job.until_state("CANCELLED");
        let out = folder.read_text("out");
        assert!(output(500).starts_with(&out), "neither doubled nor lost\n{}", job.told());
    }
}
