//! Observing all sockets of a job at once: who is connected to whom, and what is in flight between them.
//!
//! 1. Every socket that a process has open is duplicated, once ([`event::duplicate`]), and what waits in it is read. A message
//!    may hold descriptors of files that nobody has open: these become descriptions of the job's too, and sockets among them are
//!    looked at as well.
//! 2. The kernel's tables of sockets are read, if there is a socket: they tell who is connected to whom.
//! 3. What TCP has not delivered yet is made to arrive, and read.
//!
//! Nothing of this can be seen by the job, which stands still.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;

use super::diag::{self, InetEntry, UnixEntry};
use super::options::{self, SO_NETNS_COOKIE, number};
use super::queue::{self, Queued};
use super::{Address, Credentials, Message, SocketKind, SocketState, io_error};
use crate::descriptor::{Descriptions, SeenDescriptor, is_own, see};
use crate::event;
use crate::netlink_socket::NetlinkState;
use crate::tcp_socket::drain::{self, TcpInfo};
use crate::tcp_socket::{TcpLink, TcpState, WaitingConnection};
use crate::udp_socket::UdpState;
use crate::unix_socket::{SocketFile, UnixLink, UnixState};
use crate::{FileIndex, HostPid};

// States of TCP connections (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const CLOSE_WAIT: u8 = 8;

/// Why a socket cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Its kind.
    #[error("a socket of a kind that is not kept ({0})")]
    Kind(String),
    /// It is in another network namespace.
    #[error("a socket of another network namespace")]
    Namespace,
    /// It sends signals, and nobody has it open.
    #[error("a socket in flight that sends signals (O_ASYNC)")]
    Async,
    /// TLS in the kernel and its like.
    #[error("a TCP socket with a protocol above it (TCP_ULP)")]
    Above,
    /// What a client sent before it was accepted cannot be read.
    #[error("the listening socket {0} with a connection that holds data and is not accepted yet")]
    NotAccepted(Address),
    /// What a client sent before it was accepted cannot be read, nor be seen when the client is gone.
    #[error("the listening socket {0} with a connection that its client has closed and that is not accepted yet")]
    Abandoned(Address),
    /// An error that the program has not seen.
    #[error("the socket {0} with an error that the program has not read yet")]
    Failed(Address),
    /// The kernel's answer would be lost.
    #[error("a netlink socket with an answer that the program has not read yet")]
    Answer,
    /// Data that cannot be read.
    #[error("the TCP socket {0}, which does not take what its peer is sending")]
    Flow(Address),
    /// Out-of-band data.
    #[error("the UNIX socket {0} with out-of-band data")]
    OutOfBand(Address),
    /// Not allowed by `--strict`.
    #[error("the {0}, which leads outside of the job (--strict)")]
    Outside(String),
    /// A call failed.
    #[error("a socket (which cannot be read: {0})")]
    Io(#[from] io::Error),
}

impl SocketError {
    /// Whether it will be otherwise soon, as programs go.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::NotAccepted(_) | Self::Abandoned(_) | Self::Failed(_) | Self::Answer | Self::Flow(_))
    }

    /// What the user can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Outside(_) => "close it before a checkpoint, or leave --strict out",
            _ => "close it before a checkpoint",
        }
    }
}

/// A socket that cannot be kept, and a descriptor of it.
pub type Refused = (Box<SeenDescriptor>, SocketError);

/// All sockets of a job.
#[derive(Default)]
pub struct Sockets {
    /// What is known of them.
    pub states: Vec<SocketState>,
    /// By their index in `JobState::open_files`.
    index: HashMap<FileIndex, u32>,
    /// Files that are only in flight, for as long as they are looked at.
    held: Vec<OwnedFd>,
}

impl Sockets {
    /// The index of the socket that a description is, by its index in `JobState::open_files`.
    #[must_use]
    pub fn of_file(&self, file: FileIndex) -> Option<u32> {
        self.index.get(&file).copied()
    }

    /// The files in messages: indices into `JobState::open_files`, each with the socket that it waits in.
    pub fn in_flight(&self) -> impl Iterator<Item = (u32, FileIndex)> {
        (0u32..).zip(&self.states).flat_map(|(socket, state)| {
            let messages = match &state.kind {
                SocketKind::Unix(unix) => &unix.messages[..],
                _ => &[],
            };
            messages.iter().flat_map(|message| &message.files).map(move |&file| (socket, file))
        })
    }
}

/// A socket that was found.
struct Found {
    /// Index of its description.
    file: FileIndex,
    descriptor: SeenDescriptor,
    /// A duplicate.
    fd: OwnedFd,
    family: i32,
    form: i32,
    protocol: i32,
    /// Its own address; empty: it has none.
    name: Address,
    /// The address that it is connected to.
    peer: Option<Address>,
    messages: Vec<Message>,
}

/// What kind a socket is of: family, form, protocol.
type Kind = (i32, i32, i32);

/// What new sockets are like, by their kind.
#[derive(Default)]
struct NewSockets(HashMap<Kind, NewSocket>);

struct NewSocket {
    cookie: Option<[u8; 8]>,
    options: options::Defaults,
}

impl NewSockets {
    fn of(&mut self, kind: Kind) -> io::Result<&NewSocket> {
        match self.0.entry(kind) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let fresh = fresh(kind.0, kind.1, kind.2)?;
                Ok(unknown.insert(NewSocket { cookie: cookie(&fresh), options: options::Defaults::of(&fresh) }))
            }
        }
    }
}

/// What must be known of a job whose sockets are observed.
pub struct Surroundings<'a> {
    /// Gives the job's number of a process by its number here.
    pub pid: &'a dyn Fn(i32) -> i32,
    /// Sockets that lead outside of the job are refused.
    pub strict: bool,
    /// Directories that relative names may begin in, since nobody knows whose working directory it was when a socket was bound.
    pub bases: &'a [PathBuf],
}

/// Observes all sockets among `descriptions`, and adds those that are only in flight.
///
/// # Errors
/// One is of a kind, or in a state, that cannot be made again; the error names it.
pub fn observe(descriptions: &mut Descriptions, job: &Surroundings<'_>) -> Result<Sockets, Refused> {
    let mut sockets = Sockets::default();
    let (mut found, mut new) = (Vec::new(), NewSockets::default());
    let mut at = 0;
    while at < descriptions.all().len() {
        let descriptor = &descriptions.all()[at];
        if is_socket(descriptor) {
            let descriptor = descriptor.clone();
            let one = find(at.into(), descriptor.clone(), descriptions, &mut sockets.held, &mut new, job.pid);
            found.push(one.map_err(|error| (Box::new(descriptor), error))?);
        }
        at += 1;
    }
    if found.is_empty() {
        return Ok(sockets);
    }
    sockets.index = found.iter().enumerate().map(|(socket, found)| (found.file, socket as u32)).collect();
    let join = Join::new(&found, new, job).map_err(|error| (Box::new(found[0].descriptor.clone()), error))?;
    for (socket, one) in found.iter().enumerate() {
        let state = join.state(socket, one).and_then(|state| {
            let outside = state.leads_outside() && job.strict;
            if outside { Err(SocketError::Outside(state.describe())) } else { Ok(state) }
        });
        sockets.states.push(state.map_err(|error| (Box::new(one.descriptor.clone()), error))?);
    }
    Ok(sockets)
}

/// Whether a description is a socket that is to be kept: what is the launcher's own is replaced.
fn is_socket(descriptor: &SeenDescriptor) -> bool {
    descriptor.mode & libc::S_IFMT == libc::S_IFSOCK
        && descriptor.flags & libc::O_PATH.cast_unsigned() == 0
        && !(0..3).any(|fd| is_own(descriptor, fd))
}

fn find(
    file: FileIndex,
    descriptor: SeenDescriptor,
    descriptions: &mut Descriptions,
    held: &mut Vec<OwnedFd>,
    new: &mut NewSockets,
    pid: &dyn Fn(i32) -> i32,
) -> Result<Found, SocketError> {
    let fd = event::duplicate(&descriptor)?;
    let option = |name| number(&fd, libc::SOL_SOCKET, name).unwrap_or(-1);
    let (family, form, protocol) = (option(libc::SO_DOMAIN), option(libc::SO_TYPE), option(libc::SO_PROTOCOL));
    // Whom it tells is known of those that somebody has open.
    if descriptor.flags & libc::O_ASYNC.cast_unsigned() != 0 && descriptor.pid.0 == std::process::id().cast_signed() {
        return Err(SocketError::Async);
    }
    let unix = family == libc::AF_UNIX;
    let inet = matches!(family, libc::AF_INET | libc::AF_INET6);
    let udp = inet && form == libc::SOCK_DGRAM && protocol == libc::IPPROTO_UDP;
    let tcp = inet && form == libc::SOCK_STREAM && protocol == libc::IPPROTO_TCP;
    // What it accepts from clients that do not speak MPTCP is TCP. Go's servers listen so.
    let mptcp = inet && protocol == libc::IPPROTO_MPTCP && option(libc::SO_ACCEPTCONN) == 1;
    if !(unix || udp || tcp || mptcp || family == libc::AF_NETLINK) {
        return Err(SocketError::Kind(kind_name(family, form, protocol)));
    }
    if cookie(&fd) != new.of((family, form, protocol))?.cookie {
        return Err(SocketError::Namespace);
    }
    let queued = match form {
        libc::SOCK_STREAM if unix => unix_stream(&fd)?,
        _ if unix || udp => datagrams(&fd, unix)?,
        _ => Vec::new(),
    };
    let messages = queued.into_iter().map(|queued| message(queued, descriptions, held, pid)).collect::<io::Result<_>>()?;
    let (name, peer) = (Address::of(&fd, false).unwrap_or_default(), Address::of(&fd, true));
    Ok(Found { file, descriptor, fd, family, form, protocol, name, peer, messages })
}

fn kind_name(family: i32, form: i32, protocol: i32) -> String {
    match family {
        libc::AF_INET | libc::AF_INET6 => match (form, protocol) {
            (libc::SOCK_RAW, _) => "raw IP".to_owned(),
            (_, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) => "ping".to_owned(),
            (_, libc::IPPROTO_SCTP) => "SCTP".to_owned(),
            (_, libc::IPPROTO_MPTCP) => "MPTCP".to_owned(),
            (_, libc::IPPROTO_DCCP) => "DCCP".to_owned(),
            (_, libc::IPPROTO_UDPLITE) => "UDP-Lite".to_owned(),
            _ => format!("IP protocol {protocol}"),
        },
        libc::AF_PACKET => "AF_PACKET".to_owned(),
        libc::AF_VSOCK => "AF_VSOCK".to_owned(),
        libc::AF_ALG => "AF_ALG".to_owned(),
        libc::AF_BLUETOOTH => "AF_BLUETOOTH".to_owned(),
        libc::AF_CAN => "AF_CAN".to_owned(),
        libc::AF_XDP => "AF_XDP".to_owned(),
        libc::AF_TIPC => "AF_TIPC".to_owned(),
        libc::AF_RDS => "AF_RDS".to_owned(),
        _ => format!("address family {family}"),
    }
}

/// What tells the socket's network namespace from others (Linux 5.14).
fn cookie(fd: &OwnedFd) -> Option<[u8; 8]> {
    let mut cookie = [0; 8];
    ckpt_sys::socket::get_option(fd.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie).ok()?;
    Some(cookie)
}

/// A new socket of this kind, which blocks.
///
/// # Errors
/// The kernel lacks the protocol, or this user may not use it.
pub fn fresh(family: i32, form: i32, protocol: i32) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
    let family = AddressFamily::from_raw(u16::try_from(family).map_err(io::Error::other)?);
    let protocol = std::num::NonZero::new(protocol.cast_unsigned()).map(Protocol::from_raw);
    Ok(socket_with(family, SocketType::from_raw(form.cast_unsigned()), SocketFlags::CLOEXEC, protocol)?)
}

fn unix_stream(fd: &OwnedFd) -> Result<Vec<Queued>, SocketError> {
    if number(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1) {
        return Ok(Vec::new());
    }
    if drain::events(fd)?.contains(PollFlags::PRI) {
        return Err(SocketError::OutOfBand(Address::of(fd, false).unwrap_or_default()));
    }
    // Of a socket that was never connected it cannot be asked.
    let total = ckpt_sys::socket::get_number(fd.as_raw_fd(), libc::FIONREAD as u32).unwrap_or(0);
    Ok(queue::stream(fd, usize::try_from(total).unwrap_or(0))?)
}

fn datagrams(fd: &OwnedFd, unix: bool) -> Result<Vec<Queued>, SocketError> {
    if number(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1) {
        return Ok(Vec::new());
    }
    let sequenced = unix && number(fd, libc::SOL_SOCKET, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET);
    let waiting = ckpt_sys::socket::get_number(fd.as_raw_fd(), libc::FIONREAD as u32).unwrap_or(0);
    let events = drain::events(fd)?;
    // A look would take the error away.
    if events.contains(PollFlags::ERR) {
        if waiting > 0 || events.contains(PollFlags::IN) && !sequenced {
            return Err(SocketError::Failed(Address::of(fd, false).unwrap_or_default()));
        }
        return Ok(Vec::new());
    }
    // One that was never connected cannot be read.
    if !events.contains(PollFlags::IN) {
        return Ok(Vec::new());
    }
    Ok(queue::datagrams(fd, unix)?)
}

/// A message with the descriptions of its descriptors.
fn message(
    queued: Queued,
    descriptions: &mut Descriptions,
    held: &mut Vec<OwnedFd>,
    pid: &dyn Fn(i32) -> i32,
) -> io::Result<Message> {
    let own = HostPid(std::process::id().cast_signed());
    let mut files = Vec::new();
    for file in queued.files {
        let known = descriptions.all().len();
        let descriptor = see(own, file.as_raw_fd()).map_err(io::Error::other)?;
        files.push(descriptions.entry(descriptor).file);
        if descriptions.all().len() > known {
            held.push(file);
        }
    }
    let credentials = queued.credentials.map(|one| Credentials { pid: pid(one.pid), ..one });
    let from = if queued.from.0.len() > 2 { queued.from } else { Address::default() };
    Ok(Message { data: queued.data, credentials, files, from })
}

/// What the kernel's tables tell of the sockets that were found.
struct Join<'a> {
    found: &'a [Found],
    new: NewSockets,
    job: &'a Surroundings<'a>,
    by_inode: HashMap<u64, u32>,
    unix: Vec<UnixEntry>,
    unix_by_inode: HashMap<u64, UnixEntry>,
    tcp: Vec<InetEntry>,
    udp: HashMap<u64, InetEntry>,
    /// TCP connections: indices into `found`, and into `tcp`, by their ends.
    found_by_ends: HashMap<Ends, Vec<usize>>,
    tcp_by_ends: HashMap<Ends, Vec<usize>>,
}

/// The addresses of a connection's two ends, the own one first.
type Ends = ((IpAddr, u16), (IpAddr, u16));

/// Indices of connections by their ends.
fn by_ends<T>(all: &[T], ends: impl Fn(&T) -> Option<Ends>) -> HashMap<Ends, Vec<usize>> {
    let mut index: HashMap<Ends, Vec<usize>> = HashMap::new();
    for (at, ends) in all.iter().enumerate().filter_map(|(at, one)| Some((at, ends(one)?))) {
        index.entry(ends).or_default().push(at);
    }
    index
}

impl<'a> Join<'a> {
    fn new(found: &'a [Found], new: NewSockets, job: &'a Surroundings<'a>) -> Result<Self, SocketError> {
        let by_inode: HashMap<u64, u32> = (0u32..).zip(found).map(|(socket, found)| (found.descriptor.inode, socket)).collect();
        let unix = if found.iter().any(|one| one.family == libc::AF_UNIX) { diag::unix()? } else { Vec::new() };
        let mut join = Self {
            found,
            new,
            job,
            by_inode,
            unix_by_inode: diag::by_inode(&unix, |entry| entry.inode),
            unix,
            tcp: Vec::new(),
            udp: HashMap::new(),
            found_by_ends: by_ends(found, |one| one.is_tcp().then(|| one.ends()).flatten()),
            tcp_by_ends: HashMap::new(),
        };
        if found.iter().any(Found::is_udp) {
            join.udp = diag::by_inode(&diag::udp()?, |entry| entry.inode);
        }
        if found.iter().any(Found::is_tcp) {
            join.look_at_tcp()?;
            if join.settle()? {
                join.look_at_tcp()?;
            }
        }
        Ok(join)
    }

    fn look_at_tcp(&mut self) -> Result<(), SocketError> {
        self.tcp = diag::tcp()?;
        self.tcp_by_ends = by_ends(&self.tcp, |entry| entry.local.endpoint().zip(entry.remote.endpoint()));
        Ok(())
    }

    /// The job's sockets at the other end of a connection.
    fn found_beyond(&self, (local, remote): Ends) -> impl Iterator<Item = usize> {
        self.found_by_ends.get(&(remote, local)).into_iter().flatten().copied()
    }

    /// What the kernel lists at the other end of a connection.
    fn listed_beyond(&self, (local, remote): Ends) -> impl Iterator<Item = &InetEntry> {
        self.tcp_by_ends.get(&(remote, local)).into_iter().flatten().map(|&at| &self.tcp[at])
    }

    /// Makes all TCP data that is under way within the job arrive. Whether there was any.
    fn settle(&self) -> Result<bool, SocketError> {
        let mut any = false;
        for one in self.found.iter().filter(|one| one.is_tcp()) {
            let Some(ends) = one.ends() else { continue };
            let from = self.found_beyond(ends).next().map(|other| &self.found[other].fd);
            // One that has been closed, and still sends.
            let closing = self.listed_beyond(ends).any(|entry| entry.inode == 0 && matches!(entry.state, 4 | 9 | 11));
            if from.is_none() && !closing {
                continue;
            }
            any = true;
            if !drain::flow(from, &one.fd)? {
                return Err(SocketError::Flow(one.name.clone()));
            }
        }
        Ok(any)
    }

    fn state(&self, socket: usize, one: &Found) -> Result<SocketState, SocketError> {
        let new =
            self.new.0.get(&(one.family, one.form, one.protocol)).ok_or_else(|| io::Error::other("a kind that was not seen"))?;
        let kind = match one.family {
            libc::AF_UNIX => SocketKind::Unix(self.unix(one)?),
            libc::AF_NETLINK => SocketKind::Netlink(netlink(one)?),
            _ if one.is_tcp() => SocketKind::Tcp(self.tcp(socket, one)?),
            _ => SocketKind::Udp(self.udp(one)?),
        };
        Ok(SocketState {
            family: one.family,
            form: one.form,
            protocol: one.protocol,
            name: one.name.clone(),
            options: options::observe(&one.fd, &new.options, one.is_tcp()),
            filter: options::filter(&one.fd),
            kind,
        })
    }

    fn unix(&self, one: &Found) -> Result<UnixState, SocketError> {
        let inode = one.descriptor.inode;
        let entry = self.unix_by_inode.get(&inode).ok_or_else(|| io::Error::other("the kernel does not list it"))?;
        let peer_name = || one.peer.clone().unwrap_or_default();
        let link = if number(&one.fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1) {
            self.check_waiting(one, entry)?;
            // One that is outside of the job will see that its connection is lost.
            let waiting = entry.waiting.iter().filter_map(|client| self.by_inode.get(client).copied());
            UnixLink::Listening { backlog: entry.queue.1, waiting: waiting.collect() }
        } else {
            match entry.peer {
                None => UnixLink::None,
                Some(0) => match self.unix.iter().find(|listener| listener.waiting.contains(&inode)) {
                    Some(listener) if self.by_inode.contains_key(&listener.inode) => UnixLink::Waiting,
                    Some(_) => UnixLink::Outside(peer_name()),
                    None => UnixLink::Gone(peer_name()),
                },
                Some(peer) => match self.by_inode.get(&peer) {
                    Some(&socket) => UnixLink::Peer(socket),
                    None => UnixLink::Outside(peer_name()),
                },
            }
        };
        let mut credentials = [0; 12];
        let told = ckpt_sys::socket::get_option(one.fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut credentials);
        let peer_credentials = told.ok().and_then(|_| Credentials::parse(&credentials));
        Ok(UnixState {
            file: entry.file.and_then(|(_, inode)| socket_file(one, inode, self.job)),
            link,
            peer_credentials: peer_credentials.map(|one| Credentials { pid: (self.job.pid)(one.pid), ..one }),
            shutdown: entry.shutdown,
            reset: drain::events(&one.fd)?.contains(PollFlags::ERR),
            messages: one.messages.clone(),
        })
    }

    /// What is in a connection that nobody has accepted cannot be read. That there is something is seen by what its client has
    /// sent.
    fn check_waiting(&self, one: &Found, listener: &UnixEntry) -> Result<(), SocketError> {
        if listener.waiting.contains(&0) {
            return Err(SocketError::Abandoned(one.name.clone()));
        }
        for client in listener.waiting.iter().filter_map(|client| self.by_inode.get(client)) {
            let client = &self.found[*client as usize].fd;
            if ckpt_sys::socket::get_number(client.as_raw_fd(), libc::TIOCOUTQ as u32).map_err(io_error)? > 0 {
                return Err(SocketError::NotAccepted(one.name.clone()));
            }
        }
        Ok(())
    }

    fn tcp(&self, socket: usize, one: &Found) -> Result<TcpState, SocketError> {
        let mut above = [0; 16];
        let named = ckpt_sys::socket::get_option(one.fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_ULP, &mut above);
        // What an MPTCP socket has accepted from a client that speaks TCP is plain, but keeps the name.
        if named.is_ok_and(|len| len > 0) && above[0] != 0 && !above.starts_with(b"mptcp\0") {
            return Err(SocketError::Above);
        }
        let info = TcpInfo::of(&one.fd)?;
        let events = drain::events(&one.fd)?;
        let entry = self.tcp.iter().find(|entry| entry.inode == one.descriptor.inode);
        let mut shutdown = entry.map_or(0, |entry| entry.shutdown);
        let mut total = entry.map_or(0, |entry| entry.received as usize);
        let link = match info.state() {
            10 => return Ok(TcpState { link: self.tcp_listener(one, info.backlog())?, ..TcpState::default() }),
            2 | 3 => {
                let to = entry.map(|entry| entry.remote.clone()).unwrap_or_default();
                TcpLink::Connecting { inside: self.listener_at(&to).is_some(), to }
            }
            7 => {
                if !events.contains(PollFlags::RDHUP) {
                    return Ok(TcpState::default());
                }
                let left = ckpt_sys::socket::get_number(one.fd.as_raw_fd(), libc::FIONREAD as u32).unwrap_or(0);
                (total, shutdown) = (usize::try_from(left).unwrap_or(0), 3);
                let received = drain::received(&one.fd, total)?;
                let failed = events.contains(PollFlags::ERR);
                return Ok(TcpState { link: TcpLink::Closed { failed }, shutdown, received });
            }
            state => {
                // The peer's end counts as a byte.
                if matches!(state, 8 | 9 | 11) {
                    total = total.saturating_sub(1);
                }
                self.tcp_peer(socket, one, shutdown)
            }
        };
        Ok(TcpState { link, shutdown, received: drain::received(&one.fd, total)? })
    }

    fn tcp_peer(&self, socket: usize, one: &Found, shutdown: u8) -> TcpLink {
        let name = one.peer.clone().unwrap_or_default();
        let ends = one.ends();
        // A socket may be connected to itself.
        let is_other = |at: &usize| *at != socket || ends.is_some_and(|(local, remote)| local == remote);
        if let Some(peer) = ends.and_then(|ends| self.found_beyond(ends).find(is_other)) {
            return TcpLink::Peer { socket: peer as u32, name };
        }
        match ends.and_then(|ends| self.listed_beyond(ends).next()) {
            Some(entry) if self.listener_at(&entry.local).is_some_and(|listener| listener.makes_wait(entry)) => TcpLink::Waiting,
            _ if shutdown & 1 != 0 => TcpLink::Gone(name),
            _ => TcpLink::Outside(name),
        }
    }

    /// The job's listening socket that connections to an address come to.
    fn listener_at(&self, address: &Address) -> Option<&Found> {
        self.found.iter().find(|one| {
            one.is_tcp() && number(&one.fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1) && serves(&one.name, address)
        })
    }

    fn tcp_listener(&self, one: &Found, backlog: u32) -> Result<TcpLink, SocketError> {
        let mut waiting = Vec::new();
        for entry in self.tcp.iter().filter(|entry| serves(&one.name, &entry.local) && one.makes_wait(entry)) {
            let ends = entry.local.endpoint().zip(entry.remote.endpoint());
            let client = ends.and_then(|ends| self.found_beyond(ends).next());
            let other = ends.and_then(|ends| self.listed_beyond(ends).next());
            // A client outside of the job will see that its connection is lost.
            let is_local = other.is_some_and(|other| other.inode == 0);
            let deferred = entry.state == SYN_RECV;
            if client.is_none() && !(is_local || entry.state == CLOSE_WAIT) {
                continue;
            }
            // It still connects, and is to do so again.
            if deferred && other.is_some_and(|other| other.state == SYN_SENT) {
                continue;
            }
            if entry.received > u32::from(entry.state == CLOSE_WAIT) {
                return Err(SocketError::NotAccepted(one.name.clone()));
            }
            let client = client.map(|client| client as u32);
            waiting.push(WaitingConnection { client, local: entry.local.clone(), remote: entry.remote.clone(), deferred });
        }
        // Sockets are found in the order of their descriptors, in most cases that in which they were made.
        waiting.sort_by_key(|waiting| (waiting.deferred, waiting.client));
        let waiting = self.part_of(one, waiting);
        Ok(TcpLink::Listening { backlog, waiting })
    }

    /// The part of the connections to an address that wait with this one of several sockets that listen there (`SO_REUSEPORT`). The kernel tells how
    /// many wait with each (`idiag_rqueue`, sock_diag(7)), but not which.
    fn part_of(&self, one: &Found, mut waiting: Vec<WaitingConnection>) -> Vec<WaitingConnection> {
        let option = |found: &Found, name: i32| number(&found.fd, libc::SOL_SOCKET, name).unwrap_or(0) != 0;
        let shares = |other: &&Found| {
            other.is_tcp() && option(other, libc::SO_ACCEPTCONN) && option(other, libc::SO_REUSEPORT) && other.name == one.name
        };
        let group: Vec<u64> = self.found.iter().filter(shares).map(|other| other.descriptor.inode).collect();
        let Some(place) = group.iter().position(|inode| *inode == one.descriptor.inode).filter(|_| group.len() > 1) else {
            return waiting;
        };
        let queued = |inode: &u64| self.tcp.iter().find(|entry| entry.inode == *inode).map_or(0, |entry| entry.received as usize);
        let before: usize = group[..place].iter().map(queued).sum();
        let mut own = waiting.split_off(before.min(waiting.len()));
        if place + 1 < group.len() {
            own.truncate(queued(&one.descriptor.inode));
        }
        own
    }

    fn udp(&self, one: &Found) -> Result<UdpState, SocketError> {
        let peer = one.peer.clone();
        let is_peer = |other: &Found| other.is_udp() && peer.as_ref().is_some_and(|peer| serves(&other.name, peer));
        Ok(UdpState {
            outside: peer.is_some() && !self.found.iter().any(is_peer),
            peer,
            shutdown: self.udp.get(&one.descriptor.inode).map_or(0, |entry| entry.shutdown),
            messages: one.messages.clone(),
        })
    }
}

impl Found {
    fn is_tcp(&self) -> bool {
        matches!(self.family, libc::AF_INET | libc::AF_INET6) && self.form == libc::SOCK_STREAM
    }

    fn is_udp(&self) -> bool {
        matches!(self.family, libc::AF_INET | libc::AF_INET6) && self.form == libc::SOCK_DGRAM
    }

    /// Whether a TCP connection waits for this listening socket: established, and not accepted; closed by the client since; or
    /// not shown to it yet.
    fn makes_wait(&self, entry: &InetEntry) -> bool {
        let defers = || number(&self.fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT).is_some_and(|seconds| seconds > 0);
        entry.inode == 0 && (matches!(entry.state, ESTABLISHED | CLOSE_WAIT) || entry.state == SYN_RECV && defers())
    }

    fn ends(&self) -> Option<Ends> {
        self.name.endpoint().zip(self.peer.as_ref()?.endpoint())
    }
}

impl SocketState {
    /// Whether it is connected to, or reached from, a socket outside of the job.
    #[must_use]
    pub fn leads_outside(&self) -> bool {
        match &self.kind {
            // The system's log is told as before.
            SocketKind::Unix(unix) => matches!(unix.link, UnixLink::Outside(_)) && self.form != libc::SOCK_DGRAM,
            SocketKind::Tcp(tcp) => match &tcp.link {
                TcpLink::Outside(_) => true,
                TcpLink::Connecting { inside, .. } => !inside,
                TcpLink::Listening { .. } => self.name.inet().is_none_or(|name| !name.ip().to_canonical().is_loopback()),
                _ => false,
            },
            SocketKind::Udp(udp) => udp.outside,
            SocketKind::Netlink(_) => false,
        }
    }
}

/// Whether what is sent to `address` comes to a socket with this name.
fn serves(name: &Address, address: &Address) -> bool {
    match (name.endpoint(), address.endpoint()) {
        (Some((ip, port)), Some((to, to_port))) => port == to_port && (ip == to || ip.is_unspecified()),
        _ => false,
    }
}

/// The file that a socket's name made: where that name says, or under another name in the same directory. Programs bind a socket under a name that
/// nobody knows, and rename it when it listens.
fn socket_file(one: &Found, inode: u32, job: &Surroundings<'_>) -> Option<SocketFile> {
    /// How many files of a directory are looked at.
    const MANY: usize = 10_000;
    let name = one.name.unix_path()?;
    let file = |path: PathBuf| {
        let metadata = std::fs::symlink_metadata(&path).ok()?;
        let is_it = metadata.file_type().is_socket() && metadata.ino() as u32 == inode;
        is_it.then(|| SocketFile { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid(), path: path.into() })
    };
    let bases = || job.bases.iter().map(PathBuf::as_path).chain([Path::new("/")]);
    let bound = |base: &Path| -> PathBuf { base.join(name.as_path()).components().collect() };
    let renamed = |path: PathBuf| {
        let entries = std::fs::read_dir(path.parent()?).ok()?.take(MANY).filter_map(Result::ok);
        entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())).find_map(|entry| file(entry.path()))
    };
    bases().find_map(|base| file(bound(base))).or_else(|| bases().find_map(|base| renamed(bound(base))))
}

fn netlink(one: &Found) -> Result<NetlinkState, SocketError> {
    let name = &one.name.0;
    let port = name.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    // NETLINK_LIST_MEMBERSHIPS.
    let mut bits = [0; 128];
    let len = ckpt_sys::socket::get_option(one.fd.as_raw_fd(), libc::SOL_NETLINK, 9, &mut bits).map_err(io_error)?;
    let is_set = |group: &u32| bits[(*group as usize - 1) / 8] & 1 << ((group - 1) % 8) != 0;
    let groups: Vec<u32> = (1..=8 * len.min(bits.len()) as u32).filter(is_set).collect();
    // What is told to a group is news, which a program can miss at any time; else it is what the program asked for, and waits
    // for.
    if groups.is_empty() && drain::events(&one.fd)?.contains(PollFlags::IN) {
        return Err(SocketError::Answer);
    }
    Ok(NetlinkState { port, groups })
}

/// Whether a socket is bound to the file with this inode number, and can be reached by it.
///
/// # Errors
/// The kernel does not list its sockets (`CONFIG_UNIX_DIAG`).
pub fn is_in_use(inode: u64) -> io::Result<bool> {
    let all = diag::unix()?;
    Ok(all.iter().any(|entry| entry.reachable && entry.file.is_some_and(|(_, file)| file == inode as u32)))
}

/// Who is in the way of an IP address, to listen on, or to connect from to `remote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// Nobody.
    None,
    /// A connection that is over, and goes away by itself (`TIME_WAIT`).
    Past,
    /// A socket that some process has open.
    Open,
}

/// TCP connections that are over, and keep their addresses for a minute (`TIME_WAIT`): the address of each, and that of its peer.
///
/// # Errors
/// The kernel does not list its sockets (`CONFIG_INET_DIAG`).
pub fn past_connections() -> io::Result<Vec<(Address, Address)>> {
    const TIME_WAIT: u8 = 6;
    let past = diag::tcp()?.into_iter().filter(|entry| entry.state == TIME_WAIT);
    Ok(past.map(|entry| (entry.local, entry.remote)).collect())
}

/// Who has a TCP address now.
///
/// # Errors
/// As for [`past_connections`].
pub fn in_the_way(local: &Address, remote: Option<&Address>) -> io::Result<InTheWay> {
    let all = diag::tcp()?;
    let is_same = |entry: &&InetEntry| {
        let (Some((ip, port)), Some((own_ip, own_port))) = (entry.local.endpoint(), local.endpoint()) else { return false };
        let overlaps = ip == own_ip || ip.is_unspecified() || own_ip.is_unspecified();
        port == own_port && overlaps && remote.is_none_or(|remote| entry.remote.endpoint() == remote.endpoint())
    };
    let mut found = InTheWay::None;
    for entry in all.iter().filter(is_same) {
        // TCP_LISTEN; what is connected is in nobody's way who listens with SO_REUSEADDR.
        if entry.inode != 0 && (remote.is_some() || entry.state == 10) {
            return Ok(InTheWay::Open);
        }
        found = InTheWay::Past;
    }
    Ok(found)
}
