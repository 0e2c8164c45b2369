//! All sockets of the job, made by the process that makes all files ([`crate::files`]): pairs are joined, names are bound, queues are
//! filled.
//!
//! 1. [`check`]: are the names free? What led outside is told. Nothing is changed.
//! 2. [`build`]: sockets are made, bound and connected. Connections come first: each is made through a listening socket of its own that
//!    has the name for a moment, so that both ends have the names that they had, whether their listening socket still exists or not.
//! 3. [`Built::fill`], when all other files are there too, since they may be in flight: what waited in queues is sent again. Then ways are
//!    closed that were closed, peers that were gone go, and options are set.
//!
//! What the kernel notes about who made a socket (`SO_PEERCRED`, `SCM_CREDENTIALS`) is right because it is made by a child that has that
//! number for a moment ([`maker`]).

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use ckpt_objects::file::OpenFileKind;
use ckpt_objects::process::Life;
use ckpt_objects::socket::{SocketKind, SocketState, options};
use ckpt_objects::tcp_socket::TcpLink;
use ckpt_objects::unix_socket::UnixLink;
use ckpt_objects::{FilePath, udp_socket};
use ckpt_session::JobState;
use rustix::fs::OFlags;

use crate::control::Report;
use crate::error::{ProcessError, RestoreError};
use crate::files;
use crate::paths::PathMap;
use crate::restart::Restart;

mod inet;
mod maker;
mod past;
pub(crate) mod unix;

/// A process that has a socket open; 0 for one that is only in flight.
fn owner(job: &JobState, socket: u32) -> i32 {
    let is_it = |file: u32| matches!(job.open_files.get(file as usize).map(|file| &file.kind), Some(OpenFileKind::Socket { socket: other }) if *other == socket);
    let having = job.processes.iter().find(|process| match &process.life {
        Life::Alive(live) => live.descriptors.iter().any(|entry| is_it(entry.file)),
        Life::Zombie { .. } => false,
    });
    having.map_or(0, |process| process.pid.0)
}

/// Whether calls on a socket do not wait (`O_NONBLOCK`).
fn is_nonblocking(job: &JobState, socket: u32) -> bool {
    let is_it = |kind: &OpenFileKind| matches!(kind, OpenFileKind::Socket { socket: other } if *other == socket);
    let file = job.open_files.iter().find(|file| is_it(&file.kind));
    file.is_some_and(|file| OFlags::from_bits_retain(file.flags).contains(OFlags::NONBLOCK))
}

/// Whether all sockets can be made; gives a line on those that led outside of the job.
pub fn check(
    job: &JobState,
    paths: &PathMap,
    strict: bool,
    holds: &dyn Fn(&FilePath) -> bool,
) -> Result<Option<String>, RestoreError> {
    let (mut lost, mut again) = (Vec::new(), Vec::new());
    for (index, socket) in (0u32..).zip(&job.sockets) {
        if strict && socket.leads_outside() {
            return Err(RestoreError::Outside { socket: socket.describe(), pid: owner(job, index) });
        }
        let refused = |why: String| RestoreError::Socket { socket: socket.describe(), pid: owner(job, index), why };
        match &socket.kind {
            SocketKind::Unix(unix) => {
                unix::check(socket, paths, holds).map_err(refused)?;
                if let UnixLink::Outside(name) = &unix.link {
                    let list = if socket.form == libc::SOCK_DGRAM { &mut again } else { &mut lost };
                    list.push(format!("to {name} (process {})", owner(job, index)));
                }
            }
            SocketKind::Tcp(tcp) => match &tcp.link {
                TcpLink::Outside(name) => lost.push(format!("to {name} (process {})", owner(job, index))),
                TcpLink::Connecting { to, .. } => {
                    let list = if is_nonblocking(job, index) { &mut lost } else { &mut again };
                    list.push(format!("to {to} (process {})", owner(job, index)));
                }
                TcpLink::Listening { .. } if socket.leads_outside() => {
                    again.push(format!("listening on {} (process {})", socket.name, owner(job, index)));
                }
                _ => (),
            },
            SocketKind::Udp(udp_socket::UdpState { outside: true, peer: Some(peer), .. }) => {
                again.push(format!("to {peer} (process {})", owner(job, index)));
            }
            SocketKind::Udp(_) => (),
            SocketKind::Netlink(_) => again.push(format!("netlink (process {})", owner(job, index))),
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
pub struct Built<'a> {
    restart: &'a Restart<'a>,
    patience: inet::Patience<'a>,
    /// By index in [`JobState::sockets`], at numbers that are none of the job's.
    fds: Vec<Option<OwnedFd>>,
    /// Peers that are to be gone: with the index of the socket that they are connected to.
    temporary: Vec<(u32, OwnedFd)>,
    /// Peers of TCP sockets that are to be gone.
    ending: Vec<(u32, OwnedFd)>,
    /// How UNIX sockets with names are reached, by index.
    reach: Vec<Option<maker::Reach>>,
}

/// Makes and connects all sockets, and puts them into `open`, by index in [`JobState::open_files`].
pub fn build<'a>(restart: &'a Restart<'a>, open: &mut [Option<RawFd>]) -> Result<Built<'a>, ProcessError> {
    let count = restart.job.sockets.len();
    let mut built = Built {
        restart,
        patience: inet::Patience::new(restart),
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
    for (file, open) in restart.job.open_files.iter().zip(open) {
        if let (OpenFileKind::Socket { socket }, None) = (&file.kind, file.inherited) {
            let fd = built.fds.get(*socket as usize).and_then(Option::as_ref);
            *open = Some(fd.ok_or(ProcessError::Incomplete("a socket that is open"))?.as_raw_fd());
        }
    }
    Ok(built)
}

impl Built<'_> {
    fn state(&self, socket: u32) -> Result<&SocketState, ProcessError> {
        self.restart.job.sockets.get(socket as usize).ok_or(ProcessError::Incomplete("the peer of a socket"))
    }

    fn fd(&self, socket: u32) -> Result<&OwnedFd, ProcessError> {
        self.fds.get(socket as usize).and_then(Option::as_ref).ok_or(ProcessError::Incomplete("the peer of a socket"))
    }

    fn is_made(&self, socket: u32) -> bool {
        self.fds.get(socket as usize).is_some_and(Option::is_some)
    }

    /// Keeps a socket that has been made, at a number that is none of the job's.
    fn keep(&mut self, socket: u32, fd: OwnedFd) -> Result<(), ProcessError> {
        use std::os::fd::AsFd;
        let lifted = files::lift(fd.as_fd(), self.restart.lowest)?;
        let slot = self.fds.get_mut(socket as usize).ok_or(ProcessError::Incomplete("the peer of a socket"))?;
        *slot = Some(lifted);
        Ok(())
    }

    fn note(&self, text: String) {
        self.restart.report(&Report::Note(text));
    }

    /// For `map_err`: a socket that could not be made.
    fn failed<E: Into<std::io::Error>>(&self, socket: u32, what: &str) -> impl FnOnce(E) -> ProcessError {
        let name = self.state(socket).map_or_else(|_| "socket".to_owned(), SocketState::describe);
        ProcessError::call(format!("{what} the {name} of process {}", owner(self.restart.job, socket)))
    }

    /// Sends what waited in queues, and brings every socket into its last state. `open` are all files of the job.
    pub fn fill(mut self, open: &[Option<RawFd>]) -> Result<(), ProcessError> {
        let job = self.restart.job;
        self.fill_unix(open)?;
        self.fill_inet()?;
        self.close_unix()?;
        self.close_inet()?;
        for (index, socket) in (0u32..).zip(&job.sockets) {
            if !self.is_made(index) {
                continue;
            }
            for option in options::apply(self.fd(index)?, socket) {
                self.note(format!(
                    "the {} of process {} has lost its option {} of level {}, which cannot be set here",
                    socket.describe(),
                    owner(job, index),
                    option.name,
                    option.level
                ));
            }
        }
        for file in &job.open_files {
            let (OpenFileKind::Socket { socket }, None) = (&file.kind, file.inherited) else { continue };
            let nonblocking = OFlags::from_bits_retain(file.flags).contains(OFlags::NONBLOCK);
            rustix::io::ioctl_fionbio(self.fd(*socket)?, nonblocking).map_err(self.failed(*socket, "set the flags of"))?;
        }
        // From here on they are the job's, known by their numbers.
        for fd in self.fds.into_iter().flatten() {
            let _ = fd.into_raw_fd();
        }
        Ok(())
    }
}
