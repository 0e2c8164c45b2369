//! Limits of processes and memory that leave the engine no room: the job goes on, watched, and gets its images all the same.

use std::path::PathBuf;

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::{BOUND, Running};
use ckpt_tests::{Identity, Job, Sandbox, not_run, tool};

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

/// A control group with a limit (cgroups(7), version 1). Its processes leave it as they end.
struct Group(PathBuf);

impl Group {
    fn new(controller: &str, file: &str, limit: &str) -> Option<Self> {
        let group = PathBuf::from(format!("/sys/fs/cgroup/{controller}/ckpt-test-{}", std::process::id()));
        std::fs::create_dir(&group).ok()?;
        let group = Self(group);
        std::fs::write(group.0.join(file), limit).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
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
    let Some(group) = Group::new("memory", "memory.limit_in_bytes", "150M") else {
        return not_run("control groups of version 1 for memory, as root");
    };
    let sandbox = Sandbox::new(Identity::own());
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec {} -i 0.5 --compress none -- /usr/bin/python3 -c \"$0\"",
        group.0.display(),
        tool("ckpt-launch").display()
    );
    let mut command = sandbox.command("bash");
    command.args(["-c", &script, DIRTY]);
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
    let Some(group) = Group::new("pids", "pids.max", "34") else {
        return not_run("control groups of version 1 for pids, as root");
    };
    let sandbox = Sandbox::new(Identity::own());
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec {} -i 0.1 --compress none -- /usr/bin/python3 -c \"$0\"",
        group.0.display(),
        tool("ckpt-launch").display()
    );
    let mut command = sandbox.command("bash");
    command.args(["-c", &script, FORKING]);
    let mut running = sandbox.start(command, "out", false, "err");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "done\n", "{}", running.stderr());
    assert!(running.stderr().contains("checkpoint 3:"), "{}", running.stderr());
}
