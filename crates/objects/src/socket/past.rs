//! Connections of the past: what a killed run leaves in `TIME_WAIT` would keep the addresses of the job for a minute.
//!
//! Both ends of one within a machine are gone, and nothing of it is under way any more. So it can be ended at once, by what RFC 1337 warns of: from
//! the address of its peer it is connected to anew. It answers with an acknowledgement of what was; whoever connects knows nothing of that, and
//! sends a reset, which it takes (`tcp_timewait_state_process` in net/ipv4/tcp_minisocks.c). Where `net.ipv4.tcp_rfc1337` is set it does not, and
//! a restart waits.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_reuseaddr};

use super::observe::{fresh, past_connections};
use super::{Address, rebuild};

/// Ends each connection of the past that is named by its own address and that of its peer.
pub(super) fn forget(is_named: impl Fn(&Address, &Address) -> bool) -> io::Result<()> {
    // One that is over at both ends keeps both addresses: the first end that goes lets the other be reached.
    for _ in 0..2 {
        let mut past = past_connections()?;
        past.retain(|(local, remote)| is_named(local, remote));
        for (local, remote) in &past {
            // From another machine's address nothing can be sent.
            let _ = reset(local, remote);
        }
        if past.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Connects to `address` from that of its peer.
fn reset(address: &Address, peer: &Address) -> io::Result<()> {
    let (to, from) = (plain(address), plain(peer));
    let family = if to.inet().is_some_and(|to| to.is_ipv4()) { libc::AF_INET } else { libc::AF_INET6 };
    let fd = fresh(family, libc::SOCK_STREAM, 0)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    set_socket_reuseaddr(&fd, true)?;
    // If somebody listens there after all, this one is not to stay behind.
    set_socket_linger(&fd, Some(Duration::ZERO))?;
    rebuild::bind(&fd, &from).or_else(|_| rebuild::choose_port(&fd, &from))?;
    rebuild::connect(&fd, &to)
}

/// An address of IPv4 as such, where it is one that is mapped into IPv6.
fn plain(address: &Address) -> Address {
    let plain = |inet: SocketAddr| match inet.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, inet.port()),
        _ => inet,
    };
    address.inet().map_or_else(Address::default, |inet| Address::of_inet(plain(inet)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What is in `TIME_WAIT` at a port.
    fn past_at(port: u16) -> usize {
        let is_at = |(local, _): &&(Address, Address)| local.inet().is_some_and(|local| local.port() == port);
        past_connections().unwrap().iter().filter(is_at).count()
    }

    #[test]
    fn a_connection_of_the_past_gives_its_port_back_at_once() {
        let forbidden = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_rfc1337").is_ok_and(|text| text.trim() != "0");
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            for _ in 0..3 {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                drop(listener.accept().unwrap());
                std::io::Read::read(&mut &client, &mut [0]).unwrap();
            }
            drop(listener);
            assert_eq!(past_at(port), 3);
            forget(|local, _| local.inet().is_some_and(|local| local.port() == port)).unwrap();
            assert_eq!(past_at(port), if forbidden { 3 } else { 0 });
        }
    }
}
