//! UDP sockets over IPv4 and IPv6 (udp(7)).
//!
//! What the kernel does not show, and an image therefore cannot hold: multicast groups that were joined, the error queue, and what is held
//! back with `UDP_CORK`.

use serde::{Deserialize, Serialize};

use crate::socket::{Address, Message};

/// What only a UDP socket has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpState {
    /// What it is connected to: what getpeername(2) gives.
    pub peer: Option<Address>,
    /// The peer is no socket of the job's.
    pub outside: bool,
    /// `RCV_SHUTDOWN` (1), `SEND_SHUTDOWN` (2).
    pub shutdown: u8,
    /// What waits to be read.
    pub messages: Vec<Message>,
}
