//! The connection to the coordinator: an abstract UNIX socket with message boundaries, whose name only the job and its coordinators can tell.

use ckpt_sys::blocked;
use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::{Hello, PROTOCOL, SOCKET_NAME_LEN};
use linux_raw_sys::general as nr;
use linux_raw_sys::net::{AF_UNIX, MSG_CMSG_CLOEXEC, MSG_NOSIGNAL, SCM_RIGHTS, SO_PEERCRED, SOCK_SEQPACKET, SOL_SOCKET};

use crate::call::{self, Fd, nr_errno};
use crate::state::CONFIG;

/// `SOCK_CLOEXEC` (include/linux/net.h).
const SOCK_CLOEXEC: u32 = nr::O_CLOEXEC;
/// How often a signal is announced.
const TRIES: u32 = 20;
/// How long a coordinator that is too busy to be connected to is left alone, in microseconds.
const BUSY_US: i64 = 20_000;

/// A connection.
pub struct Connection(pub Fd);

/// Tells the job's coordinator that this process holds a signal back. False if there is none.
pub fn announce(signal: i32) -> bool {
    for _ in 0..TRIES {
        match connect_with(nr::O_NONBLOCK) {
            // When a freeze ends, it may close connections before it has heard anything on them.
            Ok(connection) if connection.send(&connection.hello(signal)).is_ok() => return true,
            Ok(_) => (),
            // Too busy. Who listens there is not known yet, and may be another user who never accepts: it is not waited for long.
            Err(Errno(nr_errno::EAGAIN)) => call::pause_us(BUSY_US),
            Err(_) => return false,
        }
    }
    false
}

/// Connects to the job's coordinator. It runs as the same user, or as root: anybody can take the socket's name when the coordinator is gone.
pub fn connect() -> Result<Connection, Errno> {
    connect_with(0)
}

fn connect_with(flags: u32) -> Result<Connection, Errno> {
    // SAFETY: no pointer is passed.
    let fd = Fd(unsafe { syscall!(nr::__NR_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0) }? as i32);

    // struct sockaddr_un: family, then for an abstract name a zero byte and the name.
    let mut address = [0u8; 3 + SOCKET_NAME_LEN];
    address[..2].copy_from_slice(&(AF_UNIX as u16).to_ne_bytes());
    address[3..].copy_from_slice(&CONFIG.get().secret.socket(pid_namespace()?));
    // SAFETY: the address is readable for its length.
    unsafe { syscall!(nr::__NR_connect, fd.0, address.as_ptr(), address.len()) }?;

    let mut peer = [0u32; 3];
    let mut peer_len = size_of_val(&peer) as u32;
    // SAFETY: `peer` is a `struct ucred` (pid, uid, gid), writable for `peer_len` bytes.
    unsafe { syscall!(nr::__NR_getsockopt, fd.0, SOL_SOCKET, SO_PEERCRED, peer.as_mut_ptr(), &raw mut peer_len) }?;
    // SAFETY: takes no argument and cannot fail.
    let uid = unsafe { syscall!(nr::__NR_getuid) }.unwrap_or(0) as u32;
    if peer[1] != uid && peer[1] != 0 {
        return Err(Errno(nr_errno::EINVAL));
    }
    Ok(Connection(fd))
}

/// The inode number of this process's pid namespace.
fn pid_namespace() -> Result<u64, Errno> {
    let mut link = [0u8; 64];
    let (dir, path) = call::at_proc(b"/proc/thread-self/ns/pid\0");
    // SAFETY: the path ends with a zero byte, and the buffer is writable for its length.
    let n = unsafe { syscall!(nr::__NR_readlinkat, dir, path.as_ptr(), link.as_mut_ptr(), link.len()) }?;
    // The link reads `pid:[4026531836]`.
    let text = blocked::after(link.get(..n as usize).unwrap_or(&[]), b"[").unwrap_or(&[]);
    blocked::number(text, 10).map(|(number, _)| number).ok_or(Errno(nr_errno::EINVAL))
}

impl Connection {
    /// The first message.
    pub fn hello(&self, holds: i32) -> Hello {
        let secret = CONFIG.get().secret.bytes();
        Hello { protocol: PROTOCOL, pid: call::getpid(), tid: call::gettid(), socket: self.0.0, holds, secret }
    }

    /// Sends one message.
    pub fn send<T: Copy>(&self, message: &T) -> Result<(), Errno> {
        // SAFETY: the message is readable for its size; padding, if any, goes to the coordinator of the same user.
        unsafe { syscall!(nr::__NR_sendto, self.0.0, &raw const *message, size_of::<T>(), MSG_NOSIGNAL, 0, 0) }?;
        Ok(())
    }

    /// Waits for one message of exactly this kind; `None` when the coordinator has gone.
    pub fn receive<T: Copy + Default>(&self) -> Option<(T, Option<Fd>)> {
        let mut message = T::default();
        let mut control = [0u64; 8];
        let mut iov = [&raw mut message as u64, size_of::<T>() as u64];
        // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags.
        let mut header = [0, 0, iov.as_mut_ptr() as u64, 1, control.as_mut_ptr() as u64, size_of_val(&control) as u64, 0];
        let n = loop {
            // SAFETY: the header points to buffers that live over the call, with their true sizes.
            match unsafe { syscall!(nr::__NR_recvmsg, self.0.0, header.as_mut_ptr(), MSG_CMSG_CLOEXEC) } {
                Err(Errno(nr_errno::EINTR)) => (),
                other => break other.ok()?,
            }
        };
        // struct cmsghdr: len (8), level (4), type (4), then the descriptor.
        let fd =
            (header[5] >= 20 && control[1] == u64::from(SOL_SOCKET) | u64::from(SCM_RIGHTS) << 32).then(|| Fd(control[2] as i32));
        (n as usize == size_of::<T>()).then_some((message, fd))
    }
}
