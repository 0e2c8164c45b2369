//! Requests of ioctl_tty(2) that rustix lacks. They keep their pointers inside, so they are safe to call with any descriptor.

use linux_raw_sys::{general as nr, ioctl};

use crate::raw::Errno;
use crate::syscall;

/// Properties of a terminal that are a number (include/uapi/asm-generic/ioctls.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Query {
    /// `TIOCGPTN`: the number of a pseudo-terminal, of its master.
    Number = ioctl::TIOCGPTN,
    /// `TIOCGDEV`: the device number; of a master, that of its slave. Fails with `EIO` on a descriptor that was hung up.
    Device = ioctl::TIOCGDEV,
    /// `TIOCGPKT`: packet mode, of a master.
    Packet = ioctl::TIOCGPKT,
    /// `TIOCGPTLCK`: whether the slave may not be opened, of a master.
    Locked = ioctl::TIOCGPTLCK,
    /// `TIOCGEXCL`: exclusive mode, of either side for itself.
    Exclusive = ioctl::TIOCGEXCL,
    /// `TIOCGETD`: the line discipline.
    Discipline = ioctl::TIOCGETD,
    /// `TIOCGSID`: the session; of a master, that of its slave.
    Session = ioctl::TIOCGSID,
    /// `TIOCGPGRP`: the foreground process group; of a master, that of its slave.
    Foreground = ioctl::TIOCGPGRP,
    /// `TIOCINQ`: bytes that can be read; in canonical mode, those of finished lines.
    Readable = ioctl::TIOCINQ,
}

/// Properties of a terminal that can be set to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Setting {
    /// `TIOCSPTLCK`: the slave may not be opened.
    Locked = ioctl::TIOCSPTLCK,
    /// `TIOCPKT`: packet mode.
    Packet = ioctl::TIOCPKT,
    /// `TIOCSPGRP`: the foreground process group.
    Foreground = ioctl::TIOCSPGRP,
}

/// Acts on a terminal, with a number or with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Act {
    /// `TIOCEXCL`: exclusive mode on.
    Exclusive = ioctl::TIOCEXCL,
    /// `TIOCSCTTY`: makes it the controlling terminal of the caller, which leads a session.
    Control = ioctl::TIOCSCTTY,
    /// `TIOCNOTTY`: gives up the caller's controlling terminal.
    GiveUp = ioctl::TIOCNOTTY,
    /// `TIOCVHANGUP`: hangs up every open descriptor of a terminal; needs `CAP_SYS_ADMIN`.
    HangUp = ioctl::TIOCVHANGUP,
    /// `TCXONC`: suspends (0) or resumes (1) output.
    Flow = ioctl::TCXONC,
    /// `TCFLSH`: discards what was received (0) or written (1).
    Flush = ioctl::TCFLSH,
}

/// `struct termios2` (include/uapi/asm-generic/termbits.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Termios {
    /// Input modes.
    pub input: u32,
    /// Output modes.
    pub output: u32,
    /// Control modes.
    pub control: u32,
    /// Local modes.
    pub local: u32,
    /// Line discipline.
    pub line: u8,
    /// Control characters.
    pub characters: [u8; 19],
    /// Input speed.
    pub input_speed: u32,
    /// Output speed.
    pub output_speed: u32,
}

/// Asks for a number.
///
/// # Errors
/// `ENOTTY` where the descriptor is no such side of a terminal, `EIO` after a hangup.
pub fn get(fd: i32, query: Query) -> Result<i32, Errno> {
    let mut number = 0i32;
    // SAFETY: each of these requests writes four bytes, and `number` lives over the call.
    unsafe { syscall!(nr::__NR_ioctl, fd, query as u32, &raw mut number) }.map(|_| number)
}

/// Sets a number.
///
/// # Errors
/// As for [`get`]; `EPERM`, `EINVAL` for a group that the terminal cannot have.
pub fn set(fd: i32, setting: Setting, number: i32) -> Result<(), Errno> {
    // SAFETY: each of these requests reads four bytes, and `number` lives over the call.
    unsafe { syscall!(nr::__NR_ioctl, fd, setting as u32, &raw const number) }.map(|_| ())
}

/// Performs an act; gives the result of the call.
///
/// # Errors
/// As for [`get`]; `EPERM` where the caller may not.
pub fn act(fd: i32, act: Act, number: i32) -> Result<i32, Errno> {
    // SAFETY: these requests take a number.
    unsafe { syscall!(nr::__NR_ioctl, fd, act as u32, number) }.map(|result| result as i32)
}

/// The settings; of a master, those of its slave.
///
/// # Errors
/// As for [`get`].
pub fn settings(fd: i32) -> Result<Termios, Errno> {
    let mut termios = Termios::default();
    // SAFETY: the request writes a struct termios2, and `termios` is one that lives over the call.
    unsafe { syscall!(nr::__NR_ioctl, fd, ioctl::TCGETS2, &raw mut termios) }.map(|_| termios)
}

/// Sets the settings at once; of a master, those of its slave.
///
/// # Errors
/// As for [`get`]; `EINTR` by a signal.
pub fn set_settings(fd: i32, termios: &Termios) -> Result<(), Errno> {
    // SAFETY: the request reads a struct termios2, and `termios` is one.
    unsafe { syscall!(nr::__NR_ioctl, fd, ioctl::TCSETS2, core::ptr::from_ref(termios)) }.map(|_| ())
}

/// The window's size: rows, columns, and in pixels width and height.
///
/// # Errors
/// As for [`get`].
pub fn window(fd: i32) -> Result<[u16; 4], Errno> {
    let mut size = [0u16; 4];
    // SAFETY: the request writes a struct winsize of eight bytes.
    unsafe { syscall!(nr::__NR_ioctl, fd, ioctl::TIOCGWINSZ, size.as_mut_ptr()) }.map(|_| size)
}

/// Sets the window's size.
///
/// # Errors
/// As for [`get`].
pub fn set_window(fd: i32, size: [u16; 4]) -> Result<(), Errno> {
    // SAFETY: the request reads a struct winsize of eight bytes.
    unsafe { syscall!(nr::__NR_ioctl, fd, ioctl::TIOCSWINSZ, size.as_ptr()) }.map(|_| ())
}
