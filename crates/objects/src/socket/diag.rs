//! What only the kernel's tables of sockets tell (sock_diag(7)): who is connected to whom, and what waits to be accepted.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
#[cfg(test)]
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

use super::{Address, io_error};

/// `SOCK_DIAG_BY_FAMILY` (include/uapi/linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;

/// A UNIX socket (include/uapi/linux/unix_diag.h).
#[derive(Clone, Debug, Default)]
pub(crate) struct UnixEntry {
    /// Its inode; 0 for one that waits to be accepted.
    pub inode: u64,
    /// Others reach it by its name: it listens, or takes datagrams.
    pub reachable: bool,
    /// The name it is bound to.
    pub name: Vec<u8>,
    /// The device and inode of its file.
    pub file: Option<(u32, u32)>,
    /// The inode of its peer, 0 for one that is gone; nothing for a socket without.
    pub peer: Option<u64>,
    /// The inodes of sockets that wait to be accepted, 0 for one that is gone.
    pub waiting: Vec<u64>,
    /// Of a listening socket, how many wait and how many may; else bytes to be read and bytes sent.
    pub queue: (u32, u32),
    /// `RCV_SHUTDOWN` (1), `SEND_SHUTDOWN` (2).
    pub shutdown: u8,
}

/// A TCP or UDP socket (include/uapi/linux/inet_diag.h).
#[derive(Clone, Debug)]
pub(crate) struct InetEntry {
    /// Its inode; 0 for one that nobody has open.
    pub inode: u64,
    /// `TCP_ESTABLISHED` (1) and its like.
    pub state: u8,
    /// Its own address.
    pub local: Address,
    /// That of its peer.
    pub remote: Address,
    /// Bytes to be read.
    pub received: u32,
    /// `RCV_SHUTDOWN` (1), `SEND_SHUTDOWN` (2).
    pub shutdown: u8,
}

/// All UNIX sockets of this network namespace.
pub(crate) fn unix() -> io::Result<Vec<UnixEntry>> {
    // UDIAG_SHOW_NAME | VFS | PEER | ICONS | RQLEN.
    const SHOW: u32 = 1 | 2 | 4 | 8 | 16;
    let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
    for word in [u32::MAX, 0, SHOW, u32::MAX, u32::MAX] {
        request.extend(word.to_ne_bytes());
    }
    let mut entries = Vec::new();
    dump(&request, |message| {
        let (form, state) = (i32::from(*message.get(1)?), *message.get(2)?);
        // TCP_LISTEN.
        let reachable = form == libc::SOCK_DGRAM || state == 10;
        let mut entry = UnixEntry { inode: u64::from(word(message, 4)?), reachable, ..UnixEntry::default() };
        for (kind, value) in attributes(message.get(16..)?) {
            match kind {
                0 => entry.name = value.to_vec(),
                1 => entry.file = Some((word(value, 4)?, word(value, 0)?)),
                2 => entry.peer = Some(u64::from(word(value, 0)?)),
                3 => entry.waiting = value.chunks_exact(4).filter_map(|inode| word(inode, 0)).map(u64::from).collect(),
                4 => entry.queue = (word(value, 0)?, word(value, 4)?),
                6 => entry.shutdown = *value.first()?,
                _ => (),
            }
        }
        entries.push(entry);
        Some(())
    })?;
    Ok(entries)
}

/// All TCP sockets of this network namespace, over IPv4 and IPv6.
pub(crate) fn tcp() -> io::Result<Vec<InetEntry>> {
    inet(libc::IPPROTO_TCP)
}

/// All UDP sockets of this network namespace that have a port. None if the kernel lacks `udp_diag`.
pub(crate) fn udp() -> io::Result<Vec<InetEntry>> {
    match inet(libc::IPPROTO_UDP) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        result => result,
    }
}

fn inet(protocol: i32) -> io::Result<Vec<InetEntry>> {
    // INET_DIAG_SHUTDOWN.
    const SHUTDOWN: u16 = 8;
    let mut entries = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = vec![family as u8, protocol as u8, 1 << (SHUTDOWN - 1), 0];
        request.extend(u32::MAX.to_ne_bytes());
        request.extend([0; 48]);
        dump(&request, |message| {
            let mut entry = InetEntry {
                inode: u64::from(word(message, 68)?),
                state: *message.get(1)?,
                local: inet_address(family, message.get(4..6)?, message.get(8..24)?, word(message, 40)?),
                remote: inet_address(family, message.get(6..8)?, message.get(24..40)?, word(message, 40)?),
                received: word(message, 56)?,
                shutdown: 0,
            };
            for (kind, value) in attributes(message.get(72..)?) {
                if kind == SHUTDOWN {
                    entry.shutdown = *value.first()?;
                }
            }
            entries.push(entry);
            Some(())
        })?;
    }
    Ok(entries)
}

/// By inode.
pub(crate) fn by_inode<T: Clone>(entries: &[T], inode: impl Fn(&T) -> u64) -> HashMap<u64, T> {
    entries.iter().filter(|entry| inode(entry) != 0).map(|entry| (inode(entry), entry.clone())).collect()
}

fn inet_address(family: i32, port: &[u8], ip: &[u8], scope: u32) -> Address {
    let mut bytes = (family as u16).to_ne_bytes().to_vec();
    bytes.extend(port);
    if family == libc::AF_INET {
        bytes.extend(&ip[..4]);
        bytes.extend([0; 8]);
    } else {
        bytes.extend([0; 4]);
        bytes.extend(ip);
        bytes.extend(scope.to_ne_bytes());
    }
    Address(bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Netlink attributes: kind and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(half(bytes, 0)?);
        let (kind, value) = (half(bytes, 2)?, bytes.get(4..len)?);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Asks for all sockets that a request means, and gives each answer to `each`, which returns nothing for one it cannot read.
fn dump(request: &[u8], mut each: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut message = Vec::new();
    message.extend(((HEADER + request.len()) as u32).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(request);
    ckpt_sys::socket::send(socket.as_raw_fd(), &message, &[], &[], 0).map_err(io_error)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = ckpt_sys::socket::receive(socket.as_raw_fd(), &mut buffer, &mut [], &mut [], 0).map_err(io_error)?;
        let mut rest = &buffer[..got.len.min(buffer.len())];
        while let (Some(len), Some(kind)) = (word(rest, 0), half(rest, 4)) {
            let len = len as usize;
            let body = rest.get(HEADER..len).ok_or_else(not_understood)?;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let errno = word(body, 0).ok_or_else(not_understood)?.cast_signed();
                    return Err(io::Error::from_raw_os_error(-errno));
                }
                _ => each(body).ok_or_else(not_understood)?,
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn not_understood() -> io::Error {
    io::Error::other("an answer that cannot be understood")
}

/// The inode number of a socket of this process.
#[cfg(test)]
pub(crate) fn inode(fd: &OwnedFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_ino
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn peers_and_those_that_wait_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
        let waiting: OwnedFd = UnixStream::connect(&path).unwrap().into();
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b): (OwnedFd, OwnedFd) = (a.into(), b.into());
        let known = by_inode(&unix().unwrap(), |entry| entry.inode);
        assert_eq!(known[&inode(&a)].peer, Some(inode(&b)));
        assert_eq!(known[&inode(&listener)].waiting, [inode(&waiting)]);
        assert!(known[&inode(&listener)].file.is_some());
        drop(b);
        let known = by_inode(&unix().unwrap(), |entry| entry.inode);
        assert_eq!((known[&inode(&a)].peer, known[&inode(&a)].shutdown), (Some(0), 3));
    }

    #[test]
    fn connections_are_told_over_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let own = client.local_addr().unwrap();
            let all = tcp().unwrap();
            let there = all.iter().find(|entry| entry.remote.inet() == Some(own)).unwrap();
            assert_eq!((there.inode, there.state, there.local.inet()), (0, 1, listener.local_addr().ok()));
            let here = all.iter().find(|entry| entry.local.inet() == Some(own)).unwrap();
            assert_eq!(here.inode, inode(&client.into()));
        }
    }
}
