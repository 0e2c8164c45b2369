//! How `ckpt-ctl` finds a running coordinator and talks to it: an abstract UNIX socket, one line of JSON each way.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use ckpt_session::abstract_sockets;
use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};

/// How the name begins; the job's id, `/` and the coordinator's pid follow.
const PREFIX: &str = "ckpt-ctl/";

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
    pub fn bind(id: &str) -> io::Result<Self> {
        let name = format!("{PREFIX}{id}/{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// The next request that waits, and where to answer it. Only the same user, or root, may ask.
    pub fn accept(&self) -> Option<(Request, Client)> {
        loop {
            let (stream, _) = self.listener.accept().ok()?;
            let own = rustix::process::geteuid();
            if !socket_peercred(&stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root()) {
                continue;
            }
            // Whoever connects has the line ready; one that has not is not waited for long.
            if stream.set_nonblocking(false).is_err() || stream.set_read_timeout(Some(Duration::from_millis(200))).is_err() {
                continue;
            }
            let mut line = String::new();
            if BufReader::new(&stream).read_line(&mut line).is_ok()
                && let Ok(request) = serde_json::from_str(&line)
            {
                return Some((request, Client(stream)));
            }
        }
    }
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

/// Every coordinator that runs on this node.
///
/// # Errors
///
/// When `/proc/net/unix` cannot be read.
pub fn running() -> io::Result<Vec<Running>> {
    let mut found: Vec<Running> = abstract_sockets()?
        .iter()
        .filter_map(|name| {
            let (job, pid) = name.strip_prefix(PREFIX)?.split_once('/')?;
            Some(Running { job: job.to_owned(), pid: pid.parse().ok()? })
        })
        .collect();
    found.sort_by_key(|running| running.pid);
    found.dedup_by_key(|running| running.pid);
    Ok(found)
}

impl Running {
    /// Asks, and waits for the answer: for a checkpoint, until it is durable.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer.
    pub fn ask(&self, request: Request) -> io::Result<Reply> {
        let name = format!("{PREFIX}{}/{}", self.job, self.pid);
        let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        if BufReader::new(&stream).read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the coordinator ended before it answered"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}
