//! Addresses of sockets, and messages that wait in them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::{FileIndex, FilePath};

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

/// The same IP address with another port; none where there is no IP address.
pub(super) fn with_port(address: &Address, port: u16) -> Address {
    address.inet().map_or_else(Address::default, |address| Address::of_inet(SocketAddr::new(address.ip(), port)))
}

/// The port; 0 where there is none.
pub(super) fn port(address: &Address) -> u16 {
    address.inet().map_or(0, |address| address.port())
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
