//! A job, and the ways to run it: plainly, checkpointed and left running, killed and restarted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use crate::artifacts::{program, tool};
use crate::file_tree::FileTree;
use crate::sandbox::{BOUND, Running, Sandbox};
use crate::{Identity, not_run};

/// How many rounds the C programs make when they are checkpointed. A round takes about 10 ms.
pub const ROUNDS: u32 = 300;

/// How many they make when run plainly: what they print does not depend on it.
const PLAIN_ROUNDS: u32 = 10;

/// Where a job's images go, in its sandbox.
pub const IMAGES: &str = "images";

/// A command whose output does not depend on when it runs.
#[derive(Clone, Default)]
pub struct Job {
    argv: Vec<OsString>,
    plain_argv: Option<Vec<OsString>>,
    env: Vec<(OsString, OsString)>,
    without: Option<String>,
    files: Vec<(String, Vec<u8>)>,
    leaves: Vec<String>,
    options: Vec<OsString>,
    interval: Option<String>,
    code: i32,
    own_ipc: bool,
    lacking: Option<&'static str>,
    prepared_by: Option<String>,
    checked_by: Option<String>,
    bound: Option<Duration>,
    directory: Option<String>,
    times: bool,
}

/// What a run of a job has given.
#[derive(Debug, Default)]
pub struct Output {
    /// Its exit code; 128+N when signal N ended it.
    pub code: i32,
    /// Its standard output, over all restarts.
    pub stdout: Vec<u8>,
    /// Standard error of each run, the tools' messages included.
    pub stderr: Vec<String>,
    /// What the files hold that the job leaves.
    pub files: Vec<Vec<u8>>,
    /// How many restarts have really taken place.
    pub restarts: usize,
    /// How long a plain run took; nothing for others.
    pub took: Duration,
    /// What the job's own check complained of.
    pub complaint: Option<String>,
    /// All that the job has left, where it has a directory of its own.
    pub tree: Option<FileTree>,
}

impl Job {
    /// A job that runs a command.
    pub fn new<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(|arg| arg.as_ref().to_owned()).collect(), ..Self::default() }
    }

    /// A job that runs a script, with an interpreter and its options: `bash`, `python3 -u`.
    #[must_use]
    pub fn script(interpreter: &str, script: &str) -> Self {
        Self::new(interpreter.split_whitespace().chain(["./script"])).file("script", script)
    }

    /// A job that runs a script in a directory of its own. Everything that it leaves there, and anywhere else in the sandbox, must be
    /// what a plain run leaves, and nothing must be left beside its images.
    #[must_use]
    pub fn in_directory(directory: &str, interpreter: &str, script: &str) -> Self {
        let argv = interpreter.split_whitespace().chain(["../script"]);
        Self::new(argv).file("script", script).working_in(directory)
    }

    /// A job that fills a database of SQLite, whose file and journal (of this mode) must be those of one moment.
    #[must_use]
    pub fn database(path: &str, journal: &str) -> Self {
        let script = format!(
            r#"
import os, sqlite3, time
os.makedirs(os.path.dirname(os.path.abspath("{path}")), exist_ok=True)
db = sqlite3.connect(os.path.abspath("{path}"), isolation_level=None)
db.execute("pragma journal_mode={journal}")
db.execute("create table t (i integer, filler text)")
for i in range(90):
    db.execute("begin"); db.execute("insert into t values (?, ?)", (i, "x" * 3000))
    db.execute("update t set filler = ? where i % 3 = ?", ("y" * 2000, i % 3))
    time.sleep(0.02)
    db.execute("commit")
    time.sleep(0.007)
print(db.execute("select count(*), sum(i), sum(length(filler)) from t").fetchall(), db.execute("pragma integrity_check").fetchall())
"#
        );
        Self::script("/usr/bin/python3", &script)
    }

    /// A job that runs `programs/NAME.c` for so many rounds, with further arguments.
    #[must_use]
    pub fn program(name: &str, rounds: u32, args: &[&str]) -> Self {
        let argv = |rounds: u32| {
            let mut argv = vec![program(name).into_os_string(), rounds.to_string().into()];
            argv.extend(args.iter().map(OsString::from));
            argv
        };
        Self { argv: argv(rounds), plain_argv: Some(argv(PLAIN_ROUNDS.min(rounds))), ..Self::default() }
    }

    /// Sets an environment variable of the job.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Switches facilities of newer kernels off in the tools, so that what stands in for them is used.
    #[must_use]
    pub fn without(mut self, facilities: &str) -> Self {
        self.without = Some(facilities.to_owned());
        self
    }

    /// Says that it works in a directory of its own: see [`Job::in_directory`]. A plain run does as much as any other then.
    #[must_use]
    pub fn working_in(mut self, directory: &str) -> Self {
        self.directory = Some(directory.to_owned());
        self.plain_argv = None;
        self
    }

    /// Says that the times of the files that it leaves are those of a plain run too: it has set them itself.
    #[must_use]
    pub fn with_times(mut self) -> Self {
        self.times = true;
        self
    }

    /// Puts a file into the sandbox before the job starts.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        self.files.push((name.to_owned(), contents.as_ref().to_owned()));
        self
    }

    /// Names a file that the job leaves in its working directory, to be compared as its output is.
    #[must_use]
    pub fn leaves(mut self, name: &str) -> Self {
        self.leaves.push(name.to_owned());
        self
    }

    /// Adds an option of `ckpt-launch`.
    #[must_use]
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    /// Sets the interval of checkpoints, instead of 0.3 s.
    #[must_use]
    pub fn interval(mut self, seconds: &str) -> Self {
        self.interval = Some(seconds.to_owned());
        self
    }

    /// Says that the job ends with this exit code, instead of 0.
    #[must_use]
    pub fn ends_with(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Says what this machine lacks for the job, if it is not `there`: such tests are reported as not run.
    #[must_use]
    pub fn needs(mut self, there: bool, what: &'static str) -> Self {
        self.lacking = (!there).then_some(what);
        self
    }

    /// Reports that a test cannot be run for what the machine lacks, if so.
    fn cannot_run(&self) -> bool {
        self.lacking.inspect(|what| not_run(&format!("needs {what}"))).is_some()
    }

    /// Runs every launch and every restart in an IPC namespace of its own: what a job that is killed leaves there goes with it.
    #[must_use]
    pub fn own_ipc(mut self) -> Self {
        self.own_ipc = true;
        self
    }

    /// A shell's line that is run in the sandbox before the job: it compiles what the job runs.
    #[must_use]
    pub fn prepared_by(mut self, line: &str) -> Self {
        self.prepared_by = Some(line.to_owned());
        self
    }

    /// A shell's line that is run in the sandbox once the job has ended, and fails when what it left is wrong. It takes the place
    /// of comparing standard output, for jobs that print times or draw random numbers.
    #[must_use]
    pub fn checked_by(mut self, line: &str) -> Self {
        self.checked_by = Some(line.to_owned());
        self
    }

    /// Sets how long a run may take, instead of a minute.
    #[must_use]
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = Some(bound);
        self
    }

    /// Runs a shell's line in the sandbox, with the job's environment.
    fn shell(&self, sandbox: &Sandbox, line: &str) -> Result<(), String> {
        let mut command = sandbox.command("sh");
        command.args(["-c", line]).envs(self.env.iter().map(|(name, value)| (name, value)));
        let (code, out, err) = sandbox.finish(command);
        if code == 0 { Ok(()) } else { Err(format!("`{line}` ended with {code}: {}", excerpt((err + &out).trim().as_bytes()))) }
    }

    /// A command of the sandbox, in a namespace of its own where the job is to have one.
    fn command(&self, sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Command {
        let mut command = sandbox.command(if self.own_ipc { "unshare".as_ref() } else { program.as_ref() });
        if let Some(directory) = &self.directory {
            command.current_dir(sandbox.join(directory));
        }
        if !self.own_ipc {
            return command;
        }
        if sandbox.identity != Identity::Root {
            command.args(["--user", "--map-current-user"]);
        }
        command.args(["--ipc", "--"]).arg(program);
        command
    }

    /// A sandbox with the job's files in it, and what is made before the job.
    ///
    /// # Panics
    /// When that cannot be made.
    #[must_use]
    pub fn sandbox(&self, identity: Identity) -> Sandbox {
        let sandbox = Sandbox::new(identity);
        if let Some(directory) = &self.directory {
            sandbox.make_dir(directory);
        }
        for (name, contents) in &self.files {
            let path = sandbox.write(name, contents);
            if self.times {
                let file = File::open(&path).expect("a fresh file");
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("the file is ours");
            }
        }
        sandbox.make_dir(IMAGES);
        if let Some(line) = &self.prepared_by {
            self.shell(&sandbox, line).unwrap_or_else(|error| panic!("cannot prepare the job: {error}"));
        }
        sandbox
    }

    /// `ckpt-launch` of this job in a sandbox, with its options and the interval given or the job's own.
    #[must_use]
    pub fn launch_command(&self, sandbox: &Sandbox, interval: &str) -> Command {
        let mut command = self.command(sandbox, tool("ckpt-launch"));
        command.arg("-i").arg(self.interval.as_deref().unwrap_or(interval));
        command.arg("-d").arg(sandbox.join(IMAGES)).args(&self.options).arg("--").args(&self.argv);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.envs(self.without.iter().map(|facilities| ("CKPT_WITHOUT", facilities)));
        command
    }

    /// The environment that switches off what [`Job::without`] named.
    pub fn facilities_switched_off(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.without.iter().map(|facilities| ("CKPT_WITHOUT", facilities.as_str()))
    }

    /// Starts `ckpt-launch` of this job: standard output to the file `out`, standard error to `err.0`.
    #[must_use]
    pub fn launch(&self, sandbox: &Sandbox) -> Running {
        sandbox.start(self.launch_command(sandbox, "0.3"), "out", false, "err.0")
    }

    /// Starts `ckpt-restart` of the images: standard output appended to the file `out`, standard error to `err.N`.
    #[must_use]
    pub fn restart(&self, sandbox: &Sandbox, images: &[PathBuf], run: usize) -> Running {
        self.restart_every("0.3", sandbox, images, run)
    }

    /// As [`restart`](Self::restart), with the interval given or the job's own.
    fn restart_every(&self, interval: &str, sandbox: &Sandbox, images: &[PathBuf], run: usize) -> Running {
        let mut command = self.command(sandbox, tool("ckpt-restart"));
        command.arg("-i").arg(self.interval.as_deref().unwrap_or(interval)).args(images);
        command.envs(self.without.iter().map(|facilities| ("CKPT_WITHOUT", facilities)));
        sandbox.start(command, "out", true, &format!("err.{run}"))
    }

    /// Launches the job, ends the whole tree with SIGKILL once there is an image, and returns the images.
    ///
    /// # Panics
    /// When it ends before.
    #[must_use]
    pub fn killed(&self, sandbox: &Sandbox) -> Vec<PathBuf> {
        let mut running = self.launch(sandbox);
        await_image(sandbox, &mut running, None);
        running.kill();
        sandbox.images(IMAGES)
    }

    /// What a run in the sandbox has given, once it has ended.
    #[must_use]
    pub fn output(&self, sandbox: &Sandbox, code: i32, runs: usize) -> Output {
        let stderr: Vec<String> = (0..runs).map(|run| sandbox.read_text(&format!("err.{run}"))).collect();
        Output {
            code,
            stdout: sandbox.read("out"),
            restarts: stderr.iter().filter(|text| restarted(text)).count(),
            stderr,
            files: self.leaves.iter().map(|name| sandbox.read(name)).collect(),
            took: Duration::ZERO,
            complaint: self.checked_by.as_ref().and_then(|line| self.shell(sandbox, line).err()),
            tree: self.directory.as_ref().map(|_| {
                FileTree::of(sandbox.path(), |name| {
                    name == "out" || name == ".ckpt.env" || name.starts_with("err.") || name.starts_with(".finish-")
                })
            }),
        }
    }

    /// Runs the job without any checkpoint.
    #[must_use]
    pub fn run_plain(&self, identity: Identity) -> Output {
        let sandbox = self.sandbox(identity);
        let argv = self.plain_argv.as_ref().unwrap_or(&self.argv);
        let mut command = self.command(&sandbox, &argv[0]);
        command.args(&argv[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        let start = Instant::now();
        let code = sandbox.start(command, "out", false, "err.0").wait(self.bound.unwrap_or(BOUND));
        let took = start.elapsed();
        Output { took, ..self.output(&sandbox, code, 1) }
    }

    /// Runs the job under `ckpt-launch` with a checkpoint every 0.1 s, and lets it end.
    #[must_use]
    pub fn run_checkpointed(&self, identity: Identity) -> Output {
        let sandbox = self.sandbox(identity);
        let code = sandbox.start(self.launch_command(&sandbox, "0.1"), "out", false, "err.0").wait(BOUND);
        self.output(&sandbox, code, 1)
    }

    /// Runs the job under `ckpt-launch`, ends the whole tree with SIGKILL at random moments, `kills` times, restarting it
    /// after each, and at last lets it end.
    ///
    /// # Panics
    /// When it ended before the first kill: nothing was proved then.
    #[must_use]
    pub fn interrupted(&self, identity: Identity, kills: usize) -> Output {
        let mut moments = fastrand::Rng::with_seed(seed());
        let sandbox = self.sandbox(identity);
        let mut runs = 1;
        let mut running = self.launch(&sandbox);
        await_image(&sandbox, &mut running, None);
        while runs <= kills {
            // A restart may be hit while it is still at work: that must do no harm either.
            let moment = Duration::from_millis(moments.u64(20..900));
            if running.ends_within(moment) {
                break;
            }
            running.kill();
            running = self.restart(&sandbox, &sandbox.images(IMAGES), runs);
            runs += 1;
        }
        let code = running.wait(BOUND);
        let output = self.output(&sandbox, code, runs);
        assert!(runs > 1, "proved nothing: the job ended with {code} before it was killed\n{}", output.told());
        output
    }

    /// As [`Job::interrupted`], for jobs that take longer: each kill comes within `span`, and the job is killed until so many
    /// runs were ended that had really begun, the first with an image, the others with a restart.
    ///
    /// # Panics
    /// When it ended before that: too little was proved then.
    #[must_use]
    pub fn interrupted_within(&self, span: Duration, identity: Identity, kills: usize) -> Output {
        self.if_it_lasts(span, identity, kills)
            .unwrap_or_else(|short| panic!("proves too little: the job ended too soon\n{}", short.told()))
    }

    /// As [`Job::interrupted_within`].
    ///
    /// # Errors
    /// With the output of a job that ended well before it was killed so often: nothing is wrong with that, but too little was proved.
    pub fn if_it_lasts(&self, span: Duration, identity: Identity, kills: usize) -> Result<Output, Box<Output>> {
        let mut moments = fastrand::Rng::with_seed(seed());
        let sandbox = self.sandbox(identity);
        let (mut runs, mut killed, mut begun) = (1, 0, true);
        let mut running = self.launch(&sandbox);
        await_image(&sandbox, &mut running, None);
        while killed < kills {
            if !begun {
                let has_begun = |running: &mut Running| running.ended().is_some() || restarted(&running.stderr());
                running.until("a restart", BOUND, |running| has_begun(running).then_some(()));
            }
            if running.ends_within(span.mul_f64(moments.f64())) {
                break;
            }
            running.kill();
            // A restart that was hit while it was still at work does no harm, and does not count. The next is given its time.
            begun = runs == 1 || restarted(&running.stderr());
            killed += usize::from(begun);
            running = self.restart(&sandbox, &sandbox.images(IMAGES), runs);
            runs += 1;
        }
        let code = running.wait(self.bound.unwrap_or(BOUND));
        let output = self.output(&sandbox, code, runs);
        let proved = killed == kills && output.restarts >= kills;
        if proved || code != self.code { Ok(output) } else { Err(Box::new(output)) }
    }

    /// Runs the job through a chain of restarts: each is killed once it has written an image of its own, and the next one
    /// starts from that. At last the job is let end.
    ///
    /// # Panics
    /// When it ended before the chain did.
    #[must_use]
    pub fn chain(&self, identity: Identity, restarts: usize) -> Output {
        let sandbox = self.sandbox(identity);
        let interval = "0.2";
        let mut running = sandbox.start(self.launch_command(&sandbox, interval), "out", false, "err.0");
        let mut newest = None;
        for run in 1..=restarts {
            newest = Some(await_image(&sandbox, &mut running, newest));
            running.kill();
            running = self.restart_every(interval, &sandbox, &sandbox.images(IMAGES), run);
        }
        let code = running.wait(BOUND);
        self.output(&sandbox, code, restarts + 1)
    }

    /// The job survives a chain of so many restarts.
    ///
    /// # Panics
    /// When it does not.
    pub fn survives_chain(&self, identity: Identity, restarts: usize) {
        if self.cannot_run() {
            return;
        }
        let (plain, chained) = self.beside_plain(identity, || self.chain(identity, restarts));
        self.compare(&plain, &chained);
        assert_eq!(chained.restarts, restarts, "a restart did not say that it was one\n{}", chained.told());
    }

    /// The job is killed and restarted, and nobody can tell from what it leaves.
    ///
    /// # Panics
    /// When one can.
    pub fn survives(&self, identity: Identity, kills: usize) {
        if self.cannot_run() {
            return;
        }
        let (plain, interrupted) = self.beside_plain(identity, || self.interrupted(identity, kills));
        self.compare(&plain, &interrupted);
        assert!(interrupted.restarts > 0, "no run said that it restarted\n{}", interrupted.told());
    }

    /// As [`Job::survives`], with kills as [`Job::interrupted_within`] has them.
    ///
    /// # Panics
    /// When one can tell.
    pub fn survives_within(&self, span: Duration, identity: Identity, kills: usize) {
        if self.cannot_run() {
            return;
        }
        let (plain, interrupted) = self.beside_plain(identity, || self.interrupted_within(span, identity, kills));
        self.compare(&plain, &interrupted);
    }

    /// The job is checkpointed ten times a second and left running, and does not notice.
    ///
    /// # Panics
    /// When it does, or when a checkpoint failed.
    pub fn left_running(&self, identity: Identity) {
        if self.cannot_run() {
            return;
        }
        let (plain, checkpointed) = self.beside_plain(identity, || self.run_checkpointed(identity));
        self.compare(&plain, &checkpointed);
        let messages: Vec<&str> = checkpointed.stderr.iter().flat_map(|text| text.lines()).collect();
        let good = |line: &&str| line.starts_with("ckpt: checkpoint ") && line.contains(": ") && line.contains(" paused ");
        let strange = messages.iter().any(|line| line.starts_with("ckpt:") && !good(line));
        assert!(!strange, "unexpected messages\n{}", checkpointed.told());
        assert!(messages.iter().filter(|line| good(line)).count() > 2, "too few checkpoints\n{}", checkpointed.told());
    }

    /// The job runs to its end, having printed `untouched`, and its checkpoints fail with a line that says `what`; at most so
    /// many images were made, before it was so. An exit code of 77 says that this machine does not allow what the job does.
    ///
    /// # Panics
    /// When it is otherwise.
    pub fn is_refused(&self, what: &str, most_images: usize) {
        let sandbox = self.sandbox(Identity::own());
        let mut running = self.launch(&sandbox);
        let code = running.wait(BOUND);
        let messages = running.stderr();
        if code == 77 {
            return not_run(&format!("this machine does not allow what would be refused: {what}"));
        }
        assert_eq!((code, sandbox.read_text("out").as_str()), (0, "untouched\n"), "{messages}");
        let named = messages.lines().any(|line| line.starts_with("ckpt: no checkpoint") && line.contains(what));
        assert!(named, "no line says {what}:\n{messages}");
        assert!(sandbox.images(IMAGES).len() <= most_images, "there are images\n{messages}");
    }

    /// Runs the job plainly, and in another way at the same time.
    fn beside_plain(&self, identity: Identity, other: impl FnOnce() -> Output) -> (Output, Output) {
        std::thread::scope(|scope| {
            let plain = scope.spawn(|| self.run_plain(identity));
            let other = other();
            (plain.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
        })
    }

    /// Two runs have given the same.
    ///
    /// # Panics
    /// When they have not, with where they part and all that the second one said.
    pub fn compare(&self, plain: &Output, other: &Output) {
        assert_eq!(plain.code, self.code, "the plain run's exit code\n{}", plain.told());
        assert!(other.code == plain.code, "it ended with {} instead of {}\n{}", other.code, plain.code, other.told());
        assert!(
            plain.complaint.is_none(),
            "the plain run is wrong: {}\n{}",
            plain.complaint.as_deref().unwrap_or(""),
            plain.told()
        );
        assert!(
            other.complaint.is_none(),
            "what it left is wrong: {}\n{}",
            other.complaint.as_deref().unwrap_or(""),
            other.told()
        );
        assert!(
            self.checked_by.is_some() || other.stdout == plain.stdout,
            "the output differs: {}\n{}",
            difference(&plain.stdout, &other.stdout),
            other.told()
        );
        for ((name, plain), file) in self.leaves.iter().zip(&plain.files).zip(&other.files) {
            assert!(file == plain, "the file {name} differs: {}\n{}", difference(plain, file), other.told());
        }
        if let (Some(plain), Some(tree)) = (&plain.tree, &other.tree) {
            plain.compare(tree, self.times, &other.told());
        }
    }
}

impl Output {
    /// Everything a person needs to see of a run that went wrong.
    #[must_use]
    pub fn told(&self) -> String {
        let mut told = format!("exit code {}, {} restarts\nstandard output:\n", self.code, self.restarts);
        told += &excerpt(&self.stdout);
        for (run, stderr) in self.stderr.iter().enumerate() {
            told += &format!("\nstandard error of run {run}:\n{}", without_repetition(stderr));
        }
        told
    }
}

/// Whether a run's messages say that it has brought the job back.
fn restarted(messages: &str) -> bool {
    messages.contains("ckpt: restarted from checkpoint")
}

/// Waits until a running job has an image that is newer than one it had, and returns its path.
///
/// # Panics
/// When the job ends before.
pub fn await_image(sandbox: &Sandbox, running: &mut Running, newer_than: Option<PathBuf>) -> PathBuf {
    running.until("an image", BOUND, |running| {
        let ended = running.ended();
        let newest = sandbox.images(IMAGES).pop().filter(|image| newer_than.as_ref().is_none_or(|old| image > old));
        assert!(
            ended.is_none() || newest.is_some(),
            "proved nothing: the job ended with {ended:?} before its first image\n{}\nstandard output:\n{}",
            running.stderr(),
            sandbox.read_text("out")
        );
        newest
    })
}

/// The seed of this test's random moments, printed so that a failure can be had again.
#[must_use]
pub fn seed() -> u64 {
    let seed = std::env::var("CKPT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("CKPT_TEST_SEED={seed}");
    seed
}

/// A text with each run of equal lines shown once, and how often.
pub(crate) fn without_repetition(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut shown = String::new();
    for equal in lines.chunk_by(|a, b| a == b) {
        shown += equal[0];
        shown += &if equal.len() > 1 { format!(" ({} times)\n", equal.len()) } else { "\n".to_owned() };
    }
    shown
}

/// Where two outputs part.
pub(crate) fn difference(expected: &[u8], found: &[u8]) -> String {
    /// How many bytes are shown on either side of that place.
    const SHOWN: usize = 60;
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let start = expected[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let start = start.max(at.saturating_sub(SHOWN));
    let line = |bytes: &[u8]| {
        let line = bytes.get(start..).unwrap_or_default().split(|&byte| byte == b'\n').next().unwrap_or_default();
        line[..line.len().min(2 * SHOWN)].escape_ascii().to_string()
    };
    let (expected_len, found_len) = (expected.len(), found.len());
    let (expected, found) = (line(expected), line(found));
    format!("at byte {at} (of {expected_len} expected, {found_len} found): expected \"{expected}\", found \"{found}\"")
}

/// The end of an output, as text.
fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2000)..]).into_owned()
}
