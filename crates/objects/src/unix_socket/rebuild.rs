//! Rebuilds UNIX sockets.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, Instant};

use crate::FilePath;
use crate::socket::{Address, Credentials, Message, SocketKind, SocketState, observe, options, rebuild};
use crate::unix_socket::{SocketFile, UnixLink, UnixState};
use rustix::net::Shutdown;

use crate::context::Resolve;
use crate::rebuild::RebuildError;
use crate::socket::all::{Rebuilt, owner};
use crate::socket::maker::{self, Place, Reach};

/// How long the sockets of a run that has just been killed may take to go.
const GOING: Duration = Duration::from_secs(3);
/// How many connections may wait at a listening socket that is there for a moment.
const MOMENTARY: u32 = 1;

fn unix(state: &SocketState) -> Option<&UnixState> {
    match &state.kind {
        SocketKind::Unix(unix) => Some(unix),
        _ => None,
    }
}

/// Whether others reach a socket by its name.
fn is_reached(socket: &SocketState, unix: &UnixState) -> bool {
    matches!(unix.link, UnixLink::Listening { .. }) || socket.form == libc::SOCK_DGRAM
}

/// The file by which others reach a socket.
pub fn name_that_is_used(socket: &SocketState) -> Option<&SocketFile> {
    let unix = unix(socket)?;
    unix.file.as_ref().filter(|_| is_reached(socket, unix))
}

/// Whether the name of a socket can be had. Nothing is changed. What the image `holds` will be there.
///
/// # Errors
/// Somebody has the name, or a file of another kind has; the text says which.
pub fn check(socket: &SocketState, resolve: Resolve<'_>, holds: &dyn Fn(&FilePath) -> bool) -> Result<(), String> {
    let Some(file) = name_that_is_used(socket) else { return Ok(()) };
    let path = resolve(&file.path);
    let begun = Instant::now();
    while let Ok(metadata) = path.symlink_metadata() {
        if !metadata.file_type().is_socket() {
            return Err(format!("{} is not a socket any more", path.display()));
        }
        match observe::is_in_use(metadata.ino()) {
            Ok(false) => return Ok(()),
            Ok(true) if begun.elapsed() > GOING => {
                return Err(format!("another process listens on {}; end it first", path.display()));
            }
            Ok(true) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("it cannot be found out who listens on {}: {error}", path.display())),
        }
    }
    match path.parent() {
        Some(parent) if !parent.is_dir() && !file.path.as_path().parent().is_some_and(|parent| holds(&parent.into())) => {
            let parent = parent.display();
            Err(format!("the directory {parent} is gone; bring it back, or give --map {parent}=NEW where it has moved"))
        }
        _ => Ok(()),
    }
}

/// Tries again for a while, as long as the name is in use.
fn patiently<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match act() {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && begun.elapsed() < GOING => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

impl Rebuilt<'_> {
    fn unix_sockets(&self) -> impl Iterator<Item = (u32, &SocketState, &UnixState)> {
        (0u32..).zip(self.context.objects().sockets).filter_map(|(index, socket)| Some((index, socket, unix(socket)?)))
    }

    /// Makes all UNIX sockets, and connects them as far as that does not change who may send to them.
    pub(crate) fn connect_unix(&mut self) -> Result<(), RebuildError> {
        let objects = self.context.objects();
        let sockets: Vec<(u32, &SocketState, &UnixState)> =
            (0u32..).zip(objects.sockets).filter_map(|(index, socket)| Some((index, socket, unix(socket)?))).collect();
        let listening: HashSet<&Address> = sockets
            .iter()
            .filter(|(_, _, unix)| matches!(unix.link, UnixLink::Listening { .. }))
            .map(|(_, socket, _)| &socket.name)
            .collect();
        for &(index, socket, unix) in &sockets {
            if self.is_made(index) {
                continue;
            }
            let stream = socket.form != libc::SOCK_DGRAM;
            match &unix.link {
                UnixLink::Peer(peer) if stream => self.connect_stream(index, *peer, &listening)?,
                UnixLink::Gone(name) | UnixLink::Outside(name) if stream => {
                    let temporary = self.connect_gone(index, socket, unix, name)?;
                    self.temporary.push((index, temporary));
                }
                UnixLink::Peer(peer) if self.state(*peer)?.name.unix().is_none() && !self.is_made(*peer) && *peer != index => {
                    let (a, b) =
                        maker::pair(self.context, socket.form, unix.peer_credentials).map_err(self.failed(index, "make"))?;
                    self.keep(index, a)?;
                    self.keep(*peer, b)?;
                    self.bind_unix(index)?;
                    self.early(index)?;
                    self.early(*peer)?;
                }
                UnixLink::Gone(name) | UnixLink::Outside(name) if name.unix().is_none() => {
                    let (a, b) =
                        maker::pair(self.context, socket.form, unix.peer_credentials).map_err(self.failed(index, "make"))?;
                    self.keep(index, a)?;
                    self.temporary.push((index, b));
                    self.bind_unix(index)?;
                    self.early(index)?;
                }
                _ => (),
            }
        }
        for &(index, socket, _) in &sockets {
            if !self.is_made(index) {
                let fd = rebuild::make(socket).map_err(self.failed(index, "make"))?;
                self.keep(index, fd)?;
                self.bind_unix(index)?;
            }
        }
        for &(index, _, unix) in &sockets {
            let UnixLink::Listening { waiting, .. } = &unix.link else { continue };
            for &client in waiting {
                self.connect_waiting(index, client)?;
            }
        }
        Ok(())
    }

    fn early(&self, index: u32) -> Result<(), RebuildError> {
        options::apply_early(self.fd(index)?, self.state(index)?);
        Ok(())
    }

    /// Binds a socket that has been made to its own name, if it has one, and has it listen if it did.
    fn bind_unix(&mut self, index: u32) -> Result<(), RebuildError> {
        let socket = self.state(index)?;
        let Some(unix) = unix(socket) else { return Ok(()) };
        if socket.name.unix().is_none() {
            return Ok(());
        }
        let (backlog, who) = match unix.link {
            UnixLink::Listening { backlog, .. } => (Some(backlog), unix.peer_credentials),
            _ => (None, None),
        };
        let file = unix.file.as_ref().filter(|_| is_reached(socket, unix));
        let at = file.map(|file| self.context.resolve(&file.path));
        // Where it has moved to, its name is another.
        let moved = file.zip(at.as_ref()).filter(|(file, at)| file.path.as_path() != at.as_path());
        let name = match moved.and_then(|(_, at)| Address::of_path(at)) {
            Some(name) => name,
            None => socket.name.clone(),
        };
        let place = match (file, &at) {
            (Some(file), Some(at)) => Place::At(at, file),
            _ => Place::Private,
        };
        let fd = self.fd(index)?;
        let reach =
            patiently(|| maker::bind(self.context, fd, &name, &place, who, backlog)).map_err(self.failed(index, "bind"))?;
        self.reach[index as usize] = Some(reach);
        Ok(())
    }

    /// Connects two sockets of the job.
    fn connect_stream(&mut self, one: u32, other: u32, listening: &HashSet<&Address>) -> Result<(), RebuildError> {
        let (first, second) = (self.state(one)?, self.state(other)?);
        let (Some(a), Some(b)) = (unix(first), unix(second)) else {
            return Err(RebuildError::Incomplete("the peer of a socket"));
        };
        let made = match (first.name.unix(), second.name.unix()) {
            (None, None) => maker::pair(self.context, first.form, a.peer_credentials).map_err(self.failed(one, "make"))?,
            // The one with the name of a listening socket was accepted from that.
            (Some(_), other_name) if other_name.is_none() || listening.contains(&first.name) => {
                let (client, server) = self.connect_through(second, &first.name, a.peer_credentials, b.peer_credentials, one)?;
                (server, client)
            }
            _ => self.connect_through(first, &second.name, b.peer_credentials, a.peer_credentials, one)?,
        };
        self.keep(one, made.0)?;
        self.keep(other, made.1)?;
        self.early(one)?;
        self.early(other)
    }

    /// Makes a socket whose peer is gone, or soon will be; gives that peer.
    fn connect_gone(
        &mut self,
        index: u32,
        socket: &SocketState,
        unix: &UnixState,
        peer: &Address,
    ) -> Result<OwnedFd, RebuildError> {
        let who = unix.peer_credentials;
        let (fd, temporary) = match (socket.name.unix(), peer.unix()) {
            (None, None) => maker::pair(self.context, socket.form, who).map_err(self.failed(index, "make"))?,
            (Some(_), None) => {
                let unnamed = SocketState { name: Address::default(), ..socket.clone() };
                let (client, server) = self.connect_through(&unnamed, &socket.name, who, None, index)?;
                (server, client)
            }
            (_, Some(_)) => self.connect_through(socket, peer, None, who, index)?,
        };
        self.keep(index, fd)?;
        self.early(index)?;
        Ok(temporary)
    }

    /// Makes a connection through a listening socket that has the name `server` for a moment. Gives the connecting and the accepted socket,
    /// which see `client_is` and `server_is` as their makers.
    fn connect_through(
        &self,
        client: &SocketState,
        server: &Address,
        client_is: Option<Credentials>,
        server_is: Option<Credentials>,
        index: u32,
    ) -> Result<(OwnedFd, OwnedFd), RebuildError> {
        let connect = || -> io::Result<(OwnedFd, OwnedFd)> {
            let listener = observe::fresh(client.family, client.form, client.protocol)?;
            let reach = patiently(|| maker::bind(self.context, &listener, server, &Place::Private, server_is, Some(MOMENTARY)))?;
            let fd = rebuild::make(client)?;
            if client.name.unix().is_some() {
                patiently(|| maker::bind(self.context, &fd, &client.name, &Place::Private, None, None))?;
            }
            maker::act_as(self.context, client_is, || rebuild::connect(&fd, &reach.address))?;
            let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
            let accepted = rustix::net::accept_with(&listener, flags)?;
            Ok((fd, accepted))
        };
        connect().map_err(self.failed(index, "connect"))
    }

    /// Connects a client of the job to a listening socket, which does not accept it yet.
    fn connect_waiting(&mut self, listener: u32, client: u32) -> Result<(), RebuildError> {
        let address = match self.reach.get(listener as usize).and_then(Option::as_ref) {
            Some(reach) => &reach.address,
            None => return Err(RebuildError::Incomplete("the name of a listening socket")),
        };
        let pid = owner(self.context.objects(), client);
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let fd = self.fd(client)?;
        maker::act_as(self.context, Some(Credentials { pid, uid, gid }), || rebuild::connect(fd, address))
            .map_err(self.failed(client, "connect"))
    }

    /// Sends what waited in the queues of UNIX sockets.
    pub(crate) fn fill_unix(&self, open: &[Option<OwnedFd>]) -> Result<(), RebuildError> {
        for (index, socket, unix) in self.unix_sockets() {
            for message in &unix.messages {
                let files: Option<Vec<RawFd>> =
                    message.files.iter().map(|&file| Some(self.in_flight(open, file)?.as_raw_fd())).collect();
                let files = files.ok_or(RebuildError::Incomplete("a file in flight"))?;
                let sent = if socket.form == libc::SOCK_DGRAM {
                    self.send_datagram(index, unix, message, &files)
                } else {
                    let from = match &unix.link {
                        UnixLink::Peer(peer) => self.fd(*peer)?,
                        _ => self.temporary_of(index).ok_or(RebuildError::Incomplete("who sent what is in flight"))?,
                    };
                    self.send_as(from, message, &files, None)
                };
                sent.map_err(self.failed(index, "put back what was in flight to"))?;
            }
        }
        Ok(())
    }

    fn temporary_of(&self, index: u32) -> Option<&OwnedFd> {
        self.temporary.iter().find(|(of, _)| *of == index).map(|(_, fd)| fd)
    }

    /// Sends a datagram from the socket that it came from, or one with that name.
    fn send_datagram(&self, to: u32, unix: &UnixState, message: &Message, files: &[RawFd]) -> io::Result<()> {
        let address = self.reach[to as usize].as_ref().map(|reach| &reach.address);
        let mut senders = self.unix_sockets().filter(|(_, socket, _)| socket.form == libc::SOCK_DGRAM);
        let sender = match (message.from.unix(), address) {
            // Only its peer can send to a socket without a name.
            (_, None) => senders.find(|(_, _, other)| other.link == UnixLink::Peer(to)).map(|(index, _, _)| index),
            (Some(_), _) => senders.find(|(_, socket, _)| socket.name == message.from).map(|(index, _, _)| index),
            (None, _) => None,
        };
        let made = |index| self.fd(index).map_err(io::Error::other);
        match (sender, self.temporary_of(to)) {
            (Some(sender), _) => self.send_as(made(sender)?, message, files, address),
            (None, Some(temporary)) if matches!(unix.link, UnixLink::Gone(_)) && address.is_none() => {
                self.send_as(temporary, message, files, None)
            }
            _ => {
                let fresh = observe::fresh(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
                let _reach = match message.from.unix() {
                    // A name that somebody else has now cannot be had: then it comes from nobody.
                    Some(_) => maker::bind(self.context, &fresh, &message.from, &Place::Private, None, None).ok(),
                    None => None,
                };
                self.send_as(&fresh, message, files, address)
            }
        }
    }

    /// Connects datagram sockets, closes the ways that were closed, and lets go of peers that were gone.
    pub(crate) fn close_unix(&mut self) -> Result<(), RebuildError> {
        for (index, socket, unix) in self.unix_sockets().filter(|(_, socket, _)| socket.form == libc::SOCK_DGRAM) {
            let fd = self.fd(index)?;
            match &unix.link {
                UnixLink::Peer(peer) => {
                    let Some(Reach { address, .. }) = self.reach.get(*peer as usize).and_then(Option::as_ref) else { continue };
                    rebuild::connect(fd, address).map_err(self.failed(index, "connect"))?;
                }
                UnixLink::Outside(name) if rebuild::connect(fd, name).is_ok() => (),
                UnixLink::Outside(name) | UnixLink::Gone(name) if name.unix().is_some() => {
                    let connect = || -> io::Result<()> {
                        let gone = observe::fresh(socket.family, socket.form, socket.protocol)?;
                        let reach = patiently(|| maker::bind(self.context, &gone, name, &Place::Private, None, None))?;
                        rebuild::connect(fd, &reach.address)
                    };
                    connect().map_err(self.failed(index, "connect"))?;
                }
                _ => (),
            }
        }
        let unread = |(index, _, unix): &(u32, &SocketState, &UnixState)| unix.reset && self.temporary_of(*index).is_some();
        for (index, ..) in self.unix_sockets().filter(unread) {
            // A peer that goes without having read everything leaves an error.
            rebuild::send_bytes(self.fd(index)?, b"x", false).map_err(self.failed(index, "disconnect"))?;
        }
        self.temporary.clear();
        for (index, _, unix) in self.unix_sockets() {
            let how = match (unix.shutdown & 3, &unix.link) {
                (0, _) | (_, UnixLink::Gone(_) | UnixLink::Outside(_)) => continue,
                (1, _) => Shutdown::Read,
                (2, _) => Shutdown::Write,
                _ => Shutdown::Both,
            };
            rustix::net::shutdown(self.fd(index)?, how).map_err(self.failed(index, "close a way of"))?;
        }
        Ok(())
    }

    /// Sends a message as whoever sent it, past the sender's limits.
    fn send_as(&self, from: &OwnedFd, message: &Message, files: &[RawFd], to: Option<&Address>) -> io::Result<()> {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_SNDBUF);
        let before = options::number(from, level, name).unwrap_or(0);
        // What was in flight had room, whatever it took then; the kernel counts more than bytes.
        let wanted = i32::try_from(message.data.len()).unwrap_or(i32::MAX / 8).saturating_mul(4).max(4 << 20);
        let _ = options::set_number(from, level, libc::SO_SNDBUFFORCE, wanted)
            .or_else(|_| options::set_number(from, level, name, wanted));
        let who = message.credentials.filter(|who| who.pid > 0);
        let sent = maker::act_as(self.context, who, || rebuild::send(from, message, files, to, who.is_some()));
        let _ = options::set_number(from, level, name, before / 2);
        sent
    }
}
