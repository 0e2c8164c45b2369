//! Time: to a job, a restart takes none, on whatever machine.

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, not_run, program_survives};
use std::process::Command;

program_survives!(monotonic_clock);

/// Days ahead of this machine, as another machine that was started long before.
const AHEAD: [&str; 7] = ["unshare", "--time", "--fork", "--monotonic", "1000000", "--boottime", "2000000"];

/// A command as on a machine that was started long before this one, if `there`.
fn on_another_machine(command: &Command, there: bool) -> Vec<String> {
    let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
    let prefix = if there { &AHEAD[..] } else { &["env"] };
    let words = prefix.iter().map(|word| (*word).to_owned());
    words.chain([text(command.get_program())]).chain(command.get_args().map(text)).collect()
}

/// Runs the job on two machines, the first of which was started long before or long after the second; gives what the restart said.
fn moved(job: &Job, first_is_ahead: bool) -> Option<(i32, String, String)> {
    if !Command::new("unshare").args(["--time", "--fork", "true"]).status().is_ok_and(|status| status.success()) {
        not_run("needs root and time namespaces");
        return None;
    }
    let sandbox = job.sandbox(Identity::own());
    let start = |command: &Command, there, run: usize| {
        let words = on_another_machine(command, there);
        let mut command = sandbox.command(&words[0]);
        command.args(&words[1..]);
        if run > 0 {
            command.envs(job.facilities_switched_off());
        }
        sandbox.start(command, "out", run > 0, &format!("err.{run}"))
    };
    let mut running = start(&job.launch_command(&sandbox, "0.3"), first_is_ahead, 0);
    await_image(&sandbox, &mut running, None);
    running.kill();
    let mut restart = sandbox.command(ckpt_tests::tool("ckpt-restart"));
    restart.args(["-i", "0.3"]).args(sandbox.images(IMAGES));
    let code = start(&restart, !first_is_ahead, 1).wait(BOUND);
    Some((code, sandbox.read_text("out"), sandbox.read_text("err.1")))
}

#[test]
fn clocks_go_on_where_the_machines_are_behind() {
    let Some((code, out, err)) = moved(&Job::program("monotonic_clock", 300, &[]), true) else { return };
    assert_eq!((code, out.as_str()), (0, "no clock went back, and none ran ahead\n"), "{err}");
    assert!(!err.contains("clocks"), "{err}");
}

#[test]
fn clocks_go_on_where_the_machines_are_ahead() {
    let Some((code, out, err)) = moved(&Job::program("monotonic_clock", 300, &[]), false) else { return };
    assert_eq!((code, out.as_str()), (0, "no clock went back, and none ran ahead\n"), "{err}");
}

#[test]
fn clocks_that_go_back_are_reported() {
    let job = Job::new(["bash", "-c", "for i in {1..200}; do sleep 0.01; done; echo done"]).without("time_namespace");
    let Some((code, out, err)) = moved(&job, true) else { return };
    assert_eq!((code, out.as_str()), (0, "done\n"), "{err}");
    assert!(err.contains("the job's clocks go back to those of this machine"), "{err}");
    let Some((code, out, err)) = moved(&job, false) else { return };
    assert_eq!((code, out.as_str()), (0, "done\n"), "{err}");
    assert!(!err.contains("clocks go back"), "{err}");
}
