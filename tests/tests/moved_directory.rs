//! Jobs that go on in a directory of another path each time, as under HTCondor: it copies the files of `dir_1` into a fresh
//! `dir_2` on the next machine, and says nothing of it to the job.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, Running, Sandbox, as_either, tool};

/// Where each run's images go, relative to its directory.
const IMAGES: &str = "ckpt";

/// A job in a directory that moves.
struct Moving {
    sandbox: Sandbox,
    /// The number of the directory that it is in.
    at: usize,
    running: Running,
    /// The images before this run.
    images: Vec<PathBuf>,
}

impl Moving {
    /// Launches a command in `dir_1`.
    fn launch(identity: Identity, files: &[(&str, &str)], command: &[&str]) -> Self {
        let sandbox = Sandbox::new(identity);
        sandbox.make_dir("dir_1");
        for (name, contents) in files {
            sandbox.write(&format!("dir_1/{name}"), contents);
        }
        let mut launch = sandbox.command(tool("ckpt-launch"));
        launch.current_dir(sandbox.join("dir_1")).args(["-i", "0.3", "-d", IMAGES, "--"]).args(command);
        let running = sandbox.start(launch, "out", false, "err.1");
        Self { sandbox, at: 1, running, images: Vec::new() }
    }

    fn dir(&self) -> PathBuf {
        self.sandbox.join(format!("dir_{}", self.at))
    }

    /// Waits until this run has written an image of its own, where it is now.
    fn await_image(&mut self) {
        let (dir, before) = (format!("dir_{}/{IMAGES}", self.at), self.images.len());
        let known: Vec<_> = self.images.iter().filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect();
        let sandbox = &self.sandbox;
        let is_new = |path: &PathBuf| path.file_name().is_some_and(|name| !known.iter().any(|known| known == name));
        self.images = self.running.until("an image", BOUND, |running| {
            let images = sandbox.images(&dir);
            let ended = running.ended();
            assert!(ended.is_none() || images.iter().any(is_new), "ended with {ended:?}, {before} images\n{}", running.stderr());
            images.iter().any(is_new).then_some(images)
        });
    }

    /// Kills it, and has a fresh directory with what was in the one that it was in.
    fn carry(&mut self) {
        self.await_image();
        self.running.kill();
        let old = self.dir();
        self.at += 1;
        let copied = Command::new("cp").arg("-a").args([&old, &self.dir()]).status().expect("cp runs");
        assert!(copied.success(), "the files are copied");
        fs::remove_dir_all(&old).expect("the old directory goes");
    }

    fn restart_command(&self) -> Command {
        let mut command = self.sandbox.command(tool("ckpt-restart"));
        let dir = format!("dir_{}/{IMAGES}", self.at);
        let images = self.sandbox.images(&dir);
        command.current_dir(self.dir());
        command.args(images.iter().map(|path| Path::new(IMAGES).join(path.file_name().expect("a name"))));
        command
    }

    fn restart(&mut self) {
        let command = self.restart_command();
        self.running = self.sandbox.start(command, "out", true, &format!("err.{}", self.at));
    }

    fn said(&self) -> String {
        (1..=self.at).map(|run| format!("run {run}:\n{}", self.sandbox.read_text(&format!("err.{run}")))).collect()
    }

    /// Carries it on three times, and lets it end.
    fn survives(mut self) {
        for _ in 0..3 {
            self.carry();
            self.restart();
        }
        let code = self.running.wait(BOUND);
        assert_eq!(code, 0, "{}", self.said());
        assert!(self.said().contains("the job goes on in"), "{}", self.said());
        for before in 1..self.at {
            assert!(!self.sandbox.join(format!("dir_{before}")).exists(), "dir_{before} came back\n{}", self.said());
        }
        assert_eq!(self.sandbox.read_text("out"), "all was as it should be\n", "{}", self.said());
    }
}

as_either! { everything_that_has_a_path shells_in_several_directories another_directory_has_the_path missing_files_are_listed
tools_in_the_directory }

/// Open files, mappings, watches, named pipes, sockets; processes that work in several directories.
const PATHS: &str = r#"
import ctypes, mmap, os, select, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
here = os.getcwd()
# The first image may be of the time before this: what was made after it must not be there then.
os.mkdir("sub")
log = open(os.path.join(here, "log"), "w", buffering=1)
shared = open(os.path.join(here, "shared"), "w+b"); shared.truncate(4096 * 4)
mapped = mmap.mmap(shared.fileno(), 4096 * 4)
with open("table", "wb") as table: table.write(bytes(range(256)) * 64)
with open("table", "rb") as table: private = mmap.mmap(table.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
directory = os.open("sub", os.O_RDONLY | os.O_DIRECTORY)
watch = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(watch, os.path.join(here, "sub").encode(), 0x100) > 0
os.mkfifo("pipe")
pipe = os.open("pipe", os.O_RDWR)
server = socket.socket(socket.AF_UNIX); server.bind("sub/socket"); server.listen()
end, begin = os.pipe()
ready, settled = os.pipe()
child = os.fork()
if child == 0:
    os.chdir("sub"); os.write(settled, b"c")
    with open("child", "w") as out:
        for i in range(120):
            out.write("%d\n" % i); out.flush(); time.sleep(0.02)
    os.read(end, 1)
    os._exit(0)
os.read(ready, 1)
for i in range(1, 121):
    log.write("%d\n" % i)
    struct.pack_into("Q", mapped, i * 8, i)
    assert all(struct.unpack_from("Q", mapped, j * 8)[0] == j for j in range(1, i + 1))
    assert private[i] == i
    name = "made.%d" % i
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=directory))
    events = os.read(watch, 4096)
    assert name.encode() in events, events
    os.write(pipe, b"x"); assert os.read(pipe, 1) == b"x"
    client = socket.socket(socket.AF_UNIX); client.connect("sub/socket"); peer, _ = server.accept()
    client.send(b"y"); assert peer.recv(1) == b"y"
    client.close(); peer.close()
    assert os.path.realpath("/proc/self/fd/%d" % log.fileno()) == os.path.join(os.getcwd(), "log")
    assert os.path.realpath("/proc/%d/cwd" % child) == os.path.join(os.getcwd(), "sub")
    time.sleep(0.02)
os.write(begin, b"z")
assert os.waitpid(child, 0)[1] == 0
assert open("log").read() == "".join("%d\n" % i for i in range(1, 121))
assert open("sub/child").read() == "".join("%d\n" % i for i in range(120))
assert open("shared", "rb").read(8 * 121) == b"".join(struct.pack("Q", i) for i in range(121))
print("all was as it should be")
"#;

fn everything_that_has_a_path(identity: Identity) {
    Moving::launch(identity, &[("script", PATHS)], &["/usr/bin/python3", "script"]).survives();
}

/// Shells that work in several directories.
const SHELLS: &str = r#"
mkdir a a/b c
( cd a/b; for i in {1..60}; do echo "$i" >> log; cat ../../numbers > copy; sleep 0.05; done ) &
( cd c; exec 4> "$PWD/log"; for i in {1..60}; do echo "$i" >&4; sleep 0.05; done ) &
wait
want=$(seq 60)
[[ $(<c/log) == "$want" && $(<a/b/log) == "$want" && $(<a/b/copy) == $(<numbers) ]] || echo "files differ"
echo "all was as it should be"
"#;

fn shells_in_several_directories(identity: Identity) {
    Moving::launch(identity, &[("script", SHELLS), ("numbers", "1\n2\n3\n")], &["bash", "script"]).survives();
}

/// The tools are carried along: programs that the job starts after a move have their agent as those before.
fn tools_in_the_directory(identity: Identity) {
    let sandbox = Sandbox::new(identity);
    let dir = sandbox.make_dir("dir_1");
    let bin = tool("ckpt-launch").parent().expect("a folder").to_owned();
    for name in ["ckpt-launch", "ckpt-restart", "libckpt_preload.so"] {
        fs::copy(bin.join(name), dir.join(name)).expect("the tools are copied");
        identity.own_path(&dir.join(name));
    }
    let script = "for i in {1..60}; do echo \"$(cat number) $i\"; sleep 0.05; done; env | grep -q ^LD_PRELOAD && echo preloaded";
    sandbox.write("dir_1/number", "7\n");
    let mut command = sandbox.command(dir.join("ckpt-launch"));
    command.current_dir(&dir).args(["-i", "0.2", "-d", IMAGES, "--", "bash", "-c", script]);
    let running = sandbox.start(command, "out", false, "err.1");
    let mut job = Moving { sandbox, at: 1, running, images: Vec::new() };
    for _ in 0..2 {
        job.carry();
        let mut command = job.sandbox.command(job.dir().join("ckpt-restart"));
        command.current_dir(job.dir()).args(job.sandbox.images(&format!("dir_{}/{IMAGES}", job.at)));
        job.running = job.sandbox.start(command, "out", true, &format!("err.{}", job.at));
    }
    assert_eq!(job.running.wait(BOUND), 0, "{}", job.said());
    let expected: String = (1..=60).map(|i| format!("7 {i}\n")).collect();
    assert_eq!(job.sandbox.read_text("out"), expected + "preloaded\n", "{}", job.said());
    let said = job.said();
    assert!(!said.contains("ld.so") && !said.contains("no checkpoint") && !said.contains("signal"), "{said}");
}

/// On the next machine the old path is another job's: the job keeps out of it.
fn another_directory_has_the_path(identity: Identity) {
    let script = "exec 3> log; for i in {1..60}; do echo $i >&3; sleep 0.05; done; [[ $(<log) == $(seq 60) ]] && /bin/pwd -P";
    let mut job = Moving::launch(identity, &[("script", script)], &["bash", "script"]);
    job.carry();
    job.sandbox.make_dir("dir_1");
    job.sandbox.write("dir_1/log", "another job's log, which is longer than this one's is at any time of its life. ".repeat(9));
    let before = job.sandbox.read("dir_1/log");
    job.restart();
    let code = job.running.wait(BOUND);
    assert_eq!(code, 0, "{}", job.said());
    assert_eq!(job.sandbox.read_text("out"), format!("{}\n", job.dir().display()), "{}", job.said());
    assert!(job.said().contains("dir_1 is another directory; the job goes on in"), "{}", job.said());
    assert_eq!(job.sandbox.read("dir_1/log"), before);
}

/// Everything that is missing is told at once, with what to type; with that, the job goes on.
fn missing_files_are_listed(identity: Identity) {
    let script = r#"
cd "$SCRATCH"; exec 3> one 4> two 5< ../numbers
for i in {1..60}; do echo $i >&3; echo $i >&4; sleep 0.05; done; [[ $(<one) == $(<two) ]] && read -r line <&5 && echo "$line""#;
    // Too large to be held, since it is only read.
    let numbers = format!("all was well\n{}", "x".repeat(17 << 20));
    let job = Job::script("bash", script).file("numbers", numbers).interval("0.8");
    let sandbox = job.sandbox(identity);
    let scratch = sandbox.join("scratch 17");
    let job = job.env("SCRATCH", &scratch);
    sandbox.make_dir("scratch 17");
    let images = job.killed(&sandbox);
    fs::rename(&scratch, sandbox.join("scratch 18")).expect("moved");
    sandbox.make_dir("elsewhere");
    fs::rename(sandbox.join("numbers"), sandbox.join("elsewhere/numbers")).expect("moved");
    let mut restart = sandbox.command(tool("ckpt-restart"));
    restart.args(&images);
    let (code, out, err) = sandbox.finish(restart);
    assert_eq!((code, out.as_str()), (122, ""), "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("ckpt: ")), "{err}");
    let find =
        |text: &str| lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no line says {text}:\n{err}"));
    let line = find(&format!("{} is gone, and in it: ", scratch.display()));
    for piece in ["one (process ", "two (process ", ". (process ", &format!("--map '{}'=NEW", scratch.display()), "--save-files"]
    {
        assert!(line.contains(piece), "no {piece} in {line}");
    }
    let numbers = sandbox.join("numbers");
    assert!(
        find(&format!("{}, which process ", numbers.display())).contains(&format!("--map {}=NEW", numbers.display())),
        "{err}"
    );
    let mut restart = sandbox.command(tool("ckpt-restart"));
    restart.args([
        "--map".as_ref(),
        format!("{}={}", scratch.display(), sandbox.join("scratch 18").display()).as_ref() as &std::ffi::OsStr,
    ]);
    restart.args([
        "--map".as_ref(),
        format!("{}={}", numbers.display(), sandbox.join("elsewhere/numbers").display()).as_ref() as &std::ffi::OsStr,
    ]);
    restart.args(&images);
    let (code, out, err) = sandbox.finish(restart);
    assert_eq!((code, out.as_str()), (0, "all was well\n"), "{err}");
}
