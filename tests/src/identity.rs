//! Who a test runs its job as: root, or an ordinary user without a single capability.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::User;

/// The ordinary user's uid and gid. It needs no entry in `/etc/passwd`, and is not the kernel's overflow uid (65534), which
/// would hide mistakes in user namespaces.
pub(crate) const ORDINARY: u32 = 54_321;
/// An ordinary user that every Debian has an entry for.
const NAMED: &str = "games";

/// Who runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// uid 0 with the capabilities of the test run.
    Root,
    /// An ordinary user: another one where the test run is root's, the test run's own otherwise.
    User,
    /// The same, of those that have a name, for programs that want one.
    NamedUser,
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

    /// The uid and gid of the identity, where it is not the test run's own.
    fn other_ids(self) -> Option<(u32, u32)> {
        match self {
            Self::Root => None,
            _ if Self::own() != Self::Root => None,
            Self::User => Some((ORDINARY, ORDINARY)),
            Self::NamedUser => {
                let user = User::from_name(NAMED).ok().flatten().unwrap_or_else(|| panic!("there is no user {NAMED}"));
                Some((user.uid.as_raw(), user.gid.as_raw()))
            }
        }
    }

    /// Lets a command run as this identity. The standard library drops the supplementary groups with the uid, and the
    /// kernel all capabilities.
    pub fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.other_ids() {
            command.uid(uid).gid(gid);
        }
    }

    /// Hands a file or folder to this identity.
    pub fn own_path(self, path: &Path) {
        if let Some((uid, gid)) = self.other_ids() {
            chown(path, Some(uid), Some(gid)).unwrap_or_else(|error| panic!("cannot hand over {}: {error}", path.display()));
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
