//! Bytes in flight in a pseudo-terminal. The kernel lets nobody peek at them, so they are read and put back, in the frozen job as in
//! a new one: by [`take`] and [`put`], between which the job has lost them. So nothing is taken where nothing is.
//!
//! Input is put back through the line discipline, which is given settings for that moment under which it changes nothing, echoes
//! nothing, and takes any byte literally. Output is written to the slave with output processing off.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ckpt_sys::terminal::{Act, Query, Setting, Termios, act, get, set, set_settings, settings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::{InFlight, Line, Stopped};

/// What the line discipline holds at most (`N_TTY_BUF_SIZE - 1`, drivers/tty/n_tty.c); what is behind that was not yet processed.
const READ_BUFFER: usize = 4095;
/// How much is written at once: by such pieces the buffers hold the most, whatever pieces filled them before (`tty_buffer_alloc`).
const CHUNK: usize = 1000;
/// The longest that the kernel's workers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// `TIOCPKT_*` that discard something (include/uapi/asm-generic/ioctls.h).
const FLUSH_READ: u8 = 1;
const FLUSH_WRITE: u8 = 2;
const STOP: u8 = 4;
const START: u8 = 8;
const NO_STOP: u8 = 16;
const DO_STOP: u8 = 32;

/// What goes through a pseudo-terminal, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The bytes.
    pub bytes: InFlight,
    /// Why output stands still.
    pub stopped: Option<Stopped>,
    /// `TIOCPKT_*` that the master has yet to read.
    pub packet_status: u8,
}

/// Both sides of a pseudo-terminal, with the settings that it has at rest.
pub struct Pair<'a> {
    /// The master.
    pub master: &'a OwnedFd,
    /// The slave.
    pub slave: &'a OwnedFd,
    /// The settings.
    pub settings: Termios,
    /// The master is in packet mode.
    pub packet: bool,
}

/// Something that is waited for by poll(2), at most for a time.
fn ready(fd: &OwnedFd, events: PollFlags, at_most: Duration) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(at_most.subsec_nanos()) };
    let mut fds = [PollFd::new(fd, events)];
    poll(&mut fds, Some(&timeout)).is_ok() && fds[0].revents().intersects(events)
}

fn errno(error: ckpt_sys::raw::Errno) -> io::Error {
    io::Error::from_raw_os_error(error.0)
}

/// Keeps a description from blocking, and gives it back as it was.
struct NonBlocking<'a> {
    fd: &'a OwnedFd,
    before: Option<OFlags>,
}

impl<'a> NonBlocking<'a> {
    fn new(fd: &'a OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            return Ok(Self { fd, before: None });
        }
        fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd, before: Some(flags) })
    }
}

impl Drop for NonBlocking<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = fcntl_setfl(self.fd, before);
        }
    }
}

/// Whether any output is there, or a packet mode status.
pub fn has_output(master: &OwnedFd) -> bool {
    ready(master, PollFlags::IN | PollFlags::PRI, Duration::ZERO)
}

/// Reads what the slave has written and the master has not read.
pub fn take_output(master: &OwnedFd, packet: bool, traffic: &mut Traffic) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    while has_output(master) {
        match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(Errno::IO | Errno::AGAIN) => break,
            Ok(n) if packet => match buffer[0] {
                0 => traffic.bytes.output.extend_from_slice(&buffer[1..n]),
                status => traffic.packet_status |= status,
            },
            Ok(n) => traffic.bytes.output.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Pair<'_> {
    fn canonical(&self) -> bool {
        self.settings.local & (libc::ICANON | libc::EXTPROC) == libc::ICANON
    }

    fn set(&self, settings: &Termios) -> io::Result<()> {
        set_settings(self.slave.as_raw_fd(), settings).map_err(errno)
    }

    /// Settings under which bytes go through as they are. `EOL` characters still end lines.
    fn neutral(&self, literal: u8, end_of_file: u8) -> Termios {
        let mut neutral = self.settings;
        neutral.output = 0;
        neutral.local &= libc::ICANON | libc::EXTPROC;
        let old = self.settings.characters;
        neutral.characters = [0; 19];
        for kept in [libc::VEOL, libc::VEOL2] {
            neutral.characters[kept] = old[kept];
        }
        if self.canonical() {
            neutral.local |= libc::IEXTEN;
            neutral.characters[libc::VLNEXT] = literal;
            neutral.characters[libc::VEOF] = end_of_file;
        } else {
            neutral.characters[libc::VMIN] = 1;
        }
        // A change of these is told to a master in packet mode.
        neutral.input &= if self.packet { libc::IXON } else { 0 };
        for kept in [libc::VSTART, libc::VSTOP].into_iter().filter(|_| self.packet) {
            neutral.characters[kept] = old[kept];
        }
        neutral
    }

    /// Takes everything. What it could take before an error is in `traffic`, too.
    pub fn take(&self, traffic: &mut Traffic) -> io::Result<()> {
        let (_master, _slave) = (NonBlocking::new(self.master)?, NonBlocking::new(self.slave)?);
        take_output(self.master, self.packet, traffic)?;
        let flowing = ready(self.slave, PollFlags::OUT, Duration::ZERO);
        let canonical = self.canonical();
        let finished =
            get(self.slave.as_raw_fd(), Query::Readable).map_err(errno)? > 0 || ready(self.slave, PollFlags::IN, Duration::ZERO);
        let unfinished = !finished && canonical && self.has_unfinished_line()?;
        if !flowing {
            traffic.stopped = Some(self.why_stopped()?);
        }
        if finished || unfinished {
            // What the line discipline has no room for comes in while this is read.
            let mut neutral = self.neutral(0, 0);
            neutral.local &= !libc::IEXTEN;
            if unfinished {
                neutral.local &= !libc::ICANON;
                neutral.characters[libc::VMIN] = 1;
            }
            self.set(&neutral)?;
            self.take_input(&neutral, traffic)?;
        }
        Ok(())
    }

    /// Whether there is input in canonical mode that is no line yet: only another mode shows it. An empty buffer does not change by that.
    fn has_unfinished_line(&self) -> io::Result<bool> {
        let mut raw = self.settings;
        raw.local &= !libc::ICANON;
        self.set(&raw)?;
        let waiting = get(self.slave.as_raw_fd(), Query::Readable);
        if waiting == Ok(0) {
            self.set(&self.settings)?;
            return Ok(false);
        }
        // It would become a line in canonical mode: it stays raw until it has been read.
        waiting.map(|_| true).map_err(errno)
    }

    /// A typed stop ends with `IXON`, one by a call with a call. Output goes on after this.
    fn why_stopped(&self) -> io::Result<Stopped> {
        let mut without = self.settings;
        without.input &= !libc::IXON;
        // Keep what `has_unfinished_line` has found out, if it has.
        without.local = settings(self.slave.as_raw_fd()).map_err(errno)?.local;
        self.set(&without)?;
        if ready(self.slave, PollFlags::OUT, Duration::ZERO) {
            return Ok(Stopped::Character);
        }
        act(self.slave.as_raw_fd(), Act::Flow, 1).map_err(errno)?;
        Ok(Stopped::Call)
    }

    fn take_input(&self, neutral: &Termios, traffic: &mut Traffic) -> io::Result<()> {
        let mut buffer = vec![0; 65536];
        let mut read = || -> io::Result<Option<Vec<u8>>> {
            loop {
                if !ready(self.slave, PollFlags::IN, Duration::ZERO) {
                    return Ok(None);
                }
                match rustix::io::read(self.slave, &mut buffer) {
                    Ok(n) => return Ok(Some(buffer[..n].to_vec())),
                    Err(Errno::AGAIN) => return Ok(None),
                    Err(Errno::INTR) => (),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let mut lines = Vec::new();
        let mut rest = Vec::new();
        if self.canonical() && neutral.local & libc::ICANON != 0 {
            let ends = |byte: u8| {
                byte == b'\n' || byte != 0 && [libc::VEOL, libc::VEOL2].iter().any(|&end| self.settings.characters[end] == byte)
            };
            while let Some(bytes) = read()? {
                let end_of_file = bytes.last().is_none_or(|&last| !ends(last));
                lines.push(Line { bytes, end_of_file });
            }
            let mut raw = *neutral;
            raw.local &= !libc::ICANON;
            raw.characters[libc::VMIN] = 1;
            self.set(&raw)?;
        }
        while let Some(bytes) = read()? {
            if bytes.is_empty() {
                break;
            }
            rest.extend(bytes);
        }
        let bytes = &mut traffic.bytes;
        let mut room = READ_BUFFER;
        for line in lines {
            let size = line.bytes.len() + usize::from(line.end_of_file);
            if size <= room {
                room -= size;
                bytes.lines.push(line);
            } else {
                room = 0;
                bytes.unprocessed.extend(line.bytes);
            }
        }
        let split = if bytes.unprocessed.is_empty() { room.min(rest.len()) } else { 0 };
        bytes.rest.extend_from_slice(&rest[..split]);
        bytes.unprocessed.extend_from_slice(&rest[split..]);
        Ok(())
    }

    /// Puts everything there, into buffers that are empty, and leaves the pair with its settings.
    pub fn put(&self, traffic: &Traffic) -> io::Result<()> {
        let (_master, _slave) = (NonBlocking::new(self.master)?, NonBlocking::new(self.slave)?);
        let bytes = &traffic.bytes;
        let slave = self.slave.as_raw_fd();
        for (status, queue) in [(FLUSH_READ, 0), (FLUSH_WRITE, 1)] {
            // Nothing is there that could be discarded: the master is only told.
            if self.packet && traffic.packet_status & status != 0 {
                act(slave, Act::Flush, queue).map_err(errno)?;
            }
        }
        if !bytes.lines.is_empty() || !bytes.rest.is_empty() {
            self.put_input(bytes)?;
        }
        if !bytes.output.is_empty() {
            let mut plain = settings(slave).map_err(errno)?;
            plain.output = 0;
            self.set(&plain)?;
            write_all(self.slave, &bytes.output)?;
        }
        self.set(&self.settings)?;
        match traffic.stopped {
            Some(Stopped::Call) => drop(act(slave, Act::Flow, 0).map_err(errno)?),
            Some(Stopped::Character) => {
                write_all(self.master, &[self.settings.characters[libc::VSTOP]])?;
                until(|| !ready(self.slave, PollFlags::OUT, Duration::ZERO));
            }
            None => (),
        }
        write_all(self.master, &bytes.unprocessed)?;
        if self.packet {
            self.put_packet_status(traffic)?;
        }
        Ok(())
    }

    fn put_input(&self, bytes: &InFlight) -> io::Result<()> {
        let slave = self.slave.as_raw_fd();
        if !self.canonical() {
            let mut neutral = self.neutral(0, 0);
            let flow = [libc::VSTART, libc::VSTOP].map(|at| self.settings.characters[at]);
            if bytes.rest.iter().any(|byte| flow.contains(byte)) {
                neutral.input &= !libc::IXON;
            }
            self.set(&neutral)?;
            write_all(self.master, &bytes.rest)?;
            until(|| get(slave, Query::Readable).is_ok_and(|count| usize::try_from(count).unwrap_or(0) >= bytes.rest.len()));
            return Ok(());
        }
        let ends = [libc::VEOL, libc::VEOL2].map(|at| self.settings.characters[at]);
        let flow = [libc::VSTART, libc::VSTOP].map(|at| if self.packet { self.settings.characters[at] } else { 0 });
        let mut free = (1..=31u8).filter(|byte| *byte != b'\n' && !ends.contains(byte) && !flow.contains(byte));
        let (literal, end_of_file) = (free.next().unwrap_or(22), free.next().unwrap_or(4));
        let neutral = self.neutral(literal, end_of_file);
        self.set(&neutral)?;
        let special = [literal, end_of_file, b'\n', ends[0], ends[1], flow[0], flow[1]];
        let escape = |bytes: &[u8], to: &mut Vec<u8>| {
            for &byte in bytes {
                if byte != 0 && special.contains(&byte) {
                    to.push(literal);
                }
                to.push(byte);
            }
        };
        let mut through = Vec::new();
        let mut readable = 0;
        for line in &bytes.lines {
            readable += line.bytes.len();
            match line.bytes.split_last() {
                Some((last, body)) if !line.end_of_file => {
                    escape(body, &mut through);
                    through.push(*last);
                }
                _ => {
                    escape(&line.bytes, &mut through);
                    through.push(end_of_file);
                }
            }
        }
        write_all(self.master, &through)?;
        if !bytes.lines.is_empty() {
            until(|| {
                ready(self.slave, PollFlags::IN, Duration::ZERO)
                    && get(slave, Query::Readable).is_ok_and(|count| usize::try_from(count).unwrap_or(0) >= readable)
            });
        }
        let mut through = Vec::new();
        escape(&bytes.rest, &mut through);
        if bytes.lines.is_empty() {
            write_all(self.master, &through)?;
            // While no line is there to be read, this waits for the worker (`n_tty_poll`).
            ready(self.slave, PollFlags::IN, Duration::ZERO);
        } else if !through.is_empty() {
            self.put_unfinished_line(&neutral, &through, bytes.rest.len())?;
        }
        Ok(())
    }

    /// What arrives behind lines cannot be counted. So it is echoed, and the echo, which is the only output there is now, read again.
    fn put_unfinished_line(&self, neutral: &Termios, through: &[u8], len: usize) -> io::Result<()> {
        let mut echoing = *neutral;
        echoing.local |= libc::ECHO;
        self.set(&echoing)?;
        write_all(self.master, through)?;
        let mut echo = Traffic::default();
        let end = Instant::now() + PATIENCE;
        while echo.bytes.output.len() < len && Instant::now() < end {
            ready(self.master, PollFlags::IN, Duration::from_millis(20));
            take_output(self.master, self.packet, &mut echo)?;
        }
        self.set(neutral)
    }

    /// Brings the status that the master is to read to what it was: it can only be cleared by reading, and set by doing what it tells.
    fn put_packet_status(&self, traffic: &Traffic) -> io::Result<()> {
        let wanted = traffic.packet_status;
        let slave = self.slave.as_raw_fd();
        if wanted & (FLUSH_READ | FLUSH_WRITE) == 0 && ready(self.master, PollFlags::PRI, Duration::ZERO) {
            rustix::io::read(self.master, &mut [0; 1])?;
        }
        if wanted & (NO_STOP | DO_STOP) != 0 {
            let mut other = self.settings;
            other.input ^= libc::IXON;
            self.set(&other)?;
            self.set(&self.settings)?;
        }
        if wanted & START != 0 && traffic.stopped.is_none() {
            act(slave, Act::Flow, 0).map_err(errno)?;
            act(slave, Act::Flow, 1).map_err(errno)?;
        }
        if wanted & STOP != 0 && traffic.stopped == Some(Stopped::Call) {
            act(slave, Act::Flow, 1).map_err(errno)?;
            act(slave, Act::Flow, 0).map_err(errno)?;
        }
        Ok(())
    }
}

/// Writes all of it, waiting for room where there is none at the moment.
fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        match rustix::io::write(fd, &bytes[..bytes.len().min(CHUNK)]) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::AGAIN) if Instant::now() < end => {
                ready(fd, PollFlags::OUT, Duration::from_millis(5));
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno::AGAIN) => return Err(io::Error::other(format!("{} bytes do not fit into it again", bytes.len()))),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until the kernel's workers have done something, which they mostly have at once.
fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Sets packet mode, which forgets a status that was not read.
pub fn set_packet(master: impl AsFd, on: bool) -> io::Result<()> {
    set(master.as_fd().as_raw_fd(), Setting::Packet, i32::from(on)).map_err(errno)
}
