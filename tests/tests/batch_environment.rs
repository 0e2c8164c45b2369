//! The variables of the batch job that a run is in: offered to the job in `CKPT_ENV_FILE`, and with `--refresh-env` in its environment.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Running, Sandbox, as_either, tool};

as_either! {
    a_file_offers_them the_user_chooses_the_file a_file_that_cannot_be_written environments_are_refreshed_where_they_fit
    a_missing_scratch_directory_is_named_with_the_present_one what_a_killed_job_has_left_is_removed
}

fn restart_as(sandbox: &Sandbox, variables: &[(&str, &str)], options: &[&str]) -> Command {
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.envs(variables.iter().copied()).args(["-i", "0.3"]).args(options).args(sandbox.images(IMAGES));
    command
}

fn until_seen(sandbox: &Sandbox, running: &mut Running, text: &str) {
    running.until(&format!("{text:?} in the file"), BOUND, |running| {
        let seen = sandbox.read_text("seen");
        assert!(running.ended().is_none(), "it ended; seen was {seen:?}\n{}", running.stderr());
        (seen == text).then_some(())
    });
}

/// Says what it finds in the file, all the time, until it is told to stop.
const READER: &str = r#"
while [[ ! -e stop ]]; do
  ( . "$CKPT_ENV_FILE"; printf '%s %s %s' "$SLURM_JOB_ID" "${SLURM_ARRAY_TASK_ID-none}" "$TMPDIR" ) > seen.new
  mv seen.new seen; sleep 0.05
done
echo "$CKPT_ENV_FILE""#;

fn reader() -> Job {
    Job::script("bash", &format!("{READER}\n"))
}

fn a_file_offers_them(identity: Identity) {
    let job = reader().env("SLURM_JOB_ID", "17").env("SLURM_ARRAY_TASK_ID", "3").env("TMPDIR", "/tmp/it's 17");
    let sandbox = job.sandbox(identity);
    let mut launch = job.launch_command(&sandbox, "0.3");
    launch.env_remove("CKPT_ENV_FILE");
    let mut running = sandbox.start(launch, "out", false, "err.0");
    until_seen(&sandbox, &mut running, "17 3 /tmp/it's 17");
    let mut newest = None;
    for (run, id) in [(1, "18"), (2, "190")] {
        newest = Some(await_image(&sandbox, &mut running, newest));
        running.kill();
        let tmp = format!("/tmp/{id}");
        let command = restart_as(&sandbox, &[("SLURM_JOB_ID", id), ("TMPDIR", &tmp)], &[]);
        running = sandbox.start(command, "out", true, &format!("err.{run}"));
        until_seen(&sandbox, &mut running, &format!("{id} none {tmp}"));
    }
    let name = sandbox.images(IMAGES).pop().expect("an image");
    let id = name.file_name().expect("a name").to_string_lossy().split('_').rev().nth(1).expect("the job's id").to_owned();
    let file = PathBuf::from(format!("/tmp/ckpt-{}/{id}.env", fs::metadata(sandbox.path()).expect("the sandbox").uid()));
    assert_eq!(file.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
    sandbox.write("stop", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), format!("{}\n", file.display()));
    assert!(!file.exists(), "it stays when the job has ended");
}

/// A job that was killed with its launcher leaves its file; the next one removes it.
fn what_a_killed_job_has_left_is_removed(identity: Identity) {
    let file = |sandbox: &Sandbox, script: &str| {
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.env_remove("CKPT_ENV_FILE").args(["bash", "-c", script]);
        let mut running = sandbox.start(command, "out", false, "err");
        let name = running.until("the path", BOUND, |_| {
            let said = sandbox.read_text("out");
            said.ends_with('\n').then(|| PathBuf::from(said.trim()))
        });
        (running, name)
    };
    let first = Sandbox::new(identity);
    let (mut killed, left) = file(&first, r#"echo "$CKPT_ENV_FILE"; exec sleep 300"#);
    killed.kill();
    assert!(left.exists(), "{} is gone already", left.display());
    // A new one may be of a job that is about to begin.
    let touched = Command::new("touch").args(["-d", "2 minutes ago"]).arg(&left).status();
    assert!(touched.is_ok_and(|status| status.success()));
    let second = Sandbox::new(identity);
    let (mut running, own) = file(&second, r#"echo "$CKPT_ENV_FILE"; [[ -e $CKPT_ENV_FILE ]]"#);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(!left.exists() && !own.exists());
}

/// A relative path begins where the job was launched, also when that has moved.
fn the_user_chooses_the_file(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    sandbox.make_dir("dir_1");
    sandbox.make_dir(IMAGES);
    sandbox.write("dir_1/script", READER);
    let mut command = sandbox.command(tool("ckpt-launch"));
    command
        .current_dir(sandbox.join("dir_1"))
        .env("SLURM_JOB_ID", "17")
        .env("CKPT_ENV_FILE", "./batch.env")
        .env("TMPDIR", "/tmp");
    command.args(["-i", "0.3", "--save-files", "*", "-d"]).arg(sandbox.join(IMAGES)).args(["--", "bash", "script"]);
    let mut running = sandbox.start(command, "out", false, "err.0");
    running.until("the file", BOUND, |_| sandbox.read_text("dir_1/seen").starts_with("17 ").then_some(()));
    await_image(&sandbox, &mut running, None);
    running.kill();
    fs::rename(sandbox.join("dir_1"), sandbox.join("dir_2")).expect("moved");
    let mut command = restart_as(&sandbox, &[("SLURM_JOB_ID", "18")], &[]);
    command.current_dir(sandbox.join("dir_2"));
    running = sandbox.start(command, "out", true, "err.1");
    running.until("the file", BOUND, |_| sandbox.read_text("dir_2/seen").starts_with("18 ").then_some(()));
    sandbox.write("dir_2/stop", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(!sandbox.join("dir_2/batch.env").exists() && !sandbox.join("dir_1").exists());
}

/// It is a line, and nothing else.
fn a_file_that_cannot_be_written(identity: Identity) {
    let job = Job::new(["bash", "-c", "for i in {1..40}; do sleep 0.05; done; echo untouched"]).env("CKPT_ENV_FILE", "no/where");
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let mut running = job.restart(&sandbox, &images, 1);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "untouched\n");
    for run in ["err.0", "err.1"] {
        let said = sandbox.read_text(run);
        let lines = said.lines().filter(|line| line.contains("no/where") && line.contains("CKPT_ENV_FILE")).count();
        assert_eq!(lines, 1, "{said}");
    }
}

/// What `getenv` gives, and what `/proc/self/environ` shows.
const GETENV: &str = r#"
import ctypes, os, time
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
while not os.path.exists("stop"):
    listed = dict(entry.split(b"=", 1) for entry in open("/proc/self/environ", "rb").read().split(b"\0") if entry)
    names = [b"SLURM_JOB_ID", b"_CONDOR_SLOT", b"OTHER"]
    assert all(getenv(name) == listed[name] for name in names), listed
    with open("seen.new", "wb") as seen: seen.write(b" ".join(getenv(name) for name in names))
    os.rename("seen.new", "seen"); time.sleep(0.05)
"#;

fn environments_are_refreshed_where_they_fit(identity: Identity) {
    let job =
        Job::script("/usr/bin/python3", GETENV).env("SLURM_JOB_ID", "1700").env("_CONDOR_SLOT", "slot1").env("OTHER", "kept");
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    until_seen(&sandbox, &mut running, "1700 slot1 kept");
    let mut newest = None;
    let runs: [(&str, &str, &[&str], &str); 4] = [
        ("1800", "slot2", &[], "1700 slot1 kept"),
        ("9", "slot_1_20", &["--refresh-env"], "9 slot1 kept"),
        // Remembered from the restart before; and the old room is still there.
        ("2000", "s", &[], "2000 s kept"),
        ("123456", "slot7", &[], "2000 slot7 kept"),
    ];
    for (run, (id, slot, options, expected)) in (1..).zip(runs) {
        newest = Some(await_image(&sandbox, &mut running, newest));
        running.kill();
        let command = restart_as(&sandbox, &[("SLURM_JOB_ID", id), ("_CONDOR_SLOT", slot), ("OTHER", "lost")], options);
        running = sandbox.start(command, "out", true, &format!("err.{run}"));
        running.until_says("restarted from");
        fs::remove_file(sandbox.join("seen")).ok();
        until_seen_again(&sandbox, &mut running, expected);
    }
    sandbox.write("stop", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

fn until_seen_again(sandbox: &Sandbox, running: &mut Running, text: &str) {
    let seen = running.until("the file", BOUND, |running| {
        assert!(running.ended().is_none(), "it ended\n{}", running.stderr());
        Some(sandbox.read_text("seen")).filter(|seen| !seen.is_empty())
    });
    assert_eq!(seen, text);
}

fn a_missing_scratch_directory_is_named_with_the_present_one(identity: Identity) {
    let job = Job::new(["bash", "-c", "exec 3> $TMPDIR/file; for i in {1..40}; do echo $i >&3; sleep 0.05; done"]);
    let sandbox = job.sandbox(identity);
    // The batch system makes it, and takes it away.
    let (old, new) = (sandbox.make_dir("job.17"), sandbox.make_dir("job.18"));
    let job = job.env("TMPDIR", &old).interval("0.6");
    let _ = job.killed(&sandbox);
    fs::remove_dir_all(&old).expect("the scratch directory goes");
    let new: &Path = &new;
    let (code, _, err) = sandbox.finish(restart_as(&sandbox, &[("TMPDIR", new.to_str().expect("text"))], &[]));
    let map = format!("--map {}={} ", old.display(), new.display());
    assert!(code == 122 && err.contains(&map), "{code}: {err}");
}
