//! Limits of processes and memory that leave the engine no room: the job goes on, watched, and gets its images all the same.

use ckpt_tests::control_group::ControlGroup;
use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::{BOUND, Running};
use ckpt_tests::{Identity, Job, Sandbox, not_run};

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
    let (code, _, said) = sandbox.ctl(IMAGES, &["checkpoint"]);
    assert!(code != 0 && said.contains("failed to start a thread"), "{code} {said}");
    let (code, _, said) = sandbox.ctl(IMAGES, &["status"]);
    assert_eq!(code, 0, "{said}");
    limit(&sandbox, &running, "--nproc=1000:");
    let (code, _, said) = sandbox.ctl(IMAGES, &["checkpoint"]);
    assert_eq!(code, 0, "{said}");
    // Nor for what there is to do at the end.
    limit(&sandbox, &running, "--nproc=1:");
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "done\n");
    assert!(sandbox.images(IMAGES).is_empty());
}

#[test]
fn a_job_gets_its_images_where_there_is_no_memory_for_copies() {
    const DIRTY: &str = "
import os
memory = bytearray(110 << 20)
while not os.path.exists('go'):
    for at in range(0, len(memory), 4096):
        memory[at] = (memory[at] + 1) % 251
print('done')
";
    let Some(group) = ControlGroup::new("memory") else {
        return not_run("control groups of version 1 for memory, as root");
    };
    group.set("memory.limit_in_bytes", "150M");
    let sandbox = Sandbox::new(Identity::own());
    let command = group.launch(&sandbox, "-i 0.5 --compress none", DIRTY);
    let mut running = sandbox.start(command, "out", false, "err");
    running.until_says("checkpoint 1:");
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "done\n");
}

#[test]
fn the_job_can_fork_where_there_is_no_room_for_copies() {
    // Thirteen processes, of which one has six more for a moment, time and again.
    const FORKING: &str = "
import os, signal, time
memory = bytearray(os.urandom(8 << 20))
idle = [os.fork() or signal.pause() for _ in range(12)]
end = time.monotonic() + 3
while time.monotonic() < end:
    for pid in [os.fork() or os._exit(0) for _ in range(6)]:
        os.waitpid(pid, 0)
for pid in idle:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print('done')
";
    let Some(group) = ControlGroup::new("pids") else {
        return not_run("control groups of version 1 for pids, as root");
    };
    group.set("pids.max", "34");
    let sandbox = Sandbox::new(Identity::own());
    let command = group.launch(&sandbox, "-i 0.1 --compress none", FORKING);
    let mut running = sandbox.start(command, "out", false, "err");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "done\n", "{}", running.stderr());
    assert!(running.stderr().contains("checkpoint 3:"), "{}", running.stderr());
}
