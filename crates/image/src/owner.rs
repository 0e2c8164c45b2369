//! The owner of an image: the owner of the *file*, whatever its contents say. In a directory that others can write to, only the user's own
//! files are images of the user's job.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;

/// Whether `path`, and the file that it leads to, belong to this user.
pub(crate) fn is_own(path: &Path) -> bool {
    let own = |meta: io::Result<Metadata>| meta.is_ok_and(|meta| is_own_in(meta.uid(), path));
    own(fs::symlink_metadata(path)) && own(fs::metadata(path))
}

/// Whether this user's files in the directory of `path` have the owner `uid`. Some file systems give all files one owner, and NFS gives
/// root's files to nobody (`root_squash`, exports(5)).
pub(crate) fn is_own_in(uid: u32, path: &Path) -> bool {
    uid == geteuid().as_raw() || owner_of_new_files(path.parent()) == Some(uid)
}

fn owner_of_new_files(dir: Option<&Path>) -> Option<u32> {
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(dir, flags, Mode::RUSR).ok()?);
    file.metadata().ok().map(|meta| meta.uid())
}
