//! Reading what is in flight over TCP.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ckpt_sys::raw::Errno;
use ckpt_sys::socket::{get_option, receive};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Received, Urgent};
use crate::socket::io_error;
use crate::socket::options::{number, set_number};

/// How long data may take from one socket to another of the same machine; most is the time of a delayed acknowledgement.
const FLOW_TIME: Duration = Duration::from_millis(500);

/// `struct tcp_info` (include/uapi/linux/tcp.h), as far as this kernel has it.
pub(crate) struct TcpInfo {
    bytes: [u8; 256],
    len: usize,
}

impl TcpInfo {
    pub(crate) fn of(fd: &OwnedFd) -> io::Result<Self> {
        let mut bytes = [0; 256];
        let len = get_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes).map_err(io_error)?;
        Ok(Self { bytes, len: len.min(256) })
    }

    /// `TCP_ESTABLISHED` (1) and its like.
    pub(crate) fn state(&self) -> u8 {
        self.bytes[0]
    }

    /// Of a listening socket: how many may wait to be accepted.
    pub(crate) fn backlog(&self) -> u32 {
        // tcpi_sacked.
        u32::from_ne_bytes([self.bytes[28], self.bytes[29], self.bytes[30], self.bytes[31]])
    }

    fn long(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes[..self.len].get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// Bytes that came, with one for the peer's end.
    fn received(&self) -> Option<u64> {
        // tcpi_bytes_received.
        self.long(128)
    }

    /// Bytes that were sent, each counted once (Linux 4.19).
    fn sent(&self) -> Option<u64> {
        // tcpi_bytes_sent, tcpi_bytes_retrans.
        self.long(200)?.checked_sub(self.long(208)?)
    }
}

/// Bytes that the peer has not acknowledged, an end among them.
fn unacknowledged(fd: &OwnedFd) -> io::Result<i32> {
    get(fd, libc::TIOCOUTQ)
}

/// Bytes that have not been sent.
fn not_sent(fd: &OwnedFd) -> io::Result<i32> {
    // SIOCOUTQNSD (include/uapi/linux/sockios.h).
    get(fd, 0x894b)
}

/// Bytes that wait to be read, up to an urgent one.
pub(crate) fn waiting(fd: &OwnedFd) -> io::Result<usize> {
    Ok(usize::try_from(get(fd, libc::FIONREAD)?).unwrap_or(0))
}

fn get(fd: &OwnedFd, request: u64) -> io::Result<i32> {
    ckpt_sys::socket::get_number(fd.as_raw_fd(), request as u32).map_err(io_error)
}

/// Whether everything that `from` has sent is in the queue of `to`.
fn has_arrived(from: &OwnedFd, to: &OwnedFd) -> io::Result<bool> {
    if unacknowledged(from)? == 0 {
        return Ok(true);
    }
    if not_sent(from)? != 0 {
        return Ok(false);
    }
    // What has come may not have been acknowledged yet.
    let (sender, receiver) = (TcpInfo::of(from)?, TcpInfo::of(to)?);
    let ends = matches!(sender.state(), 4 | 9 | 11); // FIN_WAIT1, LAST_ACK, CLOSING
    Ok(!ends && sender.sent().zip(receiver.received()).is_some_and(|(sent, received)| received >= sent))
}

/// The receiving socket's window, as wide as it goes for as long as this lives.
pub(crate) struct Opened<'a> {
    fd: &'a OwnedFd,
    low_water: i32,
    /// The size of a buffer that the program has fixed.
    fixed: Option<i32>,
}

impl<'a> Opened<'a> {
    pub(crate) fn new(fd: &'a OwnedFd) -> Self {
        let option = |name| number(fd, libc::SOL_SOCKET, name);
        // SO_BUF_LOCK: SOCK_RCVBUF_LOCK.
        let locked = option(72).unwrap_or(0) & 2 != 0;
        let opened =
            Self { fd, low_water: option(libc::SO_RCVLOWAT).unwrap_or(1), fixed: option(libc::SO_RCVBUF).filter(|_| locked) };
        if locked {
            let set = |name, size| set_number(fd, libc::SOL_SOCKET, name, size);
            let _ = set(libc::SO_RCVBUFFORCE, 64 << 20).or_else(|_| set(libc::SO_RCVBUF, i32::MAX / 4));
        }
        // It asks for a buffer that holds as much, up to half of what tcp_rmem allows.
        let _ = set_number(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, i32::MAX);
        opened
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if let Some(size) = self.fixed {
            let _ = set_number(self.fd, libc::SOL_SOCKET, libc::SO_RCVBUF, size / 2);
        }
        let _ = set_number(self.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, self.low_water);
    }
}

/// Makes everything that `from` has sent, or is yet to send, come to `to`. With no `from`, what is to come is known to end.
pub(crate) fn flow(from: Option<&OwnedFd>, to: &OwnedFd) -> io::Result<bool> {
    let done = || match from {
        Some(from) => has_arrived(from, to),
        None => has_ended(to),
    };
    if done()? {
        return Ok(true);
    }
    let opened = from.map(not_sent).transpose()?.is_none_or(|bytes| bytes > 0).then(|| Opened::new(to));
    let (begun, mut before, mut since) = (Instant::now(), usize::MAX, Instant::now());
    let mut buffer = Vec::new();
    loop {
        if opened.is_some() {
            // A look tells the sender that there is room.
            let waiting = waiting(to)?;
            buffer.resize(waiting.max(1), 0);
            look(to, &mut buffer)?;
            if waiting != before {
                (before, since) = (waiting, Instant::now());
            }
        }
        if done()? {
            return Ok(true);
        }
        if since.elapsed() > FLOW_TIME || begun.elapsed() > 20 * FLOW_TIME {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Events of a socket, now.
pub(crate) fn events(fd: &OwnedFd) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(fd, PollFlags::IN | PollFlags::PRI | PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(fds[0].revents())
}

fn has_ended(fd: &OwnedFd) -> io::Result<bool> {
    Ok(events(fd)?.contains(PollFlags::RDHUP))
}

/// Peeks; gives how many bytes there were.
pub(crate) fn look(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = (libc::MSG_PEEK | libc::MSG_DONTWAIT).cast_unsigned();
    match receive(fd.as_raw_fd(), buffer, &mut [], &mut [], flags) {
        Ok(got) => Ok(got.len),
        Err(Errno(libc::EAGAIN)) => Ok(0),
        Err(error) => Err(io_error(error)),
    }
}

/// What waits to be read: `total` bytes of sequence, in which an urgent byte counts. Takes nothing out.
pub(crate) fn received(fd: &OwnedFd, total: usize) -> io::Result<Received> {
    if total == 0 {
        return Ok(Received::default());
    }
    let option = |name| number(fd, libc::SOL_SOCKET, name);
    let inline = option(libc::SO_OOBINLINE).unwrap_or(0) != 0;
    let before = option(libc::SO_PEEK_OFF).unwrap_or(-1);
    // Linux 6.9.
    let movable = set_number(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0).is_ok();
    let result = read(fd, total, inline, movable);
    if movable {
        set_number(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, before).map_err(io_error)?;
    }
    result
}

fn read(fd: &OwnedFd, total: usize, inline: bool, movable: bool) -> io::Result<Received> {
    let hole = usize::from(!inline);
    let (mut data, mut at, mut offset) = (Vec::new(), None, 0);
    if get(fd, 0x8905)? != 0 {
        // SIOCATMARK: the urgent byte is the next one. A look goes past it by itself, if it is not in the line.
        (at, offset) = (Some(0), hole);
    }
    while offset < total {
        let mut chunk = vec![0; total - offset];
        if movable {
            let offset = i32::try_from(offset).map_err(io::Error::other)?;
            set_number(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset).map_err(io_error)?;
        } else if !data.is_empty() {
            return Err(io::Error::other("bytes behind an urgent one, which this kernel does not show"));
        }
        let len = look(fd, &mut chunk)?;
        data.extend_from_slice(&chunk[..len]);
        offset += len;
        if len == 0 || offset < total && at.is_some() {
            return Err(io::Error::other(format!("only {offset} of {total} bytes in flight could be read")));
        }
        if offset < total {
            at = Some(data.len());
            offset += hole;
        }
    }
    let urgent = at.map(|at| -> io::Result<Urgent> {
        let mut byte = [0];
        let flags = (libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_DONTWAIT).cast_unsigned();
        let there = !inline && receive(fd.as_raw_fd(), &mut byte, &mut [], &mut [], flags).is_ok();
        let taken = !inline && !there;
        let byte = if inline { data.get(at).copied().unwrap_or(0) } else { byte[0] };
        Ok(Urgent { at: u32::try_from(at).map_err(io::Error::other)?, byte, taken })
    });
    Ok(Received { data, urgent: urgent.transpose()? })
}
