//! Rebuilds TCP, UDP and netlink sockets.
//!
//! A TCP connection within the job is made by connecting, on the addresses that both ends had. What a killed run has left there, a
//! connection in `TIME_WAIT`, must not be in the way. It is ended ([`past`]); where that cannot be:
//!
//! - The connecting end gets its port as the kernel gives ports, from a range of one (`IP_LOCAL_PORT_RANGE`, Linux 6.3): the kernel lets a
//!   connection between the same two addresses follow another after a second (`net.ipv4.tcp_tw_reuse`). Where that is not possible, it is
//!   bound.
//! - What must be bound, such as the port of a server that does not set `SO_REUSEADDR`, waits until it is gone: a minute at most.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ckpt_sys::socket::choose_of_group;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, SocketFlags};

use crate::netlink_socket::NetlinkState;
use crate::socket::observe::{self, InTheWay, in_the_way};
use crate::socket::{Address, Message, SocketKind, SocketState, options, rebuild};
use crate::tcp_socket::{self, TcpLink, TcpState, WaitingConnection};
use crate::udp_socket::UdpState;

use super::address::{port, with_port};
use super::all::{Rebuilt, is_nonblocking};
use super::past;
use super::patience::{Patience, RETRY};
use super::rebuild::choose_port;
use crate::rebuild::RebuildError;

/// How long the sockets of a run that has just been killed may take to go.
const GOING: Duration = Duration::from_secs(3);
/// How long a connection stays in `TIME_WAIT` (`TCP_TIMEWAIT_LEN`), and some more.
const PASSING: Duration = Duration::from_secs(65);

fn tcp(socket: &SocketState) -> Option<&TcpState> {
    match &socket.kind {
        SocketKind::Tcp(tcp) => Some(tcp),
        _ => None,
    }
}

fn udp(socket: &SocketState) -> Option<&UdpState> {
    match &socket.kind {
        SocketKind::Udp(udp) => Some(udp),
        _ => None,
    }
}

/// A connection, whichever of its ends one looks from.
fn connection(one: &Address, other: &Address) -> [Option<(IpAddr, u16)>; 2] {
    let mut ends = [one.endpoint(), other.endpoint()];
    ends.sort_unstable();
    ends
}

/// Whether what is sent to `address` comes to a socket with this name.
fn serves(name: &Address, address: &Address) -> bool {
    match (name.endpoint(), address.endpoint()) {
        (Some((ip, port)), Some((to, to_port))) => port == to_port && (ip == to || ip.is_unspecified()),
        _ => false,
    }
}

/// The same port of another address, in the same family.
fn with_ip(address: &Address, v4: Ipv4Addr, v6: Ipv6Addr) -> Address {
    address.inet().map_or_else(Address::default, |address| {
        let ip = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(v4),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::V6(_) => IpAddr::V6(v6),
        };
        Address::of_inet(SocketAddr::new(ip, address.port()))
    })
}

fn loopback(address: &Address) -> Address {
    with_ip(address, Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
}

fn unspecified(address: &Address) -> Address {
    with_ip(address, Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
}

fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

/// Binds a TCP socket to an address that connections of the past may still have.
fn bind_tcp(fd: &OwnedFd, address: &Address, patience: &Patience<'_>) -> io::Result<()> {
    options::set_number(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).map_err(errno)?;
    let begun = Instant::now();
    loop {
        let error = match rebuild::bind(fd, address) {
            Err(error) if is(&error, libc::EADDRINUSE) => error,
            result => return result,
        };
        let bound = match in_the_way(address, None)? {
            InTheWay::Open => GOING,
            _ => PASSING,
        };
        past::forget(|local, _| serves(address, local))?;
        if begun.elapsed() > bound {
            return Err(error);
        }
        patience.wait(begun, address);
    }
}

fn errno(ckpt_sys::raw::Errno(errno): ckpt_sys::raw::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Connects `fd` from `local` to `remote`, the way the kernel chooses ports itself. It blocks meanwhile.
fn connect_from(fd: &OwnedFd, local: &Address, remote: &Address, chosen: bool) -> io::Result<()> {
    options::set_number(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).map_err(errno)?;
    let port = port(local);
    if port != 0 && chosen {
        choose_port(fd, local)?;
    } else if port != 0 {
        rebuild::bind(fd, local)?;
    }
    rustix::io::ioctl_fionbio(fd, false)?;
    rebuild::connect(fd, remote)?;
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// Whether the kernel gives this port by itself.
fn is_ephemeral(port: u16) -> bool {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let bounds: Vec<u16> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    matches!(bounds[..], [low, high] if (low..=high).contains(&port))
}

/// A TCP connection: the connecting and the accepted end. `remote` is `server`'s address as the client sees it.
fn connect_tcp(
    client: &SocketState,
    server: &SocketState,
    remote: &Address,
    patience: &Patience<'_>,
) -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = rebuild::make(server)?;
    if server.name.inet().is_some_and(|name| matches!(name.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())) {
        options::set_number(&listener, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0).map_err(errno)?;
    }
    bind_tcp(&listener, &server.name, patience)?;
    rustix::net::listen(&listener, 4)?;
    let remote = if port(remote) == 0 {
        with_port(remote, port(&Address::of(&listener, false).unwrap_or_default()))
    } else {
        remote.clone()
    };
    let begun = Instant::now();
    let mut chosen = is_ephemeral(port(&client.name));
    let fd = loop {
        let fd = rebuild::make(client)?;
        match connect_from(&fd, &client.name, &remote, chosen) {
            Ok(()) => break fd,
            Err(error) if is(&error, libc::EADDRNOTAVAIL) || is(&error, libc::EADDRINUSE) || is(&error, libc::ENOPROTOOPT) => {
                let bound = match in_the_way(&client.name, Some(&remote))? {
                    InTheWay::None if begun.elapsed() > RETRY && is(&error, libc::EADDRNOTAVAIL) => Duration::ZERO,
                    InTheWay::Past => PASSING,
                    _ => GOING,
                };
                if begun.elapsed() > bound {
                    return Err(error);
                }
                // In turn: each has its own obstacles.
                chosen = !chosen && is_ephemeral(port(&client.name));
                patience.wait(begun, &client.name);
            }
            Err(error) => return Err(error),
        }
    };
    let own = Address::of(&fd, false).unwrap_or_default();
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        if poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let accepted = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Somebody else may have connected.
        if Address::of(&accepted, true).and_then(|peer| peer.endpoint()) == own.endpoint() {
            return Ok((fd, accepted));
        }
    }
}

impl Rebuilt<'_> {
    fn tcp_sockets(&self) -> impl Iterator<Item = (u32, &SocketState, &TcpState)> {
        (0u32..).zip(self.context.objects().sockets).filter_map(|(index, socket)| Some((index, socket, tcp(socket)?)))
    }

    fn udp_sockets(&self) -> impl Iterator<Item = (u32, &SocketState, &UdpState)> {
        (0u32..).zip(self.context.objects().sockets).filter_map(|(index, socket)| Some((index, socket, udp(socket)?)))
    }

    /// Ends what a killed run has left of the connections that are to be made, and what keeps ports that must be bound.
    fn forget_the_past(&self) -> Result<(), RebuildError> {
        let mut ends = HashSet::new();
        let mut kept = Vec::new();
        for (_, socket, tcp) in self.tcp_sockets() {
            match &tcp.link {
                TcpLink::Peer { name, .. } | TcpLink::Gone(name) => ends.extend([connection(&socket.name, name)]),
                TcpLink::Listening { waiting, .. } => {
                    ends.extend(waiting.iter().map(|end| connection(&end.local, &end.remote)));
                }
                _ => (),
            }
            if port(&socket.name) != 0 && socket.option(libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap_or(0) == 0 {
                kept.push(&socket.name);
            }
        }
        if ends.is_empty() && kept.is_empty() {
            return Ok(());
        }
        let is_named = |local: &Address, remote: &Address| {
            ends.contains(&connection(local, remote)) || kept.iter().any(|name| serves(name, local))
        };
        past::forget(is_named).map_err(RebuildError::call("end the connections of the last run"))
    }

    /// Makes all TCP, UDP and netlink sockets, and their connections.
    pub(super) fn connect_inet(&mut self) -> Result<(), RebuildError> {
        self.forget_the_past()?;
        let objects = self.context.objects();
        for (index, socket) in (0u32..).zip(objects.sockets) {
            if self.is_made(index) {
                continue;
            }
            match &socket.kind {
                SocketKind::Tcp(tcp) => self.connect_tcp(index, socket, tcp)?,
                SocketKind::Udp(_) => self.make_udp(index, socket)?,
                SocketKind::Netlink(netlink) => self.make_netlink(index, socket, netlink)?,
                SocketKind::Unix(_) => (),
            }
        }
        for (index, socket) in (0u32..).zip(objects.sockets) {
            let unconnected = |tcp: &&TcpState| matches!(tcp.link, TcpLink::None | TcpLink::Listening { .. });
            if let Some(tcp) = tcp(socket).filter(unconnected)
                && !self.is_made(index)
            {
                self.make_unconnected(index, socket, tcp)?;
            }
        }
        for (index, listener) in (0u32..).zip(objects.sockets) {
            if let Some(TcpState { link: TcpLink::Listening { waiting, .. }, .. }) = tcp(listener) {
                self.fill_backlog(index, listener, waiting)?;
            }
        }
        // Whose listening socket is not there, though the image should have it.
        match self.tcp_sockets().find(|(index, ..)| !self.is_made(*index)) {
            Some(_) => Err(RebuildError::Incomplete("the listening socket of a connection")),
            None => Ok(()),
        }
    }

    /// Makes a TCP socket that is connected, or was, or is about to be.
    fn connect_tcp(&mut self, index: u32, socket: &SocketState, tcp: &TcpState) -> Result<(), RebuildError> {
        match &tcp.link {
            TcpLink::Peer { socket: peer, name } => self.connect_peers(index, *peer, name),
            TcpLink::Gone(name) | TcpLink::Outside(name) => self.connect_ending(index, socket, name),
            TcpLink::Closed { .. } => self.connect_ending(index, socket, &Address::default()),
            TcpLink::Connecting { to, .. } if is_nonblocking(self.context.objects(), index) => {
                self.connect_ending(index, socket, to)
            }
            // The call that waits for it connects it anew.
            TcpLink::Connecting { .. } => {
                let fd = rebuild::make(socket).map_err(self.failed(index, "make"))?;
                self.keep(index, fd)
            }
            TcpLink::None | TcpLink::Listening { .. } | TcpLink::Waiting => Ok(()),
        }
    }

    fn make_udp(&mut self, index: u32, socket: &SocketState) -> Result<(), RebuildError> {
        let fd = rebuild::make(socket).map_err(self.failed(index, "make"))?;
        self.keep(index, fd)?;
        if port(&socket.name) == 0 { Ok(()) } else { self.bind_udp(index, socket) }
    }

    fn make_netlink(&mut self, index: u32, socket: &SocketState, netlink: &NetlinkState) -> Result<(), RebuildError> {
        let fd = rebuild::make(socket).map_err(self.failed(index, "make"))?;
        if netlink.port != 0 {
            bind_netlink(&fd, netlink.port).map_err(self.failed(index, "bind"))?;
        }
        for &group in &netlink.groups {
            let joined = options::set_number(&fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group.cast_signed());
            joined.map_err(errno).map_err(self.failed(index, "join a group with"))?;
        }
        self.keep(index, fd)
    }

    /// Makes a TCP socket that is connected to nothing; it may listen.
    fn make_unconnected(&mut self, index: u32, socket: &SocketState, tcp: &TcpState) -> Result<(), RebuildError> {
        let fd = match rebuild::make(socket) {
            Err(error) if socket.protocol == libc::IPPROTO_MPTCP && !is(&error, libc::EMFILE) => {
                self.note(format!("{} listens by TCP, without MPTCP, which this machine refuses: {error}", socket.name));
                rebuild::make(&SocketState { protocol: libc::IPPROTO_TCP, ..socket.clone() })
            }
            made => made,
        };
        let fd = fd.map_err(self.failed(index, "make"))?;
        let bound = port(&socket.name) != 0;
        if bound && let Err(error) = bind_tcp(&fd, &socket.name, &self.patience) {
            if !is(&error, libc::EADDRNOTAVAIL) {
                return Err(self.failed(index, "bind")(error));
            }
            bind_tcp(&fd, &unspecified(&socket.name), &self.patience).map_err(self.failed(index, "bind"))?;
            self.note(format!("{} is not an address of this machine: its port is open on all addresses", socket.name));
        }
        if let TcpLink::Listening { backlog, .. } = tcp.link {
            let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
            rustix::net::listen(&fd, backlog).map_err(self.failed(index, "listen with"))?;
        }
        self.keep(index, fd)
    }

    /// Makes the connections that wait to be accepted from a listening socket.
    fn fill_backlog(&mut self, index: u32, listener: &SocketState, waiting: &[WaitingConnection]) -> Result<(), RebuildError> {
        let place = self.place_in_group(index, listener).filter(|_| !waiting.is_empty());
        if let Some(place) = place {
            let chosen = choose_of_group(self.fd(index)?.as_raw_fd(), Some(place));
            chosen.map_err(errno).map_err(self.failed(index, "choose for its connections"))?;
        }
        for connection in waiting {
            // These come last.
            if connection.deferred {
                let (level, name) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
                let seconds = listener.option(level, name).unwrap_or(0);
                let set = options::set_number(self.fd(index)?, level, name, seconds);
                set.map_err(errno).map_err(self.failed(index, "set an option of"))?;
            }
            // Whatever the listening socket is: an MPTCP connection could not be kept.
            let protocol = libc::IPPROTO_TCP;
            let gone = SocketState { name: connection.remote.clone(), options: Vec::new(), protocol, ..listener.clone() };
            let client = match connection.client {
                Some(client) => self.state(client)?,
                None => &gone,
            };
            let fd = connect_again(client, &connection.local, &self.patience)
                .map_err(RebuildError::call(format!("connect to the TCP socket {} as before", connection.local)))?;
            match connection.client {
                Some(client) => self.keep(client, fd)?,
                None => drop(fd),
            }
        }
        match place {
            Some(_) => {
                let freed = choose_of_group(self.fd(index)?.as_raw_fd(), None);
                freed.map_err(errno).map_err(self.failed(index, "let the kernel choose for"))
            }
            None => Ok(()),
        }
    }

    /// As which of several sockets that listen at the same address (`SO_REUSEPORT`) this one began to; nothing for one that is alone.
    fn place_in_group(&self, index: u32, listener: &SocketState) -> Option<u32> {
        let shares = |socket: &SocketState| socket.option(libc::SOL_SOCKET, libc::SO_REUSEPORT).is_some_and(|value| value != 0);
        let is_of_group = |socket: &SocketState, tcp: &TcpState| {
            matches!(tcp.link, TcpLink::Listening { .. }) && shares(socket) && socket.name == listener.name
        };
        let group: Vec<u32> = self.tcp_sockets().filter(|(_, socket, tcp)| is_of_group(socket, tcp)).map(|(at, ..)| at).collect();
        let place = group.iter().position(|at| *at == index).filter(|_| group.len() > 1)?;
        u32::try_from(place).ok()
    }

    /// Whether a TCP socket was accepted by a listening socket of the job, as far as addresses tell.
    fn is_accepted(&self, socket: &SocketState) -> bool {
        let listens = |tcp: &TcpState| matches!(tcp.link, TcpLink::Listening { .. });
        self.tcp_sockets().any(|(_, other, tcp)| listens(tcp) && serves(&other.name, &socket.name))
    }

    /// Connects two sockets of the job.
    fn connect_peers(&mut self, one: u32, other: u32, name: &Address) -> Result<(), RebuildError> {
        let (first, second) = (self.state(one)?, self.state(other)?);
        let Some(TcpState { link: TcpLink::Peer { name: back, .. }, .. }) = tcp(second) else {
            return Err(RebuildError::Incomplete("the peer of a socket"));
        };
        if one == other {
            let connect = || -> io::Result<OwnedFd> {
                let fd = rebuild::make(first)?;
                bind_tcp(&fd, &first.name, &self.patience)?;
                rustix::io::ioctl_fionbio(&fd, false)?;
                rebuild::connect(&fd, name)?;
                rustix::io::ioctl_fionbio(&fd, true)?;
                Ok(fd)
            };
            let fd = connect().map_err(self.failed(one, "connect"))?;
            return self.keep(one, fd);
        }
        let accepted = self.is_accepted(first)
            || !self.is_accepted(second) && is_ephemeral(port(&second.name)) && !is_ephemeral(port(&first.name));
        let (client, server, remote) = if accepted { (second, first, back) } else { (first, second, name) };
        let made = match connect_tcp(client, server, remote, &self.patience) {
            Err(error) if is(&error, libc::EADDRNOTAVAIL) && !is_loopback(remote) => {
                self.note(format!(
                    "{} is not an address of this machine: connections within the job go over loopback",
                    server.name
                ));
                let on_loopback = |state: &SocketState| SocketState { name: loopback(&state.name), ..state.clone() };
                connect_tcp(&on_loopback(client), &on_loopback(server), &loopback(remote), &self.patience)
            }
            made => made,
        };
        let (fd, peer) = made.map_err(self.failed(one, "connect"))?;
        let (first, second) = if accepted { (peer, fd) } else { (fd, peer) };
        self.keep(one, first)?;
        self.keep(other, second)
    }

    /// Makes a socket whose peer is gone, or soon will be.
    fn connect_ending(&mut self, index: u32, socket: &SocketState, peer: &Address) -> Result<(), RebuildError> {
        let any = |like: &Address| with_port(&loopback(like), 0);
        let peer_state = |name: Address| SocketState { name, options: Vec::new(), ..socket.clone() };
        let local = if socket.name.inet().is_some() {
            socket.name.clone()
        } else {
            return Err(RebuildError::Incomplete("a socket's name"));
        };
        let accepted = self.is_accepted(socket);
        let exact = |peer: &Address| {
            if accepted {
                connect_tcp(&peer_state(peer.clone()), socket, &local, &self.patience).map(|(fd, own)| (own, fd))
            } else {
                connect_tcp(socket, &peer_state(peer.clone()), peer, &self.patience)
            }
        };
        let near = is_loopback(peer) || peer.endpoint().map(|(ip, _)| ip) == local.endpoint().map(|(ip, _)| ip);
        let known = if near && port(peer) != 0 { exact(peer) } else { Err(io::ErrorKind::AddrNotAvailable.into()) };
        // From another address, if it must be, and at last from another port.
        let made = known.or_else(|_| exact(&any(&local))).or_else(|_| {
            let unbound = SocketState { name: with_port(&any(&local), 0), ..socket.clone() };
            connect_tcp(&unbound, &peer_state(any(&local)), &any(&local), &self.patience)
        });
        let (own, temporary) = made.map_err(self.failed(index, "connect"))?;
        self.keep(index, own)?;
        self.ending.push((index, temporary));
        Ok(())
    }

    fn bind_udp(&self, index: u32, socket: &SocketState) -> Result<(), RebuildError> {
        let fd = self.fd(index)?;
        let begun = Instant::now();
        loop {
            match rebuild::bind(fd, &socket.name) {
                Ok(()) => return Ok(()),
                Err(error) if is(&error, libc::EADDRINUSE) && begun.elapsed() < GOING => std::thread::sleep(RETRY),
                Err(error) if is(&error, libc::EADDRNOTAVAIL) => {
                    self.note(format!("{} is not an address of this machine: its port is open on all addresses", socket.name));
                    return rebuild::bind(fd, &unspecified(&socket.name)).map_err(self.failed(index, "bind"));
                }
                Err(error) => return Err(self.failed(index, "bind")(error)),
            }
        }
    }

    /// Sends what waited in queues of TCP and UDP sockets.
    pub(super) fn fill_inet(&self) -> Result<(), RebuildError> {
        for (index, socket, tcp) in self.tcp_sockets() {
            let from = match &tcp.link {
                TcpLink::Peer { socket, .. } => Some(self.fd(*socket)?),
                _ => self.ending.iter().find(|(of, _)| *of == index).map(|(_, fd)| fd),
            };
            let inline = socket.option(libc::SOL_SOCKET, libc::SO_OOBINLINE).unwrap_or(0) != 0;
            if let Some(from) = from {
                let sent = tcp_socket::deliver(from, self.fd(index)?, &tcp.received, inline);
                sent.map_err(self.failed(index, "put back what was in flight to"))?;
            }
        }
        let mut lost = 0;
        for (index, socket, udp) in self.udp_sockets() {
            let name = &socket.name;
            let to = if name.inet().is_some_and(|name| name.ip().is_unspecified()) { loopback(name) } else { name.clone() };
            for message in &udp.messages {
                let sender = self.udp_sockets().find(|(_, socket, _)| serves(&socket.name, &message.from));
                let sent = match sender {
                    Some((sender, ..)) => {
                        rebuild::send(self.fd(sender)?, message, &[], Some(&reaching(&to, &message.from)), false)
                    }
                    None => send_from(socket, message, &reaching(&to, &message.from)),
                };
                if let Err(error) = sent {
                    if is(&error, libc::EAGAIN) || is(&error, libc::ENOBUFS) {
                        return Err(self.failed(index, "put back what was in flight to")(error));
                    }
                    lost += 1;
                }
            }
        }
        if lost > 0 {
            self.note(format!("{lost} datagrams from outside of the job, which it had not read yet, are lost"));
        }
        Ok(())
    }

    /// Connects UDP sockets, closes the ways that were closed, and lets go of peers that were gone.
    pub(super) fn close_inet(&mut self) -> Result<(), RebuildError> {
        for (index, _, udp) in self.udp_sockets() {
            let fd = self.fd(index)?;
            if let Some(peer) = &udp.peer
                && let Err(error) = rebuild::connect(fd, peer)
            {
                self.note(format!("a UDP socket cannot be connected to {peer} again: {error}"));
            }
            let how = match udp.shutdown {
                1 => Shutdown::Read,
                2 => Shutdown::Write,
                3 => Shutdown::Both,
                _ => continue,
            };
            match rustix::net::shutdown(fd, how) {
                // The way is closed all the same (net/ipv4/af_inet.c, inet_shutdown).
                Ok(()) | Err(rustix::io::Errno::NOTCONN) => (),
                Err(error) => return Err(self.failed(index, "close a way of")(error)),
            }
        }
        for (index, temporary) in std::mem::take(&mut self.ending) {
            let socket = self.state(index)?;
            let link = tcp(socket).map(|tcp| &tcp.link);
            if matches!(link, Some(TcpLink::Outside(_) | TcpLink::Connecting { .. } | TcpLink::Closed { failed: true })) {
                // To close it so resets the connection.
                rustix::net::sockopt::set_socket_linger(&temporary, Some(Duration::ZERO)).map_err(self.failed(index, "reset"))?;
            }
            drop(temporary);
        }
        for (index, socket, tcp) in self.tcp_sockets() {
            let fd = self.fd(index)?;
            let how = match (&tcp.link, tcp.shutdown) {
                (TcpLink::Peer { .. } | TcpLink::Gone(_) | TcpLink::Closed { failed: false } | TcpLink::Waiting, 2 | 3) => {
                    Some(Shutdown::Write)
                }
                _ => None,
            };
            if let Some(how) = how {
                rustix::net::shutdown(fd, how).map_err(self.failed(index, "close a way of"))?;
            }
            // What was needed to bind it goes back to what it was.
            for (level, name) in [
                (libc::SOL_SOCKET, libc::SO_REUSEADDR),
                (libc::IPPROTO_IP, options::IP_LOCAL_PORT_RANGE),
                (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
            ] {
                let wanted = socket.option(level, name).unwrap_or(0);
                if options::number(fd, level, name).is_some_and(|value| value != wanted) {
                    options::set_number(fd, level, name, wanted)
                        .map_err(errno)
                        .map_err(self.failed(index, "set an option of"))?;
                }
            }
        }
        Ok(())
    }
}

fn is_loopback(address: &Address) -> bool {
    address.inet().is_some_and(|address| address.ip().to_canonical().is_loopback())
}

/// `to`, as a socket reaches it that has an address of the family of `from`.
fn reaching(to: &Address, from: &Address) -> Address {
    let (Some(to), Some(from)) = (to.inet(), from.inet()) else { return to.clone() };
    let ip = match (to.ip().to_canonical(), from.ip()) {
        (IpAddr::V4(v4), IpAddr::V6(_)) => IpAddr::V6(v4.to_ipv6_mapped()),
        (ip, IpAddr::V6(from)) if ip.is_loopback() && from.to_ipv4_mapped().is_some() => {
            IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped())
        }
        (_, _) => return Address::of_inet(to),
    };
    Address::of_inet(SocketAddr::new(ip, to.port()))
}

/// Sends a datagram from a socket that is there for this alone.
fn send_from(socket: &SocketState, message: &Message, to: &Address) -> io::Result<()> {
    let fd = observe::fresh(socket.family, socket.form, socket.protocol)?;
    options::set_number(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).map_err(errno)?;
    rebuild::bind(&fd, &message.from)?;
    rebuild::send(&fd, message, &[], Some(to), false)
}

/// Connects a socket to one that listens, which does not accept it yet.
fn connect_again(client: &SocketState, to: &Address, patience: &Patience<'_>) -> io::Result<OwnedFd> {
    let begun = Instant::now();
    let mut chosen = is_ephemeral(port(&client.name));
    let to = reaching(to, &client.name);
    loop {
        let fd = rebuild::make(client)?;
        match connect_from(&fd, &client.name, &to, chosen) {
            Ok(()) => return Ok(fd),
            Err(error) if begun.elapsed() < PASSING && (is(&error, libc::EADDRNOTAVAIL) || is(&error, libc::EADDRINUSE)) => {
                chosen = !chosen && is_ephemeral(port(&client.name));
                patience.wait(begun, &client.name);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Binds a netlink socket to its port, or to any where another has that.
fn bind_netlink(fd: &OwnedFd, port: u32) -> io::Result<()> {
    let address = |port: u32| {
        let mut bytes = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
        bytes.extend([0; 2]);
        bytes.extend(port.to_ne_bytes());
        bytes.extend([0; 4]);
        Address(bytes)
    };
    match rebuild::bind(fd, &address(port)) {
        Err(error) if is(&error, libc::EADDRINUSE) => rebuild::bind(fd, &address(0)),
        result => result,
    }
}
