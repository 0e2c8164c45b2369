//! What a machine allows or forbids: `ckpt-launch --check` tells it in words, and a limit that is met ends in a line.

use ckpt_tests::job::IMAGES;
use ckpt_tests::{Identity, Job, Sandbox, not_run, program, tool};

/// Runs `ckpt-launch --check`, started by these words of a shell; gives its exit code and what it printed.
fn check(sandbox: &Sandbox, prefix: &str, options: &str) -> (i32, String) {
    let mut command = sandbox.command("bash");
    command.arg("-c").arg(format!("{prefix} {} --check {options}", tool("ckpt-launch").display()));
    let (code, out, err) = sandbox.finish(command);
    assert_eq!(err, "", "{out}");
    (code, out)
}

/// The line about a facility, without its indentation.
fn line<'a>(out: &'a str, about: &str) -> &'a str {
    out.lines().map(str::trim).find(|line| line.contains(about)).unwrap_or_else(|| panic!("nothing about {about}:\n{out}"))
}

#[test]
fn check_needs_no_command_and_finds_that_all_works() {
    for identity in [Identity::own(), Identity::User] {
        let sandbox = Sandbox::new(identity);
        let (code, out) = check(&sandbox, "", "");
        assert_eq!(code, 0, "{out}");
        assert!(out.ends_with("checkpoint: works here\nrestart: works here\n"), "{out}");
        assert!(line(&out, "image directory").contains(sandbox.path().to_str().expect("text")), "{out}");
    }
}

#[test]
fn check_names_the_directory_that_cannot_be_written() {
    let (code, out) = check(&Sandbox::new(Identity::User), "", "-d /proc/not-there");
    assert_eq!(code, 121, "{out}");
    assert!(line(&out, "/proc/not-there").starts_with("no "), "{out}");
    assert!(out.contains("\ncheckpoint: does not work here, for lack of: image directory\n"), "{out}");
    assert!(out.ends_with("\nrestart: works here\n"), "{out}");
}

#[test]
fn check_names_the_setting_that_forbids_user_namespaces() {
    // In a user namespace of the test's own the setting can be had without touching the machine's.
    let forbid = "unshare --user --map-root-user sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"' sh";
    let (code, out) = check(&Sandbox::new(Identity::own()), forbid, "");
    assert_eq!(code, 121, "{out}");
    let line = line(&out, "user namespace (");
    assert!(line.starts_with("no ") && line.contains("user.max_user_namespaces is 0"), "{out}");
    assert!(out.contains("\ncheckpoint: works here\nrestart: does not work here, for lack of: user namespace, "), "{out}");
}

#[test]
fn check_shows_limits() {
    let (code, out) = check(&Sandbox::new(Identity::own()), "ulimit -f 1024; ulimit -n 100;", "");
    assert_eq!(code, 0, "{out}");
    assert!(line(&out, "ulimit -f").starts_with("limited ") && line(&out, "ulimit -f").contains("1.0 MiB"), "{out}");
    assert!(line(&out, "ulimit -n").starts_with("limited "), "{out}");
}

#[test]
fn check_shows_what_is_switched_off() {
    let (code, out) = check(&Sandbox::new(Identity::own()), "CKPT_WITHOUT=pagemap_scan,twin,nonsense", "");
    assert_eq!(code, 0, "{out}");
    assert!(line(&out, "PAGEMAP_SCAN").starts_with("off ") && line(&out, "vm.overcommit_memory").starts_with("off "), "{out}");
    assert!(out.contains("there is no \"nonsense\""), "{out}");
}

#[test]
fn a_file_size_limit_fails_checkpoints_and_not_the_job() {
    // The launcher meets it; the job, which writes less, does not.
    let job = Job::new(["bash", "-c", "sleep 1; echo done"]);
    let sandbox = job.sandbox(Identity::own());
    let launch = job.launch_command(&sandbox, "0.2");
    let mut command = sandbox.command("bash");
    command.args(["-c", "ulimit -f 100; exec \"$@\"", "bash"]).arg(launch.get_program()).args(launch.get_args());
    let (code, out, err) = sandbox.finish(command);
    assert_eq!((code, out.as_str()), (0, "done\n"), "{err}");
    assert!(err.lines().all(|line| line.starts_with("ckpt: no checkpoint: ") && line.contains("ulimit -f")), "{err}");
    assert!(!err.is_empty() && sandbox.images(IMAGES).is_empty(), "{err}");
}

#[test]
fn a_file_size_limit_still_ends_the_job_that_exceeds_it() {
    const SIGXFSZ: i32 = 25;
    let sandbox = Sandbox::new(Identity::own());
    let mut command = sandbox.command("bash");
    let launch = tool("ckpt-launch").display().to_string();
    command.args(["-c", &format!("ulimit -c 0; ulimit -f 100; exec {launch} -- head -c 1000000 /dev/zero > large")]);
    let (code, _, err) = sandbox.finish(command);
    assert_eq!(code, 128 + SIGXFSZ, "{err}");
}

#[test]
fn a_job_begins_with_the_signals_as_its_launcher_found_them() {
    let sandbox = Sandbox::new(Identity::own());
    let settings = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let run = |prefix: &str| {
        let mut command = sandbox.command("bash");
        command.arg("-c").arg(format!("{prefix} {settings}"));
        let (code, out, err) = sandbox.finish(command);
        assert_eq!(code, 0, "{err}");
        out
    };
    for env in ["env", "env --block-signal=TERM --block-signal=USR1", "env --ignore-signal=HUP --ignore-signal=XFSZ"] {
        let launched = run(&format!("{env} {} --", tool("ckpt-launch").display()));
        assert_eq!(run(env), launched, "{env}");
    }
}

#[test]
fn check_names_what_a_container_forbids() {
    for identity in [Identity::own(), Identity::User] {
        let (code, out) = check(&Sandbox::new(identity), &program("confined").display().to_string(), "");
        assert_eq!(code, 121, "{out}");
        assert!(line(&out, "kcmp (").starts_with("no "), "{out}");
        assert!(out.contains("\ncheckpoint: does not work here, for lack of: kcmp\n"), "{out}");
        assert!(line(&out, "restart: does not work here").contains("clone3(set_tid)"), "{out}");
    }
}

/// Without kcmp, descriptors that share a file could be taken for separate ones: no checkpoint is better than such a one.
#[test]
fn a_container_that_forbids_kcmp_fails_checkpoints_and_not_the_job() {
    let job = Job::new(["bash", "-c", "sleep 1; echo done"]);
    let sandbox = job.sandbox(Identity::own());
    let launch = job.launch_command(&sandbox, "0.2");
    let mut command = sandbox.command(program("confined"));
    command.arg(launch.get_program()).args(launch.get_args());
    let (code, out, err) = sandbox.finish(command);
    assert_eq!((code, out.as_str()), (0, "done\n"), "{err}");
    assert!(
        !err.is_empty() && err.lines().all(|line| line.starts_with("ckpt: no checkpoint: ") && line.contains("kcmp")),
        "{err}"
    );
    assert!(sandbox.images(IMAGES).is_empty(), "{err}");
}

/// In a pid namespace that gives such numbers; the restart is outside of it.
#[test]
fn numbers_above_the_machines_pid_max_are_kept_where_a_namespace_has_its_own() {
    if !nix::unistd::geteuid().is_root() {
        return not_run("needs root, to choose numbers of processes");
    }
    let sandbox = Sandbox::new(Identity::own());
    let script = format!(
        "echo 200000 > /proc/sys/kernel/ns_last_pid || exit 9
        {} -d images -i 0.3 -- sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo $i $$; sleep 0.2; done' > out &
        until ls images/*.img; do sleep 0.1; done",
        tool("ckpt-launch").display()
    );
    let mut command = sandbox.command("unshare");
    // What is left ends with the namespace.
    command.args(["--pid", "--fork", "--mount-proc", "sh", "-c", &script]);
    let (code, _, err) = sandbox.finish(command);
    if code == 9 {
        return not_run("numbers beyond kernel.pid_max, which this kernel does not give");
    }
    assert_eq!(code, 0, "{err}");
    let mut restart = sandbox.command(tool("ckpt-restart"));
    restart.args(["-d", "images"]).args(sandbox.images("images"));
    let (code, later, err) = sandbox.finish(restart);
    assert_eq!(code, 0, "{err}");
    // What was written after the checkpoint is written again.
    let out = sandbox.read_text("out") + &later;
    let numbers: Vec<&str> = out.lines().filter_map(|line| line.split_once(' ')).map(|(_, pid)| pid).collect();
    assert!(numbers.len() >= 15 && numbers.iter().all(|pid| *pid == numbers[0]), "{out}");
    assert!(numbers[0].parse::<i32>().is_ok_and(|pid| pid > 200_000), "{out}");
}
