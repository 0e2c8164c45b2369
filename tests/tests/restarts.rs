//! Restarts of restarts, of copies, of twins, and in other places.

use std::fs;
use std::path::Path;
use std::process::Command;

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Sandbox, as_either, program, survives, tool};

/// A job of several processes, with a pipe and a file between them, whose output tells when anything is lost or doubled.
const COUNTING: &str = r#"
( for i in {1..80}; do echo "background $i"; sleep 0.05; done >> log ) &
for i in {1..80}; do echo "step $i"; sleep 0.05; done | while read -r line; do echo "got $line"; done
wait; cksum < log
"#;

/// The job that most tests here run.
fn counting() -> Job {
    Job::script("bash", COUNTING).leaves("log")
}

/// Makes the tests of a chain of restarts, as either user.
macro_rules! chain {
    ($name:ident, $job:expr, $restarts:expr) => {
        mod $name {
            use super::*;
            #[test]
            fn as_root() {
                Identity::Root.run(|identity| $job.survives_chain(identity, $restarts));
            }
            #[test]
            fn as_user() {
                Identity::User.run(|identity| $job.survives_chain(identity, $restarts));
            }
        }
    };
}

chain!(third_restart, counting(), 3);
chain!(tenth_restart, counting().interval("0.1"), 10);
chain!(checkpoint_right_after_a_restart, counting().interval("0.05"), 5);
chain!(threads_through_ten_restarts, Job::program("barrier_and_tls", 500, &[]).interval("0.1"), 10);

survives!(images_without_compression, counting().option("--compress").option("none"));
survives!(images_with_lz4, counting().option("--compress").option("lz4"));
survives!(images_with_zstd_3, counting().option("--compress").option("zstd:3"));

as_either! {
    image_copied_elsewhere two_restarts_of_one_image_at_once a_job_that_lives_is_not_brought_back what_is_left_of_a_job_is_replaced
    a_job_without_launcher_or_environment_is_not_brought_back restart_from_another_directory directory_that_moved
    directory_that_moved_with_map self_contained_image_needs_no_files the_generation_before_serves
    a_restart_names_what_it_restarts every_address_taken_by_the_restart_itself a_job_outlives_its_restart
    a_signal_to_the_launcher group_and_session_from_outside_the_pid_namespace
}

/// In a container the launcher's group and session have often been made outside, and have no number inside.
fn group_and_session_from_outside_the_pid_namespace(identity: Identity) {
    let job = counting();
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let inside = |launch: &Command| {
        let mut command = sandbox.command("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(launch.get_program()).args(launch.get_args());
        command
    };
    let mut running = sandbox.start(inside(&job.launch_command(&sandbox, "0.3")), "out", false, "err.0");
    await_image(&sandbox, &mut running, None);
    running.kill();
    let mut restart = Command::new(tool("ckpt-restart"));
    restart.args(sandbox.images(IMAGES));
    let code = sandbox.start(inside(&restart), "out", true, "err.1").wait(BOUND);
    let output = job.output(&sandbox, code, 2);
    job.compare(&plain, &output);
    assert_eq!(output.restarts, 1, "{}", output.told());
}

/// Without randomisation the restart's own program, libraries and stack lie where the job's are to be.
fn every_address_taken_by_the_restart_itself(identity: Identity) {
    let job = Job::new(["setarch", "-R", "bash", "-c", COUNTING]).leaves("log");
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let mut command = sandbox.command("setarch");
    command.arg("-R").arg(tool("ckpt-restart")).args(&images);
    let code = sandbox.start(command, "out", true, "err.1").wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
}

/// When `ckpt-restart` alone is killed, the job runs to its end.
fn a_job_outlives_its_restart(identity: Identity) {
    let script = "for i in {1..60}; do (echo \"$i\"); sleep 0.05; done > log; mv log done";
    let job = Job::script("bash", script);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let mut running = job.restart(&sandbox, &images, 1);
    running.until_says("restarted from");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(running.wait(BOUND), 128 + 9);
    running.until("the job's end", BOUND, |_| sandbox.join("done").exists().then_some(()));
    let lines: String = (1..=60).map(|i| format!("{i}\n")).collect();
    assert_eq!(sandbox.read_text("done"), lines);
}

/// The job's launcher has its number after a restart, and what is sent there does what it did before.
fn a_signal_to_the_launcher(identity: Identity) {
    let job = Job::script("bash", "for i in {1..40}; do sleep 0.05; done; kill -USR2 $PPID; sleep 60; echo too late");
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let mut running = job.restart(&sandbox, &images, 1);
    assert_eq!(running.wait(BOUND), 85, "stopped after a checkpoint\n{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "");
}

fn image_copied_elsewhere(identity: Identity) {
    let job = counting();
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let newest = job.killed(&sandbox).pop().expect("an image");
    let copies = sandbox.make_dir("elsewhere");
    let copy = copies.join(newest.file_name().expect("a name"));
    fs::copy(&newest, &copy).expect("a copy");
    identity.own_path(&copy);
    fs::remove_dir_all(sandbox.join(IMAGES)).expect("removed");
    // Where the images of the launch went is gone: this run has its own place for them.
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(["-i", "0.3", "-d"]).arg(&copies).arg(&copy);
    let code = sandbox.start(command, "out", true, "err.1").wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
}

fn two_restarts_of_one_image_at_once(identity: Identity) {
    let job = Job::program("barrier_and_tls", 300, &[]);
    let script = Job::script("bash", "for i in {1..60}; do echo \"line $i\"; (sleep 0.05); done; echo \"$(echo end)\"");
    for job in [job, script] {
        let plain = job.run_plain(identity);
        let sandbox = job.sandbox(identity);
        let newest = job.killed(&sandbox).pop().expect("an image");
        let mut twins: Vec<_> = (0..2)
            .map(|twin| {
                let mut command = sandbox.command(tool("ckpt-restart"));
                command.args(["--again", "-i", "0.2", "-d"]).arg(sandbox.make_dir(&format!("images.{twin}"))).arg(&newest);
                sandbox.start(command, &format!("out.{twin}"), false, &format!("err.{twin}"))
            })
            .collect();
        for (number, twin) in twins.iter_mut().enumerate() {
            assert_eq!(twin.wait(BOUND), plain.code, "{}", twin.stderr());
            // Each prints what was still to be printed at the checkpoint.
            let out = sandbox.read(&format!("out.{number}"));
            assert!(!out.is_empty() && plain.stdout.ends_with(&out), "twin {number}: {}", String::from_utf8_lossy(&out));
        }
        assert_eq!(sandbox.read("out.0"), sandbox.read("out.1"));
    }
}

/// A restart beside a job that lives would take its files from under it.
fn a_job_that_lives_is_not_brought_back(identity: Identity) {
    let job = Job::script("bash", "for i in {1..60}; do echo $i >> log; sleep 0.1; done; wc -l < log");
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    let image = await_image(&sandbox, &mut running, None);
    let before = sandbox.read("log").len();
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.arg(&image);
    let (code, _, err) = sandbox.finish(command);
    assert!(code == 122 && err.contains(" lives: process ") && err.contains("--again"), "{code}: {err}");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(before > 0 && sandbox.read_text("out") == "60\n", "its files were touched: {}", sandbox.read_text("out"));
}

/// Of a job whose launcher alone was killed, the rest is ended first.
fn what_is_left_of_a_job_is_replaced(identity: Identity) {
    let job = Job::script("bash", "sleep 300 & for i in {1..40}; do echo $i >> log; sleep 0.1; done; kill $!; wc -l < log");
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    let image = await_image(&sandbox, &mut running, None);
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait(BOUND);
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.arg("--replace").arg(&image);
    let mut running = sandbox.start(command, "out", true, "err.1");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "40\n", "{}", running.stderr());
    assert_eq!(sandbox.read_text("log").lines().count(), 40);
}

/// Nor if its launcher was killed, and its environment is overwritten, as programs do that set a title.
fn a_job_without_launcher_or_environment_is_not_brought_back(identity: Identity) {
    const TITLE: &str = "
import ctypes, os, time
stat = open('/proc/self/stat').read().rsplit(')', 1)[1].split()
start, end = int(stat[47]), int(stat[48])
ctypes.memset(start, 0, end - start)
open('pid', 'w').write(str(os.getpid()))
for _ in range(1200):
    if os.path.exists('go'): break
    time.sleep(0.05)
";
    let job = Job::new(["/usr/bin/python3", "-c", TITLE]);
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    let image = await_image(&sandbox, &mut running, None);
    running.until("its pid", BOUND, |_| sandbox.join("pid").exists().then_some(()));
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait(BOUND);
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.arg(&image);
    let (code, _, err) = sandbox.finish(command);
    sandbox.write("go", "");
    let pid = sandbox.read_text("pid");
    assert!(code == 122 && err.contains(&format!(" lives: process {pid} ")), "{code}: {err}");
}

fn restart_from_another_directory(identity: Identity) {
    let job = counting();
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let elsewhere = sandbox.make_dir("elsewhere");
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.current_dir(&elsewhere).args(&images);
    let code = sandbox.start(command, "out", true, "err.1").wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
    // The job works where it did before, not where it was restarted from.
    assert_eq!(fs::read_dir(&elsewhere).expect("the folder").count(), 0, "something was left in the wrong place");
}

/// A job whose working directory is `inner`, with a file open in it, that is killed; the directory then moves to `moved`.
fn moved(identity: Identity) -> (Sandbox, Vec<std::path::PathBuf>) {
    let sandbox = Sandbox::new(identity);
    let inner = sandbox.make_dir("inner");
    sandbox.make_dir(IMAGES);
    let mut command = sandbox.command(tool("ckpt-launch"));
    let script = "exec 3>> log; for i in {1..60}; do echo $i >&3; echo $i >> other; sleep 0.05; done; cksum < log; cksum < other";
    command.current_dir(&inner).args(["-i", "0.3", "-d"]).arg(sandbox.join(IMAGES)).args(["--", "bash", "-c", script]);
    let mut running = sandbox.start(command, "out", false, "err.0");
    await_image(&sandbox, &mut running, None);
    running.kill();
    fs::rename(&inner, sandbox.join("moved")).expect("moved");
    let images = sandbox.images(IMAGES);
    (sandbox, images)
}

/// The restarted job has ended well, in the new place.
fn check_moved(sandbox: &Sandbox, code: i32) {
    assert_eq!(code, 0, "{}", sandbox.read_text("err.1"));
    let lines: String = (1..=60).map(|i| format!("{i}\n")).collect();
    assert_eq!(sandbox.read_text("moved/log"), lines, "the file that was open");
    assert!(!sandbox.join("inner").exists(), "the old place came back");
    // What was opened anew after the restart went to the new place too; what it held then was not the job's to cut back.
    assert!(sandbox.read_text("moved/other").ends_with("59\n60\n"), "the file that was opened anew");
}

fn directory_that_moved(identity: Identity) {
    let (sandbox, images) = moved(identity);
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.current_dir(sandbox.join("moved")).args(&images);
    let code = sandbox.start(command, "out", true, "err.1").wait(BOUND);
    check_moved(&sandbox, code);
}

fn directory_that_moved_with_map(identity: Identity) {
    let (sandbox, images) = moved(identity);
    let mut command = sandbox.command(tool("ckpt-restart"));
    let map = format!("{}={}", sandbox.join("inner").display(), sandbox.join("moved").display());
    command.arg("--map").arg(map).args(&images);
    let code = sandbox.start(command, "out", true, "err.1").wait(BOUND);
    check_moved(&sandbox, code);
}

/// Launches a copy of a program, kills it, and changes that copy. Returns the images.
fn with_changed_program(sandbox: &Sandbox, job: &Job, copy: &Path) -> Vec<std::path::PathBuf> {
    let images = job.killed(sandbox);
    fs::remove_file(copy).expect("removed");
    images
}

fn self_contained_image_needs_no_files(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    sandbox.make_dir(IMAGES);
    let copy = sandbox.write("program", fs::read(program("barrier_and_tls")).expect("the program"));
    let plain = Job::new([copy.as_os_str(), "300".as_ref()]);
    let images = with_changed_program(&sandbox, &plain, &copy);
    let (code, _, err) = {
        let mut command = sandbox.command(tool("ckpt-restart"));
        command.args(&images);
        sandbox.finish(command)
    };
    assert_eq!(code, 122, "a program that is gone\n{err}");
    assert!(err.contains(&*copy.to_string_lossy()), "the message does not name {}:\n{err}", copy.display());
    // Again, with all that it needs inside the image.
    for image in images {
        fs::remove_file(image).expect("removed");
    }
    sandbox.write("program", fs::read(program("barrier_and_tls")).expect("the program"));
    let images = with_changed_program(&sandbox, &plain.clone().option("--self-contained"), &copy);
    let code = plain.restart(&sandbox, &images, 1).wait(BOUND);
    assert_eq!(code, 0, "{}", sandbox.read_text("err.1"));
    assert_eq!(sandbox.read_text("out"), "no thread passed a barrier alone, none saw another's storage\n");
}

fn the_generation_before_serves(identity: Identity) {
    let job = counting();
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let mut running = job.launch(&sandbox);
    let first = await_image(&sandbox, &mut running, None);
    await_image(&sandbox, &mut running, Some(first));
    running.kill();
    let images = sandbox.images(IMAGES);
    let newest = images.last().expect("an image");
    let length = fs::metadata(newest).expect("the image").len();
    fs::OpenOptions::new().write(true).open(newest).and_then(|file| file.set_len(length - 100)).expect("cut off");
    // The older generation's output ended earlier, and is cut back to that.
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    let output = job.output(&sandbox, code, 2);
    job.compare(&plain, &output);
    let name = newest.file_name().expect("a name").to_string_lossy();
    assert!(output.stderr[1].contains(&*name) && output.stderr[1].contains("was not completed"), "{}", output.told());
}

fn a_restart_names_what_it_restarts(identity: Identity) {
    let job = Job::program("barrier_and_tls", 200, &[]);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let mut running = job.restart(&sandbox, &images[images.len() - 1..], 1);
    running.until_says("ckpt: restarted from checkpoint ");
    // The program makes eight threads beside its first.
    let line = running.stderr().lines().next().map(str::to_owned).unwrap_or_default();
    assert!(line.ends_with("(1 process, 9 threads)") || line.ends_with("(1 processes, 9 threads)"), "{line}");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
}
