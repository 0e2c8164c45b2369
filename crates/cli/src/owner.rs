//! Whose image is restarted, and by whom. What an image says runs as the user who restarts it: the owner of the file is the one who decides that.

use ckpt_image::ImageReader;
use ckpt_image::generations::Trust;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, initgroups, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};

use crate::RunOptions;

/// Root could not become the owner of an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot become user {uid}, whose image {image} is: {source}; restart it as that user, or give --trust-owner to restart it as root"
)]
pub struct OwnerError {
    uid: u32,
    image: String,
    source: std::io::Error,
}

impl RunOptions {
    /// Whose files are images.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match (self.trust_owner, geteuid().is_root()) {
            (true, _) => Trust::Any,
            (false, true) => Trust::OneUser,
            (false, false) => Trust::Own,
        }
    }
}

/// Makes root the owner of an image before anything is done that it says, unless the user trusts the owner.
///
/// # Errors
///
/// When the kernel refuses: in a user namespace that lacks that user.
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

/// Takes a user's id and groups, for good. A user without a name has the group of the file only.
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
    // Its own files in /proc are root's until then (proc(5)).
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}
