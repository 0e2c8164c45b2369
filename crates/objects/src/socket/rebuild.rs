//! Rebuilds sockets: the steps that all kinds share.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::address::{port, with_port};
use super::queue::make_controls;
use super::{Address, Message, SocketState, io_error, observe, options};

/// A new socket of the same kind, with those options that matter before it is bound. It does not block.
///
/// # Errors
/// The kernel lacks the protocol, or refuses an option.
pub fn make(state: &SocketState) -> io::Result<OwnedFd> {
    let fd = observe::fresh(state.family, state.form, state.protocol)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    options::apply_early(&fd, state);
    Ok(fd)
}

/// Binds it to an address.
///
/// # Errors
/// The address is taken, or not this machine's.
pub fn bind(fd: &OwnedFd, address: &Address) -> io::Result<()> {
    ckpt_sys::socket::bind(fd.as_raw_fd(), &address.0).map_err(io_error)
}

/// Connects it to an address.
///
/// # Errors
/// Nobody listens there.
pub fn connect(fd: &OwnedFd, address: &Address) -> io::Result<()> {
    ckpt_sys::socket::connect(fd.as_raw_fd(), &address.0).map_err(io_error)
}

/// Sends a message, to an address where one is given. `files` are the descriptors that go with it; `credentials`: it says who sends.
///
/// # Errors
/// The peer's queue is full, or a descriptor is not open.
pub fn send(fd: &OwnedFd, message: &Message, files: &[i32], to: Option<&Address>, credentials: bool) -> io::Result<()> {
    let controls = make_controls(files, message.credentials.as_ref().filter(|_| credentials));
    let to = to.map_or(&[][..], |address| &address.0);
    let sent = ckpt_sys::socket::send(fd.as_raw_fd(), &message.data, to, &controls, 0).map_err(io_error)?;
    if sent < message.data.len() {
        // Of a stream; the rest goes without what came with its first byte, which is the same for a reader.
        let rest = Message { data: message.data[sent..].to_vec(), ..message.clone() };
        return send(fd, &rest, &[], None, credentials);
    }
    Ok(())
}

/// Sends bytes over a stream; `urgent`: the last one out of band. Gives how many went.
///
/// # Errors
/// The peer has closed, or its buffer is full.
pub fn send_bytes(fd: &OwnedFd, data: &[u8], urgent: bool) -> io::Result<usize> {
    let flags = if urgent { libc::MSG_OOB.cast_unsigned() } else { 0 };
    ckpt_sys::socket::send(fd.as_raw_fd(), data, &[], &[], flags).map_err(io_error)
}

/// Reads the urgent byte.
///
/// # Errors
/// There is none.
pub fn take_urgent(fd: &OwnedFd) -> io::Result<()> {
    let flags = (libc::MSG_OOB | libc::MSG_DONTWAIT).cast_unsigned();
    ckpt_sys::socket::receive(fd.as_raw_fd(), &mut [0], &mut [], &mut [], flags).map(|_| ()).map_err(io_error)
}

/// Has the kernel give a socket its port when it is connected, which can be only this one.
pub(super) fn choose_port(fd: &OwnedFd, local: &Address) -> io::Result<()> {
    let set = |name, value| options::set_number(fd, libc::IPPROTO_IP, name, value).map_err(io_error);
    let port = i32::from(port(local));
    set(options::IP_LOCAL_PORT_RANGE, port << 16 | port)?;
    set(libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    bind(fd, &with_port(local, 0))
}
