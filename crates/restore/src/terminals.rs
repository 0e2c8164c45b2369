//! The job's terminals: a `/dev/pts` of its own with its pseudo-terminals, and the restart's terminal in the place of the launcher's.
//!
//! 1. [`adopt`], beforehand: whether the job's processes in the launcher's session are to be in the restart's, which its terminal controls.
//!    Sessions and groups that are led from outside a pid namespace have no number in it; in return the terminal, the shell before it
//!    and the kernel treat the job as they treated it when it was launched: `^C` and `^Z` reach it together with the restart, `fg` and
//!    `bg` wake both.
//! 2. [`build`], in the process that builds all files: mounts, masters, slaves, bytes in flight.
//! 3. [`take_control`], [`take_foreground`], [`give_up_control`], in each process as it takes its place.
//! 4. [`seal`], [`take_outside_foreground`], when everything is there.
//! 5. [`lend`] and [`tell_window`], in the restart: modes, and the signal on which programs redraw.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ckpt_objects::file::{OpenFile, OpenFileKind, rebuild_named};
use ckpt_objects::process::{LiveProcess, children, group_session_and_terminal};
use ckpt_objects::rebuild::{self, RebuildError};
use ckpt_objects::terminal::{self, OpenPty, OwnTerminal, PtyState};
use ckpt_objects::{FilePath, HostPid, NsPid};
use ckpt_session::JobState;
use ckpt_sys::fork::{Fork, fork};
use rustix::fs::{Mode, OFlags};

use crate::control::Report;
use crate::error::ProcessError;
use crate::files::Files;
use crate::namespaces::mount;
use crate::restart::{Restart, Standing};
use crate::signals;
use crate::tree::Node;

/// How long the job's threads are given to be back in the calls that they waited in.
const SETTLED: Duration = Duration::from_millis(50);
const PTS: &str = "/dev/pts";
const MULTIPLEXER: &str = "/dev/ptmx";

/// The job with the processes of the launcher's session put into the session and group of this restart, if both have a terminal that
/// controls it. Gives also how the job stands to that.
pub fn adopt(job: &JobState, own: Option<&OwnTerminal>) -> (Option<JobState>, Standing) {
    let adopted = adopted(job, own);
    let standing = Standing { adopted: adopted.is_some(), in_foreground: own.is_some_and(OwnTerminal::is_in_foreground) };
    (adopted, standing)
}

fn adopted(job: &JobState, own: Option<&OwnTerminal>) -> Option<JobState> {
    let controlled = job.terminals.outside.as_ref().is_some_and(|outside| outside.controlling);
    if !controlled || !own.is_some_and(|own| own.controls) {
        return None;
    }
    let mut adopted = job.clone();
    let (group, session) = (job.info.launcher_pgid, job.info.launcher_sid);
    for process in &mut adopted.processes {
        if process.sid == session {
            process.sid = NsPid(0);
            if process.pgid == group {
                process.pgid = NsPid(0);
            }
        }
    }
    (adopted.info.launcher_pgid, adopted.info.launcher_sid) = (NsPid(0), NsPid(0));
    Some(adopted)
}

/// What is built of terminals beside open files.
#[derive(Debug, Default)]
pub struct Built {
    /// By index in [`ckpt_objects::terminal::Terminals::ptys`].
    masters: Vec<Option<RawFd>>,
    /// A pseudo-terminal that only holds the number under which the restart's own terminal is found; as long as the job lives.
    pub placeholder: Option<RawFd>,
    /// Where the restart's own terminal is.
    own: Option<PathBuf>,
}

fn call(what: impl Into<String>) -> impl FnOnce(io::Error) -> ProcessError {
    ProcessError::call(what)
}

/// Makes all pseudo-terminals with their descriptions. `lift` moves a descriptor out of the way of the job's numbers.
pub fn build(
    restart: &Restart<'_>,
    files: &mut Files,
    open: &mut [Option<RawFd>],
    lift: impl Fn(OwnedFd) -> Result<RawFd, ProcessError>,
) -> Result<(), ProcessError> {
    let ptys = &restart.job.terminals.ptys;
    if ptys.is_empty() {
        return Ok(());
    }
    let own = own_node();
    mount_pts(restart)?;
    let mut numbers: BTreeSet<u32> = ptys.iter().filter_map(|pty| pty.number).collect();
    let free = |taken: &BTreeSet<u32>| (0..).find(|number| !taken.contains(number)).unwrap_or(0);
    // Those whose number nobody knows get any.
    let given: Vec<u32> = ptys
        .iter()
        .map(|pty| {
            let number = pty.number.unwrap_or_else(|| free(&numbers));
            numbers.insert(number);
            number
        })
        .collect();
    // The restart's own terminal keeps its name, unless that is one of the job's.
    let place = own.as_ref().map(|(_, number)| if numbers.contains(number) { free(&numbers) } else { *number });
    numbers.extend(place);
    let job = restart.job;
    let descriptions = |wanted: usize| {
        job.open_files.iter().enumerate().filter(move |(_, file)| match &file.kind {
            OpenFileKind::PtyMaster { pty, .. } | OpenFileKind::PtySlave { pty, .. } => *pty as usize == wanted,
            _ => false,
        })
    };
    let master_of = |pty: usize| descriptions(pty).find(|(_, file)| matches!(file.kind, OpenFileKind::PtyMaster { .. }));
    let mut masters: Vec<Option<OwnedFd>> = ptys.iter().map(|_| None).collect();
    let mut unwanted = Vec::new();
    // The kernel gives the lowest that is free.
    for number in 0..=numbers.last().copied().unwrap_or(0) {
        let pty = given.iter().position(|given| *given == number);
        let master = match pty.and_then(master_of).map(|(_, file)| (file.flags, &file.kind)) {
            Some((flags, OpenFileKind::PtyMaster { path, .. })) => terminal::prepare(path.as_path(), flags)?,
            _ => terminal::prepare(Path::new(MULTIPLEXER), (libc::O_RDWR).cast_unsigned())?,
        };
        if master.1 != number {
            let source = io::Error::other(format!("the kernel gives {}", master.1));
            return Err(call(format!("make pseudo-terminal {number}"))(source));
        }
        match pty {
            Some(pty) => masters[pty] = Some(master.0),
            None if place == Some(number) => files.terminals.placeholder = Some(lift(master.0)?),
            None => unwanted.push(master.0),
        }
    }
    drop(unwanted);
    if let (Some((node, _)), Some(place)) = (&own, place) {
        let path = PathBuf::from(format!("{PTS}/{place}"));
        // A name for `ttyname`: without it the terminal works as well.
        if bind(&PathBuf::from(format!("/proc/self/fd/{}", node.as_raw_fd())), &path).is_ok() {
            files.terminals.own = Some(path);
        }
    }
    for (index, (pty, master)) in ptys.iter().zip(masters).enumerate() {
        let master = master.ok_or(ProcessError::Incomplete("a pseudo-terminal"))?;
        let descriptions: Vec<(usize, &OpenFile)> = descriptions(index).collect();
        set_node(restart, pty, given[index])?;
        build_slaves(&master, pty.open.as_ref(), &descriptions, open, &lift)?;
        let fd = match (&pty.open, master_of(index)) {
            (Some(state), Some((at, _))) => {
                terminal::settle(&master, state)?;
                let fd = lift(master)?;
                open[at] = Some(fd);
                files.unset.push((fd, at));
                Some(fd)
            }
            _ => None,
        };
        files.terminals.masters.push(fd);
    }
    Ok(())
}

/// Opens every description of a slave: first those that were hung up, and then are again.
fn build_slaves(
    master: &OwnedFd,
    state: Option<&OpenPty>,
    descriptions: &[(usize, &OpenFile)],
    open: &mut [Option<RawFd>],
    lift: impl Fn(OwnedFd) -> Result<RawFd, ProcessError>,
) -> Result<(), ProcessError> {
    for hung in [true, false] {
        let mut any = false;
        for (at, file) in descriptions {
            let OpenFileKind::PtySlave { hung_up, by_dev_tty, .. } = file.kind else { continue };
            if hung_up != hung || file.inherited.is_some() {
                continue;
            }
            let slave = if by_dev_tty { open_by_dev_tty(master, file.flags)? } else { terminal::open_slave(master, file.flags)? };
            open[*at] = Some(lift(slave)?);
            any = true;
        }
        // Where the master is closed afterwards, that does the same.
        if hung && any && state.is_some() {
            terminal::hang_up(terminal::open_slave(master, libc::O_RDWR.cast_unsigned())?)?;
        }
    }
    Ok(())
}

/// Runs `work` in a child that leads a session of its own, and has the descriptors of this process.
fn in_a_session(what: &'static str, work: impl FnOnce() -> Result<(), ProcessError>) -> Result<(), ProcessError> {
    // SAFETY: the process that builds has one thread; the child works on a copy of its memory, and ends.
    match unsafe { fork(libc::CLONE_FILES as u64, None) }.map_err(ProcessError::raw(what))? {
        Fork::Child => {
            let done = rustix::process::setsid().is_ok() && work().is_ok();
            // SAFETY: ends the child, without running what its parent registered for its end.
            unsafe { libc::_exit(i32::from(!done)) }
        }
        Fork::Parent(child) => {
            let child = rustix::process::Pid::from_raw(child);
            let ended = rustix::process::waitpid(child, rustix::process::WaitOptions::empty());
            let status = ended.map_err(ProcessError::call(what))?.and_then(|(_, status)| status.exit_status());
            if status == Some(0) { Ok(()) } else { Err(call(what)(io::Error::other("its helper failed"))) }
        }
    }
}

/// Opens a slave as `/dev/tty`, which only somebody can whom it controls.
fn open_by_dev_tty(master: &OwnedFd, flags: u32) -> Result<OwnedFd, ProcessError> {
    let what = "open /dev/tty on a pseudo-terminal of the job";
    let slave = terminal::open_slave(master, libc::O_RDWR.cast_unsigned())?;
    // The number under which the child leaves it, in the table that both share.
    let place = OwnedFd::from(File::open("/dev/null").map_err(call(what))?);
    in_a_session(what, || {
        terminal::take(&slave)?;
        let tty = rebuild_named(Path::new("/dev/tty"), flags, 0)?;
        // SAFETY: takes numbers; `place` is this function's.
        let done = unsafe { libc::dup3(tty.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
        drop(tty);
        // A session that ends would send signals to it.
        terminal::give_up()?;
        if done < 0 { Err(call(what)(io::Error::last_os_error())) } else { Ok(()) }
    })?;
    Ok(place)
}

/// Owner and permissions of a slave's node, as far as they can be set.
fn set_node(restart: &Restart<'_>, pty: &PtyState, number: u32) -> Result<(), ProcessError> {
    let Some((uid, gid, mode)) = pty.open.as_ref().and_then(|open| open.node) else { return Ok(()) };
    let path = PathBuf::from(format!("{PTS}/{number}"));
    let meta = path.metadata().map_err(call(format!("examine {}", path.display())))?;
    if (meta.uid(), meta.gid()) != (uid, gid) && !restart.has_user_namespace() {
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(call(format!("set the owner of {}", path.display())))?;
    }
    if meta.mode() & 0o7777 != mode {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .map_err(call(format!("set the mode of {}", path.display())))?;
    }
    Ok(())
}

/// The node of the restart's own terminal, if it is a pseudo-terminal, and its number.
fn own_node() -> Option<(OwnedFd, u32)> {
    let terminal = terminal::standard()?;
    let path = std::fs::read_link(rebuild::own_fd_path(terminal.as_fd())).ok()?;
    let number = path.strip_prefix(PTS).ok()?.to_str()?.parse().ok()?;
    // By its path in this mount namespace: what was inherited is from another, and cannot be mounted here.
    let node = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let (a, b) = (rustix::fs::fstat(&node).ok()?, rustix::fs::fstat(&terminal).ok()?);
    ((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)).then_some((node, number))
}

/// Mounts a devpts file system that has every number free, with the options of the present one.
fn mount_pts(restart: &Restart<'_>) -> Result<(), ProcessError> {
    let failed = |error: ckpt_sys::raw::Errno| {
        call("mount a /dev/pts for the job's pseudo-terminals")(io::Error::from_raw_os_error(error.0))
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The last one mounted there is on top; its options are the last word (proc_pid_mountinfo(5)).
    let line = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(PTS) && line.contains(" - devpts "));
    let present = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    let mut options = "newinstance,ptmxmode=0666".to_owned();
    for option in present.split(',') {
        // In a user namespace there is no group but one.
        let group = option.strip_prefix("gid=");
        if option.starts_with("mode=") || group.is_some() && !restart.has_user_namespace() {
            options = format!("{options},{option}");
        }
    }
    let was_bound = |stat: rustix::fs::Stat| rustix::fs::stat(PTS).is_ok_and(|pts| pts.st_dev == stat.st_dev);
    let bound = rustix::fs::lstat(MULTIPLEXER).is_ok_and(was_bound);
    let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
    mount(Some(c"devpts"), c"/dev/pts", Some(c"devpts"), flags, Some(&cstring(&options)?)).map_err(failed)?;
    if bound {
        // Some containers have a node of the old file system there.
        bind(&PathBuf::from(format!("{PTS}/ptmx")), Path::new(MULTIPLEXER)).map_err(call("mount a /dev/ptmx"))?;
    }
    Ok(())
}

fn cstring(text: impl AsRef<std::ffi::OsStr>) -> Result<CString, ProcessError> {
    CString::new(text.as_ref().as_bytes()).map_err(|error| call("use a path")(error.into()))
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    mount(Some(&from), &to, None, libc::MS_BIND, None).map_err(|error| io::Error::from_raw_os_error(error.0))
}

/// A description of the terminal that the job was launched on: on the restart's own; without one, its input or output.
pub fn outside(restart: &Restart<'_>, files: &Files, path: &FilePath, flags: u32) -> Result<OwnedFd, ProcessError> {
    if path.0 == b"/dev/tty"
        && let Ok(fd) = rebuild_named(path.as_path(), flags, 0)
    {
        return Ok(fd);
    }
    if let Some(own) = &files.terminals.own
        && let Ok(fd) = rebuild_named(own, flags, 0)
    {
        return Ok(fd);
    }
    if let Some(own) = terminal::standard() {
        return Ok(rebuild::reopen(own, flags).or_else(|_| rebuild_named(Path::new("/dev/tty"), flags, 0))?);
    }
    if let Ok(fd) = rebuild_named(Path::new("/dev/tty"), flags, 0) {
        return Ok(fd);
    }
    let reads = OFlags::from_bits_retain(flags) & OFlags::RWMODE == OFlags::RDONLY;
    let (number, name) = if reads { (0, "input") } else { (1, "output") };
    restart.report(&Report::Note(format!("there is no terminal: {path} is the standard {name} now")));
    // SAFETY: only borrowed to be duplicated, which fails where it is not open.
    let own = unsafe { BorrowedFd::borrow_raw(number) };
    let null = || rebuild_named(Path::new("/dev/null"), libc::O_RDWR.cast_unsigned(), 0);
    rustix::io::fcntl_dupfd_cloexec(own, 0).or_else(|_| null()).map_err(ProcessError::from)
}

/// A standard descriptor whose flags the job had changed: the restart's own terminal, but not for the shell before it.
pub fn with_flags(own: BorrowedFd<'_>, flags: u32) -> Option<OwnedFd> {
    let differs = |have: OFlags| (have ^ OFlags::from_bits_retain(flags)).intersects(OFlags::NONBLOCK);
    let is_terminal = std::io::IsTerminal::is_terminal(&own);
    (is_terminal && rustix::fs::fcntl_getfl(own).is_ok_and(differs)).then(|| rebuild::reopen(own, flags).ok()).flatten()
}

/// The pseudo-terminal that controls a session, and its master.
fn controlling<'a>(restart: &Restart<'a>, files: Option<&Files>, session: NsPid) -> Option<(&'a OpenPty, RawFd)> {
    let ptys = restart.job.terminals.ptys.iter().zip(&files?.terminals.masters);
    ptys.filter_map(|(pty, master)| pty.open.as_ref().zip(*master)).find(|(open, _)| open.session == Some(session))
}

/// The leader of a session takes its terminal, before it has children to hand it on to.
pub fn take_control(restart: &Restart<'_>, node: &Node, files: Option<&Files>) -> Result<(), ProcessError> {
    let Some((_, master)) = controlling(restart, files, NsPid(node.pid)) else { return Ok(()) };
    // SAFETY: all masters are open in every process that is being made.
    let master = unsafe { BorrowedFd::borrow_raw(master) };
    let slave = terminal::open_slave(master, libc::O_RDWR.cast_unsigned())?;
    Ok(terminal::take(slave)?)
}

/// The leader of a session puts a group into its foreground, when groups are there.
pub fn take_foreground(restart: &Restart<'_>, node: &Node, files: Option<&Files>) -> Result<(), ProcessError> {
    let Some((pty, _)) = controlling(restart, files, NsPid(node.pid)).filter(|_| node.leads_session) else { return Ok(()) };
    match pty.foreground {
        Some(group) if group.0 != node.pid => Ok(terminal::set_foreground(group)?),
        _ => Ok(()),
    }
}

/// A process that had no controlling terminal gives up the one that it has been forked with.
pub fn give_up_control(live: &LiveProcess) -> Result<(), ProcessError> {
    if live.has_terminal { Ok(()) } else { Ok(terminal::give_up()?) }
}

/// Forbids what was forbidden: the last that is done to a pseudo-terminal. `master` is that of description `index`.
pub fn seal(job: &JobState, master: BorrowedFd<'_>, index: usize) -> Result<(), RebuildError> {
    let pty = match &job.open_files[index].kind {
        OpenFileKind::PtyMaster { pty, .. } => job.terminals.ptys.get(*pty as usize),
        _ => None,
    };
    pty.and_then(|pty| pty.open.as_ref()).map_or(Ok(()), |state| terminal::seal(master, state))
}

/// A group of the job's own that was in the foreground of the launcher's terminal is in that of the restart's. In the stand-in.
pub fn take_outside_foreground(restart: &Restart<'_>) -> Result<(), ProcessError> {
    let Standing { adopted, in_foreground } = restart.terminal;
    let group = restart.job.terminals.outside.as_ref().and_then(|outside| outside.foreground);
    match group.filter(|group| adopted && in_foreground && group.0 > 0) {
        Some(group) => Ok(terminal::set_foreground(group)?),
        None => Ok(()),
    }
}

/// Whether the job has anything to do with the terminal that it was launched on.
fn uses_outside(job: &JobState) -> bool {
    let inherited = |file: &OpenFile| matches!(file.kind, OpenFileKind::OutsideTerminal { .. });
    job.terminals.outside.is_some() || job.open_files.iter().any(inherited)
}

/// Gives the restart's own terminal the modes that the job had set.
pub fn lend(job: &JobState, own: Option<&OwnTerminal>) {
    let settings = job.terminals.outside.as_ref().and_then(|outside| outside.settings.as_ref());
    if let (Some(settings), Some(own)) = (settings, own.filter(|own| own.is_in_foreground())) {
        own.set(settings);
    }
}

/// Lets programs below `stand_in` redraw, if the job has anything to do with the terminal. Does not wait for it: the coordinator must soon
/// catch what is typed.
pub fn redraw(job: &JobState, stand_in: HostPid) {
    if uses_outside(job) {
        // No signal is to end this thread in place of the coordinator's.
        signals::with_all_blocked(|| std::thread::spawn(move || tell_window(stand_in)));
    }
}

/// Lets the programs below `stand_in` that have the terminal look at its size, which is another one's, and draw anew.
fn tell_window(stand_in: HostPid) {
    // A program that waits in a call sees the signal at once. One that got it on its way back into the call would see it only after that.
    std::thread::sleep(SETTLED);
    let terminal = group_session_and_terminal(HostPid(std::process::id().cast_signed())).map_or(0, |own| own.2);
    let mut next = children(stand_in);
    while let Some(pid) = next.pop() {
        if group_session_and_terminal(pid).is_ok_and(|ids| ids.2 != 0 && ids.2 == terminal)
            && let Some(pid) = rustix::process::Pid::from_raw(pid.0)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::WINCH);
        }
        next.extend(children(pid));
    }
}
