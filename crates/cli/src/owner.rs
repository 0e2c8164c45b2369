//! The owner of an image and the user of its restart. The contents of an image run as the user who restarts it, so the owner of the file
//! must be trusted.

use ckpt_image::ImageReader;
use ckpt_image::generations::Trust;
use ckpt_objects::HostPid;
use ckpt_objects::process::is_secure;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgid, getuid, initgroups, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};

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

/// Gives up the user ids and capabilities that the tool's file grants. An image must not act with them. The restart then is that of a user
/// without capabilities.
///
/// # Errors
///
/// If the kernel refuses.
pub fn drop_file_privileges() -> std::io::Result<()> {
    // Root had it all before. A security module may set `AT_SECURE` for root's programs too. The kernel hides the vector of most programs that
    // were granted something, so one that cannot be read counts as theirs.
    if getuid().is_root() || is_secure(HostPid::own()) == Some(false) {
        return Ok(());
    }
    let (uid, gid) = (getuid(), getgid());
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // Such a file closes the process to its own user, /proc included (proc(5)).
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
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
