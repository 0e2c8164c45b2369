//! Limits of processes and memory that leave the engine no room: the job goes on, watched, and gets its images all the same.

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::{BOUND, Running};
use ckpt_tests::{Identity, Job, Sandbox, tool};

/// Runs `ckpt-ctl` about the job of a sandbox.
fn ctl(sandbox: &Sandbox, what: &str) -> (i32, String) {
    let mut command = sandbox.command(tool("ckpt-ctl"));
    command.arg("-d").arg(sandbox.join(IMAGES)).arg(what);
    let (code, out, err) = sandbox.finish(command);
    (code, out + &err)
}

/// Sets a limit of the launcher alone.
fn limit(sandbox: &Sandbox, running: &Running, limit: &str) {
    let mut command = sandbox.command("prlimit");
    command.arg("--pid").arg(running.pid().to_string()).arg(limit);
    let (code, _, err) = sandbox.finish(command);
    assert_eq!(code, 0, "{err}");
}

#[test]
fn a_launcher_that_can_make_no_thread_goes_on() {
    let job = Job::new(["bash", "-c", "echo $$ > begun; until [ -e go ]; do sleep 0.05; done; echo done"]).interval("1000");
    let sandbox = job.sandbox(Identity::User);
    let mut running = job.launch(&sandbox);
    running.until("its begin", BOUND, |_| sandbox.join("begun").exists().then_some(()));
    // A process without privileges has one already.
    limit(&sandbox, &running, "--nproc=1:");
    let (code, said) = ctl(&sandbox, "checkpoint");
    assert!(code != 0 && said.contains("failed to start a thread"), "{code} {said}");
    let (code, said) = ctl(&sandbox, "status");
    assert_eq!(code, 0, "{said}");
    limit(&sandbox, &running, "--nproc=1000:");
    let (code, said) = ctl(&sandbox, "checkpoint");
    assert_eq!(code, 0, "{said}");
    // Nor for what there is to do at the end.
    limit(&sandbox, &running, "--nproc=1:");
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "done\n");
    assert!(sandbox.images(IMAGES).is_empty());
}
