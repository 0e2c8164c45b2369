//! Circumstances that are not the job's fault: they must neither keep it from being checkpointed nor harm it.

use std::path::Path;

use ckpt_tests::control_group::ControlGroup;
use ckpt_tests::sandbox::{BOUND, Sandbox};
use ckpt_tests::{Identity, not_run, tool};

/// Runs a bash script that becomes the launcher of `job` in the end, as batch scripts do. Gives what the launcher said.
fn exec_launcher(sandbox: &Sandbox, before: &str, options: &str, job: &str) -> String {
    let launcher = tool("ckpt-launch");
    let script = format!("{before}\nexec {} {options} -i 0.2 -- bash -c '{job}'", launcher.display());
    let mut command = sandbox.command("bash");
    command.args(["-c", &script]);
    let mut running = sandbox.start(command, "out", false, "err");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    running.stderr()
}

/// Waits until a file holds these lines: who writes it may outlive the launcher.
fn await_lines(path: &Path, lines: &str) {
    let begun = std::time::Instant::now();
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    while read() != lines && begun.elapsed() < BOUND {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(read(), lines);
}

const JOB: &str = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.15; done";
const LINES: &str = "1\n2\n3\n4\n5\n6\n7\n8\n";

fn is_checkpointed(said: &str) {
    assert!(said.contains("checkpoint 2:") && !said.contains("no checkpoint"), "{said}");
}

#[test]
fn children_of_the_script_that_becomes_the_launcher_are_not_the_jobs() {
    for options in ["", "--wait-all"] {
        let sandbox = Sandbox::new(Identity::own());
        let said = exec_launcher(&sandbox, "exec > >(exec -a logger tee tee.log)", options, JOB);
        await_lines(&sandbox.join("tee.log"), LINES);
        is_checkpointed(&said);
    }
}

#[test]
fn orphans_of_such_children_are_not_the_jobs() {
    let sandbox = Sandbox::new(Identity::own());
    // The launcher adopts a program without an agent while the job runs.
    let before = "(sleep 0.4; sleep 1.5 & exec true) > /dev/null 2>&1 &";
    let said = exec_launcher(&sandbox, before, "--wait-all", JOB);
    assert_eq!(sandbox.read_text("out"), LINES);
    is_checkpointed(&said);
    assert!(!said.contains("left running"), "{said}");
}

#[test]
fn orphans_of_the_job_are_still_its_own() {
    let sandbox = Sandbox::new(Identity::own());
    let job = "(sleep 0.3; echo late; (sleep 0.5; echo later) & exec true) & sleep 0.1; echo early";
    let said = exec_launcher(&sandbox, "sleep 2 > /dev/null 2>&1 &", "--wait-all", job);
    assert_eq!(sandbox.read_text("out"), "early\nlate\nlater\n");
    is_checkpointed(&said);
}

#[test]
fn a_process_that_no_signal_reaches_refuses_the_checkpoint_and_nothing_stands_still() {
    let Some(freezer) = ControlGroup::new("freezer") else { return not_run("control groups of version 1, as root") };
    let sandbox = Sandbox::new(Identity::own());
    let mut command = sandbox.command(tool("ckpt-launch"));
    command.args(["bash", "-c", "sleep 1000 & echo $! > sleeper; while [ ! -e stop ]; do sleep 0.05; done; kill $!"]);
    let mut running = sandbox.start(command, "out", false, "err");
    let sleeper = running.until("the sleeper", BOUND, |_| {
        std::fs::read_to_string(sandbox.join("sleeper")).ok().filter(|text| text.ends_with('\n'))
    });
    // For the kernel, what is frozen so is in an uninterruptible wait.
    freezer.set("cgroup.procs", sleeper.trim());
    freezer.set("freezer.state", "FROZEN");
    let (code, _, said) = sandbox.ctl(".", &["checkpoint"]);
    assert!(code != 0 && said.contains("(sleep) is in an uninterruptible wait"), "{code} {said}");
    freezer.set("freezer.state", "THAWED");
    let (code, _, said) = sandbox.ctl(".", &["checkpoint"]);
    assert_eq!(code, 0, "{said}");
    sandbox.write("stop", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

#[test]
fn more_processes_than_the_soft_limit_on_files_allows_are_checkpointed() {
    let sandbox = Sandbox::new(Identity::own());
    let launch = |limits: &str| {
        let script = format!(
            "{limits}; exec {} -i 0.5 --keep-on-success -- bash -c 'ulimit -Sn; for i in {{1..60}}; do sleep 4 & done; wait'",
            tool("ckpt-launch").display()
        );
        let mut command = sandbox.command("bash");
        command.args(["-c", &script]);
        sandbox.finish(command)
    };
    // The job keeps the limit that it would have.
    let (code, out, said) = launch("ulimit -Sn 128");
    assert!(code == 0 && out == "128\n" && said.contains("checkpoint 1:"), "{code} {out} {said}");
    let (code, _, said) = launch("ulimit -n 128");
    assert!(code == 0 && said.contains("raise the limit (ulimit -Hn)") && !said.contains("checkpoint 1:"), "{code} {said}");
}
