//! A job in stages, for tests that know what it has done at a checkpoint and what it does after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file_tree::FileTree;
use crate::job::IMAGES;
use crate::sandbox::BOUND;
use crate::{Identity, Running, Sandbox, tool};

/// The directory of the sandbox that such jobs work in.
pub const WORK: &str = "work";

/// A bash script that waits after each of its stages until it is told to go on.
///
/// It works in [`WORK`]. Its images, its output and the files that tell it to go on lie outside of that.
pub struct Staged<'a> {
    sandbox: &'a Sandbox,
    name: &'a str,
    stages: usize,
    work: PathBuf,
    running: Running,
    runs: usize,
}

impl<'a> Staged<'a> {
    /// A sandbox with the user's own files, as they were before any job, in the working directory.
    #[must_use]
    pub fn sandbox(identity: Identity, files: &[(&str, &str)]) -> Sandbox {
        let sandbox = Sandbox::new(identity);
        sandbox.make_dir(WORK);
        sandbox.make_dir(IMAGES);
        for (name, contents) in files {
            sandbox.write(&format!("{WORK}/{name}"), contents);
        }
        sandbox
    }

    /// Launches a job of this name, and waits until its first stage is done. The job ends with the code of the last command.
    #[must_use]
    pub fn launch(sandbox: &'a Sandbox, name: &'a str, options: &[&str], stages: &[&str]) -> Self {
        let mut script =
            format!("set -eu\nreached() {{ echo \"reached $1\"; until [ -e ../go.{name}.$1 ]; do sleep 0.02; done; }}\n");
        for (stage, part) in (1..).zip(stages) {
            script += &format!("{part}\n");
            if stage < stages.len() {
                script += &format!("reached {stage}\n");
            }
        }
        sandbox.write(&format!("script.{name}"), script);
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.current_dir(sandbox.join(WORK)).args(["-i", "1000"]).arg("-d").arg(sandbox.join(IMAGES)).args(options);
        command.args(["--", "bash", &format!("../script.{name}")]);
        let running = sandbox.start(command, &format!("out.{name}"), false, &format!("err.{name}.0"));
        let mut staged = Self { sandbox, name, stages: stages.len(), work: sandbox.join(WORK), running, runs: 1 };
        staged.await_stage(1);
        staged
    }

    /// What the job has printed.
    fn out(&self) -> String {
        self.sandbox.read_text(&format!("out.{}", self.name))
    }

    /// Waits until a stage is done.
    fn await_stage(&mut self, stage: usize) {
        let out = self.sandbox.join(format!("out.{}", self.name));
        let line = format!("reached {stage}\n");
        self.running.until(&format!("the end of stage {stage}"), BOUND, |running| {
            let reached = fs::read(&out).is_ok_and(|out| out.ends_with(line.as_bytes()));
            let ended = running.ended();
            assert!(
                reached || ended.is_none(),
                "the job ended with {ended:?} before stage {stage} was done\n{}",
                running.stderr()
            );
            reached.then_some(())
        });
    }

    /// The file that tells the job to go on after a stage.
    fn go(&self, stage: usize) -> PathBuf {
        self.sandbox.join(format!("go.{}.{stage}", self.name))
    }

    /// Lets the job go on until a stage is done.
    pub fn reach(&mut self, stage: usize) {
        self.let_go(stage);
        self.await_stage(stage);
    }

    /// Tells the job to go on after each stage before this one.
    fn let_go(&self, stage: usize) {
        for before in 1..stage {
            fs::write(self.go(before), "").expect("the job is told to go on");
        }
    }

    /// Takes a checkpoint, and gives the image, and the tree of files that belongs to it.
    #[must_use]
    pub fn checkpoint(&self) -> (PathBuf, FileTree) {
        let mut command = self.sandbox.command(tool("ckpt-ctl"));
        command.args(["--pid", &self.running.pid().to_string(), "checkpoint"]);
        let (code, out, err) = self.sandbox.finish(command);
        assert_eq!(code, 0, "{out}{err}\n{}", self.running.stderr());
        (PathBuf::from(out.trim_end()), self.files())
    }

    /// All in the working directory, now.
    #[must_use]
    pub fn files(&self) -> FileTree {
        FileTree::of(&self.work, |_| false)
    }

    /// Ends the whole tree with SIGKILL. A job that is restarted then waits where it was at the checkpoint.
    pub fn kill(&mut self) {
        self.running.kill();
        for stage in 1..self.stages {
            // Those of stages that it has not reached are not there.
            let _ = fs::remove_file(self.go(stage));
        }
    }

    /// Renames the working directory of a job that has been killed. Restarts are told.
    ///
    /// # Panics
    /// When that fails.
    pub fn move_to(&mut self, name: &str) -> PathBuf {
        let to = self.sandbox.join(name);
        fs::rename(&self.work, &to).unwrap_or_else(|error| panic!("cannot rename {}: {error}", self.work.display()));
        self.work = to.clone();
        to
    }

    /// Starts a restart.
    fn start_restart(&mut self, images: &[&Path]) {
        let mut command = self.sandbox.command(tool("ckpt-restart"));
        let at_launch = self.sandbox.join(WORK);
        if self.work != at_launch {
            command.arg("--map").arg(format!("{}={}", at_launch.display(), self.work.display()));
        }
        command.current_dir(&self.work).args(images);
        self.running =
            self.sandbox.start(command, &format!("out.{}", self.name), true, &format!("err.{}.{}", self.name, self.runs));
        self.runs += 1;
    }

    /// Brings the job back from the newest of these images, and gives what the restart said.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self, images: &[&Path]) -> String {
        self.start_restart(images);
        self.running.until_says("restarted from");
        self.running.stderr()
    }

    /// A restart that is ended with SIGKILL after a time, and the job with it if it has got so far.
    pub fn killed_restart(&mut self, images: &[&Path], after: Duration) {
        self.start_restart(images);
        assert!(!self.running.ends_within(after), "the restart ended by itself\n{}", self.running.stderr());
        self.kill();
    }

    /// A restart that is refused: its exit code, and what it said.
    #[must_use]
    pub fn refused_restart(&mut self, images: &[&Path]) -> (i32, String) {
        self.start_restart(images);
        (self.running.wait(BOUND), self.running.stderr())
    }

    /// Lets the job go on through all its stages, and waits for its end: its exit code.
    #[must_use]
    pub fn end(&mut self) -> i32 {
        self.let_go(self.stages);
        self.running.wait(BOUND)
    }

    /// The job ends well, and nothing is left of it beside its files.
    ///
    /// # Panics
    /// When it does not, or something is.
    pub fn ends_well(&mut self) {
        let code = self.end();
        assert_eq!(code, 0, "{}\n{}", self.out(), self.running.stderr());
        let left = FileTree::of(&self.sandbox.join(IMAGES), |_| false);
        FileTree::default().compare(&left, false, "this is left beside the images of a job that ended well\n");
    }

    /// What restarts have set aside: the directories beside the images.
    #[must_use]
    pub fn aside(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.sandbox.join(IMAGES)).expect("the images' directory").flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_aside(path)).collect();
        found.sort();
        found
    }

    /// The one directory with what restarts have set aside, and all that is in it. What the restart `said` names it.
    ///
    /// # Panics
    /// When there is none, or there are several, or no line names it.
    #[must_use]
    pub fn set_aside(&self, said: &str) -> FileTree {
        let dirs = self.aside();
        assert_eq!(dirs.len(), 1, "directories of what was set aside: {dirs:?}\n{said}");
        // It tells how many files there are, and of how many bytes.
        let dir = dirs[0].to_string_lossy();
        let named = said.lines().filter(|line| line.starts_with("ckpt:") && line.contains(&*dir));
        let mut rest = named.map(|line| line.replace(&*dir, ""));
        assert!(
            rest.any(|rest| rest.contains("file") && rest.contains(|c: char| c.is_ascii_digit())),
            "no line tells of {dir}:\n{said}"
        );
        FileTree::of(&dirs[0], |_| false)
    }
}

/// Whether a path is that of a directory with what restarts have set aside.
#[must_use]
pub fn is_aside(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with("ckpt_") && name.ends_with(".aside") && path.is_dir()
}

/// Whether a path is that of a directory with what restarts have cut off the output.
#[must_use]
pub fn is_output(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with("ckpt_") && name.ends_with(".output") && path.is_dir()
}
