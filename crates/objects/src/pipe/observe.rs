//! Observing a pipe: its bytes are copied with tee(2), which leaves them where they are.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, tee};

use super::PipeState;
use crate::FileId;
use crate::descriptor::SeenDescriptor;
use crate::event;
use crate::numbered::Numbered;

/// The pipes of a job.
#[derive(Debug, Default)]
pub struct Observer(Numbered<FileId, PipeState>);

impl Observer {
    /// The number of the pipe that a descriptor is an end of. `descriptions` are all open file descriptions of the job.
    ///
    /// # Errors
    ///
    /// When what is in it cannot be copied.
    pub fn see(&mut self, descriptor: &SeenDescriptor, descriptions: &[SeenDescriptor]) -> io::Result<u32> {
        let is_packet_end = |other: &SeenDescriptor| other.id() == descriptor.id() && other.flags & libc::O_DIRECT as u32 != 0;
        self.0.number(descriptor.id(), || observe(descriptor, descriptions.iter().any(is_packet_end)))
    }

    /// All of them, by number.
    #[must_use]
    pub fn into_states(self) -> Vec<PipeState> {
        self.0.into_all()
    }
}

/// The pipe that a descriptor of a frozen process is an end of, with all that is in it. `by_packets`: it is in packet mode
/// (`O_DIRECT`).
fn observe(descriptor: &SeenDescriptor, by_packets: bool) -> io::Result<PipeState> {
    let named = descriptor.link.0.first() == Some(&b'/') && descriptor.links > 0;
    let path = named.then(|| descriptor.link.clone());
    let Some(pipe) = read_end(descriptor)? else {
        return Ok(PipeState { path, capacity: 0, packets: Vec::new() });
    };
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
    Ok(PipeState { path, capacity: u32::try_from(capacity).unwrap_or(u32::MAX), packets })
}

/// An end of the pipe to read from; nothing where the job has no such end and may not open one: a pipe that somebody else made,
/// and passed on its other end only. What is in it is not the job's to read.
fn read_end(descriptor: &SeenDescriptor) -> io::Result<Option<OwnedFd>> {
    // Opening an end through /proc makes a description of our own: its flags are not the job's.
    match open(descriptor.through(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(pipe) => return Ok(Some(pipe)),
        Err(Errno::ACCESS | Errno::PERM) => (),
        Err(errno) => return Err(errno.into()),
    }
    if descriptor.flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32 {
        return Ok(None);
    }
    event::duplicate(descriptor).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_flight_are_copied_and_stay() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let sent: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(rustix::io::write(&writer, &sent).unwrap(), sent.len());
        let descriptor = crate::event::seen(&reader);
        for _ in 0..2 {
            let state = observe(&descriptor, false).unwrap();
            assert_eq!(state.packets, std::slice::from_ref(&sent));
            assert!(state.path.is_none() && state.capacity >= 65536);
        }
        let mut back = vec![0; sent.len()];
        assert_eq!(rustix::io::read(&reader, &mut back).unwrap(), sent.len());
        assert_eq!(back, sent);
    }
}
