//! The agent's library where the job's programs find it on every machine: they load it by the path that it had at the launch. Where that is below the
//! directory of the launch, which has another path on the next machine, they get a copy in `/tmp`, which a restart makes again.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

/// The file name of the agent's library.
pub const AGENT_FILE: &str = "libckpt_preload.so";

/// Where copies are.
const COPIES: &str = "/tmp";

/// Finds the agent's library: beside this program, in `../lib`, or where the build puts it.
#[must_use]
pub fn find_agent() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let dir = program.parent()?;
    [
        dir.join(AGENT_FILE),
        dir.join("../lib").join(AGENT_FILE),
        dir.join("deps").join(AGENT_FILE),
        dir.join("..").join(AGENT_FILE),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .and_then(|path| path.canonicalize().ok())
}

/// The path of a job's copy.
#[must_use]
pub fn copy_of(id: &str) -> PathBuf {
    Path::new(COPIES).join(format!("ckpt_{id}.so"))
}

/// The path by which a job that is launched loads the library `own`.
pub fn lend(own: PathBuf, id: &str) -> PathBuf {
    let moves = std::env::current_dir().is_ok_and(|dir| own.starts_with(dir));
    let runs = statvfs(COPIES).is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let copy = copy_of(id);
    if moves && runs && make(&own, &copy).is_ok() { copy } else { own }
}

/// Sees to it that a job that is brought back finds its copy.
///
/// # Errors
///
/// When it cannot be made, or something that is not this user's has its path: the job would run that.
pub fn lend_again(id: &str) -> io::Result<()> {
    let copy = copy_of(id);
    match copy.symlink_metadata() {
        Ok(meta) if is_own(&meta) => Ok(()),
        Ok(_) => Err(io::Error::other(format!("{} is somebody else's; have it removed", copy.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&find_agent().ok_or(error)?, &copy),
        Err(error) => Err(error),
    }
}

/// The path by which a job that runs loads the library.
pub fn in_use(id: &str) -> Option<PathBuf> {
    let copy = copy_of(id);
    if copy.symlink_metadata().is_ok_and(|meta| is_own(&meta)) { Some(copy) } else { find_agent() }
}

/// Takes the copy away: no program of the job's is left.
pub fn take_back(id: &str) {
    let copy = copy_of(id);
    if copy.symlink_metadata().is_ok_and(|meta| is_own(&meta)) {
        let _ = std::fs::remove_file(copy);
    }
}

fn is_own(meta: &std::fs::Metadata) -> bool {
    meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0
}

fn make(own: &Path, copy: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".ckpt-agent-").tempfile_in(COPIES)?;
    io::copy(&mut File::open(own)?, &mut file)?;
    // Processes of the job may be other users'.
    file.as_file().set_permissions(Permissions::from_mode(0o755))?;
    file.persist_noclobber(copy)?;
    Ok(())
}
