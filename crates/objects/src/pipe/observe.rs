//! Observing a pipe: its bytes are copied with tee(2), which leaves them where they are.

use std::io;

use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, tee};

use super::PipeState;
use crate::descriptor::SeenDescriptor;
use crate::observe::proc_path;

/// The pipe that a descriptor of a frozen process is an end of, with all that is in it. `by_packets`: it is in packet mode (`O_DIRECT`).
pub fn observe(descriptor: &SeenDescriptor, by_packets: bool) -> io::Result<PipeState> {
    let path = proc_path(descriptor.pid, &format!("fd/{}", descriptor.fd));
    // Opening an end through /proc makes a description of our own: its flags are not the job's.
    let pipe = open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let capacity = fcntl_getpipe_size(&pipe)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // As many slots as the job's pipe has, or the copy would end early.
    if fcntl_getpipe_size(&writer)? < capacity {
        fcntl_setpipe_size(&writer, capacity)?;
    }
    let waiting = rustix::io::ioctl_fionread(&pipe)?;
    let mut packets = Vec::new();
    if waiting > 0 {
        tee(&pipe, &writer, usize::try_from(waiting).unwrap_or(usize::MAX), SpliceFlags::NONBLOCK)?;
        drop(writer);
        let mut buffer = vec![0; capacity.max(4096)];
        let mut copied = 0;
        loop {
            match rustix::io::read(&reader, &mut buffer)? {
                0 => break,
                n if by_packets || packets.is_empty() => {
                    packets.push(buffer[..n].to_vec());
                    copied += n as u64;
                }
                n => {
                    if let Some(packet) = packets.last_mut() {
                        packet.extend_from_slice(&buffer[..n]);
                    }
                    copied += n as u64;
                }
            }
        }
        if copied != waiting {
            return Err(io::Error::other(format!("only {copied} of {waiting} bytes in flight could be copied")));
        }
    }
    let named = descriptor.link.0.first() == Some(&b'/');
    Ok(PipeState {
        path: named.then(|| descriptor.link.clone()),
        capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
        packets,
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::HostPid;

    #[test]
    fn bytes_in_flight_are_copied_and_stay() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let sent: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(rustix::io::write(&writer, &sent).unwrap(), sent.len());
        let seen = crate::descriptor::descriptors(HostPid(std::process::id() as i32), -1).unwrap();
        let descriptor = seen.iter().find(|seen| seen.fd == reader.as_raw_fd()).unwrap();
        for _ in 0..2 {
            let state = observe(descriptor, false).unwrap();
            assert_eq!(state.packets, [sent.clone()]);
            assert!(state.path.is_none() && state.capacity >= 65536);
        }
        let mut back = vec![0; sent.len()];
        assert_eq!(rustix::io::read(&reader, &mut back).unwrap(), sent.len());
        assert_eq!(back, sent);
    }
}
