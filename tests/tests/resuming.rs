//! One command line for the first run and all later ones (`--resume`), runs that stop of themselves, and what is done around checkpoints. The batch
//! systems that this is for have tests of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::{BOUND, Running};
use ckpt_tests::{Identity, Sandbox, tool};

/// A job of two seconds that prints twenty lines.
const COUNTING: &str = "for i in {1..20}; do echo $i; sleep 0.1; done";

fn lines(count: u32) -> String {
    (1..=count).map(|line| format!("{line}\n")).collect()
}

/// `ckpt-launch` of the job, with images in the sandbox's folder.
fn launch(sandbox: &Sandbox, options: &[&str]) -> Command {
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.arg("-d").arg(sandbox.join(IMAGES)).args(options).args(["--", "bash", "-c", COUNTING]);
    command
}

fn sandbox(identity: Identity) -> Sandbox {
    let sandbox = Sandbox::new(identity);
    sandbox.make_dir(IMAGES);
    sandbox
}

/// Starts a run whose output goes behind that of earlier ones, as a batch system with `--open-mode=append` has it.
fn start(sandbox: &Sandbox, command: Command, run: usize) -> Running {
    sandbox.start(command, "out", true, &format!("err.{run}"))
}

/// A run that is killed once it has an image.
fn killed(sandbox: &Sandbox, options: &[&str], run: usize) -> Vec<PathBuf> {
    let mut running = start(sandbox, launch(sandbox, options), run);
    let last = sandbox.images(IMAGES).last().cloned();
    await_image(sandbox, &mut running, last);
    running.kill();
    sandbox.images(IMAGES)
}

const RESUME: &[&str] = &["-i", "0.3", "--resume"];

#[test]
fn one_command_line_begins_and_goes_on() {
    for identity in [Identity::own(), Identity::User] {
        let sandbox = sandbox(identity);
        killed(&sandbox, RESUME, 0);
        killed(&sandbox, RESUME, 1);
        let mut last = start(&sandbox, launch(&sandbox, RESUME), 2);
        assert_eq!(last.wait(BOUND), 0, "{}", last.stderr());
        assert_eq!(sandbox.read_text("out"), lines(20));
        assert!(sandbox.read_text("err.0").starts_with("ckpt: nothing to resume in "), "{}", sandbox.read_text("err.0"));
        for run in ["err.1", "err.2"] {
            assert!(sandbox.read_text(run).starts_with("ckpt: resuming bash from "), "{}", sandbox.read_text(run));
        }
        // It is not begun where it ended.
        assert_eq!(fs::read_dir(sandbox.join(IMAGES)).expect("the folder").count(), 0, "images of a job that ended well");
        fs::write(sandbox.join("out"), "").expect("the output");
        let mut again = start(&sandbox, launch(&sandbox, RESUME), 3);
        assert_eq!((again.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", again.stderr());
    }
}

#[test]
fn images_of_other_jobs_are_left_alone() {
    let sandbox = sandbox(Identity::own());
    let array = |task: &str, rank: &str| {
        let mut command = launch(&sandbox, &["-i", "0.3", "--resume"]);
        command.env("SLURM_JOB_NAME", "fold").env("SLURM_ARRAY_TASK_ID", task).env("SLURM_PROCID", rank);
        command
    };
    let mut first = start(&sandbox, array("1", "0"), 0);
    await_image(&sandbox, &mut first, None);
    first.kill();
    let images = sandbox.images(IMAGES);
    let other_name = launch(&sandbox, &["--resume", "--job", "other"]);
    let mut other_command = sandbox.command(tool("ckpt-launch"));
    other_command.arg("-d").arg(sandbox.join(IMAGES)).args(["--resume", "--", "bash", "-c", "echo other"]);
    other_command.env("SLURM_JOB_NAME", "fold").env("SLURM_ARRAY_TASK_ID", "1");
    for (run, command) in (1..).zip([other_name, other_command, array("2", "0"), array("1", "1")]) {
        let mut running = start(&sandbox, command, run);
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert!(running.stderr().contains("nothing to resume"), "{}", running.stderr());
        assert!(images.iter().all(|image| image.exists()), "images of another job are gone");
    }
    let mut same = start(&sandbox, array("1", "0"), 9);
    assert_eq!(same.wait(BOUND), 0, "{}", same.stderr());
    assert!(same.stderr().contains("resuming bash"), "{}", same.stderr());
    assert!(sandbox.images(IMAGES).is_empty());
}

/// While this run goes on, another that would resume its job begins anew, and both end as if alone.
fn is_left_alone(sandbox: &Sandbox, mut first: Running) {
    let mut second = sandbox.start(launch(sandbox, RESUME), "out.second", false, "err.second");
    assert_eq!((second.wait(BOUND), sandbox.read_text("out.second")), (0, lines(20)), "{}", second.stderr());
    assert!(second.stderr().contains("runs"), "{}", second.stderr());
    assert_eq!((first.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", first.stderr());
}

#[test]
fn a_job_that_runs_is_not_resumed_beside_itself() {
    let sandbox = sandbox(Identity::own());
    let mut first = start(&sandbox, launch(&sandbox, RESUME), 0);
    await_image(&sandbox, &mut first, None);
    is_left_alone(&sandbox, first);
}

#[test]
fn a_restarted_job_counts_as_running() {
    let sandbox = sandbox(Identity::own());
    killed(&sandbox, RESUME, 0);
    // It takes no checkpoint of its own: what it came from is what others must see.
    let mut first = start(&sandbox, launch(&sandbox, &["--resume"]), 1);
    first.until_says("restarted from");
    is_left_alone(&sandbox, first);
}

#[test]
fn damaged_images_are_passed_over_by_name() {
    let sandbox = sandbox(Identity::own());
    killed(&sandbox, &["-i", "0.2", "--resume"], 0);
    // Another at least.
    let images = killed(&sandbox, &["-i", "0.2", "--resume"], 1);
    assert!(images.len() >= 2, "{images:?}");
    let newest = images.last().expect("an image");
    let whole = fs::read(newest).expect("the image");
    fs::write(newest, &whole[..whole.len() / 2]).expect("the image");
    let mut older = start(&sandbox, launch(&sandbox, &["--resume"]), 2);
    assert_eq!(older.wait(BOUND), 0, "{}", older.stderr());
    let said = older.stderr();
    assert!(said.contains("passed over") && said.contains(&newest.display().to_string()), "{said}");
    assert!(said.contains("resuming bash"), "{said}");
    assert_eq!(sandbox.read_text("out"), lines(20));
}

#[test]
fn where_no_image_is_whole_the_job_begins_anew_if_the_user_says_so() {
    let sandbox = sandbox(Identity::own());
    for image in killed(&sandbox, RESUME, 0) {
        let whole = fs::read(&image).expect("the image");
        fs::write(&image, &whole[..whole.len() / 2]).expect("the image");
    }
    fs::write(sandbox.join("out"), "").expect("the output");
    let mut running = start(&sandbox, launch(&sandbox, &["--resume=fresh"]), 1);
    assert_eq!((running.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", running.stderr());
    let said = running.stderr();
    assert!(said.contains("passed over") && said.contains("nothing to resume"), "{said}");
}

#[test]
fn images_stay_where_the_job_failed_or_the_user_wants_them() {
    for (script, options, left) in
        [("sleep 1; exit 3", &[][..], true), ("sleep 1", &["--keep-on-success"], true), ("sleep 1", &[], false)]
    {
        let sandbox = sandbox(Identity::own());
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.arg("-d").arg(sandbox.join(IMAGES)).args(["-i", "0.3"]).args(options).args(["--", "bash", "-c", script]);
        let (_, _, said) = sandbox.finish(command);
        assert_eq!(!sandbox.images(IMAGES).is_empty(), left, "{script} {options:?}: {said}");
    }
}

#[test]
fn a_run_stops_after_its_time_and_the_next_goes_on() {
    for identity in [Identity::own(), Identity::User] {
        let sandbox = sandbox(identity);
        let options = ["--stop-after", "0.8", "--checkpoint-exit-code", "77", "--resume"];
        let mut codes = Vec::new();
        for run in 0..10 {
            codes.push(start(&sandbox, launch(&sandbox, &options), run).wait(BOUND));
            if codes.last() != Some(&77) {
                break;
            }
        }
        assert!(codes.len() >= 3 && codes.last() == Some(&0), "{codes:?}");
        assert_eq!(sandbox.read_text("out"), lines(20));
    }
}

#[test]
fn the_last_checkpoint_comes_before_the_end() {
    let sandbox = sandbox(Identity::own());
    let options = ["-i", "0.2", "--time-limit", "3", "--before-end", "2s", "--resume"];
    let mut first = start(&sandbox, launch(&sandbox, &options), 0);
    assert_eq!(first.wait(BOUND), 85, "{}", first.stderr());
    let mut second = start(&sandbox, launch(&sandbox, &["--resume", "--time-limit", "1h", "--before-end", "1m=requeue"]), 1);
    assert_eq!((second.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", second.stderr());
}

#[test]
fn an_unknown_end_is_said_and_the_job_runs() {
    let sandbox = sandbox(Identity::own());
    let mut running = start(&sandbox, launch(&sandbox, &["--before-end", "90s"]), 0);
    assert_eq!((running.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", running.stderr());
    assert!(
        running.stderr().contains("--before-end does nothing") && running.stderr().contains("--time-limit"),
        "{}",
        running.stderr()
    );
}

#[test]
fn where_nobody_requeues_the_job_is_stopped() {
    let sandbox = sandbox(Identity::own());
    let mut running = start(&sandbox, launch(&sandbox, &["-i", "0.2", "--on", "USR2=requeue"]), 0);
    await_image(&sandbox, &mut running, None);
    running.signal(nix::sys::signal::Signal::SIGUSR2);
    assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
    assert!(running.stderr().lines().last().is_some_and(|line| line.contains("not requeued")), "{}", running.stderr());
}

#[test]
fn an_automatic_interval_follows_the_cost() {
    let sandbox = sandbox(Identity::own());
    let mut running = start(&sandbox, launch(&sandbox, &["-i", "auto", "--mtbf", "5s"]), 0);
    await_image(&sandbox, &mut running, None);
    let mut status = sandbox.command(tool("ckpt-ctl"));
    status.arg("-d").arg(sandbox.join(IMAGES)).arg("status");
    let (code, out, err) = sandbox.finish(status);
    assert_eq!(code, 0, "{err}");
    let interval =
        out.lines().find_map(|line| line.trim().strip_prefix("interval")?.trim().strip_suffix(" s")?.parse::<f64>().ok());
    // A first guess of a tenth of the time between failures has given way to what was measured.
    assert!(interval.is_some_and(|interval| interval > 0.0 && (interval - 0.5).abs() > 1e-9), "{out}");
    assert_eq!((running.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", running.stderr());
}

#[test]
fn hooks_are_told_the_image() {
    let sandbox = sandbox(Identity::own());
    let hooks = [
        "--hook-before",
        "echo before $CKPT_GENERATION $(test -e $CKPT_IMAGE && echo there) >> told",
        "--hook-after",
        "echo after $CKPT_GENERATION $(test -e $CKPT_IMAGE && echo there) >> told; echo on standard output",
        "--hook-after",
        "exit 7",
        "--hook-restart",
        "echo restart $CKPT_GENERATION $(test -e $CKPT_IMAGE && echo there) >> told",
    ];
    let options: Vec<&str> = ["--stop-after", "0.5", "--resume"].into_iter().chain(hooks).collect();
    let mut first = start(&sandbox, launch(&sandbox, &options), 0);
    assert_eq!(first.wait(BOUND), 85, "{}", first.stderr());
    // Those of the launch hold for the restart.
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(["--stop-after", "1h"]).args(sandbox.images(IMAGES));
    let mut second = start(&sandbox, command, 1);
    assert_eq!((second.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", second.stderr());
    assert_eq!(sandbox.read_text("told"), "before 1\nafter 1 there\nrestart 1 there\n");
    let said = first.stderr();
    assert!(said.contains("on standard output") && said.contains("the hook after checkpoint 1 failed: exit 7"), "{said}");
}

#[test]
fn hooks_are_told_an_image_whose_name_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = sandbox(Identity::own());
    let directory = std::ffi::OsStr::from_bytes(b"images \xff");
    std::fs::create_dir(sandbox.join(directory)).expect("a directory");
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.arg("-d").arg(directory).args(["-i", "0.2", "--hook-after", "test -e \"$CKPT_IMAGE\" && touch told", "sleep", "0.7"]);
    let (code, _, said) = sandbox.finish(command);
    assert!(code == 0 && sandbox.join("told").exists(), "{code} {said}");
}

#[test]
fn a_hook_is_no_part_of_the_job() {
    let sandbox = sandbox(Identity::own());
    // It outlasts a checkpoint, and leaves something behind that outlasts it.
    let hook = "sleep 1000 & sleep 0.4; kill %1";
    let mut running = start(&sandbox, launch(&sandbox, &["-i", "0.2", "--hook-after", hook]), 0);
    assert_eq!((running.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", running.stderr());
    let taken = running.stderr().lines().filter(|line| line.starts_with("ckpt: checkpoint ")).count();
    assert!(taken >= 3 && !running.stderr().contains("no checkpoint"), "{}", running.stderr());
}

#[test]
fn a_job_that_a_job_has_submitted_is_one_of_its_own() {
    let sandbox = sandbox(Identity::own());
    // A batch system hands the environment of whoever submits to the job that is submitted: here to one that is no child of a launcher.
    let script =
        "setsid --fork bash -c 'env > environment; mv environment submitted' & wait; until test -e over; do sleep 0.05; done";
    let mut outer = sandbox.command(tool("ckpt-launch"));
    outer.arg("-d").arg(sandbox.join(IMAGES)).args(["-i", "0.3", "--", "bash", "-c", script]);
    let mut outer = sandbox.start(outer, "out.outer", false, "err.outer");
    outer.until("the environment", BOUND, |_| sandbox.join("submitted").exists().then_some(()));
    let mut command = launch(&sandbox, &["-i", "0.2"]);
    for variable in sandbox.read_text("submitted").lines() {
        if let Some((name, value)) =
            variable.split_once('=').filter(|(name, _)| name.starts_with("CKPT_") || *name == "LD_PRELOAD")
        {
            command.env(name, value);
        }
    }
    let mut running = start(&sandbox, command, 0);
    assert_eq!((running.wait(BOUND), sandbox.read_text("out")), (0, lines(20)), "{}", running.stderr());
    assert!(running.stderr().contains("ckpt: checkpoint "), "{}", running.stderr());
    let submitted = sandbox.read_text("submitted");
    let offered = submitted.lines().find_map(|line| line.strip_prefix("CKPT_ENV_FILE=")).expect("a file of variables");
    assert!(std::path::Path::new(offered).exists(), "the file of one job went with the other");
    sandbox.write("over", "");
    assert_eq!(outer.wait(BOUND), 0, "{}", outer.stderr());
    assert!(!outer.stderr().contains("no checkpoint"), "{}", outer.stderr());
}
