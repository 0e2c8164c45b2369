//! A batch system's signal that reaches every process of the job ends none of them, and nobody in the job can tell that it came; what the job's own
//! processes send each other is what it always was.

use std::time::{Duration, Instant};

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Running, Sandbox, artifacts, program_survives, survives, tool, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

program_survives!(shielded_signals);

/// Sends a signal to every process below the coordinator.
fn signal_all(coordinator: &Running, signal: Signal) {
    for pid in tree::family(coordinator.pid()).into_iter().filter(|&pid| pid != coordinator.pid()) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Sends signals to every process of a job and the coordinator, as batch systems do.
fn signal_job(coordinator: &Running, signals: &[Signal]) {
    for signal in signals {
        signal_all(coordinator, *signal);
        coordinator.signal(*signal);
    }
}

/// Signals every process again and again until the job ends, the coordinator once a second. Gives its exit code.
fn rain(coordinator: &mut Running, pause: Duration, signals: &[Signal]) -> i32 {
    let mut next = Instant::now();
    coordinator.until("the end of the job", BOUND, |running| {
        if Instant::now() >= next {
            signal_job(running, signals);
            next = Instant::now() + Duration::from_secs(1);
        }
        signals.iter().for_each(|signal| signal_all(running, *signal));
        std::thread::sleep(pause);
        running.ended()
    })
}

/// Signals that such a job's processes are shielded from, none of which ends it.
fn acted_on(job: Job) -> Job {
    ["USR1=checkpoint", "USR2=checkpoint", "TERM=checkpoint"].into_iter().fold(job, |job, on| job.option("--on").option(on))
}

/// A job is signalled as a whole at launch, is killed, and is signalled as a whole again after its restart; nobody can tell.
fn is_shielded(job: Job, pause_ms: u64, signals: &[Signal]) {
    for identity in [Identity::own(), Identity::User] {
        let job = acted_on(job.clone());
        let plain = job.run_plain(identity);
        let sandbox = job.sandbox(identity);
        let mut running = job.launch(&sandbox);
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..5 {
            signal_job(&running, signals);
            std::thread::sleep(Duration::from_millis(20));
        }
        // With signals on their way in the image.
        running.signal(Signal::SIGUSR1);
        signal_job(&running, signals);
        await_image(&sandbox, &mut running, None);
        running.kill();
        let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
        running.until_says("restarted");
        let code = rain(&mut running, Duration::from_millis(pause_ms), signals);
        let output = job.output(&sandbox, code, 2);
        job.compare(&plain, &output);
        assert_eq!(output.restarts, 1, "{}", output.told());
    }
}

#[test]
fn calls_that_wait_do_so() {
    // The one that the program neither handles nor waits for.
    is_shielded(Job::program("blocking_calls", 200, &["processes"]), 300, &[Signal::SIGTERM]);
}

#[test]
fn threads_that_wait_do_so() {
    // Without further checkpoints: where a thread leaves its handler just when a signal has woken another, the kernel gives it to the first, and an
    // `epoll_wait` of the other fails with EINTR though nobody has handled anything.
    is_shielded(Job::program("blocking_calls", 200, &["threads"]).interval("600"), 300, &[Signal::SIGTERM]);
}

#[test]
fn programs_are_started_by_the_hundred() {
    let script = r#"
storm() { for i in {1..100}; do /bin/true || echo "true died of $?"; (exit 3); [ $? = 3 ] || echo "subshell died"; done; }
storm & storm &
for i in {1..10}; do env -i /bin/sleep 0.02 || echo "sleep died of $?"; echo x | cat | tr x y; done
wait
/usr/bin/python3 - <<'EOF'
import os, signal, subprocess
for i in range(20):
    for code in subprocess.call(["true"]), subprocess.call("true", shell=True, preexec_fn=lambda: None):
        if code: print("subprocess", code)
    pid = os.posix_spawn("/bin/true", ["true"], {}, setsigmask=[signal.SIGALRM] if i % 2 else [])
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]): print("spawned", code)
EOF
for i in {1..10}; do sleep 0.1; done
echo over"#;
    is_shielded(Job::script("bash", script), 3, &[Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM]);
}

survives!(
    what_the_job_sends_itself,
    Job::script(
        "bash",
        r#"
for i in 1 2 3; do
  sleep 30 & kill -USR1 $!; wait $!; echo "child: $?"
  sleep 30 & sleep 0.2; kill -TERM $!; wait $!; echo "sleeping child: $?"
  bash -c 'kill -USR2 $$'; echo "itself: $?"
  /usr/bin/env kill -TERM $(sleep 30 >&- & echo $!); echo "by a program that has ended: $?"
  timeout 0.3 sleep 9; echo "timeout: $?"
  (trap 'echo caught' USR1; /bin/kill -USR1 $BASHPID; trap - USR1; trap; /bin/kill -USR1 $BASHPID; echo not here); echo "trapped, then not: $?"
  (trap '' TERM; bash -c 'kill -TERM $$; echo ignored'); echo "ignored: $?"
  python3 -c 'import os, signal
assert signal.getsignal(signal.SIGUSR1) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGUSR1)'; echo "python: $?"
  sleep 0.3
done 2>/dev/null
"#
    )
);

#[test]
fn a_program_with_a_handler_of_its_own_gets_the_signal() {
    let shell = r#"trap 'echo got it; exit 0' USR1; echo ready >&2; while :; do sleep 0.1; done"#;
    let python = r#"
import signal, sys, time
def got(number, frame): print("got it"); sys.exit()
signal.signal(signal.SIGUSR1, got)
print("ready", file=sys.stderr, flush=True)
while True: time.sleep(0.1)
"#;
    for (interpreter, script) in [("bash", shell), ("python3", python)] {
        let job = Job::script(interpreter, script).option("--keep-on-success");
        let sandbox = job.sandbox(Identity::own());
        let mut running = job.launch(&sandbox);
        running.until_says("ready");
        await_image(&sandbox, &mut running, None);
        signal_all(&running, Signal::SIGUSR1);
        assert_eq!((running.wait(BOUND), sandbox.read_text("out").as_str()), (0, "got it\n"), "{interpreter}");
        // And in what was restarted from before.
        let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
        running.until_says("restarted");
        std::thread::sleep(Duration::from_millis(300));
        signal_all(&running, Signal::SIGUSR1);
        assert_eq!((running.wait(BOUND), sandbox.read_text("out").as_str()), (0, "got it\n"), "{interpreter}");
    }
}

#[test]
fn a_signal_to_everybody_stops_the_job() {
    let job = Job::script("bash", "sleep 2; echo over").interval("600");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    for run in 0..2 {
        running.until("a sleep", BOUND, |running| (tree::family(running.pid()).len() > 2).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        signal_all(&running, Signal::SIGUSR2);
        running.signal(Signal::SIGUSR2);
        assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
        running = job.restart(&sandbox, &sandbox.images(IMAGES), run + 1);
    }
    assert_eq!((running.wait(BOUND), sandbox.read_text("out").as_str()), (0, "over\n"), "{}", running.stderr());
}

#[test]
fn programs_are_started_with_the_signal_mask_that_they_would_have() {
    let linked = |options: &[&str]| artifacts::compile("signal_mask", options).display().to_string();
    let script = r#"
run() { "$1"; (exec "$1"); env -i "$1"; (trap '' USR1 TERM; "$1"); (trap 'echo no' TERM; "$1"); (PATH=/nowhere:${1%/*}; ${1##*/}; /usr/bin/env ${1##*/})
  printf '#!%s\n' "$1" > run.sh; chmod +x run.sh; ./run.sh
  /usr/bin/python3 - "$1" <<'EOF'
import os, signal, subprocess, sys
path, name = sys.argv[1], os.path.basename(sys.argv[1])
os.environ["PATH"] = os.path.dirname(path)
subprocess.run([path]); subprocess.run([name]); subprocess.run([path], preexec_fn=lambda: None)
for mask in [], [signal.SIGHUP], [signal.SIGTERM, signal.SIGUSR2], range(1, 32):
    os.system(path)
    for spawn in os.posix_spawn, os.posix_spawnp:
        os.waitpid(spawn(path, [name], os.environ), 0)
        os.waitpid(spawn(path, [name], os.environ, setsigmask=mask), 0)
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, mask)
        os.execvp(name, [name])
    os.wait()
fd = os.open(path, os.O_RDONLY)
if os.fork() == 0: os.execve(fd, [name], os.environ)
os.wait()
EOF
}
run "$1"; run "$2""#;
    let (dynamic, fixed) = (linked(&[]), linked(&["-static"]));
    let job = Job::new(["bash", "-c", script, "bash", &dynamic, &fixed]);
    let plain = job.run_plain(Identity::own());
    assert!(plain.stdout.len() > 1000 && plain.stderr == [""], "{}", plain.told());
    let sandbox = job.sandbox(Identity::own());
    let code = job.launch(&sandbox).wait(BOUND);
    assert_eq!(String::from_utf8_lossy(&plain.stdout), sandbox.read_text("out"));
    assert_eq!(code, 0);
    for program in [&dynamic, &fixed] {
        let job = Job::new([program]);
        let sandbox = job.sandbox(Identity::own());
        assert_eq!(job.launch(&sandbox).wait(BOUND), 0);
        assert_eq!(sandbox.read("out"), job.run_plain(Identity::own()).stdout, "{program}");
    }
}

/// Whether a process is there and lives.
fn lives(pid: i32) -> bool {
    tree::family(pid).contains(&pid)
}

/// The process of a job that sleeps for so many seconds.
fn sleep_of(running: &Running, seconds: &str) -> i32 {
    let line = ["sleep", seconds, ""].join("\0");
    let is_it = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line);
    tree::family(running.pid()).into_iter().find(is_it).expect("the sleep")
}

/// Whether a process ends soon.
fn has_ended(pid: i32) -> bool {
    for _ in 0..200 {
        if !lives(pid) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Waits for a text in the output, which ends with a number, and gives that.
fn told_pid(sandbox: &Sandbox, running: &mut Running, what: &str) -> i32 {
    running.until(what, BOUND, |_| {
        let out = sandbox.read_text("out");
        out.lines().rev().find_map(|line| line.strip_prefix(what)?.trim().parse().ok())
    })
}

#[test]
fn what_one_process_is_sent_comes_through() {
    let script = r#"
trap 'exit 3' TERM
for i in 1 2; do
  sleep 100 & echo "sleep $!"; wait $!; echo "ended with $?"
  bash -c 'trap "echo caught; exit 7" USR1; echo "catches $$"; while :; do sleep 0.02; done'; echo "ended with $?"
  while [ ! -e go ]; do sleep 0.05; done
done"#;
    let job = Job::script("bash", script).interval("600");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    for run in 0..2 {
        let sleep = told_pid(&sandbox, &mut running, "sleep ");
        if run == 0 {
            kill(Pid::from_raw(sleep), Signal::SIGTERM).expect("it is there");
            let catches = told_pid(&sandbox, &mut running, "catches ");
            kill(Pid::from_raw(catches), Signal::SIGUSR1).expect("it is there");
            running.until("the end of the second", BOUND, |_| sandbox.read_text("out").ends_with("7\n").then_some(()));
            assert!(!running.stderr().contains("checkpoint"), "nobody asked for one\n{}", running.stderr());
            sandbox.write("go", "");
            let told = |_: &mut Running| (sandbox.read_text("out").matches("sleep ").count() == 2).then_some(());
            running.until("the next round", BOUND, told);
            running.signal(Signal::SIGUSR2);
            assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
            running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
            running.until_says("restarted");
        } else {
            kill(Pid::from_raw(sleep_of(&running, "100")), Signal::SIGTERM).expect("it is there");
            let told = |_: &mut Running| (sandbox.read_text("out").matches("catches ").count() == 2).then_some(());
            running.until("the second", BOUND, told);
            // The only process of the job whose command has a trap for it.
            let has_trap =
                |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"bash\0-c\0trap"));
            let catches = tree::family(running.pid()).into_iter().find(has_trap).expect("it is there");
            kill(Pid::from_raw(catches), Signal::SIGUSR1).expect("it is there");
        }
    }
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    let out = sandbox.read_text("out");
    let ends: Vec<&str> = out.lines().filter(|line| !line.starts_with("sleep") && !line.starts_with("catches")).collect();
    assert_eq!(ends, ["ended with 143", "caught", "ended with 7"].repeat(2), "{out}");
}

/// A program acts on a signal to the whole job when the image is durable, and one that is brought back knows nothing of it.
#[test]
fn handlers_wait_for_the_checkpoint() {
    let script = r#"
import os, signal, subprocess, sys, time
def images(): return len([name for name in os.listdir("images") if name.endswith(".img")])
def got(number, frame):
    print(sys.argv[1], "got", number, "with", images(), flush=True)
    os._exit(4)
signal.signal(signal.SIGTERM, got)
signal.signal(signal.SIGUSR1, lambda *_: print(sys.argv[1], "was not to get this", flush=True))
if sys.argv[1] == "first":
    other = subprocess.Popen([sys.executable, sys.argv[0], "other"])
    print("ready", file=sys.stderr, flush=True)
    # Not by wait, which another signal would have to interrupt.
    while not os.path.exists("go"): time.sleep(0.05)
    other.kill()
    print("went on", other.wait(), flush=True)
else:
    os.read(os.pipe()[0], 1)
"#;
    let job = Job::new(["python3", "./script", "first"]).file("script", script).interval("600");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    running.until_says("ready");
    for run in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        // USR1 is for the coordinator alone.
        signal_job(&running, &[Signal::SIGUSR1]);
        running.until_says(&format!("checkpoint {}:", 2 * run + 1));
        signal_job(&running, &[Signal::SIGTERM]);
        assert_eq!(running.wait(BOUND), 4, "{}", running.stderr());
        let sorted = || {
            let mut lines: Vec<String> = sandbox.read_text("out").lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        running.until("both", BOUND, |_| (sorted().len() == 2).then_some(()));
        assert_eq!(sorted(), ["first got 15 with 2", "other got 15 with 2"], "{}", running.stderr());
        running = job.restart(&sandbox, &sandbox.images(IMAGES), run + 1);
        running.until_says("restarted");
    }
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "went on -9\n");
}

#[test]
fn a_signal_to_everybody_can_be_given_to_those_that_handle_it() {
    let script = r#"
(trap 'echo child' USR1; while [ ! -e go ]; do sleep 0.05; done) &
sleep 100 &
trap 'echo first' USR1; echo ready >&2
while [ ! -e go ]; do sleep 0.05; done
kill $!; wait $!; echo "sleep ended with $?""#;
    let job = Job::script("bash", script).interval("600").option("--forward");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    running.until_says("ready");
    std::thread::sleep(Duration::from_millis(300));
    signal_job(&running, &[Signal::SIGUSR1]);
    running.until_says("checkpoint 1:");
    running.until("both", BOUND, |_| (sandbox.read_text("out").lines().count() == 2).then_some(()));
    std::thread::sleep(Duration::from_millis(400));
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    let out = sandbox.read_text("out");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["child", "first", "sleep ended with 143"], "each once, and no helper ended");
}

#[test]
fn nobody_is_shielded_by_a_coordinator_that_has_gone() {
    let job =
        Job::new(["bash", "-c", "sleep 100 & echo $!; kill -STOP $!; kill -CONT $!; while [ ! -e go ]; do sleep 0.05; done"])
            .option("--keep-on-success");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    await_image(&sandbox, &mut running, None);
    let target: i32 = sandbox.read_text("out").trim().parse().expect("a pid");
    sandbox.write("go", "");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(lives(target), "it has ended with its job");
    kill(Pid::from_raw(target), Signal::SIGTERM).expect("it is there");
    assert!(has_ended(target), "it is shielded though nobody acts on the signal");
    // The coordinator of a restart may be killed, and what it restarted lives on.
    std::fs::remove_file(sandbox.join("go")).expect("it is there");
    let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
    running.until_says("restarted");
    let target = sleep_of(&running, "100");
    std::thread::sleep(Duration::from_millis(100));
    kill(Pid::from_raw(running.pid()), Signal::SIGKILL).expect("it is there");
    running.wait(BOUND);
    kill(Pid::from_raw(target), Signal::SIGTERM).expect("it is there");
    assert!(has_ended(target), "it is shielded though nobody acts on the signal");
}

#[test]
fn sigterm_to_everybody_ends_everybody_after_the_checkpoint() {
    let script = "sleep 1000 & (sleep 1001; echo never) & bash -c 'sleep 1002; echo own' & wait; echo not reached";
    let job = Job::new(["bash", "-c", script]).interval("600");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    for run in 0..2 {
        running.until("the sleeps", BOUND, |running| (tree::family(running.pid()).len() >= 7).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        let all = tree::family(running.pid());
        signal_all(&running, Signal::SIGTERM);
        std::thread::sleep(Duration::from_millis(50));
        assert!(all.iter().all(|pid| lives(*pid)), "{}", running.stderr());
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(BOUND), 143, "{}", running.stderr());
        assert!(running.stderr().contains("ckpt: checkpoint "), "{}", running.stderr());
        for pid in all {
            assert!(has_ended(pid), "process {pid} lives on");
        }
        running = job.restart(&sandbox, &sandbox.images(IMAGES), run + 1);
        running.until_says("restarted");
    }
    // What was dropped before the image was taken is not let in after it.
    std::thread::sleep(Duration::from_millis(300));
    let sleep = sleep_of(&running, "1001");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(BOUND), 143, "{}", running.stderr());
    assert!(lives(sleep), "it is ended by a signal that it was not sent");
}

#[test]
fn a_signal_that_is_acted_on_is_given_to_the_first_process_too() {
    let script = r#"
import os, signal, sys, time
def got(number, frame):
    images = [name for name in os.listdir("images") if name.endswith(".img")]
    print("got", number, "with", len(images), flush=True)
    if number == signal.SIGUSR2: time.sleep(2); os._exit(7)
for number in signal.SIGUSR1, signal.SIGUSR2: signal.signal(number, got)
print("ready", file=sys.stderr, flush=True)
while True: time.sleep(0.05)
"#;
    for forward in [&["--forward"][..], &["--forward=USR1", "--forward=SIGUSR2"]] {
        let job = forward.iter().fold(Job::script("python3", script).interval("600"), |job, option| job.option(option));
        let sandbox = job.sandbox(Identity::own());
        let mut running = job.launch(&sandbox);
        running.until_says("ready");
        running.signal(Signal::SIGUSR1);
        running.until("the signal", BOUND, |_| sandbox.read_text("out").contains("got").then_some(()));
        assert_eq!(sandbox.read_text("out"), "got 10 with 1\n", "not after the checkpoint");
        running.signal(Signal::SIGUSR2);
        assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
        assert_eq!(sandbox.images(IMAGES).len(), 2);
        // The image holds that the signal came: in the handler, or before.
        let mut running = job.restart(&sandbox, &sandbox.images(IMAGES), 1);
        assert_eq!(running.wait(BOUND), 7, "{}", running.stderr());
        // And from there on as at the launch.
        assert!(sandbox.read_text("out").starts_with("got 10 with 1\ngot 12 with "), "{}", sandbox.read_text("out"));
    }
    let job = Job::script("python3", script).interval("600").option("--forward=USR2");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    running.until_says("ready");
    running.signal(Signal::SIGUSR1);
    running.until_says("checkpoint 1:");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(sandbox.read_text("out"), "", "it was to be given USR2 only");
}

#[test]
fn what_is_passed_on_comes_from_the_launcher() {
    let script = r#"
import os, signal, sys
waited = [signal.SIGUSR1, signal.SIGALRM]
signal.pthread_sigmask(signal.SIG_BLOCK, waited)
print("ready", file=sys.stderr, flush=True)
for _ in range(2):
    info = signal.sigwaitinfo(waited)
    print(info.si_signo, info.si_code, info.si_pid == os.getppid(), flush=True)
"#;
    let job = Job::script("python3", script).interval("600").option("--on").option("USR1=forward").option("--keep-on-success");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    running.until_says("ready");
    running.signal(Signal::SIGUSR2);
    assert_eq!(running.wait(BOUND), 85, "{}", running.stderr());
    for (run, options) in [&["--on", "USR1=forward"][..], &["--on", "USR1=checkpoint", "--forward"]].into_iter().enumerate() {
        let mut command = sandbox.command(tool("ckpt-restart"));
        command.args(options).args(sandbox.images(IMAGES));
        let mut running = sandbox.start(command, "out", true, &format!("err.{}", run + 1));
        running.until_says("restarted");
        running.signal(Signal::SIGUSR1);
        running.until("the first", BOUND, |_| sandbox.read_text("out").contains("10 0 True\n").then_some(()));
        running.signal(Signal::SIGALRM);
        assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
        assert_eq!(sandbox.read_text("out"), "10 0 True\n14 0 True\n", "{}", running.stderr());
        assert_eq!(running.stderr().contains("ckpt: checkpoint "), run == 1);
    }
}
