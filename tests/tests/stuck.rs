//! Waits that no signal ends, in the job and in the file system of its images: nothing else of the job may wait for them.

use std::path::Path;

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Running, Sandbox, not_run, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that does nothing, and one in `clone` with `CLONE_VFORK`: it is in state D until its child, which has memory of its own, has ended.
const IN_CLONE: &str = "
import ctypes, os, signal, time
idle = os.fork()
if idle == 0:
    signal.pause()
caller = os.fork()
if caller == 0:
    if ctypes.CDLL(None).syscall(56, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        while not os.path.exists('go'):
            time.sleep(0.02)
    time.sleep(0.2)
    os._exit(0)
open('pids.new', 'w').write(f'{idle} {caller}')
os.rename('pids.new', 'pids')
while not os.path.exists('end'):
    time.sleep(0.02)
os.kill(idle, signal.SIGKILL)
print(os.waitpid(idle, 0)[1], os.waitpid(caller, 0)[1])
";

fn field(pid: &str, key: &str) -> String {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn nobody_is_stopped_for_a_process_that_takes_no_signal() {
    let job = Job::new(["/usr/bin/python3", "-c", IN_CLONE]).interval("1000");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let pids = running.until("the pids", BOUND, |_| Some(sandbox.read_text("pids")).filter(|pids| !pids.is_empty()));
    let (idle, caller) = pids.split_once(' ').expect("two pids");
    running.until("the uninterruptible wait", BOUND, |_| field(caller, "State").starts_with('D').then_some(()));
    running.until("the idle process", BOUND, |_| field(idle, "State").starts_with('S').then_some(()));
    let switches = || (field(idle, "voluntary_ctxt_switches"), field(idle, "nonvoluntary_ctxt_switches"));
    let before = switches();
    let (code, _, said) = sandbox.ctl(IMAGES, &["checkpoint"]);
    assert!(code != 0 && said.contains(&format!("process {caller} (python3")) && said.contains("vfork"), "{code} {said}");
    assert_eq!(switches(), before, "the idle process was disturbed");
    // It ends, and then there is a checkpoint.
    sandbox.write("go", "");
    running.until("the end of the wait", BOUND, |_| (!field(caller, "State").starts_with('D')).then_some(()));
    let (code, _, said) = sandbox.ctl(IMAGES, &["checkpoint"]);
    assert_eq!(code, 0, "{said}");
    sandbox.write("end", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}

/// Launches a job whose images go to a file system that hangs while its server is stopped, with variables for the launcher. Gives the
/// server's pid.
fn launch_on_hanging_disk(sandbox: &Sandbox, variables: &str, job: &str) -> (Running, i32) {
    let server = sandbox.write("server.py", include_str!("../programs/hanging_fs.py"));
    sandbox.make_dir("backing");
    sandbox.make_dir("mnt");
    let script = format!(
        "/usr/bin/python3 {} backing mnt > server.pid 2> server.err & until [ -s server.pid ]; do sleep 0.02; done
         exec env {variables} {} -i 0.3 --compress none -d mnt -- bash -c '{job}'",
        server.display(),
        tool("ckpt-launch").display()
    );
    let mut command = sandbox.command("timeout");
    command.args(["300", "unshare", "--mount", "--propagation", "private", "bash", "-c", &script]);
    let mut running = sandbox.start(command, "out", false, "err");
    running.until_says("checkpoint 1:");
    let server = sandbox.read_text("server.pid").trim().parse().expect("a pid");
    (running, server)
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it lives");
}

/// Waits until a thread of the launcher waits for the file system.
fn await_hang(running: &mut Running, launcher: i32) {
    running.until("a call that hangs", BOUND, |_| {
        let tasks = std::fs::read_dir(format!("/proc/{launcher}/task")).ok()?;
        tasks
            .flatten()
            .any(|task| {
                let wait = std::fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
                wait.contains("fuse") || wait.contains("request_wait_answer")
            })
            .then_some(())
    });
}

#[test]
fn signals_and_the_end_of_a_job_do_not_wait_for_its_disk() {
    if !nix::unistd::geteuid().is_root() || std::fs::File::open("/dev/fuse").is_err() {
        return not_run("/dev/fuse and root, to mount it");
    }
    for signal in [None, Some(Signal::SIGTERM)] {
        let sandbox = Sandbox::new(Identity::own());
        // It opens nothing for writing: that would be recorded beside the images.
        let job = "trap \"echo told; exit 7\" TERM; until [ -e go ]; do sleep 0.1; done; exit 7";
        let (mut running, server) = launch_on_hanging_disk(&sandbox, "", job);
        // timeout(1) has the launcher as its child.
        let launcher = ckpt_tests::tree::child(running.pid()).expect("the launcher");
        send(server, Signal::SIGSTOP);
        await_hang(&mut running, launcher);
        match signal {
            Some(signal) => send(launcher, signal),
            None => drop(sandbox.write("go", "")),
        }
        assert_eq!(running.wait(BOUND), 7, "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), if signal.is_some() { "told\n" } else { "" });
        assert!(running.stderr().contains("answer"), "{}", running.stderr());
        send(server, Signal::SIGKILL);
    }
}

/// A job that is dumped as it stands goes on when the disk does not take its memory.
#[test]
fn a_job_does_not_stand_still_for_a_disk_that_hangs() {
    // It changes no file, which would be noted beside the images.
    const WAITING: &str = "
import os, time
open(\"pid\", \"w\").write(str(os.getpid()))
memory = os.urandom(200 << 20)
open(\"begun\", \"w\").close()
while not os.path.exists(\"go\"):
    time.sleep(0.02)
print(\"done\")
";
    if !nix::unistd::geteuid().is_root() || std::fs::File::open("/dev/fuse").is_err() {
        return not_run("/dev/fuse and root, to mount it");
    }
    let sandbox = Sandbox::new(Identity::own());
    sandbox.write("job.py", WAITING);
    let waits = || field(&sandbox.read_text("pid"), "voluntary_ctxt_switches").parse::<u64>().ok();
    let job = "exec env -u CKPT_WITHOUT /usr/bin/python3 job.py";
    let (mut running, server) = launch_on_hanging_disk(&sandbox, "CKPT_WITHOUT=twin", job);
    running.until("the job's begin", BOUND, |_| sandbox.join("begun").exists().then_some(()));
    // While an image grows, and the job stands still.
    running.until("an image that is being written", BOUND, |_| {
        let files = std::fs::read_dir(sandbox.join("backing")).ok()?.flatten();
        let mut unfinished = files.filter(|file| file.file_name().as_encoded_bytes().ends_with(b".tmp"));
        unfinished.any(|file| file.metadata().is_ok_and(|meta| (8 << 20..100 << 20).contains(&meta.len()))).then_some(())
    });
    send(server, Signal::SIGSTOP);
    let launcher = ckpt_tests::tree::child(running.pid()).expect("the launcher");
    await_hang(&mut running, launcher);
    let before = waits().expect("a number");
    // It sleeps fifty times a second. As it stands, its agent waits for the launcher, but not so often.
    running.until("the job going on", BOUND, |_| waits().filter(|now| *now > before + 200));
    send(server, Signal::SIGCONT);
    running.until_says("has not answered for 10 s while the job stood still");
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "done\n");
}
