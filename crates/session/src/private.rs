//! A directory that only this user can write to, with the same path on every machine: what the job reads by a path that it has kept from its
//! launch lies there.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where it is.
const PARENT: &str = "/tmp";

/// Its path: `/tmp/ckpt-UID`. `$XDG_RUNTIME_DIR` is not there in every batch job, and differs where the job is restarted by root.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(PARENT).join(format!("ckpt-{}", rustix::process::geteuid().as_raw()))
}

/// Makes a directory that only this user can use, or takes one that is there.
///
/// # Errors
///
/// When what has its path is not a directory, is another user's, or can be written to by others; or when it cannot be made.
pub fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check(path, &path.symlink_metadata()?),
        made => made,
    }
}

fn check(path: &Path, meta: &Metadata) -> io::Result<()> {
    let wrong = |what| Err(io::Error::other(format!("{} {what}; have it removed", path.display())));
    if !meta.is_dir() {
        wrong("is not a directory")
    } else if !is_own(meta) {
        wrong("belongs to another user")
    } else if meta.mode() & 0o022 != 0 {
        wrong("can be written to by others")
    } else {
        Ok(())
    }
}

/// Whether something belongs to this user.
#[must_use]
pub fn is_own(meta: &Metadata) -> bool {
    meta.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_directory_that_others_cannot_write_to_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        make(&path("new")).unwrap();
        assert_eq!(path("new").metadata().unwrap().mode() & 0o777, 0o700);
        make(&path("new")).unwrap();
        fs::write(path("file"), "").unwrap();
        symlink(path("new"), path("link")).unwrap();
        for other in ["file", "link"] {
            assert!(make(&path(other)).unwrap_err().to_string().contains("is not a directory"), "{other}");
        }
        fs::set_permissions(path("new"), Permissions::from_mode(0o777)).unwrap();
        assert!(make(&path("new")).unwrap_err().to_string().contains("by others"));
    }
}
