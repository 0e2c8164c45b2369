//! How `ckpt-ctl` finds a running coordinator and talks to it: an abstract UNIX socket, one line of JSON each way.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use ckpt_session::abstract_sockets;
use ckpt_sys::raw::Errno;
use ckpt_sys::socket::peer;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Uid;
use serde::{Deserialize, Serialize};

/// How the name begins; the job's id, `/` and the coordinator's pid follow.
const PREFIX: &str = "ckpt-ctl/";
/// How many connections are looked at in a row.
const CONNECTIONS: usize = 64;
/// How long one read waits.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a coordinator that is not stopped may take to tell how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(10);
/// The longest request, in bytes.
const MAX_REQUEST: usize = 64;
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// How it is.
    Status,
    /// Take a checkpoint; answered when it is durable.
    Checkpoint,
    /// The same, and end the job.
    Stop,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// The image.
    Image(String),
    /// What went wrong.
    Error(String),
}

/// How a coordinator is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The job's id.
    pub job: String,
    /// The command's name.
    pub name: String,
    /// The coordinator's pid.
    pub pid: u32,
    /// Where images go.
    pub dir: String,
    /// How many processes the job has.
    pub processes: usize,
    /// Seconds between checkpoints.
    pub interval: Option<f64>,
    /// The newest image that this coordinator made.
    pub newest: Option<String>,
    /// Whether one is being taken.
    pub busy: bool,
}

/// The coordinator's end.
pub struct Server {
    listener: UnixListener,
}

impl Server {
    /// Listens for the job `id`.
    ///
    /// # Errors
    /// `EADDRINUSE`: somebody has the name.
    pub fn bind(id: &str) -> io::Result<Self> {
        let name = format!("{PREFIX}{id}/{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// The next request that waits, and where to answer it. Only the same user, or root, may ask. Looks at a bounded number of connections:
    /// those of others must not keep the coordinator busy.
    pub fn accept(&self) -> Option<(Request, Client)> {
        for _ in 0..CONNECTIONS {
            let (mut stream, _) = self.listener.accept().ok()?;
            let own = rustix::process::geteuid();
            if !user_of(&stream).is_ok_and(|peer| peer == own || peer.is_root()) {
                continue;
            }
            // Whoever connects sends the line as a whole; one that has not is not waited for long.
            if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(Some(PATIENCE)).is_err() {
                continue;
            }
            let mut line = [0; MAX_REQUEST];
            if let Ok(n) = stream.read(&mut line)
                && let Some(request) = parse_request(line.get(..n).unwrap_or(&[]))
            {
                return Some((request, Client(stream)));
            }
        }
        None
    }
}

/// A request, from the line that came.
fn parse_request(line: &[u8]) -> Option<Request> {
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Somebody who waits for an answer.
pub struct Client(UnixStream);

impl Client {
    /// Answers. That it has gone is its own affair.
    pub fn answer(mut self, reply: &Reply) {
        if let Ok(mut line) = serde_json::to_vec(reply) {
            line.push(b'\n');
            let _ = self.0.set_write_timeout(Some(Duration::from_secs(1)));
            let _ = self.0.write_all(&line);
        }
    }
}

/// A running coordinator.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its job.
    pub job: String,
    /// Its pid.
    pub pid: u32,
}

/// The coordinators on this node that answer to this user: for root, those of all users. A name alone proves nothing, as anybody can take it.
///
/// # Errors
///
/// When `/proc/net/unix` cannot be read.
pub fn running() -> io::Result<Vec<Running>> {
    let own = rustix::process::geteuid();
    running_for(|uid| uid == own || own.is_root())
}

/// The coordinators on this node that are this user's own.
///
/// # Errors
///
/// When `/proc/net/unix` cannot be read.
pub fn own_running() -> io::Result<Vec<Running>> {
    let own = rustix::process::geteuid();
    running_for(|uid| uid == own)
}

fn running_for(is_meant: impl Fn(Uid) -> bool) -> io::Result<Vec<Running>> {
    let mut found: Vec<Running> = abstract_sockets()?.iter().filter_map(|name| parse_name(name)).collect();
    found.sort_by(|a, b| (a.pid, &a.job).cmp(&(b.pid, &b.job)));
    found.dedup_by(|a, b| (a.pid, &a.job) == (b.pid, &b.job));
    found.retain(|running| running.connect().is_ok_and(|(_, peer)| is_meant(peer)));
    Ok(found)
}

/// What a socket's name says, if it is a coordinator's: a job's id has 16 hexadecimal digits.
fn parse_name(name: &str) -> Option<Running> {
    let (job, pid) = name.strip_prefix(PREFIX)?.split_once('/')?;
    let is_id = job.len() == 16 && job.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(Running { job: is_id.then(|| job.to_owned())?, pid: pid.parse().ok()? })
}

impl Running {
    /// Connects without waiting. The name may be another user's, who never accepts.
    fn connect(&self) -> io::Result<(UnixStream, Uid)> {
        let name = format!("{PREFIX}{}/{}", self.job, self.pid);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        let peer = user_of(&socket)?;
        Ok((UnixStream::from(socket), peer))
    }

    /// Asks, and waits for the answer: for a checkpoint, until it is durable.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer; `TimedOut` if it is there, and is stopped or too busy. `PermissionDenied` if it is another user's.
    pub fn ask(&self, request: Request) -> io::Result<Reply> {
        let (mut stream, peer) = self.connect()?;
        let own = rustix::process::geteuid();
        if peer != own && !own.is_root() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let limit = (request == Request::Status).then(|| Instant::now() + STATUS_LIMIT);
        let answer = self.read_answer(&mut stream, limit)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Reads up to the end of the line, as long as the coordinator runs.
    fn read_answer(&self, stream: &mut UnixStream, limit: Option<Instant>) -> io::Result<Vec<u8>> {
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"\n") {
            match stream.read(&mut part) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the coordinator ended before it answered")),
                Ok(n) => answer.extend_from_slice(part.get(..n).unwrap_or(&[])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if is_stopped(self.pid) => return Err(self.late("is stopped; continue it with kill -CONT")),
                Err(_) => (),
            }
            if answer.len() > MAX_ANSWER {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the coordinator's answer is too long"));
            }
            if limit.is_some_and(|limit| Instant::now() > limit) {
                return Err(self.late("does not answer; try again later"));
            }
        }
        Ok(answer)
    }

    fn late(&self, how: &str) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, format!("the coordinator of job {} (pid {}) {how}", self.job, self.pid))
    }
}

/// Whose the process at the other end is. Not by rustix, which expects a number of it that is not 0: it may be in a pid namespace above this one.
fn user_of(socket: impl AsFd) -> io::Result<Uid> {
    let (_, uid) = peer(socket.as_fd().as_raw_fd()).map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))?;
    Ok(Uid::from_raw(uid))
}

/// Whether the process is stopped, by a signal or a tracer.
fn is_stopped(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    // The name before it may hold anything, parentheses too.
    state.is_ok_and(|state| state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't'])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_request_line_is_taken_or_refused(line in prop::collection::vec(any::<u8>(), 0..2 * MAX_REQUEST)) {
            let _ = parse_request(&line);
        }

        #[test]
        fn a_socket_name_that_is_not_ours_is_none(name in "(ckpt-ctl/)?.{0,40}") {
            if let Some(running) = parse_name(&name) {
                prop_assert_eq!(running.job.len(), 16);
            }
        }
    }
}
