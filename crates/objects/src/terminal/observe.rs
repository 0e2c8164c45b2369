//! Observing terminals. Nearly everything is asked of the masters, through duplicates of the job's descriptors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use ckpt_sys::terminal::{Query, get, settings, window};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::in_flight::{self, Pair, Traffic};
use super::{End, OpenPty, PtyState, Slave, TerminalSettings, Terminals};
use crate::descriptor::SeenDescriptor;
use crate::event;
use crate::observe::proc_path;
use crate::{FileIndex, HostPid, NsPid};

/// Major numbers of `/dev/tty` and `/dev/ptmx`, and of slaves (Documentation/admin-guide/devices.txt).
const TTYAUX_MAJOR: u32 = 5;
const SLAVE_MAJOR: u32 = 136;

/// Why a terminal cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// It has another line discipline than the usual one.
    #[error("a pseudo-terminal with the line discipline {0}")]
    Discipline(u8),
    /// It was made in another place than `/dev`.
    #[error("a pseudo-terminal of another devpts file system than that on /dev/pts")]
    Instance,
    /// Somebody outside of the job uses it.
    #[error("a pseudo-terminal that controls a session outside of the job")]
    Session,
    /// Its other side is somebody else's, and there is no telling whose.
    #[error("a terminal of which neither the job nor its launcher has the other side")]
    Foreign,
    /// What it shows changes when it is looked at.
    #[error("a pseudo-terminal that cannot be observed ({0})")]
    Call(#[from] io::Error),
}

/// What must be known of each process of the job.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its pid, as seen here.
    pub pid: HostPid,
    /// Its session and process group, as seen here.
    pub host: (i32, i32),
    /// Its session and process group, as the job sees them.
    pub own: (NsPid, NsPid),
    /// The device number of its controlling terminal (`tty_nr` in `/proc/PID/stat`); 0: none.
    pub terminal: i32,
}

/// Terminals of the launcher: those among its standard descriptors, and its controlling one.
#[derive(Debug, Default)]
struct Launcher {
    /// Device and device number of their nodes.
    nodes: Vec<(u64, u64)>,
    /// Device numbers as the kernel tells them of any descriptor.
    devices: Vec<i32>,
    descriptor: Option<OwnedFd>,
}

impl Launcher {
    fn own() -> Self {
        let mut own = Self::default();
        for path in ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/tty"] {
            let Ok(meta) = std::fs::metadata(path) else { continue };
            if !is_character_device(meta.mode()) || is_master(meta.rdev()) {
                continue;
            }
            use rustix::fs::{Mode, OFlags, open};
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let duplicate = match path.strip_prefix("/proc/self/fd/").and_then(|number| number.parse::<u8>().ok()) {
                Some(0) => rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3),
                Some(1) => rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3),
                Some(_) => rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3),
                None => open(path, flags, Mode::empty()),
            };
            let Ok(fd) = duplicate else { continue };
            let Ok(device) = get(fd.as_raw_fd(), Query::Device) else { continue };
            let node = format!("/dev/pts/{}", device & 0xff | device >> 12 & 0xfff00);
            let node = if is_slave(meta.rdev()) { Ok(meta) } else { std::fs::metadata(node) };
            own.nodes.extend(node.map(|meta| (meta.dev(), meta.rdev())));
            own.devices.push(device);
            own.descriptor.get_or_insert(fd);
        }
        own
    }
}

fn is_character_device(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFCHR
}

fn is_master(rdev: u64) -> bool {
    (libc::major(rdev), libc::minor(rdev)) == (TTYAUX_MAJOR, 2)
}

fn is_slave(rdev: u64) -> bool {
    (SLAVE_MAJOR..SLAVE_MAJOR + 8).contains(&libc::major(rdev))
}

fn is_dev_tty(rdev: u64) -> bool {
    (libc::major(rdev), libc::minor(rdev)) == (TTYAUX_MAJOR, 0)
}

/// Whether a descriptor may be one of a terminal.
#[must_use]
pub fn is_terminal(descriptor: &SeenDescriptor) -> bool {
    // Major 4: consoles and serial lines.
    is_character_device(descriptor.mode)
        && descriptor.flags & libc::O_PATH as u32 == 0
        && (is_slave(descriptor.rdev) || matches!(libc::major(descriptor.rdev), 4 | TTYAUX_MAJOR))
}

/// What was found out about the terminals of a job.
#[derive(Debug, Default)]
pub struct Observer {
    /// All of them.
    pub terminals: Terminals,
    /// What descriptions are open on, by their index.
    pub ends: HashMap<FileIndex, End>,
    /// Processes that have a controlling terminal.
    pub controlled: HashSet<HostPid>,
}

/// An own pseudo-terminal in the making.
#[derive(Default)]
struct Pty {
    /// Descriptions by index.
    master: Option<usize>,
    /// Their slaves, and whether they were hung up.
    slaves: Vec<(usize, bool)>,
    /// The session as seen here; 0: none.
    session: i32,
}

impl Observer {
    /// Observes the terminals that the processes of a frozen job have open, and that control them. `before`: the settings of the
    /// launcher's terminal when it took that over.
    ///
    /// An error names the description that it is about, if it is about one.
    ///
    /// # Errors
    /// A terminal is in a state that cannot be read or made again, or is shared with processes outside of the job.
    pub fn observe(
        descriptions: &[SeenDescriptor],
        processes: &[Group],
        before: Option<&TerminalSettings>,
    ) -> Result<Self, (Option<FileIndex>, TerminalError)> {
        let any = descriptions.iter().any(is_terminal) || processes.iter().any(|process| process.terminal != 0);
        if !any {
            return Ok(Self::default());
        }
        Work {
            descriptions,
            processes,
            launcher: Launcher::own(),
            numbered: BTreeMap::new(),
            nameless: Vec::new(),
            observed: Self::default(),
        }
        .observe(before)
    }
}

struct Work<'a> {
    descriptions: &'a [SeenDescriptor],
    processes: &'a [Group],
    launcher: Launcher,
    /// By number.
    numbered: BTreeMap<u32, Pty>,
    /// Descriptions through `/dev/tty` that were hung up.
    nameless: Vec<usize>,
    observed: Observer,
}

impl Work<'_> {
    fn observe(mut self, before: Option<&TerminalSettings>) -> Result<Observer, (Option<FileIndex>, TerminalError)> {
        let descriptions = self.descriptions;
        let terminals = || descriptions.iter().enumerate().filter(|(_, descriptor)| is_terminal(descriptor));
        let (masters, others): (Vec<_>, Vec<_>) = terminals().partition(|(_, descriptor)| is_master(descriptor.rdev));
        for (index, descriptor) in masters {
            self.master(index, descriptor).map_err(|error| (Some(index.into()), error))?;
        }
        for (index, descriptor) in others {
            self.other(index, descriptor).map_err(|error| (Some(index.into()), error))?;
        }
        for (number, pty) in std::mem::take(&mut self.numbered) {
            let at = pty.master.or(pty.slaves.first().map(|slave| slave.0));
            self.finish(number, &pty).map_err(|error| (at.map(FileIndex::from), error))?;
        }
        for index in std::mem::take(&mut self.nameless) {
            let pty = self.observed.terminals.ptys.len() as u32;
            self.observed.terminals.ptys.push(PtyState::default());
            self.observed.ends.insert(index.into(), End::Slave { pty, hung_up: true, by_dev_tty: true });
        }
        self.controlled().map_err(|error| (None, error))?;
        if let Some(outside) = &mut self.observed.terminals.outside
            && let Some(fd) = &self.launcher.descriptor
        {
            let now = settings(fd.as_raw_fd()).ok().map(TerminalSettings::from);
            outside.settings = now.filter(|now| before.is_some_and(|before| before != now));
            let foreground = get(fd.as_raw_fd(), Query::Foreground).unwrap_or(0);
            // The launcher's own group is the shell's to put there.
            let own = nix::unistd::getpgrp().as_raw();
            outside.foreground = group(self.processes, foreground).filter(|_| foreground != own);
        }
        Ok(self.observed)
    }

    fn master(&mut self, index: usize, descriptor: &SeenDescriptor) -> Result<(), TerminalError> {
        if !matches!(descriptor.link.0.as_slice(), b"/dev/ptmx" | b"/dev/pts/ptmx") {
            return Err(TerminalError::Instance);
        }
        let master = event::duplicate(descriptor)?;
        let number = ask(&master, Query::Number)?;
        let pty = self.numbered.entry(number.cast_unsigned()).or_default();
        if pty.master.replace(index).is_some() {
            return Err(TerminalError::Instance);
        }
        pty.session = get(master.as_raw_fd(), Query::Session).unwrap_or(0);
        Ok(())
    }

    /// A slave, `/dev/tty`, or something else that is a terminal.
    fn other(&mut self, index: usize, descriptor: &SeenDescriptor) -> Result<(), TerminalError> {
        let by_dev_tty = is_dev_tty(descriptor.rdev);
        let outside = |this: &mut Self| {
            this.observed.terminals.outside.get_or_insert_default();
            this.observed.ends.insert(index.into(), End::Outside { path: descriptor.link.clone() });
            Ok(())
        };
        if self.launcher.nodes.contains(&(descriptor.device, descriptor.rdev)) {
            return outside(self);
        }
        let open = event::duplicate(descriptor)?;
        let device = get(open.as_raw_fd(), Query::Device).ok();
        if !by_dev_tty && !is_slave(descriptor.rdev) {
            // A serial line or console that is not the launcher's is a device like others.
            return match device {
                Some(device) if self.launcher.devices.contains(&device) => outside(self),
                _ => Ok(()),
            };
        }
        let Some(device) = device else {
            if by_dev_tty {
                self.nameless.push(index);
            } else {
                self.numbered.entry(libc::minor(descriptor.rdev)).or_default().slaves.push((index, true));
            }
            return Ok(());
        };
        let number = (device & 0xff | device >> 12 & 0xfff00).cast_unsigned();
        let session = self.processes.iter().find(|process| process.pid == descriptor.pid).map_or(0, |process| process.host.0);
        let outsiders = self.launcher.devices.contains(&device);
        match self.numbered.get_mut(&number).filter(|pty| pty.master.is_some()) {
            // Two file systems may have one number in use: then the session tells.
            Some(pty) if !outsiders || !by_dev_tty || pty.session == session => pty.slaves.push((index, false)),
            _ if outsiders && by_dev_tty => return outside(self),
            _ if by_dev_tty => return Err(TerminalError::Foreign),
            // The terminal of somebody else, by its name.
            _ => (),
        }
        Ok(())
    }

    fn finish(&mut self, number: u32, pty: &Pty) -> Result<(), TerminalError> {
        let index = self.observed.terminals.ptys.len() as u32;
        for &(slave, hung_up) in &pty.slaves {
            let by_dev_tty = is_dev_tty(self.descriptions[slave].rdev);
            self.observed.ends.insert(slave.into(), End::Slave { pty: index, hung_up, by_dev_tty });
        }
        let open = match pty.master {
            Some(at) => {
                let path = self.descriptions[at].link.clone();
                self.observed.ends.insert(at.into(), End::Master { pty: index, path });
                Some(self.open_pty(&self.descriptions[at], pty)?)
            }
            None => None,
        };
        self.observed.terminals.ptys.push(PtyState { number: Some(number), open });
        Ok(())
    }

    fn open_pty(&self, master: &SeenDescriptor, pty: &Pty) -> Result<OpenPty, TerminalError> {
        let master = event::duplicate(master)?;
        let raw = master.as_raw_fd();
        let termios = settings(raw).map_err(errno)?;
        if termios.line != 0 {
            return Err(TerminalError::Discipline(termios.line));
        }
        let live = pty.slaves.iter().find(|slave| !slave.1).map(|slave| &self.descriptions[slave.0]);
        let slave = live.map(event::duplicate).transpose()?;
        let state = if !pty.slaves.is_empty() {
            Slave::Open
        } else if closed(&master) {
            Slave::Closed
        } else {
            Slave::Never
        };
        let session = match pty.session {
            0 => None,
            host => {
                let members = self.processes.iter().find(|process| process.host.0 == host);
                Some(members.map(|process| process.own.0).ok_or(TerminalError::Session)?)
            }
        };
        let packet = ask(&master, Query::Packet)? != 0;
        let traffic = traffic(&master, slave.as_ref(), state, termios, packet)?;
        let exclusive = |fd: &OwnedFd| get(fd.as_raw_fd(), Query::Exclusive).is_ok_and(|on| on != 0);
        let node = pty.slaves.iter().map(|slave| &self.descriptions[slave.0]).find(|slave| is_slave(slave.rdev));
        let node = node.and_then(|slave| std::fs::metadata(proc_path(slave.pid, &format!("fd/{}", slave.fd))).ok());
        Ok(OpenPty {
            settings: termios.into(),
            window: window(raw).map_err(errno)?,
            packet,
            packet_status: traffic.packet_status,
            locked: ask(&master, Query::Locked)? != 0,
            exclusive: [exclusive(&master), slave.as_ref().is_some_and(exclusive)],
            slave: state,
            session,
            foreground: get(raw, Query::Foreground).ok().and_then(|host| group(self.processes, host)),
            node: node.map(|meta| (meta.uid(), meta.gid(), meta.mode() & 0o7777)),
            stopped: traffic.stopped,
            in_flight: traffic.bytes,
        })
    }

    /// Which processes have controlling terminals: those of their sessions.
    fn controlled(&mut self) -> Result<(), TerminalError> {
        let session = nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw);
        for process in self.processes.iter().filter(|process| process.terminal != 0) {
            let ptys = &self.observed.terminals.ptys;
            let own = ptys.iter().any(|pty| pty.open.as_ref().is_some_and(|open| open.session == Some(process.own.0)));
            if !own {
                if process.host.0 != session {
                    return Err(TerminalError::Foreign);
                }
                self.observed.terminals.outside.get_or_insert_default().controlling = true;
            }
            self.observed.controlled.insert(process.pid);
        }
        Ok(())
    }
}

/// What goes through a pseudo-terminal now; it goes on as if nobody had looked.
fn traffic(
    master: &OwnedFd,
    slave: Option<&OwnedFd>,
    state: Slave,
    termios: ckpt_sys::terminal::Termios,
    packet: bool,
) -> Result<Traffic, TerminalError> {
    let mut traffic = Traffic::default();
    let opened;
    let (slave, taken) = match slave {
        Some(slave) => {
            let pair = Pair { master, slave, settings: termios, packet };
            let taken = pair.take(&mut traffic);
            (slave, taken)
        }
        None if !in_flight::has_output(master) => return Ok(traffic),
        // To open the slave for the first time would change what the master sees for good.
        None if state == Slave::Never => {
            return Err(io::Error::other("bytes wait in it, and its slave was never opened").into());
        }
        None => {
            opened = super::open_slave(master, (libc::O_RDWR | libc::O_NONBLOCK).cast_unsigned()).map_err(io::Error::other)?;
            (&opened, in_flight::take_output(master, packet, &mut traffic))
        }
    };
    if taken.is_err() || traffic != Traffic::default() {
        Pair { master, slave, settings: termios, packet }.put(&traffic)?;
    }
    taken?;
    Ok(traffic)
}

fn ask(fd: &OwnedFd, query: Query) -> Result<i32, TerminalError> {
    get(fd.as_raw_fd(), query).map_err(|error| errno(error).into())
}

fn errno(error: ckpt_sys::raw::Errno) -> io::Error {
    io::Error::from_raw_os_error(error.0)
}

/// The job's number of a process group; nothing for one that has nobody of the job in it.
fn group(processes: &[Group], host: i32) -> Option<NsPid> {
    let member = processes.iter().find(|process| host > 0 && process.host.1 == host);
    member.map(|process| process.own.1).filter(|group| group.0 > 0)
}

/// Whether a master has seen its slave closed.
fn closed(master: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
