//! Rebuilds terminals, in the order of these functions.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use ckpt_sys::terminal::{Act, Query, Setting, act, get, set, set_settings, set_window};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use super::in_flight::{Pair, Traffic, set_packet};
use super::{OpenPty, Slave};
use crate::NsPid;
use crate::rebuild::{RebuildError, open_flags};

fn failed(what: &'static str) -> impl FnOnce(ckpt_sys::raw::Errno) -> RebuildError {
    move |error| RebuildError::Call { what: what.to_owned(), source: io::Error::from_raw_os_error(error.0) }
}

/// Opens the next master, and gives its number. Its slave may be opened.
///
/// # Errors
/// Pseudo-terminals are used up (`kernel.pty.max`).
pub fn prepare(multiplexer: &Path, flags: u32) -> Result<(OwnedFd, u32), RebuildError> {
    let master = rustix::fs::open(multiplexer, open_flags(flags), Mode::empty()).map_err(RebuildError::open(multiplexer))?;
    let number = get(master.as_raw_fd(), Query::Number).map_err(failed("read the number of a pseudo-terminal"))?;
    set(master.as_raw_fd(), Setting::Locked, 0).map_err(failed("unlock a pseudo-terminal"))?;
    Ok((master, number.cast_unsigned()))
}

/// Opens a slave, with `O_*`. It becomes nobody's controlling terminal.
///
/// # Errors
/// The master is locked, or closed.
pub fn open_slave(master: impl AsFd, flags: u32) -> Result<OwnedFd, RebuildError> {
    // Else the description would keep O_CLOEXEC among its flags for ever, and each of its descriptors look like one that exec closes.
    let flags = OpenptFlags::from_bits_retain((open_flags(flags) - OFlags::CLOEXEC).bits());
    let failed = |error: Errno| RebuildError::Call { what: "open a pseudo-terminal's slave".to_owned(), source: error.into() };
    let slave = ioctl_tiocgptpeer(master, flags).map_err(failed)?;
    fcntl_setfd(&slave, FdFlags::CLOEXEC).map_err(failed)?;
    Ok(slave)
}

/// Makes a terminal the controlling one of this process, which leads a session that has none.
///
/// # Errors
/// It is another session's, or this process leads none.
pub fn take(terminal: impl AsFd) -> Result<(), RebuildError> {
    let what = "take a terminal as the controlling one";
    act(terminal.as_fd().as_raw_fd(), Act::Control, 0).map(|_| ()).map_err(failed(what))
}

/// Hangs up every open description of a slave, which only root may.
///
/// # Errors
/// `EPERM` for anybody but root.
pub fn hang_up(slave: impl AsFd) -> Result<(), RebuildError> {
    act(slave.as_fd().as_raw_fd(), Act::HangUp, 0).map(|_| ()).map_err(failed("hang up a pseudo-terminal"))
}

/// Brings a pseudo-terminal whose descriptions are all open to its settings, with its bytes in flight.
///
/// # Errors
/// The bytes do not fit, or a setting is refused.
pub fn settle(master: &OwnedFd, state: &OpenPty) -> Result<(), RebuildError> {
    let failed_io = |source| RebuildError::Call { what: "put what was in flight into a pseudo-terminal".to_owned(), source };
    let settings = state.settings.into();
    // Before packet mode, in which the master is told of changes.
    set_settings(master.as_raw_fd(), &settings).map_err(failed("set the modes of a pseudo-terminal"))?;
    if state.packet {
        set_packet(master, true).map_err(failed_io)?;
    }
    set_window(master.as_raw_fd(), state.window).map_err(failed("set the window size of a pseudo-terminal"))?;
    if state.slave == Slave::Never {
        return Ok(());
    }
    let slave = open_slave(master, (libc::O_RDWR | libc::O_NONBLOCK).cast_unsigned())?;
    let traffic = Traffic { bytes: state.in_flight.clone(), stopped: state.stopped, packet_status: state.packet_status };
    let pair = Pair { master, slave: &slave, settings, packet: state.packet };
    pair.put(&traffic).map_err(failed_io)
}

/// Gives up the controlling terminal that this process was forked with.
///
/// # Errors
/// The kernel refuses; without a terminal nothing is done.
pub fn give_up() -> Result<(), RebuildError> {
    let path = Path::new("/dev/tty");
    let terminal = match rustix::fs::open(path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()) {
        // It has none.
        Err(rustix::io::Errno::NXIO) => return Ok(()),
        other => other.map_err(RebuildError::open(path))?,
    };
    act(terminal.as_raw_fd(), Act::GiveUp, 0).map(|_| ()).map_err(failed("give up a controlling terminal"))
}

/// Puts a process group into the foreground of this process's controlling terminal. One that has ended meanwhile is left out.
///
/// # Errors
/// The group is of another session.
pub fn set_foreground(group: NsPid) -> Result<(), RebuildError> {
    let path = Path::new("/dev/tty");
    let terminal = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        .map_err(RebuildError::open(path))?;
    match set(terminal.as_raw_fd(), Setting::Foreground, group.0) {
        Err(ckpt_sys::raw::Errno(libc::ESRCH)) => Ok(()),
        other => other.map_err(failed("put a process group into the foreground of its terminal")),
    }
}

/// Forbids what was forbidden, when everything that needs it is done.
///
/// # Errors
/// The kernel refuses a mode of the master.
pub fn seal(master: impl AsFd, state: &OpenPty) -> Result<(), RebuildError> {
    let what = "set the exclusive mode of a pseudo-terminal";
    let fd = master.as_fd().as_raw_fd();
    let [of_master, of_slave] = state.exclusive;
    if of_slave {
        let slave = open_slave(&master, libc::O_RDWR.cast_unsigned())?;
        act(slave.as_raw_fd(), Act::Exclusive, 0).map_err(failed(what))?;
    }
    if of_master {
        act(fd, Act::Exclusive, 0).map_err(failed(what))?;
    }
    if state.locked {
        set(fd, Setting::Locked, 1).map_err(failed("lock a pseudo-terminal"))?;
    }
    Ok(())
}
