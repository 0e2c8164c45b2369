//! The owner of an image and the user of its restart. The contents of an image run as the user who restarts it, so the owner of the file
//! must be trusted.

use std::ops::Not;

use ckpt_image::ImageReader;
use ckpt_image::generations::Trust;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgid, getuid, initgroups, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};

use crate::RunOptions;

/// Of the auxiliary vector (include/uapi/linux/auxvec.h).
const AT_SECURE: u64 = 23;

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

/// Gives up the user ids and capabilities that the tool's file gave to whoever runs it: what an image says must not act with them. The rest
/// goes the way of a user without capabilities.
///
/// # Errors
///
/// If the kernel refuses.
pub fn drop_file_privileges() -> std::io::Result<()> {
    // Root had it all before. A security module may say `AT_SECURE` of root's programs too.
    if getuid().is_root() || !is_secure() {
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

/// Whether the kernel gave this process more than its caller had, for its file's mode or capabilities (`AT_SECURE`). The vector cannot be read
/// then as a rule, so one that cannot be read counts as that.
fn is_secure() -> bool {
    std::fs::read("/proc/self/auxv").is_ok_and(|vector| says_secure(&vector).is_some_and(|secure| !secure)).not()
}

/// The value of `AT_SECURE` in an auxiliary vector, which has pairs of words.
fn says_secure(vector: &[u8]) -> Option<bool> {
    let words = vector.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect::<Vec<_>>();
    words.chunks_exact(2).find(|pair| pair[0] == AT_SECURE).map(|pair| pair[1] != 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auxiliary_vector_tells_of_privileges() {
        let vector =
            |secure: u64| [6, 4096, AT_SECURE, secure, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(says_secure(&vector(0)), Some(false));
        assert_eq!(says_secure(&vector(1)), Some(true));
        assert_eq!(says_secure(&[]), None);
    }
}
