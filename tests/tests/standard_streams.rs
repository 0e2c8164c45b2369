//! Standard input, output and error: those of the new launcher in the place of the old one's, nothing lost, nothing doubled.

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;

use ckpt_tests::job::{IMAGES, await_image};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, as_either, tool};

as_either! {
    output_is_not_doubled output_follows_the_new_launcher output_into_a_pipe
    input_goes_on_where_it_was input_from_a_pipe a_file_that_the_job_writes_is_cut_back
    one_command_line_reads_its_input_once a_here_document_goes_on what_a_writer_has_left_is_read
    an_input_file_that_is_gone_is_made_again a_large_input_that_is_gone_is_not_taken_for_its_end children_share_the_offset
    what_others_wrote_to_the_output_is_set_aside output_that_cannot_be_set_aside_is_not_cut
}

/// Prints a line on each stream fifty times a second.
const TALKING: &str = r#"for i in {1..150}; do echo "out $i"; echo "err $i" >&2; sleep 0.02; done"#;

/// The lines that the job above prints on one stream.
fn said(stream: &str, from: usize) -> String {
    (from..=150).map(|i| format!("{stream} {i}\n")).collect()
}

/// A stream's lines of the job above, without the messages of the tools.
fn heard(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("ckpt:")).map(|line| format!("{line}\n")).collect()
}

fn output_is_not_doubled(identity: Identity) {
    for append in [false, true] {
        let job = Job::new(["bash", "-c", TALKING]);
        let sandbox = job.sandbox(identity);
        let mut running = sandbox.start(job.launch_command(&sandbox, "0.3"), "out", append, "err.0");
        await_image(&sandbox, &mut running, None);
        let at_checkpoint = sandbox.read("out").len();
        // More is printed after the checkpoint, which the restarted job prints again.
        std::thread::sleep(std::time::Duration::from_millis(150));
        running.kill();
        assert!(sandbox.read("out").len() > at_checkpoint, "proved nothing: the output did not grow");
        let code = job.restart(&sandbox, &sandbox.images(IMAGES), 1).wait(BOUND);
        let said_by_it = sandbox.read_text("err.1");
        assert_eq!((code, sandbox.read_text("out")), (0, said("out", 1)), "{said_by_it}");
        // What was cut off went with the images: the job has written every line of it again.
        let left: Vec<_> = fs::read_dir(sandbox.join(IMAGES)).expect("listed").flatten().map(|entry| entry.path()).collect();
        assert!(said_by_it.contains("is set aside as") && left.is_empty(), "{left:?}\n{said_by_it}");
    }
}

fn output_follows_the_new_launcher(identity: Identity) {
    let job = Job::new(["bash", "-c", TALKING]);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    let before = (sandbox.read_text("out"), sandbox.read_text("err.0"));
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(&images);
    let code = sandbox.start(command, "out.1", false, "err.1").wait(BOUND);
    assert_eq!(code, 0, "{}", sandbox.read_text("err.1"));
    // All that came after the checkpoint went to the new places, and nothing to the old ones.
    assert_eq!(before, (sandbox.read_text("out"), sandbox.read_text("err.0")));
    for (stream, text) in [("out", sandbox.read_text("out.1")), ("err", heard(&sandbox.read_text("err.1")))] {
        let first =
            text.lines().next().and_then(|line| line.split(' ').nth(1)).and_then(|number| number.parse().ok()).unwrap_or(0);
        assert!(first > 1, "{stream} begins with {first}: {text}");
        assert_eq!(text, said(stream, first));
    }
}

fn output_into_a_pipe(identity: Identity) {
    let job = Job::new(["bash", "-c", TALKING]);
    let sandbox = job.sandbox(identity);
    // The launcher's pipe is gone with the kill; the new one is another.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = job.launch_command(&sandbox, "0.3");
    command.stdout(Stdio::from(writer)).stderr(sandbox.output_file("err.0", false));
    let mut running = ckpt_tests::Running::start(command, sandbox.join("err.0"));
    await_image(&sandbox, &mut running, None);
    running.kill();
    let mut first = String::new();
    reader.read_to_string(&mut first).expect("the pipe's end");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(sandbox.images(IMAGES)).stdout(Stdio::from(writer)).stderr(sandbox.output_file("err.1", false));
    let mut running = ckpt_tests::Running::start(command, sandbox.join("err.1"));
    let mut second = String::new();
    reader.read_to_string(&mut second).expect("the pipe's end");
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert!(said("out", 1).starts_with(&first) && said("out", 1).ends_with(&second), "{first}\n{second}");
    assert!(first.len() + second.len() >= said("out", 1).len(), "lines were lost: {first}\n{second}");
}

/// Copies its input to its output, slowly.
const COPYING: &str = r#"while read -r line; do echo "$line"; sleep 0.02; done; echo "the end""#;

fn input_goes_on_where_it_was(identity: Identity) {
    let job = Job::new(["bash", "-c", COPYING]).file("in", said("in", 1));
    let sandbox = job.sandbox(identity);
    let mut command = job.launch_command(&sandbox, "0.3");
    command.stdin(File::open(sandbox.join("in")).expect("the input"));
    let mut running = sandbox.start(command, "out", false, "err.0");
    await_image(&sandbox, &mut running, None);
    running.kill();
    // The new launcher has no input of its own: the file that the job read goes on.
    let code = job.restart(&sandbox, &sandbox.images(IMAGES), 1).wait(BOUND);
    assert_eq!((code, sandbox.read_text("out")), (0, said("in", 1) + "the end\n"), "{}", sandbox.read_text("err.1"));
}

/// The lines that [`COPYING`] makes of all of [`said`].
fn copied() -> String {
    said("in", 1) + "the end\n"
}

/// Starts a shell's line in which `launch` stands for the launch of [`COPYING`], kills all of it when there is an image, and gives the images.
fn kill_line(sandbox: &ckpt_tests::Sandbox, line: &str) -> Vec<std::path::PathBuf> {
    let mut running = start_line(sandbox, line, false, "err.0");
    let first = await_image(sandbox, &mut running, None);
    await_image(sandbox, &mut running, Some(first));
    running.kill();
    sandbox.images(IMAGES)
}

fn start_line(sandbox: &ckpt_tests::Sandbox, line: &str, append: bool, err: &str) -> ckpt_tests::Running {
    let mut command = sandbox.command("bash");
    let launch = format!("launch() {{ {} --resume -i 0.3 -d {IMAGES} \"$@\" bash copy.sh; }}\n", tool("ckpt-launch").display());
    command.args(["-c", &(launch + line)]);
    sandbox.start(command, "out", append, err)
}

/// What the job reads, and the script that does.
fn copying() -> Job {
    Job::new(["true"]).file("in", said("in", 1)).file("copy.sh", COPYING)
}

fn one_command_line_reads_its_input_once(identity: Identity) {
    let document = format!("launch <<'EOF'\n{}EOF", said("in", 1));
    for line in ["launch < in", "launch <> in", &document, "launch < <(cat in)"] {
        let job = copying();
        let sandbox = job.sandbox(identity);
        kill_line(&sandbox, line);
        let first = sandbox.read_text("out").lines().count();
        let mut second = start_line(&sandbox, line, true, "err.1");
        let newest = sandbox.images(IMAGES).pop();
        await_image(&sandbox, &mut second, newest);
        second.kill();
        let code = start_line(&sandbox, line, true, "err.2").wait(BOUND);
        assert!(first < 150, "proved nothing");
        assert_eq!((code, sandbox.read_text("out")), (0, copied()), "{line}: {}", sandbox.read_text("err.2"));
        assert_eq!(sandbox.read_text("in"), said("in", 1));
    }
}

fn a_here_document_goes_on(identity: Identity) {
    // Small ones are pipes, large ones deleted files, for most shells.
    for padding in [0, 1200] {
        let lines: String = (1..=80).map(|i| format!("echo {i}; sleep 0.02 # {}\n", "x".repeat(padding))).collect();
        let job = Job::new(["bash"]);
        let sandbox = job.sandbox(identity);
        let launch = format!("{} -i 0.3 -d {IMAGES} bash <<'EOF'\n{lines}EOF", tool("ckpt-launch").display());
        let images = kill_line(&sandbox, &launch);
        // In the midst of a batch script: its input is /dev/null.
        let code = job.restart(&sandbox, &images, 1).wait(BOUND);
        let expected: String = (1..=80).map(|i| format!("{i}\n")).collect();
        assert_eq!((code, sandbox.read_text("out")), (0, expected), "{}", sandbox.read_text("err.1"));
    }
}

fn what_a_writer_has_left_is_read(identity: Identity) {
    let job = copying();
    let sandbox = job.sandbox(identity);
    let images = kill_line(&sandbox, "cat in | launch");
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    assert_eq!((code, sandbox.read_text("out")), (0, copied()), "{}", sandbox.read_text("err.1"));
    // One that goes on to write is named, once in each run.
    let sandbox = job.sandbox(identity);
    let images = kill_line(&sandbox, "(cat in; sleep 60) | launch");
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(&images).stdin(File::open(sandbox.join("in")).expect("the input"));
    let code = sandbox.start(command, "out", true, "err.1").wait(BOUND);
    let (first, second) = (sandbox.read_text("err.0"), sandbox.read_text("err.1"));
    assert_eq!(first.matches("standard input is a pipe that another program writes to").count(), 1, "{first}");
    assert_eq!(second.matches("the job reads that of this restart now").count(), 1, "{second}");
    assert!(code == 0 && sandbox.read_text("out").ends_with(&copied()), "{second}");
}

fn an_input_file_that_is_gone_is_made_again(identity: Identity) {
    let job = copying();
    let sandbox = job.sandbox(identity);
    let images = kill_line(&sandbox, "launch < in");
    fs::remove_file(sandbox.join("in")).expect("removed");
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    assert_eq!((code, sandbox.read_text("out")), (0, copied()), "{}", sandbox.read_text("err.1"));
}

fn a_large_input_that_is_gone_is_not_taken_for_its_end(identity: Identity) {
    // More than an image holds of a file.
    let job = Job::new(["true"]).file("in", said("in", 1) + &"x".repeat(17 << 20)).file("copy.sh", COPYING);
    let sandbox = job.sandbox(identity);
    let images = kill_line(&sandbox, "launch < in");
    fs::rename(sandbox.join("in"), sandbox.make_dir("elsewhere").join("in")).expect("moved");
    let printed = sandbox.read_text("out");
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    let said = sandbox.read_text("err.1");
    assert!(code == 122 && said.contains("/in, which process"), "{code}: {said}");
    assert_eq!(printed, sandbox.read_text("out"));
    // The user gives it another one.
    sandbox.write("other", "other\n");
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(&images).stdin(File::open(sandbox.join("other")).expect("the input"));
    let code = sandbox.start(command, "out", true, "err.2").wait(BOUND);
    let said = sandbox.read_text("err.2");
    assert!(code == 0 && said.contains("which is gone or shorter now: the job reads that of this restart"), "{said}");
    assert!(sandbox.read_text("out").ends_with("other\nthe end\n"), "{}", sandbox.read_text("out"));
}

fn children_share_the_offset(identity: Identity) {
    // Each line is read by a child, which leaves the offset behind it.
    let script = r#"for i in {1..60}; do bash -c 'read -r line; echo "$line"; sleep 0.02'; done; exec cat"#;
    let job = Job::new(["true"]).file("in", said("in", 1)).file("copy.sh", script);
    let sandbox = job.sandbox(identity);
    let images = kill_line(&sandbox, "launch < in");
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    assert_eq!((code, sandbox.read_text("out")), (0, said("in", 1)), "{}", sandbox.read_text("err.1"));
}

fn what_others_wrote_to_the_output_is_set_aside(identity: Identity) {
    // Appended, or at the offset of each run's end.
    for redirection in [">> both 2>&1", "1<> both 2>&1; seek both", ">> both 2>> both", ">> both 2>> messages"] {
        let job = Job::new(["true"]).file("copy.sh", "for i in {1..100}; do echo line $i; sleep 0.02; done");
        let sandbox = job.sandbox(identity);
        let seek = r#"seek() { while read -r -u 1 line; do :; done; }"#;
        let script = |run: u32, tail: &str| {
            format!("{seek}\nexec {redirection}\necho header {run}\nlaunch {tail}\ncode=$?\necho trailer {run}\nexit $code")
        };
        let images = |sandbox: &ckpt_tests::Sandbox| sandbox.images(IMAGES).pop();
        for run in [1, 2] {
            let mut running = start_line(&sandbox, &script(run, "& wait"), true, "err");
            let newest = images(&sandbox);
            let newest = await_image(&sandbox, &mut running, newest);
            await_image(&sandbox, &mut running, Some(newest));
            // Another command of the script. Without O_APPEND the next line of the job would be written over this one.
            if redirection.starts_with(">>") {
                append(&sandbox, "both", &format!("other {run}\n"));
            }
            running.kill();
            append(&sandbox, "both", &format!("CANCELLED {run}\n"));
        }
        let code = start_line(&sandbox, &script(3, ""), true, "err").wait(BOUND);
        let both = sandbox.read_text("both");
        let everything = both.clone() + &set_aside(&sandbox);
        let lines: String = both.lines().filter(|line| line.starts_with("line ")).map(|line| format!("{line}\n")).collect();
        assert_eq!((code, lines), (0, (1..=100).map(|i| format!("line {i}\n")).collect()), "{redirection}: {everything}");
        let others: &[&str] = if redirection.starts_with(">>") { &["other 1", "other 2"] } else { &[] };
        for kept in ["header 1", "header 2", "header 3", "CANCELLED 1", "CANCELLED 2", "trailer 3"].iter().chain(others) {
            assert!(everything.lines().any(|line| line == *kept), "{redirection}: {kept} is lost: {everything}");
        }
        let messages = both + &sandbox.read_text("messages");
        for said in ["ckpt: resuming bash from", "after the checkpoint", "ckpt: restarted from checkpoint"] {
            assert!(messages.contains(said), "{redirection}: not said: {said}: {messages}");
        }
    }
}

fn output_that_cannot_be_set_aside_is_not_cut(identity: Identity) {
    let job = Job::new(["bash", "-c", TALKING]);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    append(&sandbox, "out", "CANCELLED\n");
    let before = sandbox.read_text("out");
    // Something else is in the way, as a full disk would be.
    let name = images[0].file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('_')).expect("a name").0;
    sandbox.write(&format!("{IMAGES}/{name}.output"), "");
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    let said = sandbox.read_text("err.1");
    assert!(code == 122 && said.contains("cannot set aside in "), "{code}: {said}");
    assert_eq!(before, sandbox.read_text("out"));
}

fn append(sandbox: &ckpt_tests::Sandbox, name: &str, text: &str) {
    let file = fs::OpenOptions::new().append(true).open(sandbox.join(name));
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())).expect("written");
}

/// What restarts have set aside of the output.
fn set_aside(sandbox: &ckpt_tests::Sandbox) -> String {
    let is_it = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "output");
    let entries = |dir: std::path::PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let dirs = entries(sandbox.join(IMAGES)).filter(is_it);
    dirs.flat_map(entries).map(|file| fs::read_to_string(file).unwrap_or_default()).collect()
}

fn input_from_a_pipe(identity: Identity) {
    // The new launcher's pipe takes the place of the old one's.
    let job = Job::new(["bash", "-c", COPYING]);
    let sandbox = job.sandbox(identity);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut command = job.launch_command(&sandbox, "0.3");
    command.stdin(Stdio::from(reader));
    let mut running = sandbox.start(command, "out", false, "err.0");
    std::io::Write::write_all(&mut writer, b"one\ntwo\n").expect("the pipe");
    running.until("the second line", BOUND, |_| sandbox.read_text("out").ends_with("two\n").then_some(()));
    let newest = sandbox.images(IMAGES).pop();
    let newest = await_image(&sandbox, &mut running, newest);
    await_image(&sandbox, &mut running, Some(newest));
    running.kill();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.args(sandbox.images(IMAGES)).stdin(Stdio::from(reader));
    let mut running = sandbox.start(command, "out", true, "err.1");
    std::io::Write::write_all(&mut writer, b"three\nfour\n").expect("the pipe");
    drop(writer);
    assert_eq!(running.wait(BOUND), 0, "{}", running.stderr());
    assert_eq!(sandbox.read_text("out"), "one\ntwo\nthree\nfour\nthe end\n");
}

fn a_file_that_the_job_writes_is_cut_back(identity: Identity) {
    let script = r#"exec 3> new 4>> old; for i in {1..100}; do echo "$i" >&3; echo "$i" >&4; sleep 0.02; done"#;
    let job = Job::new(["bash", "-c", script]).file("old", "before\n").leaves("new").leaves("old");
    let plain = job.run_plain(identity);
    let sandbox = job.sandbox(identity);
    let images = job.killed(&sandbox);
    // As if it had run on for a while after the checkpoint, and had written much.
    for name in ["new", "old"] {
        let mut file = fs::OpenOptions::new().append(true).open(sandbox.join(name)).expect("the file");
        std::io::Write::write_all(&mut file, "written after the checkpoint\n".repeat(1000).as_bytes()).expect("written");
    }
    let code = job.restart(&sandbox, &images, 1).wait(BOUND);
    job.compare(&plain, &job.output(&sandbox, code, 2));
}
