//! Terminals: pseudo-terminals of the job, and the one that it was launched on.

use std::time::{Duration, Instant};

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Sandbox, Terminal, program_survives};

program_survives!(pty_pair);
program_survives!(pty_packet_mode);
program_survives!(pty_in_flight, Job::program("pty_in_flight", 150, &[]));
program_survives!(controlling_terminal);

/// A shell to which every command is typed when the last one has answered.
const EXPECT: &str = r#"
log_user 0
set timeout 60
spawn -noecho bash --norc --noprofile -i
send "PS1='ready> '; stty -echo; echo begun\n"
expect "begun\r"
for {set i 1} {$i <= 100} {incr i} {
    send "sleep 0.02; echo result-\$(($i * $i))\n"
    expect {
        -re "result-(\[0-9\]+)\r" { puts "$i: $expect_out(1,string)" }
        timeout { puts "no answer to $i"; exit 1 }
        eof { puts "no shell for $i"; exit 2 }
    }
}
send "exit 3\n"
expect eof
lassign [wait] pid spawned error code
puts "the shell ended with $code"
"#;

/// A terminal whose output is recorded.
const SCRIPT: &str = r#"
SHELL=/bin/sh script -qefc 'for i in $(seq 100); do echo "line $i"; sleep 0.02; done; tty | tr -d 0-9; exit 4' typescript < /dev/null
echo "ended with $?"
grep -c line typescript
"#;

/// An editor to which a file of keys is typed.
const EDITOR: &str = r#"
seq 60 > text
{ for i in {1..60}; do printf ':s/$/ edited\r:sleep 30m\rj'; done; printf ':wq\r'; } > keys
SHELL=/bin/sh TERM=xterm script -qefc 'vim.tiny -n -u NONE -s keys text' /dev/null < /dev/null > /dev/null
echo "ended with $?"
cat text
"#;

/// A server with two terminals, and clients that come and go. What is typed wakes a client that waits at the server: files would
/// be there from before the restart.
const TMUX: &str = r#"
export TMUX_TMPDIR=$PWD TERM=xterm
t() { tmux -f /dev/null "$@"; }
t new-session -d -x 80 -y 24 -s main 'bash --norc --noprofile'
t split-window -t main 'for i in $(seq 100); do echo "pane $i"; sleep 0.02; done; tmux wait-for -S printed; sleep 1000'
for i in {1..40}; do
    t send-keys -t main.0 "tmux wait-for -S key-$i" Enter
    t wait-for "key-$i"
    echo "key $i"
    sleep 0.03
done
t wait-for printed
t capture-pane -p -t main.1 | grep -c pane
t list-panes -s -F '#{pane_index} #{pane_width}x#{pane_height} #{pane_dead}'
t kill-server
"#;

/// The same of an older kind. The socket of a run that was killed before its first image is in the way of the name.
const SCREEN: &str = r#"
export SCREENDIR=$PWD/screens TERM=xterm
mkdir -p -m 700 screens
test -p answers || mkfifo answers
exec 7<> answers
screen -wipe > /dev/null
screen -c /dev/null -dmS main bash --norc --noprofile
until screen -S main -p 0 -X stuff $'true\n' > /dev/null; do sleep 0.05; done
for i in {1..40}; do
    screen -S main -p 0 -X stuff "echo key $i > answers"$'\n'
    read -r -u 7 answer
    echo "$answer"
    sleep 0.03
done
screen -S main -X quit
"#;

/// Programs that make terminals for others, as a user that has a name, since some want one: makes `programs::NAME`, and
/// `programs::NAME_left_running`.
macro_rules! programs {
    ($($name:ident, $left:ident: $interpreter:literal, $script:ident)*) => {
        mod programs {
            use super::*;
            // The shell that such a user has may be none.
            fn job(interpreter: &str, script: &str) -> Job {
                Job::script(interpreter, script).env("SHELL", "/bin/bash")
            }
            $(
                #[test] fn $name() {
                    job($interpreter, $script).survives(Identity::NamedUser, 3);
                }
                #[test] fn $left() {
                    // Not every checkpoint is taken: a client may not have been accepted yet.
                    let job = job($interpreter, $script).interval("0.1");
                    job.compare(&job.run_plain(Identity::NamedUser), &job.run_checkpointed(Identity::NamedUser));
                }
            )*
        }
    };
}

programs! {
    expect, expect_left_running: "expect", EXPECT
    script, script_left_running: "bash", SCRIPT
    editor, editor_left_running: "bash", EDITOR
    tmux, tmux_left_running: "bash", TMUX
    screen, screen_left_running: "bash", SCREEN
}

/// Prints the keys that are typed, without echo or signals, and the width of the window when it changes.
const KEYS: &str = r#"
import os, signal, termios, tty
before = termios.tcgetattr(0)
signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b"<width %d>" % os.get_terminal_size(0).columns))
tty.setraw(0)
os.write(1, b"<raw on %s>" % os.ttyname(0).encode())
while (key := os.read(0, 1)) != b"q":
    os.write(1, b"<%d>" % key[0])
termios.tcsetattr(0, termios.TCSADRAIN, before)
"#;

/// Counts, and goes on when it is interrupted.
const COUNTING: &str = r#"trap 'echo "<interrupted>"' INT; for i in {1..1000}; do echo "<$i>"; sleep 0.1; done"#;

/// A shell on a terminal, a file for its job, and the first image of a launch.
fn launched(identity: Identity, name: &str, script: &str, command: &str, running: &str) -> (Sandbox, Terminal) {
    let sandbox = Sandbox::new(identity);
    sandbox.write(name, script);
    sandbox.make_dir(IMAGES);
    let mut terminal = Terminal::new(&sandbox);
    terminal.types(&format!("ckpt-launch -q -i 0.2 -d images {command}\n"));
    terminal.expect(running);
    let (end, newest) = (Instant::now() + BOUND, sandbox.images(IMAGES).pop());
    // One that was begun after that.
    let newest = newest.and_then(|newest| newest.file_name().map(ToOwned::to_owned));
    let newer = || sandbox.images(IMAGES).iter().filter(|image| image.file_name() > newest.as_deref()).count() > 1;
    while !newer() {
        assert!(Instant::now() < end, "there is no image");
        std::thread::sleep(Duration::from_millis(10));
    }
    (sandbox, terminal)
}

#[test]
fn raw_mode_and_the_window_are_those_of_the_new_terminal() {
    for identity in [Identity::Root, Identity::User] {
        identity.run(|identity| {
            let (sandbox, mut first) = launched(identity, "keys.py", KEYS, "python3 keys.py", "<raw on /dev/pts/");
            first.kill("ckpt-launch");
            let mut second = Terminal::new(&sandbox);
            second.types("stty cols 77; stty -a | tr ';' '\\n' | grep -w icanon; tty\n");
            second.expect("/dev/pts/");
            second.types("ckpt-restart -q images/*.img\n");
            second.expect("<width 77>");
            second.types("\x03\x1aab");
            second.expect("<3><26><97><98>");
            second.types("q");
            second.expect("ready> ");
            // As it was before.
            second.types("stty -a | grep -w icanon | grep -cw isig\n");
            second.expect("\n1");
        });
    }
}

#[test]
fn job_control_works_after_a_restart() {
    for identity in [Identity::Root, Identity::User] {
        identity.run(|identity| {
            let (_sandbox, mut terminal) = launched(identity, "count.sh", COUNTING, "bash count.sh", "<3>");
            terminal.kill("ckpt-launch");
            terminal.types("ckpt-restart -q images/*.img\n");
            terminal.expect("<");
            terminal.types("\x03");
            terminal.expect("<interrupted>");
            let shown = terminal.shows_within(Duration::from_millis(400));
            assert!(!shown.contains("interrupted"), "it was interrupted twice: {shown}");
            terminal.types("\x1a");
            terminal.expect("Stopped");
            terminal.expect("ready> ");
            let shown = terminal.shows_within(Duration::from_millis(400));
            assert!(!shown.contains('<'), "it goes on: {shown}");
            terminal.types("bg\n");
            terminal.expect("<");
            terminal.types("echo the shell has it\n");
            terminal.expect("\nthe shell has it");
            terminal.types("fg\n");
            terminal.expect("ckpt-restart");
            terminal.types_until("\x1c", "Quit");
        });
    }
}

#[test]
fn a_shell_in_the_job_goes_on_with_its_own_jobs() {
    for identity in [Identity::Root, Identity::User] {
        identity.run(|identity| {
            let command = "bash --norc --noprofile -i";
            let (sandbox, mut terminal) = launched(identity, "none", "", command, "ready> ");
            terminal.types("PS1='inner> '; kept=yes; sleep 1000 | cat\n");
            // An image that was taken while the pipeline is in the foreground.
            std::thread::sleep(Duration::from_millis(300));
            let newest = sandbox.images(IMAGES).pop();
            std::thread::sleep(Duration::from_millis(300));
            assert!(sandbox.images(IMAGES).pop() > newest, "there are no more images");
            terminal.kill("ckpt-launch");
            terminal.types("ckpt-restart images/*.img; echo outer $?\n");
            terminal.expect("restarted from");
            terminal.types("\x1a");
            terminal.expect("Stopped");
            terminal.types("echo \"kept: $kept\"\n");
            terminal.expect("\nkept: yes");
            terminal.types("fg\n");
            terminal.expect("sleep 1000");
            terminal.types_until("\x03", "inner> ");
            terminal.types("exit 5\n");
            terminal.expect("outer 5");
            terminal.expect("ready> ");
        });
    }
}

#[test]
fn a_restart_without_a_terminal_uses_its_input_and_output() {
    let script = "exec 7<> /dev/tty; for i in {1..60}; do echo \"out $i\"; echo \"seven $i\" >&7; sleep 0.05; done; exit 6";
    let (sandbox, mut terminal) = launched(Identity::own(), "talk.sh", script, "bash talk.sh", "out 1");
    terminal.kill("ckpt-launch");
    let mut command = sandbox.command("setsid");
    command.arg("--wait").arg(ckpt_tests::tool("ckpt-restart")).args(sandbox.images(IMAGES));
    let mut running = sandbox.start(command, "out", false, "err");
    let code = running.wait(BOUND);
    let said = running.stderr();
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("there is no terminal: /dev/tty is the standard output now"), "{said}");
    assert!(sandbox.read_text("out").ends_with("out 60\nseven 60\n"), "{}", sandbox.read_text("out"));
    assert!(!terminal.shows_within(Duration::from_millis(100)).contains("out"), "the old terminal is written to");
}

#[test]
fn output_goes_where_the_restart_sends_it() {
    // All three are one open file description on the terminal, and three on the restart.
    let script = "for i in {1..60}; do echo \"out $i\"; echo \"err $i\" >&2; sleep 0.05; done";
    let (sandbox, mut terminal) = launched(Identity::own(), "talk.sh", script, "bash talk.sh", "err 1");
    terminal.kill("ckpt-launch");
    terminal.types("ckpt-restart -q images/*.img > out\n");
    terminal.expect("err 60");
    terminal.expect("ready> ");
    let out = sandbox.read_text("out");
    assert!(out.ends_with("out 60\n") && !out.contains("err"), "{out}");
}
