//! Calls on sockets whose options and control messages no crate has types for. They keep their pointers inside, so they are safe to
//! call with any argument.

use linux_raw_sys::errno::ENOTTY;
use linux_raw_sys::general as nr;
use linux_raw_sys::net::{
    MSG_NOSIGNAL, SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF, SO_PEERCRED, SOL_SOCKET,
};

use crate::raw::Errno;
use crate::syscall;

/// getsockopt(2) into `value`; gives how many bytes the option has.
///
/// # Errors
/// `ENOPROTOOPT` where the socket does not know the option, `ENOTSOCK` where the descriptor is no socket.
pub fn get_option(fd: i32, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
    let mut len = value.len() as u32;
    // SAFETY: the kernel writes at most `len` bytes to `value`, which lives over the call.
    unsafe { syscall!(nr::__NR_getsockopt, fd, level, name, value.as_mut_ptr(), &raw mut len) }?;
    Ok(len as usize)
}

/// The process that made the connection of a UNIX socket, and its user (`SO_PEERCRED`). The pid is 0 for a process of a pid namespace that is not
/// below the caller's, which rustix has no type for.
///
/// # Errors
/// As for [`get_option`].
pub fn peer(fd: i32) -> Result<(i32, u32), Errno> {
    // struct ucred: pid, uid, gid.
    let mut credentials = [0u8; 12];
    get_option(fd, SOL_SOCKET as i32, SO_PEERCRED as i32, &mut credentials)?;
    let [a, b, c, d, e, f, g, h, ..] = credentials;
    Ok((i32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])))
}

/// setsockopt(2) for options whose value holds no pointers.
///
/// # Errors
/// As for [`get_option`]; `EINVAL` for a value that is not allowed.
pub fn set_option(fd: i32, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: `value` is read, and lives over the call.
    unsafe { syscall!(nr::__NR_setsockopt, fd, level, name, value.as_ptr(), value.len()) }.map(|_| ())
}

/// The filter that `SO_ATTACH_FILTER` set (`SO_GET_FILTER`), into `program`, 8 bytes an instruction; gives how many instructions it has.
///
/// # Errors
/// `EINVAL` where the filter has more instructions than `program` has room for.
pub fn get_filter(fd: i32, program: &mut [u64]) -> Result<usize, Errno> {
    // For this option alone the length counts instructions.
    let mut len = program.len() as u32;
    // SAFETY: the kernel writes at most `len` instructions of 8 bytes to `program`, or none where it has more.
    unsafe { syscall!(nr::__NR_getsockopt, fd, SOL_SOCKET, SO_GET_FILTER, program.as_mut_ptr(), &raw mut len) }?;
    Ok(len as usize)
}

/// Attaches a filter (`SO_ATTACH_FILTER`).
///
/// # Errors
/// `EINVAL` for a program that the kernel does not accept.
pub fn set_filter(fd: i32, program: &[u64]) -> Result<(), Errno> {
    attach(fd, SO_ATTACH_FILTER, program)
}

/// Has all new connections of a group of listening sockets (`SO_REUSEPORT`) come to the one that began to listen as number `index`, from 0 on; or
/// lets the kernel choose again.
///
/// # Errors
/// `ENOPROTOOPT` from a kernel before Linux 5.3, which cannot let go of the choice.
pub fn choose_of_group(fd: i32, index: Option<u32>) -> Result<(), Errno> {
    /// `BPF_RET | BPF_K`: the result of the program is a constant (include/uapi/linux/bpf_common.h).
    const RETURN: u64 = 0x06;
    match index {
        Some(index) => attach(fd, SO_ATTACH_REUSEPORT_CBPF, &[RETURN | u64::from(index) << 32]),
        None => set_option(fd, SOL_SOCKET as i32, SO_DETACH_REUSEPORT_BPF as i32, &0i32.to_ne_bytes()),
    }
}

fn attach(fd: i32, option: u32, program: &[u64]) -> Result<(), Errno> {
    /// `struct sock_fprog` (include/uapi/linux/filter.h).
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const u64,
    }
    let value = Program { len: program.len() as u16, filter: program.as_ptr() };
    // SAFETY: `value` and the instructions it points to are read, and live over the call.
    unsafe { syscall!(nr::__NR_setsockopt, fd, SOL_SOCKET, option, &raw const value, size_of::<Program>()) }.map(|_| ())
}

/// `SO_GET_FILTER` (include/uapi/asm-generic/socket.h) has the number of `SO_ATTACH_FILTER`.
const SO_GET_FILTER: u32 = SO_ATTACH_FILTER;

/// `struct iovec`.
#[repr(C)]
struct IoVec {
    base: *const u8,
    len: usize,
}

/// `struct msghdr` as the kernel has it (include/linux/socket.h).
#[repr(C)]
struct Message {
    name: *const u8,
    name_len: i32,
    parts: *const IoVec,
    part_count: usize,
    control: *const u8,
    control_len: usize,
    flags: u32,
}

/// What recvmsg(2) gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of data; of a datagram with `MSG_TRUNC`, all that it has.
    pub len: usize,
    /// Bytes of the sender's address.
    pub name_len: usize,
    /// Bytes of control messages.
    pub control_len: usize,
    /// `MSG_*`.
    pub flags: u32,
}

/// recvmsg(2). Descriptors in `control` are the caller's to close.
///
/// # Errors
/// `EAGAIN` where nothing waits and the call does not; the errors of the protocol (recvmsg(2)).
pub fn receive(fd: i32, data: &mut [u8], name: &mut [u8], control: &mut [u8], flags: u32) -> Result<Received, Errno> {
    let part = IoVec { base: data.as_mut_ptr(), len: data.len() };
    let mut message = Message {
        name: name.as_mut_ptr(),
        name_len: name.len() as i32,
        parts: &raw const part,
        part_count: 1,
        control: control.as_mut_ptr(),
        control_len: control.len(),
        flags: 0,
    };
    // SAFETY: the kernel writes to the three slices, which are borrowed mutably, no more than they hold, and to `message`.
    let len = unsafe { syscall!(nr::__NR_recvmsg, fd, &raw mut message, flags) }?;
    Ok(Received {
        len: len as usize,
        name_len: (message.name_len as usize).min(name.len()),
        control_len: message.control_len.min(control.len()),
        flags: message.flags,
    })
}

/// recvmsg(2) of one byte more than `data` holds, with no place for the last byte. From a UNIX stream that gives the bytes before the message that
/// this byte belongs to, since the kernel copies each message as a whole or not at all.
///
/// # Errors
/// `EFAULT` where nothing is before that part; as for [`receive`].
pub fn receive_before_last(fd: i32, data: &mut [u8], flags: u32) -> Result<usize, Errno> {
    let parts = [IoVec { base: data.as_mut_ptr(), len: data.len() }, IoVec { base: core::ptr::null(), len: 1 }];
    let mut message = Message {
        name: core::ptr::null(),
        name_len: 0,
        parts: parts.as_ptr(),
        part_count: parts.len(),
        control: core::ptr::null(),
        control_len: 0,
        flags: 0,
    };
    // SAFETY: the kernel writes to `data` no more than it holds, and to `message`; nothing is mapped at address 0 of this process.
    unsafe { syscall!(nr::__NR_recvmsg, fd, &raw mut message, flags) }.map(|len| len as usize)
}

/// sendmsg(2) without `SIGPIPE`; an empty `name` is none. Gives how many bytes were sent.
///
/// # Errors
/// `EAGAIN` where there is no room and the call does not wait, `EPIPE` where the other side is closed (sendmsg(2)).
pub fn send(fd: i32, data: &[u8], name: &[u8], control: &[u8], flags: u32) -> Result<usize, Errno> {
    let part = IoVec { base: data.as_ptr(), len: data.len() };
    let message = Message {
        name: if name.is_empty() { core::ptr::null() } else { name.as_ptr() },
        name_len: name.len() as i32,
        parts: &raw const part,
        part_count: 1,
        control: if control.is_empty() { core::ptr::null() } else { control.as_ptr() },
        control_len: control.len(),
        flags: 0,
    };
    // SAFETY: everything that `message` points to is read, and lives over the call.
    unsafe { syscall!(nr::__NR_sendmsg, fd, &raw const message, flags | MSG_NOSIGNAL) }.map(|len| len as usize)
}

/// bind(2) to an address given in bytes, as getsockname(2) gave it.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` (bind(2)).
pub fn bind(fd: i32, name: &[u8]) -> Result<(), Errno> {
    // SAFETY: `name` is read, and lives over the call.
    unsafe { syscall!(nr::__NR_bind, fd, name.as_ptr(), name.len()) }.map(|_| ())
}

/// connect(2) to an address given in bytes.
///
/// # Errors
/// `ECONNREFUSED`, `EINPROGRESS`, `EADDRNOTAVAIL` (connect(2)).
pub fn connect(fd: i32, name: &[u8]) -> Result<(), Errno> {
    // SAFETY: `name` is read, and lives over the call.
    unsafe { syscall!(nr::__NR_connect, fd, name.as_ptr(), name.len()) }.map(|_| ())
}

/// getsockname(2), or getpeername(2) for `peer`, into `name`; gives how many bytes the address has.
///
/// # Errors
/// `ENOTCONN` for the peer of a socket that has none.
pub fn name(fd: i32, peer: bool, name: &mut [u8]) -> Result<usize, Errno> {
    let mut len = name.len() as u32;
    let call = if peer { nr::__NR_getpeername } else { nr::__NR_getsockname };
    // SAFETY: the kernel writes at most `len` bytes to `name`, which lives over the call.
    unsafe { syscall!(call, fd, name.as_mut_ptr(), &raw mut len) }?;
    Ok((len as usize).min(name.len()))
}

/// An ioctl(2) that gives one number: `FIONREAD`, `SIOCATMARK`, `SIOCOUTQ` and their like. Others must not be asked for.
///
/// # Errors
/// `ENOTTY` for any other request, and where the socket does not know this one.
pub fn get_number(fd: i32, request: u32) -> Result<i32, Errno> {
    const KNOWN: [u32; 4] = [0x541b, 0x5411, 0x8905, 0x894b];
    if !KNOWN.contains(&request) {
        return Err(Errno(ENOTTY as i32));
    }
    let mut number = 0i32;
    // SAFETY: these requests write one number, to a variable that lives over the call.
    unsafe { syscall!(nr::__NR_ioctl, fd, request, &raw mut number) }?;
    Ok(number)
}
