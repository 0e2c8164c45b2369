//! Options of sockets: those that differ from a new socket's are kept.

use std::os::fd::{AsRawFd, OwnedFd};

use ckpt_sys::raw::Errno;
use ckpt_sys::socket::{get_filter, get_option, set_filter, set_option};
use serde::{Deserialize, Serialize};

use super::SocketState;

/// An option that a program has set (getsockopt(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOption {
    /// `SOL_*`, `IPPROTO_*`.
    pub level: i32,
    /// `SO_*` and its like.
    pub name: i32,
    /// Its value, as getsockopt gives it.
    pub value: Vec<u8>,
}

// Options that linux/socket.h, asm-generic/socket.h and their like have and libc may lack.
const SO_RCVPRIORITY: i32 = 82;
pub(crate) const SO_PASSPIDFD: i32 = 76;
pub(crate) const SO_PASSRIGHTS: i32 = 83;
pub(crate) const SO_NETNS_COOKIE: i32 = 71;
/// `IP_LOCAL_PORT_RANGE` (Linux 6.3).
pub const IP_LOCAL_PORT_RANGE: i32 = 51;
const SOCK_SNDBUF_LOCK: i32 = 1;
const SOCK_RCVBUF_LOCK: i32 = 2;

/// All that is kept, by level. What changes by itself (`TCP_QUICKACK`, `TCP_WINDOW_CLAMP`, `SO_INCOMING_CPU`) is not.
const KEPT: [(i32, &[i32]); 6] = [
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_DONTROUTE,
            libc::SO_BROADCAST,
            libc::SO_SNDBUF,
            libc::SO_RCVBUF,
            libc::SO_KEEPALIVE,
            libc::SO_OOBINLINE,
            libc::SO_PRIORITY,
            libc::SO_LINGER,
            libc::SO_REUSEPORT,
            libc::SO_PASSCRED,
            libc::SO_RCVLOWAT,
            20, // SO_RCVTIMEO_OLD
            21, // SO_SNDTIMEO_OLD
            libc::SO_BINDTODEVICE,
            29, // SO_TIMESTAMP_OLD
            libc::SO_PASSSEC,
            35, // SO_TIMESTAMPNS_OLD
            libc::SO_MARK,
            37, // SO_TIMESTAMPING_OLD
            libc::SO_RXQ_OVFL,
            libc::SO_WIFI_STATUS,
            libc::SO_PEEK_OFF,
            libc::SO_NOFCS,
            libc::SO_BUSY_POLL,
            47, // SO_MAX_PACING_RATE
            60, // SO_ZEROCOPY
            61, // SO_TXTIME
            63, // SO_TIMESTAMP_NEW
            64, // SO_TIMESTAMPNS_NEW
            65, // SO_TIMESTAMPING_NEW
            69, // SO_PREFER_BUSY_POLL
            74, // SO_TXREHASH
            75, // SO_RCVMARK
            SO_PASSPIDFD,
            SO_RCVPRIORITY,
            SO_PASSRIGHTS,
            libc::SO_LOCK_FILTER,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_SYNCNT,
            libc::TCP_LINGER2,
            libc::TCP_DEFER_ACCEPT,
            libc::TCP_CONGESTION,
            libc::TCP_THIN_LINEAR_TIMEOUTS,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_FASTOPEN,
            libc::TCP_NOTSENT_LOWAT,
            27, // TCP_SAVE_SYN
            libc::TCP_FASTOPEN_CONNECT,
            34, // TCP_FASTOPEN_NO_COOKIE
            36, // TCP_INQ
        ],
    ),
    (
        libc::IPPROTO_IP,
        &[
            libc::IP_TOS,
            libc::IP_TTL,
            libc::IP_RECVOPTS,
            libc::IP_RETOPTS,
            libc::IP_PKTINFO,
            libc::IP_MTU_DISCOVER,
            libc::IP_RECVERR,
            libc::IP_RECVTTL,
            libc::IP_RECVTOS,
            libc::IP_FREEBIND,
            libc::IP_PASSSEC,
            libc::IP_TRANSPARENT,
            libc::IP_ORIGDSTADDR,
            libc::IP_MINTTL,
            libc::IP_BIND_ADDRESS_NO_PORT,
            libc::IP_MULTICAST_IF,
            libc::IP_MULTICAST_TTL,
            libc::IP_MULTICAST_LOOP,
            49, // IP_MULTICAST_ALL
            50, // IP_UNICAST_IF
            IP_LOCAL_PORT_RANGE,
        ],
    ),
    (
        libc::IPPROTO_IPV6,
        &[
            libc::IPV6_UNICAST_HOPS,
            libc::IPV6_MULTICAST_IF,
            libc::IPV6_MULTICAST_HOPS,
            libc::IPV6_MULTICAST_LOOP,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_RECVERR,
            libc::IPV6_V6ONLY,
            29, // IPV6_MULTICAST_ALL
            33, // IPV6_FLOWINFO_SEND
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_RECVHOPLIMIT,
            62, // IPV6_DONTFRAG
            libc::IPV6_RECVTCLASS,
            libc::IPV6_TCLASS,
            70, // IPV6_AUTOFLOWLABEL
            73, // IPV6_MINHOPCOUNT
            74, // IPV6_RECVORIGDSTADDR
            75, // IPV6_TRANSPARENT
            78, // IPV6_FREEBIND
        ],
    ),
    (
        libc::IPPROTO_UDP,
        &[
            101, // UDP_NO_CHECK6_TX
            102, // UDP_NO_CHECK6_RX
            103, // UDP_SEGMENT
            104, // UDP_GRO
        ],
    ),
    (
        libc::SOL_NETLINK,
        &[
            libc::NETLINK_PKTINFO,
            libc::NETLINK_BROADCAST_ERROR,
            libc::NETLINK_NO_ENOBUFS,
            libc::NETLINK_LISTEN_ALL_NSID,
            libc::NETLINK_CAP_ACK,
            11, // NETLINK_EXT_ACK
            12, // NETLINK_GET_STRICT_CHK
        ],
    ),
];

/// Longest value of an option that is kept.
const MAX_VALUE: usize = 16;

fn get(fd: &OwnedFd, level: i32, name: i32) -> Option<Vec<u8>> {
    let mut value = [0; MAX_VALUE];
    let len = get_option(fd.as_raw_fd(), level, name, &mut value).ok()?;
    // A string may have any bytes behind its end.
    let mut value = value[..len.min(MAX_VALUE)].to_vec();
    if (level, name) == (libc::IPPROTO_TCP, libc::TCP_CONGESTION) {
        value.truncate(value.iter().position(|byte| *byte == 0).unwrap_or(len));
    }
    Some(value)
}

/// An option's value as a number.
pub fn number(fd: &OwnedFd, level: i32, name: i32) -> Option<i32> {
    let mut value = [0; 4];
    let len = get_option(fd.as_raw_fd(), level, name, &mut value).ok()?;
    (len == 4).then(|| i32::from_ne_bytes(value))
}

/// Sets an option to a number.
///
/// # Errors
/// The socket does not know the option, or this user may not set it.
pub fn set_number(fd: &OwnedFd, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    set_option(fd.as_raw_fd(), level, name, &value.to_ne_bytes())
}

/// The options that a socket of a kind can have, each with its value in a new one.
pub(crate) struct Defaults(Vec<SocketOption>);

impl Defaults {
    /// Those of `fresh`, a new socket.
    pub(crate) fn of(fresh: &OwnedFd) -> Self {
        let all = KEPT.iter().flat_map(|&(level, names)| names.iter().map(move |&name| (level, name)));
        Self(all.filter_map(|(level, name)| Some(SocketOption { level, name, value: get(fresh, level, name)? })).collect())
    }
}

/// The options of a socket that are other than those of a new one like it.
pub(crate) fn observe(fd: &OwnedFd, defaults: &Defaults, is_tcp: bool) -> Vec<SocketOption> {
    let mut options = Vec::new();
    // A buffer that the kernel sizes is none of the program's doing. Before Linux 5.15 it does not tell.
    let locked =
        if is_tcp { number(fd, libc::SOL_SOCKET, libc::SO_BUF_LOCK).unwrap_or(0) } else { SOCK_SNDBUF_LOCK | SOCK_RCVBUF_LOCK };
    for SocketOption { level, name, value: default } in &defaults.0 {
        let lock = match (*level, *name) {
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => SOCK_SNDBUF_LOCK,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => SOCK_RCVBUF_LOCK,
            _ => locked,
        };
        if locked & lock != lock {
            continue;
        }
        if let Some(value) = get(fd, *level, *name).filter(|value| value != default) {
            options.push(SocketOption { level: *level, name: *name, value });
        }
    }
    // To set a size locks it, and a program may have locked or unlocked a size that it has not set.
    let sized = options.iter().any(|one| one.level == libc::SOL_SOCKET && [libc::SO_SNDBUF, libc::SO_RCVBUF].contains(&one.name));
    if let Some(value) = get(fd, libc::SOL_SOCKET, libc::SO_BUF_LOCK).filter(|value| sized || value.iter().any(|byte| *byte != 0))
    {
        options.push(SocketOption { level: libc::SOL_SOCKET, name: libc::SO_BUF_LOCK, value });
    }
    options
}

/// The filter of a socket.
pub(crate) fn filter(fd: &OwnedFd) -> Vec<u64> {
    // Without room for any, it tells how many instructions there are.
    let mut program = vec![0; get_filter(fd.as_raw_fd(), &mut []).unwrap_or(0)];
    let len = if program.is_empty() { 0 } else { get_filter(fd.as_raw_fd(), &mut program).unwrap_or(0) };
    program.truncate(len);
    program
}

/// Options that matter when a socket is bound or connected; all others would be in the way of what is done to it first.
const EARLY: [(i32, i32); 11] = [
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_IPV6, 75), // IPV6_TRANSPARENT
    (libc::IPPROTO_IPV6, 78), // IPV6_FREEBIND
    (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID),
];

/// Sets those options that must be set before a socket is bound or connected. What cannot be set is found out by [`apply`].
pub fn apply_early(fd: &OwnedFd, state: &SocketState) {
    for option in state.options.iter().filter(|option| EARLY.contains(&(option.level, option.name))) {
        let _ = apply_one(fd, option);
    }
}

/// Sets all options, and the filter. Gives those that could not be set.
pub fn apply(fd: &OwnedFd, state: &SocketState) -> Vec<SocketOption> {
    let locks = |option: &&SocketOption| (option.level, option.name) == (libc::SOL_SOCKET, libc::SO_LOCK_FILTER);
    let mut failed: Vec<SocketOption> =
        state.options.iter().filter(|option| !locks(option)).filter(|option| apply_one(fd, option).is_err()).cloned().collect();
    if !state.filter.is_empty() && set_filter(fd.as_raw_fd(), &state.filter).is_err() {
        failed.push(SocketOption { level: libc::SOL_SOCKET, name: libc::SO_ATTACH_FILTER, value: Vec::new() });
    }
    failed.extend(state.options.iter().filter(locks).filter(|option| apply_one(fd, option).is_err()).cloned());
    failed
}

fn apply_one(fd: &OwnedFd, option: &SocketOption) -> Result<(), Errno> {
    let SocketOption { level, name, value } = option;
    if get(fd, *level, *name).as_ref() == Some(value) {
        return Ok(());
    }
    // Who may, goes past the system's limit. The kernel doubles what is asked for.
    let forced = match (*level, *name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => libc::SO_SNDBUFFORCE,
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => libc::SO_RCVBUFFORCE,
        _ => return set_option(fd.as_raw_fd(), *level, *name, value),
    };
    let doubled = value.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    set_number(fd, *level, forced, doubled / 2).or_else(|_| set_number(fd, *level, *name, doubled / 2))
}
