//! Who a test runs its job as: root, or an ordinary user without a single capability.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The ordinary user's uid and gid. It needs no entry in `/etc/passwd`, and is not the kernel's overflow uid (65534), which
/// would hide mistakes in user namespaces.
pub(crate) const ORDINARY: u32 = 54_321;

/// Who runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// uid 0 with the capabilities of the test run.
    Root,
    /// An ordinary user: another one where the test run is root's, the test run's own otherwise.
    User,
}

impl Identity {
    /// Who the test run itself is.
    #[must_use]
    pub fn own() -> Self {
        if nix::unistd::geteuid().is_root() { Self::Root } else { Self::User }
    }

    /// Runs a test as this identity, or reports that it cannot be taken here.
    pub fn run(self, test: impl FnOnce(Self)) {
        if self == Self::Root && Self::own() != Self::Root {
            not_run("needs root");
        } else {
            test(self);
        }
    }

    /// The uid that the identity differs from the test run's by, if it does.
    fn other_uid(self) -> Option<u32> {
        (self == Self::User && Self::own() == Self::Root).then_some(ORDINARY)
    }

    /// Lets a command run as this identity. The standard library drops the supplementary groups with the uid, and the
    /// kernel all capabilities.
    pub fn apply(self, command: &mut Command) {
        if let Some(uid) = self.other_uid() {
            command.uid(uid).gid(uid);
        }
    }

    /// Hands a file or folder to this identity.
    pub fn own_path(self, path: &Path) {
        if let Some(uid) = self.other_uid() {
            chown(path, Some(uid), Some(uid)).unwrap_or_else(|error| panic!("cannot hand over {}: {error}", path.display()));
        }
    }

    /// Whether this identity can read and run the file.
    #[must_use]
    pub fn can_run(self, path: &Path) -> bool {
        let mut command = Command::new("test");
        command.arg("-x").arg(path);
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}

/// Reports that the running test cannot be run here, and why: on standard error, and as a line of `ckpt-tests-not-run.txt`
/// in the temporary folder of the build, for those who only see a summary.
pub fn not_run(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("not run: {name}: {reason}");
    let report = crate::artifacts::build_dir().join("ckpt-tests-not-run.txt");
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(report) {
        // The line on standard error stands in any case.
        let _ = writeln!(file, "{name}: {reason}");
    }
}
