//! Standard input that is a file, a here-document or a pipe whose writer has ended, and output that others append to as well: whether the same
//! command line goes on with the job (`--resume`) or `ckpt-restart` does, nothing is repeated and nothing lost.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ckpt_tests::job::{IMAGES, await_image, seed};
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::staged::is_output;
use ckpt_tests::{FileTree, Identity, Running, Sandbox, as_either, tool, tree};

/// How many lines a job prints, and the exit code that it ends with.
const LINES: usize = 15;
const CODE: i32 = 7;

/// The way in which a job goes on.
#[derive(Clone, Copy)]
enum Again {
    /// The same command line again, with the same input.
    Resume,
    /// `ckpt-restart`, with `/dev/null` as its input.
    Restart,
}

/// A command line for `bash` in the sandbox, with the tools on its path.
fn shell(sandbox: &Sandbox, line: &str) -> Command {
    let tools = tool("ckpt-launch").parent().expect("a folder").display().to_string();
    let mut command = sandbox.command("bash");
    command.args(["-c", line]).env("PATH", format!("{tools}:/usr/local/bin:/usr/bin:/bin"));
    command
}

/// What a run prints that nothing happened to.
fn expected() -> String {
    (1..=LINES).map(|line| format!("line {line}\n")).chain(["the end\n".to_owned()]).collect()
}

/// A bash script of a command for each line, each made longer by a comment of so many bytes.
fn script(comment: usize) -> String {
    let commands = (1..=LINES).map(|line| format!("echo line {line}; sleep 0.15 # {}\n", "x".repeat(comment)));
    commands.chain([format!("echo the end; exit {CODE}\n")]).collect()
}

/// A job that is started by a command line with some input is killed twice, and goes on this way.
fn goes_on(identity: Identity, again: Again, line: &str, files: &[(&str, String)]) {
    let sandbox = Sandbox::new(identity);
    sandbox.make_dir(IMAGES);
    for (name, contents) in files {
        sandbox.write(name, contents);
    }
    let mut moments = fastrand::Rng::with_seed(seed());
    let launch = || shell(&sandbox, line);
    let mut running = sandbox.start(launch(), "out", false, "err.0");
    let mut newest = None;
    for run in 1..=2 {
        newest = Some(await_image(&sandbox, &mut running, newest));
        // It prints more, and reads more, than at the checkpoint.
        let ended = running.ends_within(Duration::from_millis(moments.u64(20..350)));
        assert!(
            !ended,
            "it ended with {:?} before it was killed:\n{}\n{}",
            running.ended(),
            sandbox.read_text("out"),
            running.stderr()
        );
        running.kill();
        let command = match again {
            Again::Resume => launch(),
            Again::Restart => shell(&sandbox, &format!("exec ckpt-restart -i 0.2 {IMAGES}/ckpt_*.img < /dev/null")),
        };
        running = sandbox.start(command, "out", true, &format!("err.{run}"));
    }
    let code = running.wait(BOUND);
    let said: String =
        (0..=2).map(|run| format!("standard error of run {run}:\n{}\n", sandbox.read_text(&format!("err.{run}")))).collect();
    let out = sandbox.read_text("out");
    assert!(
        code == CODE && out == expected(),
        "it ended with {code} instead of {CODE}, and printed this instead of {LINES} lines:\n{out}\n{said}"
    );
    let begun = said.matches("restarted from").count() + said.matches("resuming bash").count();
    assert!(begun >= 2, "a run began anew:\n{said}");
}

/// Makes the tests of an input, for both ways to go on.
macro_rules! goes_on {
    ($($name:ident: $line:expr, $files:expr;)*) => {
        $(mod $name {
            use super::*;
            fn resumed(identity: Identity) {
                goes_on(identity, Again::Resume, &$line, $files);
            }
            fn restarted(identity: Identity) {
                goes_on(identity, Again::Restart, &$line, $files);
            }
            as_either! { resumed restarted }
        })*
    };
}

/// The launch that all of them share.
const LAUNCH: &str = "ckpt-launch --resume -i 0.2 -d images -- bash";

/// Copies its input, which it reads as a program does that knows nothing of scripts.
const COPIES: &str = r#"-c 'while read -r line; do echo "$line"; sleep 0.15; done; exit 7'"#;

goes_on! {
    a_script_from_a_file: format!("exec {LAUNCH} < in"), &[("in", script(0))];
    a_script_from_a_large_file: format!("exec {LAUNCH} < in"), &[("in", script(20_000))];
    lines_from_a_file: format!("exec {LAUNCH} {COPIES} < in"), &[("in", expected())];
    // A pipe.
    a_small_here_document: format!("{LAUNCH} << 'END'\n{}END\n", script(0)), &[];
    // A temporary file that is deleted.
    a_large_here_document: format!("{LAUNCH} << 'END'\n{}END\n", script(6_000)), &[];
    a_script_from_a_writer_that_has_ended: format!("cat in | {LAUNCH}"), &[("in", script(0))];
    lines_from_a_writer_that_has_ended: format!("cat in | {LAUNCH} {COPIES}"), &[("in", expected())];
}

as_either! { what_others_append_is_kept }

/// The launcher among the processes of a command line.
fn launcher(running: &mut Running) -> i32 {
    let pid = running.pid();
    running.until("the launcher", BOUND, |_| tree::child(pid))
}

/// A batch script writes a line before the job and one after it into the file that the job writes to. Its first run loses the job only, so that it goes on
/// to its second line.
fn what_others_append_is_kept(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    sandbox.make_dir(IMAGES);
    sandbox.write("script", format!("for i in {{1..{LINES}}}; do echo line $i; sleep 0.15; done; echo the end; exit {CODE}\n"));
    // Not the last command, which the shell would become itself.
    let line = |run: usize| {
        format!("{{ echo header {run}; {LAUNCH} script; code=$?; echo trailer {run}; exit $code; }} >> output 2>> messages")
    };
    let mut moments = fastrand::Rng::with_seed(seed());
    let mut running = sandbox.start(shell(&sandbox, &line(1)), "out", false, "err.0");
    let mut newest: Option<PathBuf> = None;
    for run in 2..=3 {
        newest = Some(await_image(&sandbox, &mut running, newest));
        assert!(!running.ends_within(Duration::from_millis(moments.u64(50..350))), "proved nothing: it ended by itself");
        tree::kill_tree(launcher(&mut running));
        assert_eq!(running.wait(BOUND), 137, "{}", sandbox.read_text("messages"));
        running = sandbox.start(shell(&sandbox, &line(run)), "out", true, &format!("err.{run}"));
    }
    let (code, said) = (running.wait(BOUND), sandbox.read_text("messages"));
    let output = sandbox.read_text("output");
    assert_eq!(code, CODE, "{output}\n{said}");
    let of_the_job: String = output
        .lines()
        .filter(|line| !line.starts_with("header") && !line.starts_with("trailer"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(of_the_job, expected(), "all of it is:\n{output}\n{said}");
    // What others wrote stays, however the job ends.
    let mut kept = output.clone();
    for dir in
        fs::read_dir(sandbox.join(IMAGES)).expect("listed").flatten().map(|entry| entry.path()).filter(|path| is_output(path))
    {
        for part in FileTree::of(&dir, |_| false).contents("") {
            kept += &String::from_utf8_lossy(part);
        }
    }
    for run in 1..=3 {
        for line in [format!("header {run}"), format!("trailer {run}")] {
            assert!(
                kept.lines().any(|kept| kept == line),
                "{line:?} is lost, of\n{output}\nwith what was set aside:\n{kept}\n{said}"
            );
        }
    }
}
