//! The environment: a job's own `LD_PRELOAD`, children without any environment, login shells, and what the tools add to it.

use std::path::PathBuf;

use ckpt_tests::job::await_image;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, artifacts, survives};

/// A library that answers `getlogin`.
fn own_library() -> PathBuf {
    artifacts::compile("own_preload", &["-shared", "-fPIC"])
}

survives!(own_preload_is_kept, Job::program("ask_login", 300, &["and in a child"]).env("LD_PRELOAD", own_library()));

#[test]
fn own_preload_is_in_use() {
    let job = Job::program("ask_login", 300, &["and in a child"]).env("LD_PRELOAD", own_library());
    let output = job.interrupted(Identity::User, 1);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a name of its own\n".repeat(4), "{}", output.told());
}

survives!(
    children_without_environment,
    Job::script(
        "bash",
        r#"
for i in 1 2 3; do
  env -i /bin/bash -c 'for j in 1 2 3 4 5 6 7 8; do echo "bare $j"; /bin/sleep 0.1; done; /usr/bin/env | /usr/bin/grep -v -e ^_ -e ^PWD -e ^SHLVL -e ^LD_PRELOAD -e ^CKPT_'
  env -u LD_PRELOAD bash -c 'for j in 1 2 3; do echo "unset $j"; sleep 0.05; done'
done
unset LD_PRELOAD; sleep 0.5; bash -c 'sleep 0.3; echo "unset for good"'
"#
    )
);

survives!(
    login_shells,
    Job::script(
        "bash",
        r#"
for i in 1 2 3; do
  bash -l -c 'for j in 1 2 3 4 5 6 7 8; do echo "login $j"; sleep 0.1; done'
  sh -l -c 'sleep 0.1; echo "and sh"'
done
"#
    )
);

survives!(
    a_program_that_sets_its_environment_anew,
    Job::new([
        "/usr/bin/python3",
        "-c",
        r#"
import os, subprocess, time
for i in range(4):
    subprocess.run(["/bin/sh", "-c", "for i in 1 2 3 4; do echo $i $ONLY; /bin/sleep 0.1; done"], env={"ONLY": "this"})
    pid = os.posix_spawn("/bin/sleep", ["sleep", "0.3"], {})
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
os.execve("/bin/sh", ["sh", "-c", "/bin/sleep 0.5; echo replaced"], {})
"#,
    ])
);

/// The job finds what is promised in its environment, and nothing else is different.
#[test]
fn the_job_sees_its_id_and_directory() {
    let job = Job::new(["bash", "-c", "env | sort; sleep 3"]);
    let plain = job.run_plain(Identity::own());
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let image = await_image(&sandbox, &mut running, None);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    let out = sandbox.read_text("out");
    let value = |name: &str| out.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')));
    let id = value("CKPT_JOB_ID").unwrap_or_default();
    assert!(id.len() == 16 && image.to_string_lossy().contains(id), "CKPT_JOB_ID={id} of {}", image.display());
    assert_eq!(value("CKPT_DIR"), sandbox.join("images").to_str());
    let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
    let same =
        |line: &&str| !["HOME=", "TMPDIR=", "PWD=", "_=", "CKPT_", "LD_PRELOAD="].iter().any(|start| line.starts_with(start));
    let (plain, out): (Vec<_>, Vec<_>) = (plain.lines().filter(same).collect(), out.lines().filter(same).collect());
    assert_eq!(plain, out);
}

/// The descriptors that a job inherits are those it would have had.
#[test]
fn the_job_gets_no_descriptor_of_ours() {
    let script = "ls -l /proc/self/fd | awk 'NR > 1 { print $9 }'; sleep 0.7; ls -l /proc/self/fd | awk 'NR > 1 { print $9 }'";
    Job::new(["bash", "-c", script]).left_running(Identity::own());
}
