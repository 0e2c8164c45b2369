//! The restart's view of the processes that it made: how far they are, what they report, whether they live.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ckpt_objects::process::{Life, children, status_if_there};
use ckpt_objects::start::{self, Start};
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::JobState;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::futex;

use crate::control::{self, COMMITTED, Message, OPEN, SharedPage, wake};
use crate::error::RestoreError;
use crate::tree::{Role, Tree};

/// Time between two looks at whether a process has died.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long to wait without progress before giving up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Watches the processes of a restart until the job runs. Dropped before that, it ends them all.
pub struct Watcher<'a> {
    job: &'a JobState,
    tree: &'a Tree,
    control: &'static SharedPage,
    init: HostPid,
    reports: OwnedFd,
    /// Lines for the user.
    pub notes: Vec<String>,
    tell: &'a dyn Fn(&str),
    /// Processes that made sockets: their numbers here and in the namespace.
    makers: Vec<(HostPid, NsPid)>,
    /// How far they were, and since when.
    seen: (u64, Instant),
    is_open: bool,
}

impl<'a> Watcher<'a> {
    /// Watches the processes below `init`. `tell` is told at once what takes its time.
    pub fn new(
        job: &'a JobState,
        tree: &'a Tree,
        control: &'static SharedPage,
        init: HostPid,
        reports: OwnedFd,
        tell: &'a dyn Fn(&str),
    ) -> Self {
        let seen = (0, Instant::now());
        Self { job, tree, control, init, reports, notes: Vec::new(), tell, makers: Vec::new(), seen, is_open: false }
    }

    /// Waits until every thread of the job is at the gate.
    pub fn wait_for_all(&mut self) -> Result<(), RestoreError> {
        let everybody = thread_count(self.job) as u32;
        loop {
            let arrived = self.control.arrived.load(Ordering::Acquire);
            self.read_reports()?;
            if arrived >= everybody {
                return Ok(());
            }
            self.wait_on(&self.control.arrived, arrived)?;
        }
    }

    /// Lets init and the stand-in do their part of the last step.
    pub fn let_helpers_commit(&mut self) -> Result<(), RestoreError> {
        self.control.gate.store(COMMITTED, Ordering::Release);
        wake(&self.control.gate);
        let helpers = self.tree.nodes.iter().filter(|node| matches!(node.role, Role::Init | Role::StandIn)).count();
        loop {
            let ready = self.control.ready.load(Ordering::Acquire);
            self.read_reports()?;
            if ready >= helpers as u32 {
                return Ok(());
            }
            self.wait_on(&self.control.ready, ready)?;
        }
    }

    /// Opens the gate: the job runs. Gives the processes that made sockets, and lines for the user.
    pub fn open_the_gate(mut self) -> (Vec<(HostPid, NsPid)>, Vec<String>) {
        self.is_open = true;
        self.control.gate.store(OPEN, Ordering::Release);
        wake(&self.control.gate);
        (std::mem::take(&mut self.makers), std::mem::take(&mut self.notes))
    }

    /// Waits for a word to change, a while; sees whether everybody is alive when nothing happens.
    fn wait_on(&mut self, word: &AtomicU32, value: u32) -> Result<(), RestoreError> {
        let timeout = futex::Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
        if futex::wait(word, futex::Flags::empty(), value, Some(&timeout)) != Err(rustix::io::Errno::TIMEDOUT) {
            return Ok(());
        }
        // A report of the reason comes before the end that it explains.
        self.read_reports()?;
        let dead = self.find_dead();
        if !dead.is_empty() {
            // One that makes sockets has the number of another for a moment, says so, and ends.
            self.read_reports()?;
            if let Some((_, pid)) = dead.iter().find(|dead| !self.makers.contains(dead)) {
                let who = if *pid == NsPid(1) { "init".to_owned() } else { format!("process {pid}") };
                return Err(RestoreError::Died(format!(" ({who})")));
            }
        }
        let progress = self.control.progress();
        if progress != self.seen.0 {
            self.seen = (progress, Instant::now());
        } else if self.seen.1.elapsed() > PATIENCE {
            return Err(RestoreError::Stuck(PATIENCE.as_secs()));
        }
        Ok(())
    }

    fn read_reports(&mut self) -> Result<(), RestoreError> {
        loop {
            match control::receive(&self.reports) {
                None => return Ok(()),
                Some(Message::Note(note)) => self.notes.push(note),
                Some(Message::Waiting(what)) => (self.tell)(&what),
                Some(Message::Maker(outside, inside)) => self.makers.push((HostPid(outside), NsPid(inside))),
                Some(Message::Operation(failure)) if failure.tolerated => self.notes.push(failure.to_string()),
                Some(Message::Operation(failure)) => return Err(RestoreError::Operation(Box::new(failure))),
                Some(Message::Failed(why)) => return Err(RestoreError::Process(why)),
                Some(Message::End) => return Err(RestoreError::Died(String::new())),
            }
        }
    }

    /// Processes that are dead and should not be, with their numbers here and in the namespace; those that made sockets may be among
    /// them. Children that live for a moment and have numbers of their own are not waited for here.
    fn find_dead(&self) -> Vec<(HostPid, NsPid)> {
        let lasting: HashSet<i32> = self.tree.nodes.iter().filter(|node| !node.ends).map(|node| node.pid).collect();
        let led_by_the_dead: HashSet<i32> = self
            .job
            .processes
            .iter()
            .filter(|process| matches!(&process.life, Life::Alive(live) if live.threads.iter().any(|thread| thread.exited)))
            .map(|process| process.pid.0)
            .collect();
        let mut dead = Vec::new();
        let mut next = vec![self.init];
        while let Some(pid) = next.pop() {
            match status_if_there(pid) {
                Some(status) => {
                    let inside = status.ns_pid();
                    if status.state() == 'Z' && lasting.contains(&inside.0) && !led_by_the_dead.contains(&inside.0) {
                        dead.push((pid, inside));
                    }
                }
                None if pid == self.init => dead.push((pid, NsPid(1))),
                None => (),
            }
            next.extend(children(pid));
        }
        dead
    }

    /// The stand-in as it is seen from here, and the pid namespace.
    pub fn identify(&self) -> Result<(HostPid, u64), RestoreError> {
        let wanted = self.job.info.launcher;
        let mut next = vec![self.init];
        let mut stand_in = None;
        while let (Some(pid), None) = (next.pop(), stand_in) {
            if status_if_there(pid).is_some_and(|status| status.ns_pid() == wanted) {
                stand_in = Some(pid);
            }
            next.extend(children(pid));
        }
        let stand_in = stand_in.ok_or_else(|| RestoreError::Died(" (the launcher's stand-in)".to_owned()))?;
        let namespace = self.init.pid_namespace().map_err(RestoreError::StandIn)?;
        Ok((stand_in, namespace))
    }
}

impl Watcher<'_> {
    /// When the job's processes have started, and when those did whose places they take.
    pub fn starts(&self) -> Vec<Start> {
        let former: HashMap<NsPid, u64> = self.job.processes.iter().map(|process| (process.pid, process.started)).collect();
        let mut starts = Vec::new();
        let mut next = vec![self.init];
        while let Some(pid) = next.pop() {
            next.extend(children(pid));
            let number = status_if_there(pid).map(|status| status.ns_pid());
            if let Some((number, former)) = number.and_then(|number| Some((number, *former.get(&number)?)))
                && let Ok(now) = start::observe(pid)
            {
                starts.push(Start { pid: number, now, former });
            }
        }
        starts
    }
}

impl Drop for Watcher<'_> {
    /// Ends everything that was made, unless the job runs.
    fn drop(&mut self) {
        if let (false, Some(init)) = (self.is_open, Pid::from_raw(self.init.0)) {
            let _ = kill_process(init, Signal::KILL);
            let _ = waitpid(Some(init), WaitOptions::empty());
        }
    }
}

/// Threads that are alive.
pub fn thread_count(job: &JobState) -> usize {
    job.processes
        .iter()
        .map(|process| match &process.life {
            Life::Alive(live) => live.threads.iter().filter(|thread| !thread.exited).count(),
            Life::Zombie { .. } => 0,
        })
        .sum()
}
