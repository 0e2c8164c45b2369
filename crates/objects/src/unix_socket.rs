//! UNIX sockets (unix(7)): streams, datagrams, seqpackets.
//!
//! What the kernel does not show, and an image therefore cannot hold:
//! - Bytes in a connection that nobody has accepted yet, nor, when its client is gone, whether there are any. Such a checkpoint
//!   is refused; once it is accepted the next one succeeds.
//! - Empty datagrams that an earlier checkpoint has looked at: the kernel does not show them again (`skb->peeked`,
//!   net/core/datagram.c).
//! - Credentials of a process that ended before a restart, after the next one: its number is then unknown outside.

use serde::{Deserialize, Serialize};

use crate::FilePath;
use crate::socket::{Address, Credentials, Message};

mod rebuild;

pub use rebuild::{check, name_that_is_used};

/// What only a UNIX socket has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixState {
    /// The file that its name made, where that is still there.
    pub file: Option<SocketFile>,
    /// Whom it is connected to.
    pub link: UnixLink,
    /// `SO_PEERCRED`; of a listening socket, its own.
    pub peer_credentials: Option<Credentials>,
    /// `RCV_SHUTDOWN` (1), `SEND_SHUTDOWN` (2).
    pub shutdown: u8,
    /// `ECONNRESET` waits to be reported: its peer went away without having read everything.
    pub reset: bool,
    /// What waits to be read.
    pub messages: Vec<Message>,
}

/// The file of a UNIX socket's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFile {
    /// Where it is: under its name, or renamed since.
    pub path: FilePath,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
}

/// Whom a UNIX socket is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnixLink {
    /// Nobody.
    #[default]
    None,
    /// It listens.
    Listening {
        /// How many may wait, as the kernel counts.
        backlog: u32,
        /// Who waits to be accepted, in their order: indices into `JobState::sockets`.
        waiting: Vec<u32>,
    },
    /// A socket of the job: index into `JobState::sockets`. The other need not be connected to this one, if they are
    /// datagram sockets.
    Peer(u32),
    /// It waits to be accepted: its listener says so.
    Waiting,
    /// A socket with this name, which is closed.
    Gone(Address),
    /// A socket with this name, which no process of the job has.
    Outside(Address),
}
