//! The job's terminals: a `/dev/pts` of its own with its pseudo-terminals, and the restart's terminal in the place of the launcher's.
//!
//! 1. [`adopt`], beforehand: whether the job's processes in the launcher's session are to be in the restart's, which its terminal controls.
//!    Sessions and groups that are led from outside a pid namespace have no number in it; in return the terminal, the shell before it
//!    and the kernel treat the job as they treated it when it was launched: `^C` and `^Z` reach it together with the restart, `fg` and
//!    `bg` wake both.
//! 2. Pseudo-terminals are made with all open files ([`ckpt_objects::terminal::pseudo`]).
//! 3. [`take_control`], [`take_foreground`], [`give_up_control`], in each process as it takes its place.
//! 4. [`take_outside_foreground`], when everything is there.
//! 5. [`lend`] and [`redraw`], in the restart: modes, and the signal on which programs redraw.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use ckpt_objects::open_file::{Files, OpenFile};
use ckpt_objects::process::{LiveProcess, children, group_session_and_terminal};
use ckpt_objects::terminal::{self, OpenPty, OwnTerminal};
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::JobState;

use crate::error::ProcessError;
use crate::restart::{Restart, Standing};
use crate::signals;
use crate::tree::Node;

/// How long the job's threads are given to be back in the calls that they waited in.
const SETTLED: Duration = Duration::from_millis(50);

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

/// The pseudo-terminal that controls a session, and its master.
fn controlling<'a>(restart: &Restart<'a>, files: Option<&'a Files>, session: NsPid) -> Option<(&'a OpenPty, BorrowedFd<'a>)> {
    let (pty, master) = files?.terminals.controlling(restart.job.objects(), session)?;
    Some((pty, files?.get(master)?))
}

/// The leader of a session takes its terminal, before it has children to hand it on to.
pub fn take_control(restart: &Restart<'_>, node: &Node, files: Option<&Files>) -> Result<(), ProcessError> {
    let Some((_, master)) = controlling(restart, files, NsPid(node.pid)) else { return Ok(()) };
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
    let is_outside = |file: &OpenFile| matches!(file.terminal(), Some(terminal::End::Outside { .. }));
    job.terminals.outside.is_some() || job.open_files.iter().any(is_outside)
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
        let _ = signals::with_all_blocked(|| std::thread::Builder::new().spawn(move || tell_window(stand_in)));
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
