//! The socket that agents connect to, and their messages.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;
use ckpt_objects::{HostPid, NsPid};
use ckpt_sys::socket::peer;
use ckpt_wire::{Hello, PROTOCOL, Secret};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recvmsg, sendmsg, socket_with, sockopt,
};

/// How many connections on which nothing has been said are kept.
const MAX_STRANGERS: usize = 256;

/// A process holds a signal back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSignal {
    /// The process.
    pub pid: HostPid,
    /// Its number in its own pid namespace.
    pub ns_pid: NsPid,
    /// The signal.
    pub signal: i32,
}

/// The abstract socket of a job.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    secret: Secret,
    /// Connections on which nothing has been said yet, while nobody is expected.
    strangers: Mutex<Vec<Connection>>,
    /// Who holds signals back, for whoever looks next.
    holds: Mutex<Vec<HeldSignal>>,
}

/// The names of the abstract UNIX sockets of this network namespace, without their zero byte.
///
/// Read by hand: the procfs crate gives up at a name that is not UTF-8, and any process may bind one.
///
/// # Errors
///
/// When `/proc/net/unix` cannot be read.
pub fn abstract_sockets() -> io::Result<Vec<String>> {
    let table = std::fs::read("/proc/net/unix")?;
    // A line ends with the socket's name; `@` stands for the zero byte of an abstract one.
    Ok(String::from_utf8_lossy(&table).lines().filter_map(|line| Some(line.split_once(" @")?.1.to_owned())).collect())
}

impl Listener {
    /// Listens for the agents of the job with this secret in the pid namespace with this inode number.
    ///
    /// # Errors
    /// `EADDRINUSE`: the job has another coordinator in that namespace.
    pub fn bind(secret: Secret, pid_namespace: u64) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(&secret.socket(pid_namespace))?)?;
        listen(&socket, 1024)?;
        Ok(Self { socket, secret, strangers: Mutex::default(), holds: Mutex::default() })
    }

    /// Whether somebody listens there.
    pub fn exists(secret: Secret, pid_namespace: u64) -> bool {
        let name = secret.socket(pid_namespace);
        abstract_sockets().is_ok_and(|sockets| sockets.iter().any(|socket| socket.as_bytes() == name))
    }

    /// The next connection that waits, if one does; only those of processes of the same user, or of root, are taken.
    ///
    /// # Errors
    /// `EMFILE` where no descriptor is left, and what accept(2) names.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        loop {
            let socket = match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Ok((pid, uid)) = peer(socket.as_raw_fd()) else { continue };
            let own = rustix::process::geteuid();
            // A process whose pid namespace is not below this one has the number 0.
            if pid == 0 || !own.is_root() && uid != own.as_raw() {
                continue;
            }
            if sockopt::set_socket_passcred(&socket, true).is_ok() {
                return Ok(Some(Connection { socket, peer: HostPid(pid) }));
            }
        }
    }
}

impl Listener {
    /// Hears the processes that come unexpectedly: one that tells that it holds a signal back is noted, any other goes on when its connection closes.
    pub fn hear_strangers(&self) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.extend(std::iter::from_fn(|| self.accept().ok().flatten()));
        // An agent speaks at once. Whoever connects to take the descriptors, as anybody can to root's coordinator, loses the first ones.
        let too_many = strangers.len().saturating_sub(MAX_STRANGERS);
        strangers.drain(..too_many);
        strangers.retain(|connection| match connection.receive::<Hello>() {
            Received::Message(hello, _) => {
                self.note(connection, &hello);
                false
            }
            Received::Nothing => true,
            Received::Closed => false,
        });
    }

    /// Whether somebody has connected and not said anything yet.
    pub fn has_strangers(&self) -> bool {
        !self.strangers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether a process of the job has sent this.
    #[must_use]
    pub fn is_of_job(&self, hello: &Hello) -> bool {
        hello.secret == self.secret.bytes()
    }

    /// Notes that a process holds a signal back, if that is what it came to tell.
    pub fn note(&self, connection: &Connection, hello: &Hello) -> bool {
        let is_hold = hello.protocol == PROTOCOL && self.is_of_job(hello) && (1..=64).contains(&hello.holds);
        if is_hold {
            let hold = HeldSignal { pid: connection.peer, ns_pid: NsPid(hello.pid), signal: hello.holds };
            self.holds.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
        }
        is_hold
    }

    /// What was noted since the last look.
    pub fn holds(&self) -> Vec<HeldSignal> {
        std::mem::take(&mut *self.holds.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A connection to an agent.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// The process that made it, as seen here.
    pub peer: HostPid,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What a connection gave.
pub enum Received<T> {
    /// A message, and the process that sent it.
    Message(T, HostPid),
    /// Nothing yet.
    Nothing,
    /// The other side has closed it, or talks nonsense.
    Closed,
}

impl Connection {
    /// Sends a message, with a descriptor if one is given.
    ///
    /// # Errors
    /// The peer has ended (`EPIPE`), or does not read (`EAGAIN`).
    pub fn send<T: Pod>(&self, message: &T, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sendmsg(&self.socket, &[IoSlice::new(bytemuck::bytes_of(message))], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives a message if one waits.
    pub fn receive<T: Pod>(&self) -> Received<T> {
        let mut message = T::zeroed();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let bytes = bytemuck::bytes_of_mut(&mut message);
        let len = bytes.len();
        let result =
            recvmsg(&self.socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC);
        let mut sender = self.peer;
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmCredentials(credentials) = ancillary {
                sender = HostPid(credentials.pid.as_raw_nonzero().get());
            }
        }
        match result {
            // One that is longer was cut.
            Ok(received) if received.bytes == len && !received.flags.contains(ReturnFlags::TRUNC) => {
                Received::Message(message, sender)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Received::Nothing,
            _ => Received::Closed,
        }
    }
}
