//! Netlink sockets (netlink(7)): reopened with their port and groups. What the kernel had sent to them is not kept.

use serde::{Deserialize, Serialize};

/// What only a netlink socket has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetlinkState {
    /// Its port; 0 for one that is not bound.
    pub port: u32,
    /// The multicast groups that it is a member of, by number.
    pub groups: Vec<u32>,
}
