//! Rebuilds the pseudo-terminals of a job in a `/dev/pts` of its own. The restart's terminal replaces the launcher's.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ckpt_sys::{child, number};
use procfs::process::Process;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::stdio::{stdin, stdout};

use super::{End, OpenPty, PtyState, give_up, hang_up, open_slave, prepare, settle, standard, take};
use crate::context::Context;
use crate::file::rebuild_named;
use crate::objects::Objects;
use crate::open_file::OpenFile;
use crate::rebuild::{self, RebuildError};
use crate::{FilePath, NsPid};

const PTS: &str = "/dev/pts";
const MULTIPLEXER: &str = "/dev/ptmx";

/// What is built of terminals beside open files.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Descriptions of masters, by index in [`super::Terminals::ptys`]: their indices in [`Objects::open_files`].
    masters: Vec<Option<usize>>,
    /// A pseudo-terminal that only holds the number under which the restart's own terminal is found; as long as the job lives.
    pub placeholder: Option<OwnedFd>,
    /// Where the restart's own terminal is.
    own: Option<PathBuf>,
}

/// The numbers that pseudo-terminals get.
struct Numbers {
    /// For each of the job's.
    given: Vec<u32>,
    /// That of the restart's own terminal: it keeps its own, unless that is one of the job's.
    place: Option<u32>,
    /// The highest.
    last: u32,
}

impl Numbers {
    fn choose(ptys: &[PtyState], own: Option<u32>) -> Self {
        let mut numbers: BTreeSet<u32> = ptys.iter().filter_map(|pty| pty.number).collect();
        let free = |taken: &BTreeSet<u32>| (0..).find(|number| !taken.contains(number)).unwrap_or(0);
        // Those whose number nobody knows get any.
        let given = ptys.iter().map(|pty| {
            let number = pty.number.unwrap_or_else(|| free(&numbers));
            numbers.insert(number);
            number
        });
        let given: Vec<u32> = given.collect();
        let place = own.map(|number| if numbers.contains(&number) { free(&numbers) } else { number });
        numbers.extend(place);
        Self { given, place, last: numbers.last().copied().unwrap_or(0) }
    }
}

/// Makes the next pseudo-terminal, by the path and with the flags that its master had. The kernel must give it this number.
fn make_master(master: Option<&OpenFile>, number: u32) -> Result<OwnedFd, RebuildError> {
    let (master, found) = match master.and_then(|file| Some((file.flags, file.terminal()?))) {
        Some((flags, End::Master { path, .. })) => prepare(path.as_path(), flags)?,
        _ => prepare(Path::new(MULTIPLEXER), (libc::O_RDWR).cast_unsigned())?,
    };
    if found == number {
        return Ok(master);
    }
    let source = io::Error::other(format!("the kernel gives {found}"));
    Err(RebuildError::call(format!("make pseudo-terminal {number}"))(source))
}

/// Makes all pseudo-terminals with their descriptions.
///
/// # Errors
/// Pseudo-terminals are used up (`kernel.pty.max`), or a file system of their own cannot be mounted.
pub fn rebuild(context: &dyn Context, open: &mut [Option<OwnedFd>]) -> Result<Rebuilt, RebuildError> {
    let objects = context.objects();
    let mut built = Rebuilt::default();
    let lift = |fd: OwnedFd| rebuild::lift(fd, context.lowest());
    let ptys = &objects.terminals.ptys;
    if ptys.is_empty() {
        return Ok(built);
    }
    let own = own_node();
    mount_pts(context)?;
    let Numbers { given, place, last } = Numbers::choose(ptys, own.as_ref().map(|(_, number)| *number));
    let descriptions = |wanted: usize| {
        objects.open_files.iter().enumerate().filter(move |(_, file)| match file.terminal() {
            Some(End::Master { pty, .. } | End::Slave { pty, .. }) => pty as usize == wanted,
            _ => false,
        })
    };
    let master_of = |pty: usize| descriptions(pty).find(|(_, file)| matches!(file.terminal(), Some(End::Master { .. })));
    let mut masters: Vec<Option<OwnedFd>> = ptys.iter().map(|_| None).collect();
    let mut unwanted = Vec::new();
    // The kernel gives the lowest that is free.
    for number in 0..=last {
        let pty = given.iter().position(|given| *given == number);
        let master = make_master(pty.and_then(master_of).map(|(_, file)| file), number)?;
        match pty {
            Some(pty) => masters[pty] = Some(master),
            None if place == Some(number) => built.placeholder = Some(lift(master)?),
            None => unwanted.push(master),
        }
    }
    drop(unwanted);
    if let (Some((node, _)), Some(place)) = (&own, place) {
        let path = PathBuf::from(format!("{PTS}/{place}"));
        // A name for `ttyname`: without it the terminal works as well.
        if mount_bind(rebuild::own_fd_path(node.as_fd()), &path).is_ok() {
            built.own = Some(path);
        }
    }
    for (index, (pty, master)) in ptys.iter().zip(masters).enumerate() {
        let master = master.ok_or(RebuildError::Incomplete("a pseudo-terminal"))?;
        let descriptions: Vec<(usize, &OpenFile)> = descriptions(index).collect();
        set_node(context, pty, given[index])?;
        build_slaves(&master, pty.open.as_ref(), &descriptions, open, lift)?;
        built.masters.push(match (&pty.open, master_of(index)) {
            (Some(state), Some((at, _))) => {
                settle(&master, state)?;
                open[at] = Some(lift(master)?);
                Some(at)
            }
            _ => None,
        });
    }
    Ok(built)
}

/// Opens every description of a slave: first those that were hung up, and then are again.
fn build_slaves(
    master: &OwnedFd,
    state: Option<&OpenPty>,
    descriptions: &[(usize, &OpenFile)],
    open: &mut [Option<OwnedFd>],
    lift: impl Fn(OwnedFd) -> Result<OwnedFd, RebuildError>,
) -> Result<(), RebuildError> {
    for hung in [true, false] {
        let mut any = false;
        for (at, file) in descriptions {
            let Some(End::Slave { hung_up, by_dev_tty, .. }) = file.terminal() else { continue };
            if hung_up != hung || file.inherited.is_some() {
                continue;
            }
            let slave = if by_dev_tty { open_by_dev_tty(master, file.flags)? } else { open_slave(master, file.flags)? };
            open[*at] = Some(lift(slave)?);
            any = true;
        }
        // Where the master is closed afterwards, that does the same.
        if hung && any && state.is_some() {
            hang_up(open_slave(master, libc::O_RDWR.cast_unsigned())?)?;
        }
    }
    Ok(())
}

/// Runs `work` in a child that leads a session of its own, and has the descriptors of this process.
fn in_a_session(what: &'static str, work: impl FnOnce() -> Result<(), RebuildError>) -> Result<(), RebuildError> {
    let do_it = || u8::from(rustix::process::setsid().is_err() || work().is_err());
    let child = child::spawn(libc::CLONE_FILES.cast_unsigned(), None, do_it).map_err(RebuildError::raw(what))?;
    let ended = rustix::process::waitpid(rustix::process::Pid::from_raw(child), rustix::process::WaitOptions::empty());
    let status = ended.map_err(RebuildError::call(what))?.and_then(|(_, status)| status.exit_status());
    if status == Some(0) { Ok(()) } else { Err(RebuildError::call(what)(io::Error::other("its helper failed"))) }
}

/// Opens a slave as `/dev/tty`, which only somebody can whom it controls.
fn open_by_dev_tty(master: &OwnedFd, flags: u32) -> Result<OwnedFd, RebuildError> {
    let what = "open /dev/tty on a pseudo-terminal of the job";
    let slave = open_slave(master, libc::O_RDWR.cast_unsigned())?;
    // The number under which the child leaves it, in the table that both share.
    let place = rebuild::placeholder().map_err(RebuildError::call(what))?;
    in_a_session(what, || {
        take(&slave)?;
        let tty = rebuild_named(Path::new("/dev/tty"), flags, 0)?;
        let done = number::give(tty.as_raw_fd(), place.as_raw_fd(), true);
        drop(tty);
        // A session that ends would send signals to it.
        give_up()?;
        done.map_err(RebuildError::raw(what))
    })?;
    Ok(place)
}

/// Owner and permissions of a slave's node, as far as they can be set.
fn set_node(context: &dyn Context, pty: &PtyState, number: u32) -> Result<(), RebuildError> {
    let Some((uid, gid, mode)) = pty.open.as_ref().and_then(|open| open.node) else { return Ok(()) };
    let path = PathBuf::from(format!("{PTS}/{number}"));
    let meta = path.metadata().map_err(RebuildError::call(format!("examine {}", path.display())))?;
    if (meta.uid(), meta.gid()) != (uid, gid) && !context.has_user_namespace() {
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))
            .map_err(RebuildError::call(format!("set the owner of {}", path.display())))?;
    }
    if meta.mode() & 0o7777 != mode {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .map_err(RebuildError::call(format!("set the mode of {}", path.display())))?;
    }
    Ok(())
}

/// The node of the restart's own terminal, if it is a pseudo-terminal, and its number.
fn own_node() -> Option<(OwnedFd, u32)> {
    let terminal = standard()?;
    let path = std::fs::read_link(rebuild::own_fd_path(terminal.as_fd())).ok()?;
    let number = path.strip_prefix(PTS).ok()?.to_str()?.parse().ok()?;
    // By its path in this mount namespace: what was inherited is from another, and cannot be mounted here.
    let node = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let (a, b) = (rustix::fs::fstat(&node).ok()?, rustix::fs::fstat(&terminal).ok()?);
    ((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)).then_some((node, number))
}

/// Mounts a devpts file system that has every number free, with the options of the present one.
fn mount_pts(context: &dyn Context) -> Result<(), RebuildError> {
    let mounts = Process::myself().and_then(|own| own.mountinfo()).map(|mounts| mounts.0).unwrap_or_default();
    // The last one mounted there is on top.
    let present = mounts.iter().rfind(|mount| mount.mount_point == Path::new(PTS) && mount.fs_type == "devpts");
    let option = |name: &str| present?.super_options.get(name)?.as_ref().map(|value| format!(",{name}={value}"));
    // In a user namespace there is no group but one.
    let group = option("gid").filter(|_| !context.has_user_namespace()).unwrap_or_default();
    let options = format!("newinstance,ptmxmode=0666{}{group}", option("mode").unwrap_or_default());
    let was_bound = |stat: rustix::fs::Stat| rustix::fs::stat(PTS).is_ok_and(|pts| pts.st_dev == stat.st_dev);
    let bound = rustix::fs::lstat(MULTIPLEXER).is_ok_and(was_bound);
    let options = CString::new(options).map_err(|error| RebuildError::call("use a mount option")(io::Error::from(error)))?;
    mount("devpts", PTS, "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(options.as_c_str()))
        .map_err(RebuildError::call("mount a /dev/pts for the job's pseudo-terminals"))?;
    if bound {
        // Some containers have a node of the old file system there.
        mount_bind(format!("{PTS}/ptmx"), MULTIPLEXER).map_err(RebuildError::call("mount a /dev/ptmx"))?;
    }
    Ok(())
}

/// A description of the terminal that the job was launched on: on the restart's own; without one, its input or output.
///
/// # Errors
/// This restart has neither a terminal nor an input or output that could serve.
pub fn outside(context: &dyn Context, built: &Rebuilt, path: &FilePath, flags: u32) -> Result<OwnedFd, RebuildError> {
    if path.0 == b"/dev/tty"
        && let Ok(fd) = rebuild_named(path.as_path(), flags, 0)
    {
        return Ok(fd);
    }
    if let Some(own) = &built.own
        && let Ok(fd) = rebuild_named(own, flags, 0)
    {
        return Ok(fd);
    }
    if let Some(own) = standard() {
        return rebuild::reopen(own, flags).or_else(|_| rebuild_named(Path::new("/dev/tty"), flags, 0));
    }
    if let Ok(fd) = rebuild_named(Path::new("/dev/tty"), flags, 0) {
        return Ok(fd);
    }
    let reads = OFlags::from_bits_retain(flags) & OFlags::RWMODE == OFlags::RDONLY;
    let (own, name) = if reads { (stdin(), "input") } else { (stdout(), "output") };
    context.note(format!("there is no terminal: {path} is the standard {name} now"));
    let null = || rebuild_named(Path::new("/dev/null"), libc::O_RDWR.cast_unsigned(), 0);
    rustix::io::fcntl_dupfd_cloexec(own, 0).or_else(|_| null())
}

/// A standard descriptor whose flags the job had changed: the restart's own terminal, but not for the shell before it.
pub fn with_flags(own: BorrowedFd<'_>, flags: u32) -> Option<OwnedFd> {
    let differs = |have: OFlags| (have ^ OFlags::from_bits_retain(flags)).intersects(OFlags::NONBLOCK);
    let is_terminal = std::io::IsTerminal::is_terminal(&own);
    (is_terminal && rustix::fs::fcntl_getfl(own).is_ok_and(differs)).then(|| rebuild::reopen(own, flags).ok()).flatten()
}

impl Rebuilt {
    /// The pseudo-terminal that controls a session, and the index of its master in [`Objects::open_files`].
    #[must_use]
    pub fn controlling<'a>(&self, objects: Objects<'a>, session: NsPid) -> Option<(&'a OpenPty, usize)> {
        let ptys = objects.terminals.ptys.iter().zip(&self.masters);
        ptys.filter_map(|(pty, master)| pty.open.as_ref().zip(*master)).find(|(open, _)| open.session == Some(session))
    }
}
