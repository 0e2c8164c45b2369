//! Control groups for tests of limits (cgroups(7), version 1).

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::{Sandbox, tool};

/// A control group of this test's own. It goes with its last process.
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes one; nothing where this machine or user cannot.
    #[must_use]
    pub fn new(controller: &str) -> Option<Self> {
        let group = PathBuf::from(format!("/sys/fs/cgroup/{controller}/ckpt-test-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let group = Self(group);
        // Where the controller is not mounted, this is a plain directory.
        group.0.join("cgroup.procs").exists().then_some(group)
    }

    /// Writes to one of its files.
    ///
    /// # Panics
    /// When that fails.
    pub fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("cannot set {file} to {value}: {error}"));
    }

    /// A launcher in the group, with these options and a Python program as its job.
    #[must_use]
    pub fn launch(&self, sandbox: &Sandbox, options: &str, program: &str) -> Command {
        let (group, launcher) = (self.0.display(), tool("ckpt-launch"));
        let script =
            format!("echo $$ > {group}/cgroup.procs; exec {} {options} -- /usr/bin/python3 -c \"$0\"", launcher.display());
        let mut command = sandbox.command("bash");
        command.args(["-c", &script, program]);
        command
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
