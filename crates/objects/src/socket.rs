//! Sockets: what all kinds of them share (socket(7)). Each kind has a module of its own: [`crate::unix_socket`],
//! [`crate::tcp_socket`], [`crate::udp_socket`], [`crate::netlink_socket`].
//!
//! A socket is one open file description, always: `/proc` opens none. It may be one that no process has open: in flight, in a message
//! that waits in the queue of another socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::netlink_socket::NetlinkState;
use crate::tcp_socket::{TcpLink, TcpState};
use crate::udp_socket::UdpState;
use crate::unix_socket::{UnixLink, UnixState};
use crate::{FileIndex, FilePath};

pub mod all;
pub(crate) mod diag;
mod inet;
pub(crate) mod maker;
pub mod observe;
pub mod options;
mod past;
pub(crate) mod queue;
pub mod rebuild;

pub use observe::{SocketError, Sockets};
pub use options::SocketOption;

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketState {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub form: i32,
    /// The protocol that it was made with (`SO_PROTOCOL`).
    pub protocol: i32,
    /// What getsockname(2) gives.
    pub name: Address,
    /// Options that differ from those of a new socket.
    pub options: Vec<SocketOption>,
    /// The filter of `SO_ATTACH_FILTER`, 8 bytes an instruction.
    pub filter: Vec<u64>,
    /// What only its kind has.
    pub kind: SocketKind,
}

/// What only one kind of socket has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// `AF_UNIX`.
    Unix(UnixState),
    /// `SOCK_STREAM` over IPv4 or IPv6.
    Tcp(TcpState),
    /// `SOCK_DGRAM` over IPv4 or IPv6.
    Udp(UdpState),
    /// `AF_NETLINK`.
    Netlink(NetlinkState),
}

/// A message that waits to be read; of a stream, a part that came with one set of credentials and descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Who sent it, where that was noted (`SO_PASSCRED`).
    pub credentials: Option<Credentials>,
    /// Descriptors that came with it: indices into `JobState::open_files`.
    pub files: Vec<FileIndex>,
    /// The address of its sender; nothing for a stream.
    pub from: Address,
}

/// Credentials of a process, as `SO_PEERCRED` and `SCM_CREDENTIALS` have them. `pid` is the job's own number; 0 for a process outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Credentials {
    /// From a `struct ucred`; nothing for one that says nobody.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let credentials = Self { pid: word(0)?.cast_signed(), uid: word(4)?, gid: word(8)? };
        (credentials.pid != 0 || credentials.uid != u32::MAX).then_some(credentials)
    }

    /// As a `struct ucred`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.uid.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.gid.to_ne_bytes());
        bytes
    }
}

/// An address as the kernel has it: the bytes of a `struct sockaddr_*`; none at all where there is no address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address(pub Vec<u8>);

/// Longest address (`struct sockaddr_storage`).
const MAX_ADDRESS: usize = 128;
/// Bytes before the path in a `struct sockaddr_un`.
const UNIX_PATH_AT: usize = 2;

impl Address {
    /// What getsockname(2) gives, or getpeername(2) for `peer`; nothing where it has no such address.
    pub fn of(fd: &OwnedFd, peer: bool) -> Option<Self> {
        let mut bytes = [0; MAX_ADDRESS];
        let len = ckpt_sys::socket::name(fd.as_raw_fd(), peer, &mut bytes).ok()?;
        Some(Self(bytes[..len].to_vec()))
    }

    /// The name in a UNIX address, with all its zero bytes; nothing for a socket without a name.
    #[must_use]
    pub fn unix(&self) -> Option<&[u8]> {
        self.0.get(UNIX_PATH_AT..).filter(|name| !name.is_empty())
    }

    /// The path in a UNIX address; nothing for abstract names.
    #[must_use]
    pub fn unix_path(&self) -> Option<FilePath> {
        let name = self.unix().filter(|name| name[0] != 0)?;
        Some(FilePath(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()))
    }

    /// The UNIX address of a path; nothing where that is too long.
    #[must_use]
    pub fn of_path(path: &std::path::Path) -> Option<Self> {
        let name = path.as_os_str().as_bytes();
        let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        bytes.extend(name);
        bytes.push(0);
        (name.len() < 108).then_some(Self(bytes))
    }

    /// An IP address and port.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        let bytes = &self.0;
        let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        match family {
            libc::AF_INET => {
                let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
            }
            libc::AF_INET6 => {
                let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, word(4)?, word(24)?).into())
            }
            _ => None,
        }
    }

    /// The bytes of an IP address and port.
    #[must_use]
    pub fn of_inet(address: SocketAddr) -> Self {
        let mut bytes = Vec::new();
        match address {
            SocketAddr::V4(v4) => {
                bytes.extend((libc::AF_INET as u16).to_ne_bytes());
                bytes.extend(v4.port().to_be_bytes());
                bytes.extend(v4.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(v6) => {
                bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
                bytes.extend(v6.port().to_be_bytes());
                bytes.extend(v6.flowinfo().to_ne_bytes());
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
        Self(bytes)
    }

    /// An IP address that can be compared with those of the other family: one that is IPv4 within IPv6 is the IPv4 one.
    #[must_use]
    pub fn endpoint(&self) -> Option<(IpAddr, u16)> {
        self.inet().map(|address| (address.ip().to_canonical(), address.port()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.inet() {
            return address.fmt(f);
        }
        match (self.unix_path(), self.unix()) {
            (Some(path), _) => path.fmt(f),
            (None, Some(name)) => write!(f, "@{}", String::from_utf8_lossy(&name[1..]).replace('\0', "@")),
            (None, None) => f.write_str("no name"),
        }
    }
}

impl SocketState {
    /// What it is, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            SocketKind::Unix(_) => format!("UNIX socket {}", self.name),
            SocketKind::Tcp(_) => format!("TCP socket {}", self.name),
            SocketKind::Udp(_) => format!("UDP socket {}", self.name),
            SocketKind::Netlink(_) => "netlink socket".to_owned(),
        }
    }

    /// What it is, whom it is connected to, and how much waits in it.
    #[must_use]
    pub fn summary(&self) -> String {
        let bytes = |messages: &[Message]| {
            let bytes: usize = messages.iter().map(|message| message.data.len()).sum();
            format!("{} messages, {bytes} bytes in it", messages.len())
        };
        let what = self.describe();
        match &self.kind {
            SocketKind::Unix(unix) => match &unix.link {
                UnixLink::Listening { waiting, .. } => format!("{what}, listening, {} waiting", waiting.len()),
                UnixLink::Peer(peer) => format!("{what}, connected to socket [{peer}], {}", bytes(&unix.messages)),
                UnixLink::Outside(name) => format!("{what}, connected outside ({name}), {}", bytes(&unix.messages)),
                _ => format!("{what}, {}", bytes(&unix.messages)),
            },
            SocketKind::Tcp(tcp) => {
                let bytes = tcp.received.data.len();
                match &tcp.link {
                    TcpLink::Listening { waiting, .. } => format!("{what}, listening, {} waiting", waiting.len()),
                    TcpLink::Peer { name, .. } => format!("{what}, connected to {name}, {bytes} bytes in it"),
                    TcpLink::Outside(name) => format!("{what}, connected outside ({name}), {bytes} bytes in it"),
                    _ => format!("{what}, {bytes} bytes in it"),
                }
            }
            SocketKind::Udp(udp) => format!("{what}, {}", bytes(&udp.messages)),
            SocketKind::Netlink(netlink) => format!("{what}, protocol {}, port {}", self.protocol, netlink.port),
        }
    }

    /// An option's value as a number, where it is not the default.
    #[must_use]
    pub fn option(&self, level: i32, name: i32) -> Option<i32> {
        let option = self.options.iter().find(|option| (option.level, option.name) == (level, name))?;
        Some(i32::from_ne_bytes(option.value.get(..4)?.try_into().ok()?))
    }
}

/// An error number of the `sys` crate as an error.
pub(crate) fn io_error(ckpt_sys::raw::Errno(errno): ckpt_sys::raw::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[::ffff:127.0.0.1]:7", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let bytes = Address::of_inet(address);
            assert_eq!(bytes.inet(), Some(address));
            assert_eq!(bytes.to_string(), text);
        }
        let mapped = Address::of_inet("[::ffff:127.0.0.1]:7".parse().unwrap());
        assert_eq!(mapped.endpoint(), Address::of_inet("127.0.0.1:7".parse().unwrap()).endpoint());
        let path = Address::of_path(std::path::Path::new("/run/x")).unwrap();
        assert_eq!((path.unix_path(), path.to_string()), (Some(FilePath(b"/run/x".to_vec())), "/run/x".to_owned()));
        let hidden = Address(b"\x01\0\0name\0x".to_vec());
        assert_eq!((hidden.unix_path(), hidden.to_string()), (None, "@name@x".to_owned()));
        assert_eq!(Address(b"\x01\0".to_vec()).unix(), None);
        assert!(Address::of_path(std::path::Path::new(&"x".repeat(108))).is_none());
    }
}
