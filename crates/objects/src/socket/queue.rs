//! What waits in the queue of a socket, read without taking it out (`MSG_PEEK`, with `SO_PEEK_OFF` to get past the first).
//!
//! Peeking at a message makes duplicates of the descriptors in it: so they become known even where nobody has them open.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use ckpt_sys::socket::{receive, receive_before_last};

use super::options::{SO_PASSPIDFD, SO_PASSRIGHTS, number, set_number};
use super::{Address, Credentials, io_error};

/// A message in a queue, with descriptors of this process.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    pub data: Vec<u8>,
    /// With the numbers that processes have here.
    pub credentials: Option<Credentials>,
    pub files: Vec<OwnedFd>,
    pub from: Address,
}

/// Options of a socket, set to what peeking needs; they are what they were when this is dropped.
struct Prepared<'a> {
    fd: &'a OwnedFd,
    before: Vec<(i32, i32)>,
}

impl<'a> Prepared<'a> {
    fn new(fd: &'a OwnedFd, wanted: &[(i32, i32)]) -> io::Result<Self> {
        let mut prepared = Self { fd, before: Vec::new() };
        for &(option, value) in wanted {
            // An option that this kernel lacks cannot be set to anything else either.
            let Some(before) = number(fd, libc::SOL_SOCKET, option) else { continue };
            if before != value || option == libc::SO_PEEK_OFF {
                set_number(fd, libc::SOL_SOCKET, option, value).map_err(io_error)?;
                prepared.before.push((option, before));
            }
        }
        Ok(prepared)
    }

    /// Where the next look begins, in bytes from the start of the queue.
    fn look_at(&self, offset: usize) -> io::Result<()> {
        let offset = i32::try_from(offset).map_err(io::Error::other)?;
        set_number(self.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset).map_err(io_error)
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        for &(option, value) in &self.before {
            let _ = set_number(self.fd, libc::SOL_SOCKET, option, value);
        }
    }
}

/// Options for peeking at UNIX sockets: all descriptors and credentials are to be told, and no pidfds.
const UNIX_OPTIONS: [(i32, i32); 4] = [(libc::SO_PEEK_OFF, 0), (libc::SO_PASSCRED, 1), (SO_PASSPIDFD, 0), (SO_PASSRIGHTS, 1)];

/// All messages of a datagram or seqpacket socket, UNIX or UDP.
pub(crate) fn datagrams(fd: &OwnedFd, unix: bool) -> io::Result<Vec<Queued>> {
    let prepared = Prepared::new(fd, if unix { &UNIX_OPTIONS } else { &UNIX_OPTIONS[..1] })?;
    let (mut messages, mut offset) = (Vec::new(), 0);
    let mut size = 64 << 10;
    loop {
        prepared.look_at(offset)?;
        let Some((queued, len)) = peek(fd, size, unix)? else { return Ok(messages) };
        if len > size {
            size = len;
            continue;
        }
        offset += len;
        messages.push(queued);
    }
}

/// All that a UNIX stream holds, which is `total` bytes, in parts that came with one set of credentials and descriptors.
pub(crate) fn stream(fd: &OwnedFd, total: usize) -> io::Result<Vec<Queued>> {
    let prepared = Prepared::new(fd, &UNIX_OPTIONS)?;
    let (mut parts, mut offset) = (Vec::new(), 0);
    while offset < total {
        prepared.look_at(offset)?;
        let Some((mut part, len)) = peek(fd, total - offset, true)? else {
            return Err(io::Error::other(format!("only {offset} of {total} bytes in flight could be read")));
        };
        if !part.files.is_empty() {
            // A look goes on to the end of the first part that has descriptors with it. Where does that begin?
            prepared.look_at(offset)?;
            let flags = (libc::MSG_PEEK | libc::MSG_DONTWAIT).cast_unsigned();
            let without = match receive_before_last(fd.as_raw_fd(), &mut vec![0; len - 1], flags) {
                Ok(without) => without,
                Err(ckpt_sys::raw::Errno(libc::EFAULT)) => 0,
                Err(error) => return Err(io_error(error)),
            };
            if without > 0 {
                let data = part.data.drain(..without).collect();
                parts.push(Queued { data, credentials: part.credentials, ..Queued::default() });
            }
        }
        offset += len;
        parts.push(part);
    }
    Ok(parts)
}

/// The next message of at most `size` bytes, and its length; nothing at the end of the queue.
#[expect(unsafe_code, reason = "descriptors that come with a message are known by their numbers alone")]
fn peek(fd: &OwnedFd, size: usize, unix: bool) -> io::Result<Option<(Queued, usize)>> {
    let (mut data, mut name, mut control) = (vec![0; size], [0; 128], [0; 8192]);
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    let flags = if rustix::net::sockopt::socket_type(fd)? == rustix::net::SocketType::STREAM {
        // Of a stream it would throw bytes away.
        flags & !libc::MSG_TRUNC
    } else {
        flags
    };
    let got = match receive(fd.as_raw_fd(), &mut data, &mut name, &mut control, flags.cast_unsigned()) {
        Ok(got) => got,
        Err(ckpt_sys::raw::Errno(libc::EAGAIN)) => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    // A closed peer reads as an empty message for ever. A real one comes with its sender's credentials (`UNIX_OPTIONS`).
    if unix && got.len == 0 && got.control_len == 0 {
        return Ok(None);
    }
    let mut queued = Queued { from: Address(name[..got.name_len].to_vec()), ..Queued::default() };
    for (kind, value) in controls(&control[..got.control_len]) {
        match kind {
            libc::SCM_RIGHTS => queued.files.extend(value.chunks_exact(4).map(|number| {
                let number = i32::from_ne_bytes([number[0], number[1], number[2], number[3]]);
                // SAFETY: the call has just made this descriptor, and nobody else knows of it.
                unsafe { OwnedFd::from_raw_fd(number) }
            })),
            libc::SCM_CREDENTIALS => {
                queued.credentials = Credentials::parse(value).filter(|one| one.pid != 0 || one.uid != 65534)
            }
            _ => (),
        }
    }
    if got.flags & libc::MSG_CTRUNC.cast_unsigned() != 0 {
        return Err(io::Error::other("what came with a message in flight cannot be read"));
    }
    data.truncate(got.len);
    queued.data = data;
    Ok(Some((queued, got.len)))
}

/// Control messages of the socket level: kind and value (cmsg(3)).
fn controls(mut bytes: &[u8]) -> impl Iterator<Item = (i32, &[u8])> {
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        loop {
            let len = usize::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
            let word = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
            let (level, kind, value) = (word(8)?, word(12)?, bytes.get(HEADER..len)?);
            bytes = bytes.get(len.next_multiple_of(8)..).unwrap_or_default();
            if level == libc::SOL_SOCKET {
                return Some((kind, value));
            }
        }
    })
}

/// Control messages that pass descriptors and say who sends.
#[must_use]
pub(crate) fn make_controls(files: &[i32], credentials: Option<&Credentials>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut add = |kind: i32, value: &[u8]| {
        bytes.extend((16 + value.len()).to_ne_bytes());
        bytes.extend(libc::SOL_SOCKET.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    };
    if !files.is_empty() {
        let numbers: Vec<u8> = files.iter().flat_map(|file| file.to_ne_bytes()).collect();
        add(libc::SCM_RIGHTS, &numbers);
    }
    if let Some(credentials) = credentials {
        add(libc::SCM_CREDENTIALS, &credentials.to_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use ckpt_sys::socket::send;

    use super::*;

    #[test]
    fn a_stream_is_read_in_parts_and_stays() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b): (OwnedFd, OwnedFd) = (a.into(), b.into());
        let file = rustix::event::eventfd(7, rustix::event::EventfdFlags::empty()).unwrap();
        let sent = |data: &[u8], files: &[i32]| {
            assert_eq!(send(a.as_raw_fd(), data, &[], &make_controls(files, None), 0), Ok(data.len()));
        };
        sent(b"f", &[file.as_raw_fd()]);
        sent(b"be", &[]);
        sent(b"fore", &[]);
        sent(b"with", &[file.as_raw_fd(), file.as_raw_fd()]);
        sent(b"again", &[file.as_raw_fd()]);
        sent(b"after", &[]);
        for _ in 0..2 {
            let parts = stream(&b, 21).unwrap();
            let told: Vec<_> = parts.iter().map(|part| (&part.data[..], part.files.len())).collect();
            assert_eq!(told, [(&b"f"[..], 1), (b"before", 0), (b"with", 2), (b"again", 1), (b"after", 0)]);
        }
        assert_eq!(number(&b, libc::SOL_SOCKET, libc::SO_PEEK_OFF), Some(-1));
        assert_eq!(number(&b, libc::SOL_SOCKET, libc::SO_PASSCRED), Some(0));
    }

    #[test]
    fn a_closed_peer_ends_the_queue_of_packets() {
        use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).unwrap();
        for packet in [&b"first"[..], b"", b"last"] {
            send(&a, packet, SendFlags::empty()).unwrap();
        }
        drop(a);
        let seen = datagrams(&b, true).unwrap();
        assert_eq!(seen.into_iter().map(|queued| queued.data).collect::<Vec<_>>(), [&b"first"[..], b"", b"last"]);
    }

    #[test]
    fn datagrams_keep_their_bounds() {
        let (a, b) = UnixDatagram::pair().unwrap();
        let sent = [vec![1; 3], vec![], vec![2; 100_000], vec![3]];
        for data in &sent {
            a.send(data).unwrap();
        }
        let seen = datagrams(&b.into(), true).unwrap();
        assert_eq!(seen.into_iter().map(|queued| queued.data).collect::<Vec<_>>(), sent);
    }
}
