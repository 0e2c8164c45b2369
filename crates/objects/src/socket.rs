//! Sockets: what all kinds of them share (socket(7)). Each kind has a module of its own: [`crate::unix_socket`],
//! [`crate::tcp_socket`], [`crate::udp_socket`], [`crate::netlink_socket`].
//!
//! A socket is one open file description, always: `/proc` opens none. It may be one that no process has open: in flight, in a message
//! that waits in the queue of another socket.

use std::io;

use serde::{Deserialize, Serialize};

use crate::netlink_socket::NetlinkState;
use crate::tcp_socket::{TcpLink, TcpState};
use crate::udp_socket::UdpState;
use crate::unix_socket::{UnixLink, UnixState};

mod address;
pub mod all;
pub(crate) mod diag;
mod inet;
pub(crate) mod maker;
pub mod observe;
pub mod options;
mod past;
mod patience;
pub(crate) mod queue;
pub mod rebuild;

pub use address::{Address, Credentials, Message};
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
