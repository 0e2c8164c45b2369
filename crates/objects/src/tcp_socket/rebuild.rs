//! Rebuilds TCP sockets: sends unread bytes again.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::Received;
use super::drain::{Opened, flow, look, waiting};
use crate::socket::rebuild::{send_bytes, take_urgent};

/// How long a receiver of this machine may take to make room.
const ROOM_TIME: Duration = Duration::from_secs(5);

/// Sends what waited to be read from `to`, from its peer; it has arrived when this returns. `inline`: `SO_OOBINLINE` is set.
///
/// # Errors
/// The bytes do not fit into the peer's buffer, or did not arrive in time.
pub fn deliver(from: &OwnedFd, to: &OwnedFd, received: &Received, inline: bool) -> io::Result<()> {
    let Received { data, urgent } = received;
    if data.is_empty() && urgent.is_none() {
        return Ok(());
    }
    let _opened = Opened::new(to);
    match urgent {
        None => send_all(from, to, data, false)?,
        Some(urgent) => {
            let at = (urgent.at as usize).min(data.len());
            send_all(from, to, &data[..at], false)?;
            send_all(from, to, &[urgent.byte], true)?;
            send_all(from, to, data.get(at + usize::from(inline)..).unwrap_or_default(), false)?;
        }
    }
    if !flow(Some(from), to)? {
        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    }
    if urgent.is_some_and(|urgent| urgent.taken) {
        take_urgent(to)?;
    }
    Ok(())
}

fn send_all(from: &OwnedFd, to: &OwnedFd, mut data: &[u8], urgent: bool) -> io::Result<()> {
    let begun = Instant::now();
    while !data.is_empty() {
        match send_bytes(from, data, urgent) {
            Ok(sent) => data = &data[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < ROOM_TIME => {
                // A look tells the sender that there is room.
                look(to, &mut vec![0; waiting(to)?.max(1)])?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::super::drain::received;
    use super::super::{Received, Urgent};
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn owned(stream: &TcpStream) -> OwnedFd {
        stream.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn what_is_in_flight_is_seen_and_sent_again() {
        let (from, mut to) = pair();
        from.set_nonblocking(true).unwrap();
        // More than the receiver takes by itself.
        let data: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
        let sent = Received { data, urgent: None };
        deliver(&owned(&from), &owned(&to), &sent, false).unwrap();
        for _ in 0..2 {
            assert!(received(&owned(&to), sent.data.len()).unwrap() == sent);
        }
        let mut back = vec![0; sent.data.len()];
        to.read_exact(&mut back).unwrap();
        assert!(back == sent.data);
    }

    #[test]
    fn urgent_bytes_keep_their_place() {
        for (data, at, taken) in [("abcd", 2, false), ("abcd", 2, true), ("abcd", 0, false), ("abcd", 4, false), ("", 0, false)] {
            let (from, to) = pair();
            let urgent = Some(Urgent { at, byte: if taken { 0 } else { b'!' }, taken });
            let sent = Received { data: data.into(), urgent };
            deliver(&owned(&from), &owned(&to), &sent, false).unwrap();
            for _ in 0..2 {
                assert_eq!(received(&owned(&to), data.len() + 1).unwrap(), sent);
            }
        }
    }
}
