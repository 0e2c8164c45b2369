//! TCP sockets over IPv4 and IPv6 (tcp(7)).
//!
//! Bytes in flight are read from the receiver's queue. Bytes that the sender holds back must reach it first, so the receiver's window is
//! opened (`SO_RCVLOWAT`, `SO_RCVBUF`) while the job stands still.

use serde::{Deserialize, Serialize};

use crate::socket::Address;

pub(crate) mod drain;
mod rebuild;

pub use rebuild::deliver;

/// What only a TCP socket has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpState {
    /// Whom it is connected to.
    pub link: TcpLink,
    /// `RCV_SHUTDOWN` (1), `SEND_SHUTDOWN` (2): which ways it is closed.
    pub shutdown: u8,
    /// What waits to be read.
    pub received: Received,
}

/// What waits to be read from a TCP socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Bytes, the urgent one not among them unless `urgent` says so.
    pub data: Vec<u8>,
    /// The urgent mark.
    pub urgent: Option<Urgent>,
}

/// A byte that was sent with `MSG_OOB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urgent {
    /// How many bytes of the data are before it.
    pub at: u32,
    /// The byte; with `SO_OOBINLINE` one of the data too.
    pub byte: u8,
    /// It has been read out of the line already: only its place is left.
    pub taken: bool,
}

/// Whom a TCP socket is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpLink {
    /// Nobody; it may be bound.
    #[default]
    None,
    /// It listens.
    Listening {
        /// How many may wait, as the kernel counts.
        backlog: u32,
        /// Who waits to be accepted.
        waiting: Vec<WaitingConnection>,
    },
    /// A socket of the job: index into `JobState::sockets`.
    Peer {
        /// Its peer.
        socket: u32,
        /// What getpeername(2) gives.
        name: Address,
    },
    /// It waits to be accepted: its listener says so.
    Waiting,
    /// Its peer has closed, orderly.
    Gone(Address),
    /// Its connection is over, and has no peer any more.
    Closed {
        /// An error waits to be reported.
        failed: bool,
    },
    /// A socket outside of the job.
    Outside(Address),
    /// It is being connected.
    Connecting {
        /// To this address.
        to: Address,
        /// A socket of the job's listens there.
        inside: bool,
    },
}

/// A connection that nobody has accepted yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingConnection {
    /// Who connected: index into `JobState::sockets`; nothing for one that has been closed.
    pub client: Option<u32>,
    /// The listening side's address.
    pub local: Address,
    /// The client's address.
    pub remote: Address,
    /// The listening socket is not told of it before the client has sent something (`TCP_DEFER_ACCEPT`).
    pub deferred: bool,
}
