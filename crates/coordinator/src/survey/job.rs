//! The job as a whole, for the survey of each process and file: above all, the numbers of its processes.

use std::collections::HashMap;

use ckpt_objects::process::{Life, ProcessState, Status, exit_signal, group_session_and_terminal};
use ckpt_objects::signalling::{F_OWNER_PGRP, F_OWNER_TID};
use ckpt_objects::{HostPid, NsPid, start};
use ckpt_session::job::JobInfo;

use crate::frozen::Frozen;

/// A frozen job, and who is who in it.
pub struct Job<'a> {
    pub frozen: &'a Frozen,
    pub info: &'a JobInfo,
    /// What the process says that the job hangs below.
    pub reaper: Option<Status>,
    /// The processors that this process may run on.
    pub own_affinity: Vec<u64>,
    /// The job's numbers of its processes, and of the reaper.
    pids: HashMap<HostPid, NsPid>,
    /// Processes that made sockets of the job's at a restart, and have ended.
    makers: HashMap<HostPid, NsPid>,
}

impl<'a> Job<'a> {
    pub fn new(frozen: &'a Frozen, info: &'a JobInfo, reaper: HostPid, makers: &[(HostPid, NsPid)]) -> Self {
        let mut pids: HashMap<HostPid, NsPid> = frozen.processes.iter().map(|process| (process.pid, process.ns_pid)).collect();
        pids.extend(frozen.zombies.iter().map(|member| (member.pid, member.status.ns_pid())));
        pids.insert(reaper, info.launcher);
        Self {
            frozen,
            info,
            reaper: Status::of(reaper).ok(),
            own_affinity: Status::of(HostPid::own()).map(|status| status.affinity()).unwrap_or_default(),
            pids,
            makers: makers.iter().copied().collect(),
        }
    }

    /// The job's number of a process of its own.
    pub fn number(&self, pid: HostPid) -> Option<NsPid> {
        self.pids.get(&pid).copied()
    }

    /// Whether a process of the job has this number.
    pub fn has(&self, pid: NsPid) -> bool {
        self.pids.values().any(|known| *known == pid)
    }

    /// The job's number of a process or group that a file signals (`F_OWNER_*`).
    pub fn signalled(&self, kind: i32, host: HostPid) -> Option<NsPid> {
        let mut processes = self.frozen.processes.iter();
        match kind.cast_unsigned() {
            F_OWNER_PGRP => processes.find_map(|process| {
                let (group, ..) = group_session_and_terminal(process.live).ok()?;
                (group == host.0).then(|| self.group_and_session(&process.status).0)
            }),
            F_OWNER_TID => processes.find_map(|process| Status::of_thread(process.pid, host).ok().map(|status| status.ns_pid())),
            _ => self.number(host),
        }
    }

    /// Gives the job's number of a socket's peer, which may have ended; 0 for a process outside.
    pub fn peers(&self) -> impl Fn(i32) -> i32 {
        // Outside of any restart the numbers are the same here, also those of the dead.
        let same = self.frozen.processes.iter().all(|process| process.pid.0 == process.ns_pid.0);
        move |pid| match self.number(HostPid(pid)).or_else(|| self.makers.get(&HostPid(pid)).copied()) {
            Some(number) => number.0,
            None if same => pid,
            None => 0,
        }
    }

    /// A process's group and session. A group or session outside of the job's pid namespace reads 0: it is the launcher's.
    pub fn group_and_session(&self, status: &Status) -> (NsPid, NsPid) {
        let or = |id: NsPid, outside: NsPid| if id.0 == 0 { outside } else { id };
        (or(status.ns_pgid(), self.info.launcher_pgid), or(status.ns_sid(), self.info.launcher_sid))
    }

    /// When a process started, as the job knows it; 0 for one that has gone meanwhile.
    fn started(&self, pid: NsPid, host: HostPid) -> u64 {
        start::observe(host).map_or(0, |now| start::former(&self.info.restarted, pid, now))
    }

    /// A process with the ids that its status tells.
    pub fn process(&self, pid: NsPid, status: &Status, life: Life) -> ProcessState {
        let (pgid, sid) = self.group_and_session(status);
        ProcessState {
            pid,
            ppid: self.number(status.parent()).unwrap_or(self.info.launcher),
            pgid,
            sid,
            started: self.started(pid, status.process()),
            exit_signal: exit_signal(status.process()).unwrap_or(libc::SIGCHLD),
            comm: status.name(),
            life,
        }
    }
}
