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
        assert_eq!((code, sandbox.read_text("out")), (0, said("out", 1)), "{}", sandbox.read_text("err.1"));
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
