//! File locks, leases, and files that send signals.

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, program_survives, tool};

program_survives!(file_locks);
program_survives!(ofd_locks);
program_survives!(flocks);
program_survives!(leases);
program_survives!(async_io_owner);

/// A job that has a file locked, in the way that `lock` calls for.
fn locking(lock: &str) -> Job {
    let script = format!(
        "import fcntl, time\nfile = open('locked', 'w')\nfcntl.{lock}(file, fcntl.LOCK_EX)\n\
         for i in range(150): time.sleep(0.01)\nprint('done')\n"
    );
    Job::script("python3", &script)
}

#[test]
fn a_lock_that_somebody_else_has_is_named() {
    for lock in ["flock", "lockf"] {
        let job = locking(lock);
        let sandbox = job.sandbox(Identity::own());
        let images = job.killed(&sandbox);
        let other = format!(
            "import fcntl, time\nfile = open('locked', 'r+')\nfcntl.{lock}(file, fcntl.LOCK_EX)\nopen('ready', 'w')\ntime.sleep(60)\n"
        );
        let mut command = sandbox.command("python3");
        command.args(["-c", &other]);
        let mut holder = sandbox.start(command, "holder.out", false, "holder.err");
        holder.until("its lock", BOUND, |_| sandbox.join("ready").exists().then_some(()));
        let mut restarted = job.restart(&sandbox, &images, 1);
        let code = restarted.wait(BOUND);
        let said = restarted.stderr();
        assert_eq!(code, 122, "{said}");
        let named = format!("locked is locked by process {} (python3)", holder.pid());
        assert!(said.contains(&named), "no line says {named:?}:\n{said}");
        holder.kill();
        let code = job.restart(&sandbox, &images, 2).wait(BOUND);
        assert_eq!((code, sandbox.read_text("out").as_str()), (0, "done\n"), "{}", sandbox.read_text("err.2"));
    }
}

#[test]
fn a_lock_of_whoever_starts_the_job_is_handed_on() {
    // As shell scripts do: the lock is the shell's, and the job has its descriptor.
    let sandbox = ckpt_tests::Sandbox::new(Identity::own());
    sandbox.make_dir(IMAGES);
    let (launch, restart) = (tool("ckpt-launch"), tool("ckpt-restart"));
    let script = format!(
        "exec 9> lock; flock -n 9 || exit 99\n\
         {launch} -i 0.2 -d images sh -c 'sleep 1; flock -n lock true && echo free || echo locked' & \n\
         while ! ls images/*.img > /dev/null 2>&1; do sleep 0.05; done; kill -USR2 $!; wait $!\n\
         {restart} images/*.img",
        launch = launch.display(),
        restart = restart.display()
    );
    let mut command = sandbox.command("bash");
    command.args(["-c", &script]);
    let mut running = sandbox.start(command, "out", false, "err");
    let code = running.wait(BOUND);
    assert_eq!((code, sandbox.read_text("out").trim_end()), (0, "locked"), "{}", running.stderr());
}

#[test]
fn a_directory_that_is_watched_by_dnotify_is_refused() {
    let script = "import fcntl, os, signal, time\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nfd = os.open('.', os.O_RDONLY)\n\
                  fcntl.fcntl(fd, fcntl.F_NOTIFY, fcntl.DN_RENAME | fcntl.DN_MULTISHOT)\ntime.sleep(1)\nprint('untouched')\n";
    let job = Job::script("python3", script);
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let code = running.wait(BOUND);
    let said = running.stderr();
    assert_eq!((code, sandbox.read_text("out").as_str()), (0, "untouched\n"), "{said}");
    assert!(said.contains("has a directory that is watched by F_NOTIFY open"), "{said}");
    assert!(sandbox.images(IMAGES).is_empty(), "there is an image");
}
