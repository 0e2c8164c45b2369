//! Files: descriptions at their offsets, shared and not, deleted or not, replaced by others since, and bytes in flight in pipes.

use std::fs;
use std::path::PathBuf;

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::staged::is_aside;
use ckpt_tests::{Identity, Job, Sandbox, as_either, program_survives, tool};

program_survives!(file_offsets);
program_survives!(shared_descriptions);
program_survives!(deleted_files);
program_survives!(files_of_the_dead);
program_survives!(replaced_files);
program_survives!(pipes);

as_either! {
    what_took_the_name_is_not_lost what_is_only_read_is_not_touched a_directory_that_moved_is_not_made_again
    a_restart_that_fails_takes_back_what_it_made a_directory_that_the_job_worked_in_is_made_again
    what_no_image_holds_is_named a_named_pipe_is_made_again what_is_read_while_it_is_rewritten_is_read_as_it_was
}

/// What a restart says before the paths of files that it has made again.
const RECREATED: &str = "recreated from the image: ";
/// The same of files that are not what they were, and that the job only reads.
const FORMER: &str = "the job reads the former contents of files that were replaced or removed: ";

/// A job that reads one small file and writes another, killed after its first image.
fn killed(identity: Identity) -> (Job, Sandbox, Vec<PathBuf>) {
    let script = "mkdir -p own; exec 5> own/file; echo kept >&5
        while read -r line; do echo $line; echo $line >&4; sleep 0.02; done < data 4> written; cat own/file";
    let data: String = (1..=100).map(|i| format!("{i}\n")).collect();
    let job = Job::new(["bash", "-c", script]).file("data", data).leaves("written").interval("0.8");
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    (job, sandbox, images)
}

/// The job goes on to its end, and its output is whole; gives what the restart said.
fn goes_on(identity: Identity, job: &Job, sandbox: &Sandbox, images: &[PathBuf]) -> String {
    let plain = job.run_plain(identity);
    let code = job.restart(sandbox, images, 1).wait(BOUND);
    job.compare(&plain, &job.output(sandbox, code, 2));
    sandbox.read_text("err.1")
}

fn what_took_the_name_is_not_lost(identity: Identity) {
    let (job, sandbox, images) = killed(identity);
    sandbox.write("other", "somebody else's");
    fs::rename(sandbox.join("other"), sandbox.join("written")).expect("replaced");
    let mut running = job.restart(&sandbox, &images, 1);
    running.until_says("restarted from");
    let dirs = fs::read_dir(sandbox.join(IMAGES)).expect("listed").flatten().map(|entry| entry.path());
    let dir =
        dirs.into_iter().find(|path| is_aside(path)).unwrap_or_else(|| panic!("nothing was set aside\n{}", running.stderr()));
    let written = sandbox.join("written");
    let aside = dir.join(written.strip_prefix("/").expect("an absolute path"));
    assert_eq!(fs::read_to_string(&aside).expect("read"), "somebody else's");
    let code = running.wait(BOUND);
    job.compare(&job.run_plain(identity), &job.output(&sandbox, code, 2));
    let said = sandbox.read_text("err.1");
    assert!(said.contains(&format!("set aside in {}: 1 file, ", dir.display())), "{said}");
    assert!(said.contains(&format!("made or changed after the checkpoint: {}\n", written.display())), "{said}");
}

fn what_is_only_read_is_not_touched(identity: Identity) {
    let (job, sandbox, images) = killed(identity);
    sandbox.write("other", "a newer version");
    fs::rename(sandbox.join("other"), sandbox.join("data")).expect("replaced");
    // Deleted altogether.
    fs::remove_file(sandbox.join("written")).expect("removed");
    let said = goes_on(identity, &job, &sandbox, &images);
    assert_eq!(sandbox.read_text("data"), "a newer version");
    let (data, written) = (sandbox.join("data"), sandbox.join("written"));
    assert!(said.contains(&format!("{FORMER}{}\n", data.display())), "{said}");
    assert!(said.contains(&format!("{RECREATED}{}\n", written.display())), "{said}");
    let left = fs::read_dir(sandbox.join("own").parent().expect("the sandbox")).expect("listed").flatten();
    let hidden: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?} were left");
}

fn what_is_read_while_it_is_rewritten_is_read_as_it_was(identity: Identity) {
    let (job, sandbox, images) = killed(identity);
    let newer = "a newer version\n".repeat(100);
    fs::write(sandbox.join("data"), &newer).expect("rewritten");
    let said = goes_on(identity, &job, &sandbox, &images);
    assert_eq!(sandbox.read_text("data"), newer);
    assert!(said.contains(&format!("{FORMER}{}\n", sandbox.join("data").display())), "{said}");
}

fn a_directory_that_moved_is_not_made_again(identity: Identity) {
    let (job, sandbox, images) = killed(identity);
    // One that the job has made itself.
    fs::remove_dir_all(sandbox.join("own")).expect("removed");
    let said = goes_on(identity, &job, &sandbox, &images);
    assert!(said.contains("own/file") || !tells_times_of_birth(&sandbox), "{said}");

    let script = "exec 4> there/file; for i in {1..40}; do echo $i >&4; sleep 0.02; done";
    let job = Job::new(["bash", "-c", script]);
    let sandbox = job.sandbox(identity);
    sandbox.make_dir("there");
    let images = job.killed(&sandbox);
    fs::rename(sandbox.join("there"), sandbox.join("elsewhere")).expect("moved");
    let mut restart = sandbox.command(tool("ckpt-restart"));
    restart.args(&images);
    let (code, _, err) = sandbox.finish(restart);
    assert!(code == 122 && err.contains("there is gone, and in it: file") && err.contains("--map"), "{code}: {err}");
    assert!(!sandbox.join("there").exists());
}

/// Where nobody knows whether a directory was there before the job, it is not made again.
fn tells_times_of_birth(sandbox: &Sandbox) -> bool {
    sandbox.path().metadata().is_ok_and(|meta| meta.created().is_ok())
}

fn a_restart_that_fails_takes_back_what_it_made(identity: Identity) {
    let script = "exec 4> small 5>> large; for i in {1..80}; do echo $i >&4; sleep 0.02; done";
    let job = Job::new(["bash", "-c", script]).file("large", "x".repeat(2 << 20)).option("--file-budget").option("1MiB");
    let sandbox = job.sandbox(identity);
    sandbox.make_dir("elsewhere");
    let images = job.killed(&sandbox);
    fs::rename(sandbox.join("large"), sandbox.join("elsewhere/large")).expect("moved");
    fs::remove_file(sandbox.join("small")).expect("removed");
    let mut restart = sandbox.command(tool("ckpt-restart"));
    restart.args(&images);
    let (code, _, err) = sandbox.finish(restart);
    assert!(code == 122 && err.contains("large, which process") && err.contains("is gone"), "{code}: {err}");
    assert!(!sandbox.join("small").exists(), "what the restart made is still there");
}

/// A job that is killed while it works in a directory that it has made, with so many bytes in it.
fn killed_at_work(identity: Identity, bytes: usize) -> (Job, Sandbox, Vec<PathBuf>) {
    let script = "mkdir -p work/sub && cd work && head -c $0 /dev/zero > sub/closed && ln -sf sub/closed link && exec 4> open
        for i in {1..60}; do sleep 0.02; echo $i >&4; done; wc -c < link; cat open; ls -lR --time-style=+ | grep -v total";
    let job = Job::new(["bash", "-c", script, &bytes.to_string()]).option("--file-budget").option("16MiB").interval("0.8");
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    assert!(sandbox.join("work/link").exists(), "the job had not begun");
    (job, sandbox, images)
}

fn a_directory_that_the_job_worked_in_is_made_again(identity: Identity) {
    let (job, sandbox, images) = killed_at_work(identity, 70_000);
    if !tells_times_of_birth(&sandbox) {
        return;
    }
    fs::remove_file(sandbox.join("work/link")).expect("removed");
    let said = goes_on(identity, &job, &sandbox, &images);
    assert!(said.contains(&format!("{RECREATED}{}\n", sandbox.join("work/link").display())), "{said}");
    let (job, sandbox, images) = killed_at_work(identity, 70_000);
    fs::remove_dir_all(sandbox.join("work")).expect("removed");
    let said = goes_on(identity, &job, &sandbox, &images);
    assert!(said.contains(&format!("{RECREATED}{}, ", sandbox.join("work").display())), "{said}");
}

fn what_no_image_holds_is_named(identity: Identity) {
    // More than the part of the budget that a closed file may have.
    let (job, sandbox, images) = killed_at_work(identity, 2 << 20);
    fs::remove_dir_all(sandbox.join("work")).expect("removed");
    let lost = format!("{} (gone, and its contents are not held)", sandbox.join("work/sub/closed").display());
    let mut restart = sandbox.command(tool("ckpt-restart"));
    restart.arg("--strict").args(&images);
    let (code, _, err) = sandbox.finish(restart);
    assert!(code == 122 && err.contains(&lost), "{code}: {err}");
    assert!(!sandbox.join("work").exists(), "what the restart made is still there");
    let mut running = job.restart(&sandbox, &images, 1);
    running.until_says(&format!("not as at the checkpoint: {lost}"));
    running.kill();
}

fn a_named_pipe_is_made_again(identity: Identity) {
    let script = "mkdir dir; mkfifo -m 620 dir/pipe; exec 4<> dir/pipe; echo all >&4; mkfifo unnamed; exec 5<> unnamed; rm unnamed; echo was well >&5
        for i in {1..60}; do sleep 0.02; done; read -r -u 4 one; read -r -u 5 other; echo $one $other; stat -c '%F %a' dir/pipe";
    let job = Job::new(["bash", "-c", script]).interval("0.8");
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    if !tells_times_of_birth(&sandbox) {
        return;
    }
    fs::remove_dir_all(sandbox.join("dir")).expect("removed");
    let said = goes_on(identity, &job, &sandbox, &images);
    assert!(said.contains(&format!("{RECREATED}{0}, {0}/pipe\n", sandbox.join("dir").display())), "{said}");
}
