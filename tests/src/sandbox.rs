//! A folder of its own for each run of a job, and the processes started in it. Nothing of either outlives the test.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;

use crate::{Identity, tree};

/// How long a test waits for anything before it gives up.
pub const BOUND: Duration = Duration::from_secs(60);

/// Children that [`Running`] waits for itself.
static DIRECT_CHILDREN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Whether some [`Running`] is to wait for this process.
pub(crate) fn is_direct_child(pid: i32) -> bool {
    DIRECT_CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&pid)
}

/// A temporary folder that the identity owns and works in.
pub struct Sandbox {
    dir: tempfile::TempDir,
    /// Who runs jobs in it.
    pub identity: Identity,
}

impl Sandbox {
    /// Makes one, under `/tmp` for every user to reach.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        // Orphans of a killed tree come to us, not to a pid 1 that may reap them late or never.
        set_child_subreaper(true).expect("every process may be a subreaper");
        static CLOSE: Once = Once::new();
        CLOSE.call_once(close_inherited);
        let dir = tempfile::Builder::new().prefix("ckpt-test-").tempdir_in("/tmp").expect("a folder in /tmp");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod of a fresh folder");
        identity.own_path(dir.path());
        Self { dir, identity }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of something in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a folder in it.
    ///
    /// # Panics
    /// When that fails.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        self.identity.own_path(&path);
        path
    }

    /// Writes a file in it, which anybody can run.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        assert!(path.starts_with(self.path()), "{} is not in the sandbox", path.display());
        fs::write(&path, contents).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod of a fresh file");
        self.identity.own_path(&path);
        path
    }

    /// What a file in it holds; nothing where there is none.
    #[must_use]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.join(name)).unwrap_or_default()
    }

    /// As [`Sandbox::read`], as text.
    #[must_use]
    pub fn read_text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.read(name)).into_owned()
    }

    /// The complete images in a folder, oldest generation first.
    #[must_use]
    pub fn images(&self, dir: &str) -> Vec<PathBuf> {
        let mut images: Vec<PathBuf> = fs::read_dir(self.join(dir))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ckpt_"))
                    && path.extension().is_some_and(|extension| extension == "img")
            })
            .collect();
        images.sort();
        images
    }

    /// A command that runs in this folder as its identity, with a small and fixed environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.own_command(program);
        self.identity.apply(&mut command);
        command
    }

    /// As [`Sandbox::command`], but as whoever runs the tests.
    #[must_use]
    pub fn own_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C.UTF-8")]);
        command.env("HOME", self.path()).env("TMPDIR", self.path());
        // A job that is killed leaves this behind: here it goes with the rest.
        command.env("CKPT_ENV_FILE", self.join(".ckpt.env"));
        command
    }

    /// Runs `ckpt-ctl` about the jobs whose images go to this directory. Gives its exit code, output and messages.
    #[must_use]
    pub fn ctl(&self, directory: &str, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command(crate::tool("ckpt-ctl"));
        command.arg("-d").arg(self.join(directory)).args(arguments);
        self.finish(command)
    }

    /// Opens a file in it for a command's output.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn output_file(&self, name: &str, append: bool) -> File {
        let path = self.join(name);
        let mut options = OpenOptions::new();
        let options = if append { options.append(true) } else { options.write(true).truncate(true) };
        let file = options.create(true).open(&path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        self.identity.own_path(&path);
        file
    }

    /// Starts a command, its standard output going to one file of the sandbox (anew, or appended) and its standard error to
    /// another, anew.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, mut command: Command, out: &str, append: bool, err: &str) -> Running {
        command.stdout(self.output_file(out, append)).stderr(self.output_file(err, false));
        Running::start(command, self.join(err))
    }

    /// Runs a command to its end and returns its exit code, standard output and standard error.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn finish(&self, command: Command) -> (i32, String, String) {
        // Names that no job uses.
        let name = format!("finish-{:x}", fastrand::u64(..));
        let (out, err) = (format!(".{name}.out"), format!(".{name}.err"));
        let code = self.start(command, &out, false, &err).wait(BOUND);
        (code, self.read_text(&out), self.read_text(&err))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        tree::kill_in(self.path());
    }
}

/// Closes the descriptors that whoever runs the tests let slip to us: jobs would inherit them, and must not depend on them.
fn close_inherited() {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let fds: Vec<i32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .collect();
    for fd in fds.into_iter().filter(|&fd| fd > 2) {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags =
            info.lines().find_map(|line| line.strip_prefix("flags:")).and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        // All that this process itself has opened is closed on exec.
        if flags.is_some_and(|flags| flags & O_CLOEXEC == 0) {
            let _ = nix::unistd::close(fd);
        }
    }
}

/// A command that runs, with all that descends from it. Dropping it ends the whole tree.
pub struct Running {
    child: Child,
    err: PathBuf,
    ended: Option<i32>,
}

impl Running {
    /// Starts a command whose standard error goes to the file `err`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command, err: PathBuf) -> Self {
        let mut children = DIRECT_CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", command.get_program().display()));
        let running = Self { child, err, ended: None };
        children.push(running.pid());
        running
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// What it and its descendants have written to standard error up to now.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Its exit code, 128+N for signal N, when it has ended.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn ended(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it is our child").map(exit_code);
        }
        self.ended
    }

    /// Waits until it has ended and returns its exit code, 128+N for signal N.
    ///
    /// # Panics
    /// When it has not ended after `bound`; the message shows its tree and its standard error.
    pub fn wait(&mut self, bound: Duration) -> i32 {
        self.until("its end", bound, |running| running.ended())
    }

    /// Whether it ends within a time.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.ended().is_none() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Waits until `look` finds something.
    ///
    /// # Panics
    /// When it has not after `bound`; the message shows the tree and its standard error.
    pub fn until<T>(&mut self, what: &str, bound: Duration, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + bound;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if Instant::now() >= end {
                let tree = tree::describe_tree(self.pid());
                self.kill();
                let said = crate::job::without_repetition(&self.stderr());
                panic!("waited {} s for {what} in vain\nprocesses:\n{tree}standard error:\n{said}", bound.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until its standard error holds some text.
    ///
    /// # Panics
    /// When it ends or a minute goes by without.
    pub fn until_says(&mut self, text: &str) {
        self.until(&format!("the message {text:?}"), BOUND, |running| {
            let ended = running.ended();
            let said = running.stderr().contains(text);
            assert!(said || ended.is_none(), "ended with {ended:?} without the message {text:?}:\n{}", running.stderr());
            said.then_some(())
        });
    }

    /// Sends a signal to the process itself.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("it is our child");
    }

    /// Ends it and all its descendants with SIGKILL, at one instant.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            tree::kill_tree(self.pid());
            self.ended = self.child.wait().ok().map(exit_code);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let pid = self.pid();
        DIRECT_CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|&child| child != pid);
    }
}

/// An exit status as a shell shows it.
fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
