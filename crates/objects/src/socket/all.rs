//! All sockets of the job, made by the process that makes all files : pairs are joined, names are bound, queues are
//! filled.
//!
//! 1. [`check`]: are the names free? What led outside is told. Nothing is changed.
//! 2. [`rebuild`]: sockets are made, bound and connected. Connections come first: each is made through a listening socket of its own that
//!    has the name for a moment, so that both ends have the names that they had, whether their listening socket still exists or not.
//! 3. [`Rebuilt::fill`], when all other files are there too, since they may be in flight: what waited in queues is sent again. Then ways are
//!    closed that were closed, peers that were gone go, and options are set.
//!
//! What the kernel notes about who made a socket (`SO_PEERCRED`, `SCM_CREDENTIALS`) is right because it is made by a child that has that
//! number for a moment ([`maker`]).

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::patience::Patience;
use super::{SocketKind, SocketState, maker, options};
use crate::context::{Context, Resolve};
use crate::open_file::OpenFile;
use crate::rebuild::{RebuildError, lift};
use crate::tcp_socket::TcpLink;
use crate::unix_socket::{self, UnixLink};
use crate::{FileIndex, FilePath, Objects, udp_socket};

/// A process that has a socket open; 0 for one that is only in flight.
pub(crate) fn owner(objects: Objects<'_>, socket: u32) -> i32 {
    objects.owner(|file| objects.open_files.get(file.at()).and_then(OpenFile::socket) == Some(socket))
}

/// Whether calls on a socket do not wait (`O_NONBLOCK`).
pub(crate) fn is_nonblocking(objects: Objects<'_>, socket: u32) -> bool {
    let file = objects.open_files.iter().find(|file| file.socket() == Some(socket));
    file.is_some_and(|file| OFlags::from_bits_retain(file.flags).contains(OFlags::NONBLOCK))
}

/// Why sockets cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A socket led outside, and that is not wanted.
    #[error(
        "the {socket}, which process {pid} has open, led outside of the job, and its connection is lost (--strict); restart the job without --strict"
    )]
    Outside {
        /// The socket.
        socket: String,
        /// Whose it is.
        pid: i32,
    },
    /// Somebody else has the name of a socket.
    #[error("the {socket}, which process {pid} has open, cannot be made again: {why}")]
    Taken {
        /// The socket.
        socket: String,
        /// Whose it is.
        pid: i32,
        /// What is in the way.
        why: String,
    },
}

/// Whether all sockets can be made; gives a line on those that led outside of the job.
///
/// # Errors
/// Another program has an address or a name, or a file of the job's is in its place.
pub fn check(
    objects: Objects<'_>,
    resolve: Resolve<'_>,
    strict: bool,
    holds: &dyn Fn(&FilePath) -> bool,
) -> Result<Option<String>, Refused> {
    let (mut lost, mut again) = (Vec::new(), Vec::new());
    for (index, socket) in (0u32..).zip(objects.sockets) {
        if strict && socket.leads_outside() {
            return Err(Refused::Outside { socket: socket.describe(), pid: owner(objects, index) });
        }
        let refused = |why: String| Refused::Taken { socket: socket.describe(), pid: owner(objects, index), why };
        match &socket.kind {
            SocketKind::Unix(unix) => {
                unix_socket::check(socket, resolve, holds).map_err(refused)?;
                if let UnixLink::Outside(name) = &unix.link {
                    let list = if socket.form == libc::SOCK_DGRAM { &mut again } else { &mut lost };
                    list.push(format!("to {name} (process {})", owner(objects, index)));
                }
            }
            SocketKind::Tcp(tcp) => match &tcp.link {
                TcpLink::Outside(name) => lost.push(format!("to {name} (process {})", owner(objects, index))),
                TcpLink::Connecting { to, .. } => {
                    let list = if is_nonblocking(objects, index) { &mut lost } else { &mut again };
                    list.push(format!("to {to} (process {})", owner(objects, index)));
                }
                TcpLink::Listening { .. } if socket.leads_outside() => {
                    again.push(format!("listening on {} (process {})", socket.name, owner(objects, index)));
                }
                _ => (),
            },
            SocketKind::Udp(udp_socket::UdpState { outside: true, peer: Some(peer), .. }) => {
                again.push(format!("to {peer} (process {})", owner(objects, index)));
            }
            SocketKind::Udp(_) => (),
            SocketKind::Netlink(_) => again.push(format!("netlink (process {})", owner(objects, index))),
        }
    }
    let part = |what: &str, list: &[String]| match list.len() {
        0 => None,
        1..=4 => Some(format!("{what}: {}", list.join(", "))),
        more => Some(format!("{what}: {}, and {} more", list[..4].join(", "), more - 4)),
    };
    let parts: Vec<String> =
        [part("sockets that lost their connection", &lost), part("sockets opened again", &again)].into_iter().flatten().collect();
    Ok((!parts.is_empty()).then(|| parts.join("; ")))
}

/// The job's sockets, made and connected.
pub struct Rebuilt<'a> {
    pub(crate) context: &'a dyn Context,
    pub(super) patience: Patience<'a>,
    /// By index in [`Objects::sockets`], at numbers that are none of the job's.
    pub(crate) fds: Vec<Option<OwnedFd>>,
    /// Peers that are to be gone: with the index of the socket that they are connected to.
    pub(crate) temporary: Vec<(u32, OwnedFd)>,
    /// Peers of TCP sockets that are to be gone.
    pub(crate) ending: Vec<(u32, OwnedFd)>,
    /// How UNIX sockets with names are reached, by index.
    pub(crate) reach: Vec<Option<maker::Reach>>,
}

/// Makes and connects all sockets.
///
/// # Errors
///
/// When one cannot be made, named or connected.
pub fn rebuild(context: &dyn Context) -> Result<Rebuilt<'_>, RebuildError> {
    let count = context.objects().sockets.len();
    let mut built = Rebuilt {
        context,
        patience: Patience::new(context),
        fds: (0..count).map(|_| None).collect(),
        temporary: Vec::new(),
        ending: Vec::new(),
        reach: (0..count).map(|_| None).collect(),
    };
    if count == 0 {
        return Ok(built);
    }
    built.connect_unix()?;
    built.connect_inet()?;
    Ok(built)
}

impl Rebuilt<'_> {
    pub(crate) fn state(&self, socket: u32) -> Result<&SocketState, RebuildError> {
        self.context.objects().sockets.get(socket as usize).ok_or(RebuildError::Incomplete("the peer of a socket"))
    }

    pub(crate) fn fd(&self, socket: u32) -> Result<&OwnedFd, RebuildError> {
        self.fds.get(socket as usize).and_then(Option::as_ref).ok_or(RebuildError::Incomplete("the peer of a socket"))
    }

    pub(crate) fn is_made(&self, socket: u32) -> bool {
        self.fds.get(socket as usize).is_some_and(Option::is_some)
    }

    /// Keeps a socket that has been made, at a number that is none of the job's.
    pub(crate) fn keep(&mut self, socket: u32, fd: OwnedFd) -> Result<(), RebuildError> {
        let lifted = lift(fd, self.context.lowest())?;
        let slot = self.fds.get_mut(socket as usize).ok_or(RebuildError::Incomplete("the peer of a socket"))?;
        *slot = Some(lifted);
        Ok(())
    }

    pub(crate) fn note(&self, text: String) {
        self.context.note(text);
    }

    /// For `map_err`: a socket that could not be made.
    pub(crate) fn failed<E: Into<std::io::Error>>(&self, socket: u32, what: &str) -> impl FnOnce(E) -> RebuildError {
        let name = self.state(socket).map_or_else(|_| "socket".to_owned(), SocketState::describe);
        RebuildError::call(format!("{what} the {name} of process {}", owner(self.context.objects(), socket)))
    }

    /// Sends what waited in queues, and brings every socket into its last state. `open` are all other files of the job; the sockets are added.
    ///
    /// # Errors
    ///
    /// When a socket does not take what it had.
    pub fn fill(mut self, open: &mut [Option<OwnedFd>]) -> Result<(), RebuildError> {
        let objects = self.context.objects();
        self.fill_unix(open)?;
        self.fill_inet()?;
        self.close_unix()?;
        self.close_inet()?;
        for (index, socket) in (0u32..).zip(objects.sockets) {
            if !self.is_made(index) {
                continue;
            }
            for option in options::apply(self.fd(index)?, socket) {
                self.note(format!(
                    "the {} of process {} has lost its option {} of level {}, which cannot be set here",
                    socket.describe(),
                    owner(objects, index),
                    option.name,
                    option.level
                ));
            }
        }
        for (file, open) in objects.open_files.iter().zip(open) {
            let Some(socket) = file.socket() else { continue };
            let nonblocking = OFlags::from_bits_retain(file.flags).contains(OFlags::NONBLOCK);
            rustix::io::ioctl_fionbio(self.fd(socket)?, nonblocking).map_err(self.failed(socket, "set the flags of"))?;
            *open = self.fds.get_mut(socket as usize).and_then(Option::take);
        }
        Ok(())
    }

    /// A file that was in flight.
    pub(crate) fn in_flight<'b>(&'b self, open: &'b [Option<OwnedFd>], file: FileIndex) -> Option<&'b OwnedFd> {
        match self.context.objects().open_files.get(file.at())?.socket() {
            Some(socket) => self.fd(socket).ok(),
            None => open.get(file.at())?.as_ref(),
        }
    }
}
