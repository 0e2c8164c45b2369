//! The launcher as a wrapper: exit codes and signals passed on, silence where it is asked for, generations kept.

use std::time::Duration;

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Running, Sandbox, survives, tool};
use nix::sys::signal::Signal;

/// A bash job of one script.
fn bash(script: &str) -> Job {
    Job::new(["bash", "-c", script])
}

survives!(exit_code_3_after_a_restart, bash("for i in {1..30}; do sleep 0.1; done; echo over; exit 3").ends_with(3));
survives!(
    death_by_sigterm_after_a_restart,
    bash("for i in {1..30}; do sleep 0.1; done; echo over; kill -TERM $$").ends_with(143)
);
survives!(
    death_by_sigkill_after_a_restart,
    bash("for i in {1..30}; do sleep 0.1; done; echo over; kill -KILL $$").ends_with(137)
);

#[test]
fn exit_codes_are_passed_on() {
    let cases =
        [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("kill -USR1 $$", 138)];
    for (script, code) in cases {
        for options in [&[][..], &["-i", "0.05"]] {
            let sandbox = Sandbox::new(Identity::own());
            let mut command = sandbox.command(tool("ckpt-launch"));
            command.args(options).args(["bash", "-c", &format!("sleep 0.2; {script}")]);
            assert_eq!(sandbox.finish(command).0, code, "{script} with {options:?}");
        }
    }
}

#[test]
fn without_an_interval_nothing_is_written() {
    let sandbox = Sandbox::new(Identity::own());
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.args(["bash", "-c", "echo out; echo err >&2; sleep 0.5"]);
    let before = std::fs::read_dir(sandbox.path()).expect("the folder").count();
    assert_eq!(sandbox.finish(command), (0, "out\n".to_owned(), "err\n".to_owned()));
    // The two files that the output went to.
    assert_eq!(std::fs::read_dir(sandbox.path()).expect("the folder").count(), before + 2);
}

#[test]
fn images_go_to_the_working_directory_or_ckpt_dir() {
    let sandbox = Sandbox::new(Identity::own());
    sandbox.make_dir("by-name");
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.args(["-i", "0.2", "--keep-on-success", "sleep", "0.7"]);
    assert_eq!(sandbox.finish(command).0, 0);
    assert!(!sandbox.images(".").is_empty(), "no image in the working directory");
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.env("CKPT_DIR", sandbox.join("by-name")).args(["-i", "0.2", "--keep-on-success", "sleep", "0.7"]);
    assert_eq!(sandbox.finish(command).0, 0);
    let images = sandbox.images("by-name");
    assert!(!images.is_empty(), "no image in CKPT_DIR");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&images[0]).expect("the image").permissions());
    assert_eq!(mode & 0o7777, 0o600, "the image can be read by others");
    let name = images[0].file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let parts: Vec<&str> = name.split('_').collect();
    assert!(parts.len() == 4 && parts[0] == "ckpt" && parts[1] == "sleep" && parts[2].len() == 16, "{name}");
}

#[test]
fn keep_limits_the_generations() {
    for keep in [1, 3] {
        let job = bash("sleep 2").interval("0.1").option("--keep-on-success").option("--keep").option(keep.to_string());
        let sandbox = job.sandbox(Identity::own());
        let mut running = job.launch(&sandbox);
        while running.ended().is_none() {
            // While the next is written there may be one more, but never fewer once there were enough.
            assert!(sandbox.images(IMAGES).len() <= keep + 1);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert_eq!(sandbox.images(IMAGES).len(), keep, "{}", running.stderr());
        let all = std::fs::read_dir(sandbox.join(IMAGES)).expect("the folder").count();
        assert_eq!(all, keep + 1, "something hidden was left behind, beside the list of the job's files");
    }
}

#[test]
fn two_generations_are_kept_unless_told_otherwise() {
    let job = bash("sleep 1.5").interval("0.1").option("--keep-on-success");
    let sandbox = job.sandbox(Identity::own());
    assert_eq!(job.launch(&sandbox).wait(BOUND), 0);
    assert_eq!(sandbox.images(IMAGES).len(), 2);
}

#[test]
fn every_event_is_one_line() {
    let output = bash("sleep 1").interval("0.2").run_checkpointed(Identity::own());
    for line in output.stderr[0].lines() {
        // ckpt: checkpoint 7: 1.9 GiB → 412 MiB on disk, paused 31 ms, wrote in 1.4 s
        let rest = line.strip_prefix("ckpt: checkpoint ").unwrap_or_else(|| panic!("{line}"));
        let (number, rest) = rest.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        assert!(number.parse::<u32>().is_ok(), "{line}");
        assert!(rest.contains(" → ") && rest.contains(" on disk, paused ") && rest.contains(", wrote in "), "{line}");
    }
    assert!(output.stderr[0].lines().count() >= 2, "{}", output.told());
}

#[test]
fn quiet_is_silent() {
    let job = bash("sleep 1; echo said >&2").interval("0.2").option("-q").option("--keep-on-success");
    let sandbox = job.sandbox(Identity::own());
    let images = {
        let mut running = job.launch(&sandbox);
        await_image(&sandbox, &mut running, None);
        assert_eq!(running.wait(BOUND), 0);
        sandbox.images(IMAGES)
    };
    assert_eq!(sandbox.read_text("err.0"), "said\n");
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.arg("-q").args(&images);
    assert_eq!(sandbox.finish(command), (0, String::new(), "said\n".to_owned()));
}

#[test]
fn checkpoints_come_at_the_interval() {
    let job = bash("sleep 2.1").interval("0.5");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    assert_eq!(running.wait(BOUND), 0);
    let count = running.stderr().matches("ckpt: checkpoint ").count();
    assert!((3..=4).contains(&count), "{count} checkpoints in 2.1 s\n{}", running.stderr());
}

#[test]
fn a_restart_keeps_the_launchs_interval() {
    let job = bash("for i in {1..30}; do sleep 0.1; done").interval("0.2").option("--keep-on-success");
    let sandbox = job.sandbox(Identity::own());
    let images = job.killed(&sandbox);
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(&images);
    let mut running = sandbox.start(command, "out", true, "err.1");
    await_image(&sandbox, &mut running, images.last().cloned());
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.images(IMAGES).len(), 2, "the generations before the restart were not pruned");
}

/// A job that tells which signals reach it, and that it is ready.
const TELLING: &str = r#"
for name in INT HUP QUIT WINCH TERM; do trap "echo $name >> signals" $name; done
: > ready
for i in {1..40}; do sleep 0.1; done; echo over
"#;

/// Launches the job above, checkpointing now and then; it is ready when this returns.
fn telling(sandbox: &Sandbox, job: &Job) -> Running {
    let mut running = job.launch(sandbox);
    running.until("the job to be ready", BOUND, |_| sandbox.join("ready").exists().then_some(()));
    running
}

#[test]
fn signals_are_forwarded() {
    let job = bash(TELLING);
    let sandbox = job.sandbox(Identity::own());
    let mut running = telling(&sandbox, &job);
    let mut expected = String::new();
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGWINCH, "WINCH"),
        (Signal::SIGTERM, "TERM"),
    ] {
        running.signal(signal);
        expected += &format!("{name}\n");
        running.until(&format!("{name} to arrive"), BOUND, |_| (sandbox.read_text("signals") == expected).then_some(()));
    }
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "over\n");
}

#[test]
fn signals_are_forwarded_after_a_restart() {
    let job = bash(TELLING);
    let sandbox = job.sandbox(Identity::own());
    let mut running = telling(&sandbox, &job);
    let newest = sandbox.images(IMAGES).pop();
    let newest = await_image(&sandbox, &mut running, newest);
    await_image(&sandbox, &mut running, Some(newest));
    running.kill();
    let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
    running.until_says("ckpt: restarted");
    running.signal(Signal::SIGHUP);
    running.until("HUP to arrive", BOUND, |_| (sandbox.read_text("signals") == "HUP\n").then_some(()));
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

#[test]
fn a_signal_that_ends_the_job_ends_the_launcher_like_it() {
    let job = bash("sleep 100");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    await_image(&sandbox, &mut running, None);
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait(BOUND), 130, "{}", running.stderr());
}

#[test]
fn usr1_takes_a_checkpoint() {
    let job = bash("for i in {1..15}; do sleep 0.1; done").interval("1000");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::SIGUSR1);
    await_image(&sandbox, &mut running, None);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

#[test]
fn usr2_stops_the_job_after_a_checkpoint() {
    for (option, code) in [(None, 85), (Some("7"), 7)] {
        let mut job = bash("for i in {1..30}; do echo $i; sleep 0.1; done").interval("1000");
        if let Some(code) = option {
            job = job.option("--checkpoint-exit-code").option(code);
        }
        let plain = job.run_plain(Identity::own());
        let sandbox = job.sandbox(Identity::own());
        let mut running = job.launch(&sandbox);
        std::thread::sleep(Duration::from_millis(500));
        running.signal(Signal::SIGUSR2);
        assert_eq!(running.wait(BOUND), code, "{}", running.stderr());
        let stopped_at = sandbox.read("out");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(sandbox.read("out"), stopped_at, "the job runs on");
        let code = job.restart(&sandbox, &sandbox.images(IMAGES), 1).wait(BOUND);
        job.compare(&plain, &job.output(&sandbox, code, 2));
    }
}

#[test]
fn what_the_first_process_leaves_running_is_left_alone() {
    let job =
        bash("(for i in {1..15}; do echo $i >> daemon; sleep 0.1; done; : > done) > /dev/null 2>&1 & echo started; sleep 0.5");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(!sandbox.join("done").exists(), "it waited for all");
    running.until("the daemon's end", BOUND, |_| sandbox.join("done").exists().then_some(()));
    assert_eq!(sandbox.read_text("daemon").lines().count(), 15);
    let line = running.stderr().lines().find(|line| line.contains(" left ")).map(str::to_owned).unwrap_or_default();
    assert!(line.starts_with("ckpt: "), "no line says that something is left running:\n{}", running.stderr());
}

/// With `--wait-all` a job is its daemons too, even when its first process is gone.
fn daemon() -> Job {
    bash("(for i in {1..40}; do echo $i >> daemon; sleep 0.1; done) & echo started; exit 4").option("--wait-all")
}

mod wait_all_survives_without_the_first_process {
    use super::*;

    /// Only the daemon is left when it is killed and restarted; the exit code is still the first process's.
    fn check(identity: Identity) {
        let job = daemon();
        let sandbox = job.sandbox(identity);
        let mut running = job.launch(&sandbox);
        let first = await_image(&sandbox, &mut running, None);
        await_image(&sandbox, &mut running, Some(first));
        running.kill();
        let code = job.restart(&sandbox, &sandbox.images(IMAGES), 1).wait(BOUND);
        let err = sandbox.read_text("err.1");
        assert_eq!((code, sandbox.read_text("out")), (4, "started\n".to_owned()), "{err}");
        // The shell opens the file for each line: nothing cuts it back, so lines may be there twice, but none is missing.
        let text = sandbox.read_text("daemon");
        assert!((1..=40).all(|i| text.lines().any(|line| line == i.to_string())), "{text}\n{err}");
    }

    #[test]
    fn as_root() {
        Identity::Root.run(check);
    }

    #[test]
    fn as_user() {
        Identity::User.run(check);
    }
}

#[test]
fn wait_all_waits_for_all() {
    let sandbox = daemon().sandbox(Identity::own());
    let mut running = daemon().launch(&sandbox);
    assert_eq!(running.wait(BOUND), 4, "{}", running.stderr());
    assert_eq!(sandbox.read_text("daemon").lines().count(), 40);
}

#[test]
fn help_documents_the_exit_codes() {
    let sandbox = Sandbox::new(Identity::own());
    for (program, codes) in [
        ("ckpt-launch", &["85", "120", "121"][..]),
        ("ckpt-restart", &["85", "120", "122", "124"]),
        ("ckpt-ctl", &["120"]),
        ("ckpt-inspect", &["120", "124"]),
    ] {
        for (option, expected) in [("--help", codes), ("--version", &[program])] {
            let mut command = sandbox.command(tool(program));
            command.arg(option);
            let (code, out, err) = sandbox.finish(command);
            assert_eq!((code, err.as_str()), (0, ""), "{program} {option}");
            for piece in expected {
                assert!(out.contains(piece), "{program} {option} does not name {piece}:\n{out}");
            }
        }
    }
}

#[test]
fn check_tells_what_this_machine_allows() {
    for identity in [Identity::own(), Identity::User] {
        let sandbox = Sandbox::new(identity);
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.arg("--check");
        let (code, out, err) = sandbox.finish(command);
        assert_eq!(code, 0, "{out}{err}");
        for piece in ["pid namespace", "user namespace", "PAGEMAP_SCAN"] {
            assert!(out.contains(piece), "--check does not speak of {piece}:\n{out}");
        }
    }
}
