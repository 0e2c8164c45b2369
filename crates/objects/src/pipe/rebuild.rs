//! Rebuilds pipes, with the bytes that were in them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::PipeState;
use crate::rebuild::{self, RebuildError};

/// Makes a pipe, fills it, and gives an open file description for each of `ends`, which are the flags of the recorded ones.
///
/// `path` is where a named pipe is now. Nothing blocks: while the ends are opened, both sides of the pipe are held open.
///
/// # Errors
/// A pipe of that capacity is not allowed, does not hold the bytes, or its name cannot be opened.
pub fn rebuild(state: &PipeState, path: Option<&Path>, ends: &[u32]) -> Result<Vec<OwnedFd>, RebuildError> {
    let (read_side, write_side) = match path {
        Some(path) => {
            let stat = rustix::fs::stat(path).map_err(RebuildError::open(path))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
                return Err(RebuildError::file("use as a named pipe", path)(Errno::NXIO));
            }
            let both = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
                .map_err(RebuildError::open(path))?;
            let writer = rebuild::reopen(&both, (OFlags::WRONLY | OFlags::NONBLOCK).bits())?;
            (both, writer)
        }
        None => rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed("make", state.capacity))?,
    };
    if state.capacity != 0 {
        let have = rustix::pipe::fcntl_getpipe_size(&read_side).map_err(failed("examine", state.capacity))?;
        if have != state.capacity as usize {
            // An ordinary user may not have it larger than fs.pipe-max-size: that matters only if the bytes do not fit.
            let _ = rustix::pipe::fcntl_setpipe_size(&read_side, state.capacity as usize);
        }
    }
    for packet in &state.packets {
        fill(&write_side, packet, state)?;
    }
    ends.iter()
        .map(|&flags| match path {
            // By its name, so that `/proc/PID/fd` shows it again.
            Some(path) => rustix::fs::open(path, rebuild::open_flags(flags & !OFlags::DIRECT.bits()), Mode::empty())
                .map_err(RebuildError::open(path)),
            None => rebuild::reopen(&read_side, flags),
        })
        .collect()
}

fn fill(write_side: &OwnedFd, packet: &[u8], state: &PipeState) -> Result<(), RebuildError> {
    // Several packets stay apart only in packet mode.
    if state.packets.len() > 1 {
        rustix::fs::fcntl_setfl(write_side, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::DIRECT)
            .map_err(failed("set the packet mode of", state.capacity))?;
    }
    let mut rest = packet;
    while !rest.is_empty() {
        match rustix::io::write(write_side, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => (),
            Err(Errno::AGAIN) => {
                let bytes = state.packets.iter().map(Vec::len).sum();
                return Err(RebuildError::PipeTooSmall { capacity: state.capacity, bytes });
            }
            Err(error) => return Err(failed("fill", state.capacity)(error)),
        }
    }
    Ok(())
}

fn failed(action: &'static str, capacity: u32) -> impl FnOnce(Errno) -> RebuildError {
    move |error| RebuildError::Pipe { action, capacity, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(fd: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = rustix::io::read(fd, &mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        all
    }

    #[test]
    fn bytes_in_flight_are_there_again_and_ends_are_separate_descriptions() {
        let bytes: Vec<u8> = (0..65536u32).map(|i| (i % 251) as u8).collect();
        let state = PipeState { path: None, capacity: 65536, packets: vec![bytes.clone()] };
        let (read, write) = (OFlags::RDONLY.bits(), OFlags::WRONLY.bits());
        let ends = rebuild(&state, None, &[read, write | OFlags::NONBLOCK.bits(), read | OFlags::NONBLOCK.bits()]).unwrap();
        assert_eq!(drain(&ends[2]), bytes);
        let flags = |end: &OwnedFd| rustix::fs::fcntl_getfl(end).unwrap();
        assert!(!flags(&ends[0]).contains(OFlags::NONBLOCK));
        assert!(flags(&ends[1]).contains(OFlags::NONBLOCK | OFlags::WRONLY));
        rustix::io::write(&ends[1], b"more").unwrap();
        assert_eq!(drain(&ends[2]), b"more");
    }

    #[test]
    fn a_pipe_whose_writers_are_gone_ends() {
        let state = PipeState { path: None, capacity: 4096, packets: vec![b"last".to_vec()] };
        let ends = rebuild(&state, None, &[OFlags::RDONLY.bits()]).unwrap();
        assert_eq!(drain(&ends[0]), b"last");
        assert_eq!(rustix::io::read(&ends[0], &mut [0; 1]), Ok(0));
    }

    #[test]
    fn packets_stay_apart() {
        let state = PipeState { path: None, capacity: 65536, packets: vec![b"one".to_vec(), b"three".to_vec()] };
        let direct = OFlags::DIRECT.bits();
        let ends = rebuild(&state, None, &[OFlags::RDONLY.bits() | direct, OFlags::WRONLY.bits() | direct]).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(rustix::io::read(&ends[0], &mut buffer), Ok(3));
        assert_eq!(rustix::io::read(&ends[0], &mut buffer), Ok(5));
        assert!(rustix::fs::fcntl_getfl(&ends[1]).unwrap().contains(OFlags::DIRECT));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let state = PipeState { path: None, capacity: 4096, packets: vec![vec![1; 1 << 20]] };
        assert!(matches!(rebuild(&state, None, &[OFlags::RDONLY.bits()]), Err(RebuildError::PipeTooSmall { .. })));
    }

    #[test]
    fn a_missing_named_pipe_is_named() {
        let state = PipeState { path: Some(crate::FilePath(b"/nowhere/fifo".to_vec())), capacity: 4096, packets: vec![] };
        let error = rebuild(&state, Some(Path::new("/nowhere/fifo")), &[0]).unwrap_err();
        assert!(error.to_string().starts_with("cannot open /nowhere/fifo: "), "{error}");
    }
}
