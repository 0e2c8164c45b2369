//! The plan of the process tree: who is forked by whom, and when, so that parents, sessions and groups are again as they were.
//!
//! Works on numbers alone and makes no process: [`crate::family`] does.
//!
//! The rules that the kernel gives:
//!
//! 1. A process is in its parent's session until it calls `setsid`, which only makes it the leader of its own. So a child of a
//!    session leader that is in another session was forked before its parent became a leader (it is an *early* child), or by somebody
//!    else.
//! 2. A process whose parent has ended becomes the child of the nearest living ancestor that is a subreaper. So one that was not forked
//!    by its parent is forked further below, where its session is, by a temporary process. That ends when its parent, and nobody in
//!    between, is a subreaper. `origin` finds out where.
//! 3. The leader of a session may be dead. A process with its number calls `setsid` again, and ends.
//! 4. A group exists as long as it has members. A group whose founder is dead is founded by a temporary process with its number.
//! 5. The numbers of dead leaders and founders stay in use as long as somebody is in their session or group, so nobody else has
//!    them.
//!
//! Temporary processes end in steps. In each step, processes of one depth are subreapers, the deepest first: so each process that moves
//! still has its parent above it, and nobody else catches it on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ckpt_objects::process::Life;
use ckpt_session::JobState;

mod origin;
#[cfg(test)]
mod simulation;

use origin::{Member, Origin};

/// Index into [`Tree::nodes`].
pub type Index = usize;

/// What a process of the restart is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Process 1 of the namespace. It is the stand-in too where the job's launcher was process 1.
    Init,
    /// Has the launcher's pid, and is the parent of what the launcher was the parent of.
    StandIn,
    /// A process of the job, by its index in [`JobState::processes`], which is or was alive.
    Job(usize),
    /// There for its number, its session or its children, until everybody is in place.
    Temporary,
}

/// A process of the restart.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is there for.
    pub role: Role,
    /// Its pid in the namespace.
    pub pid: i32,
    /// Forked before it calls `setsid`.
    pub early: Vec<Index>,
    /// It calls `setsid`.
    pub leads_session: bool,
    /// Forked after that.
    pub late: Vec<Index>,
    /// It founds the group of its own number, whether it stays in it or not. A session leader has it already.
    pub founds_group: bool,
    /// The group it is in at last; `None`: the one that it was forked in.
    pub group: Option<i32>,
    /// Ends before the job goes on.
    pub ends: bool,
    /// The step in which it ends, of a temporary process. Those of the job's that are dead end after all steps.
    pub ends_at: usize,
    /// The step in which it is a subreaper.
    pub adopts_at: Option<usize>,
    /// Its children that are dead when the job goes on: their pids.
    pub dead_children: Vec<i32>,
}

/// All processes of a restart.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The first is init.
    pub nodes: Vec<Node>,
    /// How many processes there are at the begin of each step, and after the last.
    pub present: Vec<u32>,
    /// A pid from which on the kernel may choose numbers for others, as far as that can be steered.
    pub free_from: i32,
}

/// Why a tree cannot be made again.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// There is no such parent.
    #[error("process {pid} has process {ppid} as its parent, which is not in the image")]
    NoParent {
        /// The child.
        pid: i32,
        /// The parent.
        ppid: i32,
    },
    /// A process that has ended has no children.
    #[error("process {pid} has process {ppid} as its parent, which has ended")]
    DeadParent {
        /// The child.
        pid: i32,
        /// The parent.
        ppid: i32,
    },
    /// Two have one number.
    #[error("two processes or threads of the image have the number {0}")]
    Twice(i32),
    /// Nobody can be in that session there.
    #[error("process {pid} is in session {sid}, which it cannot have got into below its parent {ppid}")]
    Session {
        /// The process.
        pid: i32,
        /// Its session.
        sid: i32,
        /// Its parent.
        ppid: i32,
    },
    /// The parents go round in a circle.
    #[error("process {0} is its own ancestor in the image")]
    Circle(i32),
    /// A number that no process gets here.
    #[error(
        "process or thread {pid} has a number beyond kernel.pid_max ({max}); raise it, or restart on Linux 6.14 or later, where each pid namespace has its own"
    )]
    PidMax {
        /// The number.
        pid: i32,
        /// The limit.
        max: i32,
    },
}

impl Tree {
    /// Plans the tree of `job`. `pid_max` is the first number that a process of a new pid namespace cannot have.
    pub fn plan(job: &JobState, pid_max: i32) -> Result<Self, TreeError> {
        Planner::new(job, pid_max)?.plan()
    }

    /// How many processes are still there when the job goes on, init and stand-in included, the dead not.
    #[must_use]
    pub fn lasting(&self) -> u32 {
        self.nodes.iter().filter(|node| !node.ends).count() as u32
    }
}

struct Planner<'a> {
    job: &'a JobState,
    /// The launcher, the job's processes in their order, and dead leaders of sessions.
    members: Vec<Member>,
    /// Numbers that nobody else may have.
    used: BTreeSet<i32>,
    nodes: Vec<Node>,
    /// The node of each member.
    node_of_member: Vec<Index>,
    /// Pid to node.
    node_of: BTreeMap<i32, Index>,
    next_free: i32,
    pid_max: i32,
}

impl<'a> Planner<'a> {
    fn new(job: &'a JobState, pid_max: i32) -> Result<Self, TreeError> {
        let mut tasks = BTreeSet::from([job.info.launcher.0]);
        for process in &job.processes {
            let threads = match &process.life {
                Life::Alive(live) => live.threads.iter().map(|thread| thread.tid.0).filter(|&tid| tid != process.pid.0).collect(),
                Life::Zombie { .. } => Vec::new(),
            };
            for task in std::iter::once(process.pid.0).chain(threads) {
                if !tasks.insert(task) {
                    return Err(TreeError::Twice(task));
                }
            }
        }
        let mut used = tasks;
        used.extend(job.processes.iter().flat_map(|process| [process.pgid.0, process.sid.0]));
        used.extend([job.info.launcher_pgid.0, job.info.launcher_sid.0]);
        used.remove(&0);
        for &pid in &used {
            if pid >= pid_max || pid < 1 {
                return Err(TreeError::PidMax { pid, max: pid_max });
            }
        }
        // Others follow after the highest, as the kernel goes on counting, or where there is room.
        let highest = used.last().copied().unwrap_or(1);
        let next_free = if highest < pid_max / 2 { highest + 1 } else { longest_gap(&used, pid_max) };
        let members = members(job)?;
        let (nodes, node_of_member, node_of) = (Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { job, members, used, nodes, node_of_member, node_of, next_free, pid_max })
    }

    fn plan(mut self) -> Result<Tree, TreeError> {
        let origins = origin::find(&self.members).map_err(|index| self.no_session(index))?;
        let stand_in = self.plant_stand_in();
        self.node_of_member.push(stand_in);
        for (index, process) in self.job.processes.iter().enumerate() {
            let node = self.add(Role::Job(index), process.pid.0, process.sid == process.pid);
            self.nodes[node].ends = matches!(process.life, Life::Zombie { .. });
            self.node_of_member.push(node);
        }
        for index in self.node_of_member.len()..self.members.len() {
            let node = self.add(Role::Temporary, self.members[index].pid, true);
            self.node_of_member.push(node);
        }
        self.attach(&origins);
        self.plan_groups(stand_in);
        self.count_the_dead();
        let present = self.present();
        Ok(Tree { nodes: self.nodes, present, free_from: self.next_free })
    }

    fn no_session(&self, index: usize) -> TreeError {
        let member = self.members[index];
        let ppid = member.parent.map_or(0, |parent| self.members[parent].pid);
        TreeError::Session { pid: member.pid, sid: member.sid, ppid }
    }

    fn add(&mut self, role: Role, pid: i32, leads_session: bool) -> Index {
        let node = Node {
            role,
            pid,
            early: Vec::new(),
            leads_session,
            late: Vec::new(),
            founds_group: false,
            group: None,
            ends: role == Role::Temporary,
            ends_at: 0,
            adopts_at: None,
            dead_children: Vec::new(),
        };
        self.nodes.push(node);
        self.node_of.insert(pid, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn fresh_pid(&mut self) -> i32 {
        while self.used.contains(&self.next_free) && self.next_free < self.pid_max {
            self.next_free += 1;
        }
        self.used.insert(self.next_free);
        self.next_free += 1;
        self.next_free - 1
    }

    /// Init, and the stand-in below it, in the launcher's session.
    fn plant_stand_in(&mut self) -> Index {
        let (pid, sid) = (self.job.info.launcher.0, self.job.info.launcher_sid.0);
        let leads = pid == sid;
        if pid == 1 {
            return self.add(Role::StandIn, 1, leads);
        }
        let mut parent = self.add(Role::Init, 1, false);
        // A session that the launcher itself saw as 0 was led from outside its pid namespace: so is that of this restart.
        if !leads && sid != 0 {
            let leader = self.add(Role::Temporary, sid, true);
            self.nodes[parent].late.push(leader);
            parent = leader;
        }
        let stand_in = self.add(Role::StandIn, pid, leads);
        self.nodes[parent].late.push(stand_in);
        stand_in
    }

    /// Gives each process to the one that forks it. One that is to move is forked by a temporary process.
    fn attach(&mut self, origins: &[Origin]) {
        let depths = depths(origins);
        let moves = |index: usize| self.members[index].parent.filter(|&parent| parent != origins[index].forker);
        let targets: Vec<Option<usize>> = (0..self.members.len()).map(moves).collect();
        let steps: BTreeSet<usize> = targets.iter().flatten().map(|&target| depths[target]).collect();
        let step_of: HashMap<usize, usize> = steps.iter().rev().copied().zip(0..).collect();
        // A dead leader ends with the last of those below it: those it can fork itself.
        let mut last_target: HashMap<usize, usize> = HashMap::new();
        for (index, &target) in targets.iter().enumerate() {
            let forker = origins[index].forker;
            if let Some(target) = target.filter(|_| self.members[forker].parent.is_none() && forker != 0) {
                let last = last_target.entry(forker).or_insert(target);
                if depths[target] < depths[*last] {
                    *last = target;
                }
            }
        }
        let mut temporaries: HashMap<(Origin, usize), Index> = HashMap::new();
        for index in 1..self.members.len() {
            let (origin, child) = (origins[index], self.node_of_member[index]);
            let Some(target) = targets[index] else {
                self.fork_from(origin, child);
                continue;
            };
            let step = step_of[&depths[target]];
            let adopter = self.node_of_member[target];
            self.nodes[adopter].adopts_at = Some(step);
            let temporary = if last_target.get(&origin.forker) == Some(&target) {
                self.node_of_member[origin.forker]
            } else if let Some(&temporary) = temporaries.get(&(origin, target)) {
                temporary
            } else {
                let pid = self.fresh_pid();
                let temporary = self.add(Role::Temporary, pid, false);
                self.fork_from(origin, temporary);
                temporaries.insert((origin, target), temporary);
                temporary
            };
            self.nodes[temporary].ends_at = step;
            self.nodes[temporary].late.push(child);
        }
        self.end_launchers_leader(steps.len());
    }

    /// The temporary leader of the launcher's session ends last, with all who stay in the place of their birth. So the launcher becomes
    /// init's child.
    fn end_launchers_leader(&mut self, steps: usize) {
        if let Some(leader) = self.nodes.get_mut(1).filter(|node| node.role == Role::Temporary) {
            leader.ends_at = steps;
        }
    }

    fn fork_from(&mut self, origin: Origin, child: Index) {
        let forker = &mut self.nodes[self.node_of_member[origin.forker]];
        if origin.early { &mut forker.early } else { &mut forker.late }.push(child);
    }

    fn plan_groups(&mut self, stand_in: Index) {
        let info = &self.job.info;
        let wanted: Vec<(Index, i32)> = std::iter::once((stand_in, info.launcher_pgid.0))
            .chain(self.job.processes.iter().map(|process| (self.node_of[&process.pid.0], process.pgid.0)))
            .collect();
        for (index, pgid) in wanted {
            // 0: led from outside the namespace, as this restart's is.
            if pgid == 0 {
                continue;
            }
            self.nodes[index].group = Some(pgid);
            let founder = match self.node_of.get(&pgid) {
                Some(&founder) => founder,
                None => {
                    let founder = self.add(Role::Temporary, pgid, false);
                    self.nodes[index].late.push(founder);
                    founder
                }
            };
            self.nodes[founder].founds_group = !self.nodes[founder].leads_session;
        }
        self.keep_groups();
    }

    /// A founder that leaves its group may be gone before others that leave theirs come: a temporary process stays until then.
    fn keep_groups(&mut self) {
        let leaves = |node: &Node| node.founds_group && node.group.is_some_and(|group| group != node.pid);
        let kept: BTreeSet<i32> = self.nodes.iter().filter(|node| !leaves(node)).filter_map(|node| node.group).collect();
        let founders: Vec<Index> =
            (0..self.nodes.len()).filter(|&at| leaves(&self.nodes[at]) && !kept.contains(&self.nodes[at].pid)).collect();
        for founder in founders {
            let pid = self.fresh_pid();
            let member = self.add(Role::Temporary, pid, false);
            self.nodes[member].group = Some(self.nodes[founder].pid);
            self.nodes[founder].late.push(member);
        }
    }

    /// Tells each process which of its children must be dead when it goes on.
    fn count_the_dead(&mut self) {
        for (index, process) in self.job.processes.iter().enumerate() {
            if let (Life::Zombie { .. }, Some(parent)) = (&process.life, self.members[index + 1].parent) {
                self.nodes[self.node_of_member[parent]].dead_children.push(process.pid.0);
            }
        }
    }

    /// How many processes there are at the begin of each step, and after the last.
    fn present(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = Vec::new();
        for node in self.nodes.iter().filter(|node| node.role == Role::Temporary) {
            if ends.len() <= node.ends_at {
                ends.resize(node.ends_at + 1, 0);
            }
            ends[node.ends_at] += 1;
        }
        let mut present = vec![self.nodes.len() as u32];
        present.extend(ends.iter().scan(self.nodes.len() as u32, |left, ends| {
            *left -= ends;
            Some(*left)
        }));
        present
    }
}

/// The launcher, the job's processes, and the dead leaders of their sessions; everybody descends from the launcher.
fn members(job: &JobState) -> Result<Vec<Member>, TreeError> {
    let (launcher, session) = (job.info.launcher.0, job.info.launcher_sid.0);
    let index_of: HashMap<i32, usize> =
        std::iter::once(launcher).chain(job.processes.iter().map(|process| process.pid.0)).zip(0..).collect();
    let mut members = vec![Member { pid: launcher, sid: session, parent: None, is_fixed: true, is_subreaper: true }];
    for process in &job.processes {
        let (pid, ppid) = (process.pid.0, process.ppid.0);
        let parent = *index_of.get(&ppid).ok_or(TreeError::NoParent { pid, ppid })?;
        if parent != 0 && matches!(job.processes[parent - 1].life, Life::Zombie { .. }) {
            return Err(TreeError::DeadParent { pid, ppid });
        }
        members.push(Member {
            pid,
            sid: process.sid.0,
            parent: Some(parent),
            is_fixed: process.exit_signal != libc::SIGCHLD,
            is_subreaper: process.live().is_some_and(|live| live.settings.child_subreaper),
        });
    }
    check_descent(&members)?;
    let sessions: BTreeSet<i32> = job.processes.iter().map(|process| process.sid.0).collect();
    let dead = sessions.into_iter().filter(|sid| *sid != session && !index_of.contains_key(sid));
    members.extend(dead.map(|sid| Member { pid: sid, sid, parent: None, is_fixed: false, is_subreaper: false }));
    Ok(members)
}

fn check_descent(members: &[Member]) -> Result<(), TreeError> {
    let mut is_below = vec![false; members.len()];
    is_below[0] = true;
    for start in 1..members.len() {
        let mut line = Vec::new();
        let mut at = start;
        while !is_below[at] {
            if line.len() > members.len() {
                return Err(TreeError::Circle(members[start].pid));
            }
            line.push(at);
            at = members[at].parent.unwrap_or(0);
        }
        line.into_iter().for_each(|at| is_below[at] = true);
    }
    Ok(())
}

/// How many are above each.
fn depths(origins: &[Origin]) -> Vec<usize> {
    let mut depths: Vec<Option<usize>> = vec![None; origins.len()];
    if let Some(launcher) = depths.first_mut() {
        *launcher = Some(0);
    }
    for start in 1..origins.len() {
        let mut line = Vec::new();
        let mut at = start;
        let above = loop {
            match depths[at] {
                Some(depth) => break depth,
                None => line.push(at),
            }
            at = origins[at].forker;
        };
        for (depth, at) in (above + 1..).zip(line.into_iter().rev()) {
            depths[at] = Some(depth);
        }
    }
    depths.into_iter().map(Option::unwrap_or_default).collect()
}

/// Where the longest run of unused numbers begins.
fn longest_gap(used: &BTreeSet<i32>, end: i32) -> i32 {
    // Below this the kernel gives no numbers once it has begun again (RESERVED_PIDS, kernel/pid.c).
    let mut at = 300;
    let mut best = (0, at);
    for &pid in used.range(at..).chain([&end]) {
        best = best.max((pid - at, at));
        at = pid + 1;
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::simulation::{Seen, replay};
    use super::*;
    use crate::testing::job;

    /// Plans and plays a job of (pid, ppid, pgid, sid), launched by 100 (group 100, session 50), and compares.
    fn check(processes: &[(i32, i32, i32, i32)]) {
        let state = job(100, 100, 50, processes);
        let tree = Tree::plan(&state, 32768).unwrap();
        let got = replay(&tree, &state);
        for &(pid, ppid, pgid, sid) in processes {
            assert_eq!(got.see(pid), Seen { pid, ppid, pgid, sid, is_subreaper: false, is_dead: false }, "in {tree:#?}");
        }
        let launcher = got.see(100);
        assert_eq!((launcher.pgid, launcher.sid), (state.info.launcher_pgid.0, state.info.launcher_sid.0));
    }

    #[test]
    fn a_shell_and_its_children() {
        check(&[(101, 100, 100, 50), (102, 101, 100, 50), (103, 101, 103, 50), (104, 101, 103, 50)]);
    }

    #[test]
    fn a_child_from_before_its_parent_called_setsid() {
        check(&[(101, 100, 101, 101), (102, 101, 100, 50)]);
        // Twice over: 103 is from before 102 led, which is from before 101 did.
        check(&[(101, 100, 101, 101), (102, 101, 102, 102), (103, 102, 100, 50)]);
    }

    #[test]
    fn orphans_of_the_launchers_session_of_a_living_and_of_a_dead_leader() {
        check(&[(101, 100, 100, 50), (110, 100, 110, 50)]);
        check(&[(101, 100, 101, 101), (110, 100, 101, 101), (111, 100, 101, 101)]);
        check(&[(101, 100, 100, 50), (110, 100, 109, 109), (111, 110, 109, 109), (112, 100, 109, 109)]);
    }

    #[test]
    fn a_daemon_that_forked_before_it_led() {
        // 110's first parent, leader 109, is dead; 110 forked 111 and then led its own session.
        check(&[(101, 100, 100, 50), (110, 100, 110, 110), (111, 110, 109, 109)]);
    }

    #[test]
    fn a_group_whose_founder_is_dead_or_has_moved() {
        check(&[(101, 100, 100, 50), (102, 101, 99, 50), (103, 101, 99, 50)]);
        check(&[(101, 100, 100, 50), (102, 101, 100, 50), (103, 101, 102, 50)]);
    }

    #[test]
    fn founders_that_left_their_groups_for_each_others() {
        check(&[(101, 100, 100, 50), (102, 101, 101, 50)]);
        check(&[(101, 100, 102, 50), (102, 101, 103, 50), (103, 101, 104, 50), (104, 101, 104, 50)]);
        check(&[(101, 100, 102, 50), (102, 101, 101, 50), (103, 101, 101, 50), (104, 101, 102, 50)]);
    }

    #[test]
    fn a_launcher_that_leads_or_is_led_from_outside_or_is_process_1() {
        for (launcher, pgid, sid) in [(100, 100, 100), (100, 0, 0), (1, 1, 1), (1, 0, 0), (100, 60, 50), (100, 50, 50)] {
            let state = job(launcher, pgid, sid, &[(101, launcher, 101, sid)]);
            let tree = Tree::plan(&state, 32768).unwrap();
            let got = replay(&tree, &state);
            let (first, above) = (got.see(101), got.see(launcher));
            assert_eq!((first.ppid, first.pgid, first.sid), (launcher, 101, sid));
            assert_eq!((above.pgid, above.sid), (pgid, sid));
        }
    }

    #[test]
    fn leaders_below_each_other_with_children_of_one_dead_session() {
        let processes = [
            (116, 100, 116, 116),
            (119, 116, 119, 119),
            (121, 119, 103, 103),
            (125, 116, 103, 103),
            (134, 100, 134, 134),
            (140, 134, 103, 103),
        ];
        check(&processes);
        let mut state = job(100, 100, 50, &processes);
        state.processes[1].live_mut().unwrap().settings.child_subreaper = true;
        replay(&Tree::plan(&state, 32768).unwrap(), &state);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let plan = |processes: &[(i32, i32, i32, i32)]| Tree::plan(&job(100, 100, 50, processes), 1000).unwrap_err();
        assert_eq!(plan(&[(101, 7, 100, 50)]), TreeError::NoParent { pid: 101, ppid: 7 });
        assert_eq!(plan(&[(101, 100, 100, 50), (101, 100, 100, 50)]), TreeError::Twice(101));
        assert_eq!(plan(&[(101, 102, 100, 50), (102, 101, 100, 50)]), TreeError::Circle(101));
        assert_eq!(plan(&[(1000, 100, 100, 50)]), TreeError::PidMax { pid: 1000, max: 1000 });
        // The leader of 110's session is 110's own child.
        assert_eq!(plan(&[(110, 100, 111, 111), (111, 110, 111, 111)]), TreeError::Session { pid: 110, sid: 111, ppid: 100 });
        // Nobody below a process that has left the launcher's session for good is in that.
        assert_eq!(plan(&[(101, 100, 77, 77), (102, 101, 100, 50)]), TreeError::Session { pid: 102, sid: 50, ppid: 101 });
    }

    #[test]
    fn temporary_numbers_are_nobodys() {
        let used = BTreeSet::from([400, 500, 32000]);
        assert_eq!(longest_gap(&used, 32768), 501);
        assert_eq!(longest_gap(&BTreeSet::new(), 32768), 300);
    }
}
