//! The owner of an image and the user of its restart. The contents of an image run as the user who restarts it, so the owner of the file
//! must be trusted.

use ckpt_image::ImageReader;
use ckpt_image::generations::Trust;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, initgroups, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};

use crate::RunOptions;

/// Why root could not become the owner of an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to become user {uid}, the owner of {image}: {source}; restart it as that user, or give --trust-owner to restart it as root"
)]
pub struct OwnerError {
    uid: u32,
    image: String,
    source: std::io::Error,
}

impl RunOptions {
    /// The users whose image files are used.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match (self.trust_owner, geteuid().is_root()) {
            (true, _) => Trust::Any,
            (false, true) => Trust::OneUser,
            (false, false) => Trust::Own,
        }
    }
}

/// If this process is root, makes it the owner of the image before it uses the contents, unless `--trust-owner` is given.
///
/// # Errors
///
/// If the kernel refuses, as in a user namespace without that user.
pub fn become_owner(image: &ImageReader, options: &RunOptions) -> Result<(), OwnerError> {
    if options.trust_owner || !geteuid().is_root() || image.is_own() {
        return Ok(());
    }
    let (uid, gid) = image.owner();
    become_user(Uid::from_raw(uid), Gid::from_raw(gid)).map_err(|errno| OwnerError {
        uid,
        image: image.path().display().to_string(),
        source: errno.into(),
    })
}

/// Takes a user's id and groups permanently. A user without a name gets the group of the file only.
fn become_user(uid: Uid, gid: Gid) -> nix::Result<()> {
    let group = match User::from_uid(uid) {
        Ok(Some(user)) => {
            let name = std::ffi::CString::new(user.name).map_err(|_| Errno::EINVAL)?;
            initgroups(&name, user.gid)?;
            user.gid
        }
        _ => {
            setgroups(&[gid])?;
            gid
        }
    };
    setresgid(group, group, group)?;
    setresuid(uid, uid, uid)?;
    // Until then root owns this process's files in /proc (proc(5)).
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}
