//! Finding the job: it is what descends from the process that adopts its orphans. No process registers, nothing is kept.

use std::collections::HashSet;
use std::io;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ckpt_objects::HostPid;
use ckpt_objects::observe::read_proc;
use ckpt_objects::process::{Status, children, status_if_there};
use ckpt_wire::{ENV_JOB, LET_IN, LET_IN_IF_HANDLED};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Where a job hangs in the tree of processes.
pub struct Anchor {
    /// The process whose descendants are the job: the launcher itself, or the stand-in for it in a restarted job's pid namespace.
    pub reaper: HostPid,
    /// Processes below it that are not the job's: twins that dump.
    twins: Mutex<HashSet<HostPid>>,
    /// Nor are commands that the coordinator runs for itself, each in a session of its own.
    helpers: Mutex<HashSet<HostPid>>,
    /// Nor are the children that the launcher had before it launched anything, and what descends from them.
    earlier: Option<Earlier>,
}

/// The children of a launcher that was not started but took a shell's place (`exec ckpt-launch …`), with the shell's children.
pub struct Earlier {
    /// Those of them that are not reaped yet.
    children: Mutex<HashSet<HostPid>>,
    /// The variable that the job's processes have in their environment, with its value.
    mark: Vec<u8>,
    /// The signal that the job's processes catch.
    signal: i32,
}

impl Earlier {
    /// The children that this process has; `None` where it has none. To be called before it launches the job.
    #[must_use]
    pub fn find(job: &str, signal: i32) -> Option<Self> {
        let children: HashSet<HostPid> = children(HostPid::own()).into_iter().collect();
        let mark = format!("{ENV_JOB}={job}").into_bytes();
        (!children.is_empty()).then(|| Self { children: Mutex::new(children), mark, signal })
    }

    fn children(&self) -> MutexGuard<'_, HashSet<HostPid>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a child of the launcher does not belong to the job. An orphan of an earlier child has neither the job's agent nor its environment.
    fn includes(&self, pid: HostPid, status: &Status) -> bool {
        if self.children().contains(&pid) {
            return true;
        }
        if status.caught().contains(self.signal) {
            return false;
        }
        let is_foreign =
            read_proc(pid, "environ").is_ok_and(|environ| !environ.split(|byte| *byte == 0).any(|one| one == self.mark));
        is_foreign && self.children().insert(pid)
    }
}

/// A process of the job.
pub struct Member {
    /// Its pid.
    pub pid: HostPid,
    /// What `/proc/PID/status` says.
    pub status: Status,
}

impl Member {
    /// Whether it has ended and was not waited for. A thread group's leader that has ended while others go on looks the same, but for their number.
    pub fn is_zombie(&self) -> bool {
        matches!(self.status.state(), 'Z' | 'X') && self.status.number("Threads") <= 1
    }
}

impl Anchor {
    /// A job below this process, which may have had children before.
    #[must_use]
    pub fn new(reaper: HostPid, earlier: Option<Earlier>) -> Self {
        Self { reaper, twins: Mutex::default(), helpers: Mutex::default(), earlier }
    }

    /// Whether the launcher had children before it launched the job.
    pub fn has_earlier(&self) -> bool {
        self.earlier.is_some()
    }

    /// Forgets a child of the launcher that was reaped: its number may become another's.
    pub fn reaped(&self, pid: HostPid) {
        if let Some(earlier) = &self.earlier {
            earlier.children().remove(&pid);
        }
    }

    /// Notes that a process is not the job's.
    pub fn add_twin(&self, pid: HostPid) {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    /// Forgets a twin that has ended.
    pub fn remove_twin(&self, pid: HostPid) {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// Whether a process is a twin.
    pub fn is_twin(&self, pid: HostPid) -> bool {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }

    fn helpers(&self) -> MutexGuard<'_, HashSet<HostPid>> {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command of the coordinator's own: at no instant is it taken for the job's.
    pub fn add_helper(&self, start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let mut helpers = self.helpers();
        let child = start()?;
        helpers.insert(HostPid(child.id().cast_signed()));
        Ok(child)
    }

    /// Forgets a command that has ended. What it has left is still told by its session.
    pub fn remove_helper(&self, pid: HostPid) {
        if nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.0), None).is_err() {
            self.helpers().remove(&pid);
        }
    }

    /// Whether a process is one that serves the coordinator, or was left by such a one.
    fn serves(&self, pid: HostPid) -> bool {
        let helpers = self.helpers();
        !helpers.is_empty()
            && (helpers.contains(&pid)
                || nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid.0)))
                    .is_ok_and(|session| helpers.contains(&HostPid(session.as_raw()))))
    }

    /// Has a signal its effect on a process of the job that holds it back.
    pub fn let_in(&self, pid: HostPid, signal: i32, checkpoint_signal: i32, only_if_handled: bool) {
        // It may have ended, and its number be another's.
        let Some(status) = status_if_there(pid).filter(|_| !self.is_outside(pid)) else { return };
        if (status.caught() | status.blocked()).contains(checkpoint_signal) {
            let order = if only_if_handled { LET_IN_IF_HANDLED } else { LET_IN };
            let _ = ckpt_sys::process::queue(pid.0, checkpoint_signal, order + u64::from(signal.unsigned_abs()));
        } else if !only_if_handled {
            // It has become a program without an agent since, which would be ended by the checkpoint signal.
            let _ = ckpt_sys::process::queue(pid.0, signal, 0);
        }
    }

    /// Whether a process is neither below the reaper nor itself that; false for one that has ended.
    pub fn is_outside(&self, pid: HostPid) -> bool {
        let mut at = pid;
        while at != self.reaper {
            match status_if_there(at).map(|status| status.parent()) {
                Some(HostPid(0)) => return true,
                Some(parent) => at = parent,
                // Another user's that /proc does not show (`hidepid`), or one that has ended.
                None => return Pid::from_raw(at.0).is_some_and(|pid| test_kill_process(pid) == Err(Errno::PERM)),
            }
        }
        false
    }

    /// Every process of the job, parents before their children. Those that have ended and only wait for the reaper are left out.
    #[must_use]
    pub fn scan(&self) -> Vec<Member> {
        let mut found: Vec<Member> = Vec::new();
        let mut seen: HashSet<HostPid> = HashSet::new();
        let mut parents = vec![self.reaper];
        while let Some(parent) = parents.pop() {
            for pid in children(parent) {
                if self.is_twin(pid) || self.serves(pid) || !seen.insert(pid) {
                    continue;
                }
                let Some(status) = status_if_there(pid) else { continue };
                if parent == self.reaper && self.earlier.as_ref().is_some_and(|earlier| earlier.includes(pid, &status)) {
                    continue;
                }
                let member = Member { pid, status };
                if member.is_zombie() && parent == self.reaper {
                    continue;
                }
                parents.push(pid);
                found.push(member);
            }
        }
        found
    }
}
