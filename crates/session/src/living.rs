//! Whether a job lives already: a restart beside it would take its files from under it.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use ckpt_objects::process::status_if_there;
use ckpt_objects::{HostPid, NsPid};
use ckpt_wire::ENV_JOB;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::library::{AGENT_FILE, copy_of};

/// How long processes that have been killed may take to end.
const ENDING: Duration = Duration::from_secs(3);
/// How long all processes of a job may take to end, one after the other.
const LEAVING: Duration = Duration::from_secs(30);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

/// A process of the job with this id that goes on living; nothing where there is none, or none that this user may look at. `pids` are those that the
/// job's processes had in an image.
#[must_use]
pub fn process_of(id: &str, pids: &[NsPid]) -> Option<HostPid> {
    let begun = Instant::now();
    loop {
        let found = find(id, pids)?;
        if begun.elapsed() > ENDING {
            return Some(found);
        }
        std::thread::sleep(LOOK);
    }
}

/// The ids of all jobs of which a process lives; nothing where one has overwritten its environment, so that its job is not known.
#[must_use]
pub fn jobs() -> Option<HashSet<Vec<u8>>> {
    let mut jobs = HashSet::new();
    for pid in processes() {
        match job_of(pid) {
            Some(job) => drop(jobs.insert(job)),
            None if maps(pid, &format!("/{AGENT_FILE}")) => return None,
            None => (),
        }
    }
    Some(jobs)
}

/// All processes but this one.
fn processes() -> impl Iterator<Item = HostPid> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(move |pid| u32::try_from(*pid) != Ok(own)).map(HostPid)
}

/// Whether a process maps a file whose path ends so.
fn maps(pid: HostPid, name: &str) -> bool {
    let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else { return false };
    // The path ends the line, but for the note that the file is gone.
    String::from_utf8_lossy(&maps).lines().any(|line| line.trim_end_matches(" (deleted)").ends_with(name))
}

/// Ends (`SIGKILL`) every process of the job with this id, as [`process_of`] finds them, and waits until they are gone.
///
/// # Errors
/// The process that is still there after a while.
pub fn end(id: &str, pids: &[NsPid]) -> Result<(), HostPid> {
    let begun = Instant::now();
    let mut last = None;
    loop {
        let Some(found) = find(id, pids) else { return Ok(()) };
        // Held by the descriptor, it is looked at again: the number may have come to mean another process.
        let raw = Pid::from_raw(found.0);
        if let Some(process) = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok())
            && belongs(found, id, pids)
        {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        if begun.elapsed() > LEAVING {
            return Err(found);
        }
        if last.replace(found) == Some(found) {
            std::thread::sleep(LOOK);
        }
    }
}

/// A process that belongs to the job. Those that have ended have neither environment nor mappings any more.
fn find(id: &str, pids: &[NsPid]) -> Option<HostPid> {
    processes().find(|pid| belongs(*pid, id, pids))
}

fn belongs(pid: HostPid, id: &str, pids: &[NsPid]) -> bool {
    match job_of(pid) {
        Some(job) => job == id.as_bytes(),
        None => has_agent(pid, id, pids),
    }
}

/// The id in a process's environment, which every process of a job was started with.
fn job_of(pid: HostPid) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|&byte| byte == 0);
    entries.find_map(|entry| entry.strip_prefix(ENV_JOB.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec))
}

/// Whether a process has an agent that is this job's: the job's own copy, or any if it also has a pid of the job's. A program that sets its title
/// (setproctitle(3)) writes over its environment, so that only this tells.
fn has_agent(pid: HostPid, id: &str, pids: &[NsPid]) -> bool {
    maps(pid, &copy_of(id).display().to_string())
        || (maps(pid, &format!("/{AGENT_FILE}")) && status_if_there(pid).is_some_and(|status| pids.contains(&status.ns_pid())))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_tells_by_its_environment_whose_it_is() {
        let id = format!("{:016x}", std::process::id());
        assert_eq!(process_of(&id, &[]), None);
        let mut child = Command::new("sleep").arg("60").env(ENV_JOB, &id).spawn().unwrap();
        assert_eq!(process_of(&id, &[]), Some(HostPid(child.id().cast_signed())));
        child.kill().unwrap();
        // One that has ended, and is not waited for yet.
        assert_eq!(process_of(&id, &[]), None);
        child.wait().unwrap();
    }
}
