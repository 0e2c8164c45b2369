//! The options of a restart, and its user.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;

/// What the user may say about a restart.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Paths that moved: old and new prefix.
    pub maps: Vec<(PathBuf, PathBuf)>,
    /// Refuse a job that had sockets which lead outside of it.
    pub strict: bool,
    /// Write the variables of the batch job into the processes' environments.
    pub refresh_env: bool,
    /// Where the job's images go, if it is not where they went.
    pub dir: Option<PathBuf>,
}

/// Who restarts a job.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// May make namespaces without a user namespace.
    pub is_privileged: bool,
}

impl User {
    /// Of this process.
    #[must_use]
    pub fn own() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { uid, gid, is_privileged: is_privileged() }
    }
}

/// Whether this process may make pid and mount namespaces without a user namespace: it has `CAP_SYS_ADMIN`.
#[must_use]
pub fn is_privileged() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_ADMIN))
}
