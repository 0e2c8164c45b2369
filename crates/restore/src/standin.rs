//! The processes of a restarted job's namespace that are not the job's: init, and the stand-in for the launcher.
//!
//! The stand-in has the launcher's pid, is the parent of the job's first process, adopts its orphans, and reports how the first
//! one ended, and what signals the job sent to its launcher. What the coordinator passes on to the job, it sends. Both outlive the restart, if that is killed: the job goes on, and its
//! children are reaped.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ckpt_objects::HostPid;
use ckpt_objects::open_file::{Files, arm, needed_to_arm};
use ckpt_objects::process::{Life, ProcessState, Status, threads};
use ckpt_objects::shared_memory::SharedMemoryKind;
use ckpt_session::JobState;
use ckpt_sys::signals::{self, Arrived};
use ckpt_wire::Forward;
use rustix::process::{Pid, Signal, WaitOptions, getpgid, kill_process, wait};

use crate::control::{COMMITTED, OPEN, wait_for, wake};
use crate::error::ProcessError;
use crate::restart::Restart;
use crate::tree::{Node, Role};
use crate::{descriptors, process, terminals};

/// Makes this process the one that adopts the job's orphans.
pub fn prepare() -> Result<(), ProcessError> {
    process::set_subreaper(true)
}

/// Serves until nothing is left below this process; then ends.
pub fn serve(restart: &Restart<'_>, node: &Node, files: Option<&Files>) -> ! {
    if let Err(error) = get_ready(restart, node, files) {
        restart.fail("the launcher's stand-in", &error);
    }
    restart.control.ready.fetch_add(1, Ordering::AcqRel);
    wake(&restart.control.ready);
    wait_for(&restart.control.gate, OPEN);
    if node.pid == 1 {
        // Only a job that runs outlives the restart: behind a closed gate it would wait for ever.
        let _ = rustix::process::set_parent_process_death_signal(None);
    }
    // Whoever reads the reports sees their end when nobody can fail any more.
    ckpt_sys::number::close(restart.reports.as_raw_fd());
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if pid.as_raw_nonzero().get() == restart.job.info.first.0 {
                    tell(restart, status.as_raw());
                }
            }
            Ok(None) => match wait_for_signal(restart.job.info.signal) {
                Some(Came::FromJob(signal)) if node.role == Role::StandIn => tell(restart, -signal),
                Some(Came::ToForward(what)) => forward(what),
                _ => (),
            },
            Err(_) => ckpt_sys::child::exit(0),
        }
    }
}

/// Lets go of everything but the job, and does what must be done when everything is there and nothing runs yet.
fn get_ready(restart: &Restart<'_>, node: &Node, files: Option<&Files>) -> Result<(), ProcessError> {
    let none = Files::default();
    let files = files.unwrap_or(&none);
    let mut own: BTreeSet<i32> = [restart.reports, restart.ends].map(|fd| fd.as_raw_fd()).into();
    own.extend(files.terminals.placeholder.as_ref().map(AsRawFd::as_raw_fd));
    let mut kept = own.clone();
    kept.extend(needed_to_arm(restart.job.objects()).into_iter().filter_map(|file| Some(files.get(file)?.as_raw_fd())));
    kept.extend(files.shared.iter().flatten().map(AsRawFd::as_raw_fd));
    descriptors::close_all_but(&kept)?;
    let name = if node.role == Role::Init { "ckpt-init" } else { "ckpt-stand-in" };
    process::set_name(&std::ffi::OsStr::new(name).into());
    // Not to keep a file system busy; it matters to nobody when it fails.
    let _ = std::env::set_current_dir("/");
    wait_for(&restart.control.gate, COMMITTED);
    if node.role == Role::StandIn {
        remove_segments(restart)?;
    }
    arm(restart, files)?;
    if node.role == Role::StandIn {
        terminals::take_outside_foreground(restart)?;
        stop_the_stopped(restart.job)?;
    }
    descriptors::close_all_but(&own)
}

/// Removes System V shared memory that was removed while it was attached: now that everybody has attached it.
fn remove_segments(restart: &Restart<'_>) -> Result<(), ProcessError> {
    for object in &restart.job.shared_memory {
        if let SharedMemoryKind::SystemV { identity, removed: true, .. } = &object.kind {
            ckpt_sys::sysv::remove_memory(identity.id).map_err(ProcessError::raw("remove shared memory"))?;
        }
    }
    Ok(())
}

/// Stops the processes that the job had stopped, which all wait for the gate.
fn stop_the_stopped(job: &JobState) -> Result<(), ProcessError> {
    let stopped = |process: &&ProcessState| matches!(&process.life, Life::Alive(live) if live.stopped);
    for process in job.processes.iter().filter(stopped) {
        let pid = Pid::from_raw(process.pid.0).ok_or(ProcessError::Incomplete("a process id"))?;
        kill_process(pid, Signal::STOP).map_err(ProcessError::call(format!("stop process {}", process.pid)))?;
        let tasks = HostPid(process.pid.0);
        let runs =
            |thread: HostPid| Status::of_thread(tasks, thread).is_ok_and(|status| !matches!(status.state(), 'T' | 'Z' | 'X'));
        while threads(tasks).into_iter().any(runs) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    Ok(())
}

/// Tells the coordinator a wait status, or a signal as a negative number.
fn tell(restart: &Restart<'_>, number: i32) {
    // The coordinator may have been killed: then nobody wants to know. SIGPIPE is blocked.
    let _ = rustix::io::write(restart.ends, &number.to_le_bytes());
}

/// Sends a signal that the coordinator passes on, as the launcher would have.
fn forward(Forward { signal, pid, group }: Forward) {
    // A group that was made outside of this pid namespace has no number here.
    let group = Pid::from_raw(pid).filter(|_| group).and_then(|pid| getpgid(Some(pid)).ok());
    // One that has ended takes no signal any more.
    let _ = signals::send(group.map_or(pid, |group| -group.as_raw_nonzero().get()), signal.into());
}

/// A signal that came to this process.
enum Came {
    /// The job sent it to its launcher.
    FromJob(i32),
    /// The coordinator asks to send one.
    ToForward(Forward),
}

/// Waits for any signal; all are blocked, so that none ends this process.
fn wait_for_signal(checkpoint_signal: i32) -> Option<Came> {
    let Arrived { signal, code, pid, value } = signals::wait_for_any().ok()?;
    if signal == libc::SIGCHLD {
        return None;
    }
    // One that a process sent tells which; one outside the namespace has no number here.
    let from_outside = code <= 0 && pid == 0;
    if signal == checkpoint_signal && code == libc::SI_QUEUE && from_outside {
        return Some(Came::ToForward(Forward::from_value(value)));
    }
    // What else comes from outside comes to the coordinator too, if it is meant for it.
    (code <= 0 && !from_outside).then_some(Came::FromJob(signal))
}
