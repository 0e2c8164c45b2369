//! `ckpt-ctl` and `ckpt-inspect`: a running job is asked for its state, a checkpoint, its end; an image for what is in it.

use std::path::{Path, PathBuf};

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Sandbox, tool};

/// A job of some processes that takes two seconds.
fn job() -> Job {
    Job::new(["bash", "-c", "(sleep 2) & for i in {1..20}; do echo $i; sleep 0.1; done; wait"]).interval("1000")
}

#[test]
fn checkpoint_returns_when_the_image_is_there() {
    for identity in [Identity::own(), Identity::User] {
        let sandbox = job().sandbox(identity);
        let mut running = job().launch(&sandbox);
        std::thread::sleep(std::time::Duration::from_millis(300));
        for generation in 1..=2 {
            let (code, out, err) = sandbox.ctl(IMAGES, &["checkpoint"]);
            assert_eq!(code, 0, "{out}{err}");
            let path = PathBuf::from(out.trim_end());
            assert_eq!(sandbox.images(IMAGES).len(), generation);
            assert_eq!(sandbox.images(IMAGES).last(), Some(&path), "{out}");
        }
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    }
}

#[test]
fn stop_ends_the_job_after_a_checkpoint() {
    let job = job();
    let plain = job.run_plain(Identity::own());
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (code, out, err) = sandbox.ctl(IMAGES, &["stop"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
    assert!(Path::new(out.trim_end()).exists(), "{out}");
    let code = job.restart(&sandbox, &sandbox.images(IMAGES), 1).wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
}

#[test]
fn a_restarted_job_is_controlled_like_a_launched_one() {
    let job = job();
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(sandbox.ctl(IMAGES, &["stop"]).0, 0);
    assert_eq!(running.wait(BOUND), 85);
    let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
    running.until_says("ckpt: restarted");
    let (code, out, err) = sandbox.ctl(IMAGES, &["checkpoint"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(sandbox.images(IMAGES).last(), Some(&PathBuf::from(out.trim_end())));
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

#[test]
fn status_tells_of_the_job() {
    let job = job();
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (code, out, err) = sandbox.ctl(IMAGES, &["status"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("bash") && out.contains(&running.pid().to_string()), "{out}");
    // By the launcher's pid, too.
    let mut command = sandbox.command(tool("ckpt-ctl"));
    command.arg("--pid").arg(running.pid().to_string()).arg("status");
    let (code, out, err) = sandbox.finish(command);
    assert!(code == 0 && out.contains("bash"), "{code}\n{out}{err}");
    let (_, path, _) = sandbox.ctl(IMAGES, &["checkpoint"]);
    // And by the job's id, which the image's name holds.
    let id = path.trim_end().rsplit('_').nth(1).unwrap_or_default().to_owned();
    let mut command = sandbox.command(tool("ckpt-ctl"));
    command.arg("--job").arg(&id).arg("status");
    let (code, out, err) = sandbox.finish(command);
    assert!(code == 0 && out.contains(&id), "{code}\n{out}{err}");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

#[test]
fn no_job_is_an_error() {
    let sandbox = Sandbox::new(Identity::own());
    sandbox.make_dir(IMAGES);
    for what in ["status", "checkpoint", "stop"] {
        let (code, out, err) = sandbox.ctl(IMAGES, &[what]);
        assert!((120..=125).contains(&code) && out.is_empty(), "{code}\n{out}{err}");
        assert!(err.starts_with("ckpt: no ") && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn a_checkpoint_that_fails_is_told() {
    let program = ckpt_tests::artifacts::compile("static_program", &["-static"]);
    let script = format!("for i in 1 2 3 4; do {}; done; exit 7", program.display());
    let job = Job::new(["bash", "-c", &script]).interval("1000");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    std::thread::sleep(std::time::Duration::from_millis(300));
    for what in ["checkpoint", "stop"] {
        let (code, out, err) = sandbox.ctl(IMAGES, &[what]);
        assert!((120..=125).contains(&code) && out.is_empty(), "{what}: {code}\n{out}{err}");
        assert!(err.contains("static"), "{what}: {err}");
    }
    // A stop that could not save the job has not ended it.
    assert_eq!((running.wait(BOUND), sandbox.read_text("out")), (7, "untouched\n".repeat(4)));
}

#[test]
fn a_stopped_launcher_is_told_of() {
    let job = Job::new(["sleep", "3"]).interval("1000");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    running.until("the job's socket", BOUND, |_| (sandbox.ctl(IMAGES, &["status"]).0 == 0).then_some(()));
    running.signal(nix::sys::signal::Signal::SIGSTOP);
    for what in ["status", "checkpoint"] {
        let (code, _, err) = sandbox.ctl(IMAGES, &[what]);
        assert!((120..=125).contains(&code) && err.contains("is stopped; continue it with kill -CONT"), "{what}: {code} {err}");
    }
    running.signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

#[test]
fn inspect_shows_and_verifies_a_real_image() {
    let job = Job::new(["bash", "-c", "exec 7> a-file; sleep 100 & sleep 100; wait"]);
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let first = await_image(&sandbox, &mut running, None);
    await_image(&sandbox, &mut running, Some(first));
    running.kill();
    let image = sandbox.images(IMAGES).pop().expect("an image");
    let inspect = |args: &[&str]| {
        let mut command = sandbox.command(tool("ckpt-inspect"));
        command.args(args).arg(&image);
        let (code, out, err) = sandbox.finish(command);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out
    };
    let summary = inspect(&[]);
    for piece in ["bash", "sleep", "a-file"] {
        assert!(summary.contains(piece), "the summary does not name {piece}:\n{summary}");
    }
    assert!(inspect(&["--verify"]).contains(": ok"));
    let json = inspect(&["--json"]);
    assert!(json.starts_with('{') && json.trim_end().ends_with('}') && json.lines().count() == 1, "{json}");
    for piece in ["\"bash\"", "\"sleep\"", "\"generation\":"] {
        assert!(json.contains(piece), "the JSON does not hold {piece}:\n{json}");
    }
}

/// A script that takes checkpoints of its own job: each command succeeds, in the run that takes the checkpoint and in those that begin with it.
#[test]
fn a_job_takes_its_own_checkpoints() {
    for identity in [Identity::own(), Identity::User] {
        let ctl = tool("ckpt-ctl");
        let script = format!(
            "set -e; echo phase 1; {ctl} checkpoint > taken; echo phase 2; sleep 300 & {ctl} stop; kill $!; echo phase 3",
            ctl = ctl.display()
        );
        let job = Job::new(["bash", "-c", &script]).interval("1000");
        let sandbox = job.sandbox(identity);
        let mut running = job.launch(&sandbox);
        assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
        let images = sandbox.images(IMAGES);
        assert_eq!(images.first(), Some(&PathBuf::from(sandbox.read_text("taken").trim())), "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), "phase 1\nphase 2\n");
        // From the first one it takes the second again.
        let mut running = job.restart(&sandbox, &images[..1], 1);
        assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
        assert!(running.stderr().contains("this job was restarted from a checkpoint"), "{}", running.stderr());
        let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 2);
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), "phase 1\nphase 2\nphase 3\n");
    }
}
