//! Children that live for a moment, to do what the kernel notes the doer of, or what needs a root directory of its own.
//!
//! Such a child shares this process's descriptors: what it makes is there when it has ended. It must not let go of any that are not its
//! own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use ckpt_sys::raw::Errno;
use ckpt_sys::{child, number};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::{Gid, Pid, Uid, WaitOptions, waitpid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::rebuild;
use super::{Address, Credentials};
use crate::context::Context;
use crate::rebuild::placeholder;
use crate::unix_socket::SocketFile;

/// How a UNIX socket with a name is reached, wherever its file is.
pub struct Reach {
    /// What to connect or send to.
    pub address: Address,
    /// Holds its file, which may have no name any more.
    _place: Option<OwnedFd>,
}

/// Where the file of a name is made.
pub enum Place<'a> {
    /// Where it was, whoever has it now must be gone.
    At(&'a Path, &'a SocketFile),
    /// In a file system of its own, which nobody else sees.
    Private,
}

/// Runs `prepare`, then `act` as the process `who`, if that number is free: in a child that shares this process's descriptors.
fn in_child(
    context: &dyn Context,
    who: Option<Credentials>,
    flags: u32,
    prepare: impl FnOnce() -> io::Result<()>,
    act: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let pid = who.map(|who| who.pid).filter(|&pid| pid > 0 && pid != own);
    let uid = rustix::process::geteuid().as_raw();
    if flags == 0 && pid.is_none() && who.is_none_or(|who| who.uid == uid) {
        return prepare().and_then(|()| act());
    }
    let work = || {
        context.note_maker();
        let result = prepare().and_then(|()| {
            if let Some(who) = who.filter(|who| who.uid != uid) {
                // Where these fail, the credentials are the restart's.
                let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
                let _ = set_thread_res_gid(gid, gid, gid);
                let _ = set_thread_res_uid(uid, uid, uid);
            }
            act()
        });
        result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO) as u8, |()| 0)
    };
    let flags = libc::CLONE_FILES.cast_unsigned() | flags;
    let child = child::spawn(flags, pid, work).map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))?;
    let ended = waitpid(Pid::from_raw(child), WaitOptions::empty())?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("the process that was to do it was ended")),
    }
}

/// Runs `act` as the process `who`.
pub fn act_as(context: &dyn Context, who: Option<Credentials>, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    in_child(context, who, 0, || Ok(()), act)
}

/// Makes a pair of connected sockets, as the process `who`.
pub fn pair(context: &dyn Context, form: i32, who: Option<Credentials>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = (placeholder()?, placeholder()?);
    act_as(context, who, || {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let form = SocketType::from_raw(form.cast_unsigned());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (first, second) = rustix::net::socketpair(AddressFamily::UNIX, form, flags, None)?;
        put(&first, &a)?;
        put(&second, &b)
    })?;
    Ok((a, b))
}

/// Gives what `fd` is open on the number of `place`.
fn put(fd: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    number::give(fd.as_raw_fd(), place.as_raw_fd(), true).map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))
}

/// Binds a UNIX socket to `name`, and has it listen if `backlog` says so, as the process `who`.
pub fn bind(
    context: &dyn Context,
    fd: &OwnedFd,
    name: &Address,
    place: &Place<'_>,
    who: Option<Credentials>,
    backlog: Option<u32>,
) -> io::Result<Reach> {
    let listen = || match backlog {
        Some(backlog) => Ok(rustix::net::listen(fd, i32::try_from(backlog).unwrap_or(i32::MAX))?),
        None => Ok(()),
    };
    let Some(path) = name.unix_path() else {
        in_child(context, who, 0, || rebuild::bind(fd, name), listen)?;
        return Ok(Reach { address: name.clone(), _place: None });
    };
    let path = path.as_path();
    let placeholder = placeholder()?;
    let show = |path: &Path| {
        put(&rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?, &placeholder)
    };
    match place {
        Place::At(at, file) => in_child(
            context,
            who,
            // A child in any case: with a working directory and mask of its own.
            libc::CLONE_FILES.cast_unsigned(),
            || {
                if path.is_relative() {
                    std::env::set_current_dir(base(at, path))?;
                }
                rustix::process::umask(Mode::from_raw_mode(!file.mode & 0o777));
                let path = if at.file_name() == path.file_name() {
                    remove(path)?;
                    rebuild::bind(fd, name)?;
                    path
                } else {
                    bind_renamed(fd, name, path, at)?;
                    at
                };
                // Of another user only root can make it.
                let _ = std::os::unix::fs::lchown(path, Some(file.uid), Some(file.gid));
                show(path)
            },
            listen,
        )?,
        Place::Private => in_child(
            context,
            who,
            libc::CLONE_NEWNS.cast_unsigned(),
            || {
                enter_private_root()?;
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                rebuild::bind(fd, name)?;
                show(path)
            },
            listen,
        )?,
    }
    let address = Address::of_path(Path::new(&format!("/proc/self/fd/{}", placeholder.as_raw_fd()))).unwrap_or_default();
    Ok(Reach { address, _place: Some(placeholder) })
}

/// Binds a socket to `path`, its `name`, and renames it to `at`, where it was. Where its first name is another's by now, it gets the present one.
fn bind_renamed(fd: &OwnedFd, name: &Address, path: &Path, at: &Path) -> io::Result<()> {
    match rebuild::bind(fd, name) {
        Ok(()) => std::fs::rename(path, at),
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && path.symlink_metadata().is_ok() => {
            remove(at)?;
            rebuild::bind(fd, &Address::of_path(at).ok_or(error)?)
        }
        Err(error) => Err(error),
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The directory in which the relative path `name` means the file `at`.
fn base<'a>(at: &'a Path, name: &Path) -> &'a Path {
    let levels = name.components().filter(|part| matches!(part, std::path::Component::Normal(_))).count();
    at.ancestors().nth(levels).unwrap_or(Path::new("/"))
}

/// An empty root directory that ends with this process and what is open in it. The process must have a mount namespace of its own.
fn enter_private_root() -> io::Result<()> {
    rustix::mount::mount("tmpfs", "/proc", "tmpfs", MountFlags::empty(), None)?;
    rustix::process::chroot("/proc")?;
    std::env::set_current_dir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_name_is_bound_where_it_was() {
        assert_eq!(base(Path::new("/home/u/run/s"), Path::new("run/s")), Path::new("/home/u"));
        assert_eq!(base(Path::new("/home/u/s"), Path::new("./s")), Path::new("/home/u"));
        assert_eq!(base(Path::new("/s"), Path::new("s")), Path::new("/"));
    }
}
