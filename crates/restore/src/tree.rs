//! The plan of the process tree: who is forked by whom, and when, so that parents, sessions and groups are again as they were.
//!
//! Works on numbers alone and makes no process: [`crate::family`] does.
//!
//! The rules that the kernel gives:
//!
//! 1. A process is in its parent's session until it calls `setsid`, which only makes it the leader of its own. So a child of a
//!    session leader that is in another session was forked before its parent became a leader: it is an *early* child.
//! 2. A process whose parent has ended becomes the child of the nearest living ancestor that is a subreaper: here, of the
//!    stand-in. So an orphan is forked by a temporary process that is in the right session, and ends. Where the session's leader
//!    is alive, that is a child of the leader's; where it is dead, a process with its number that calls `setsid` again.
//! 3. A group exists as long as it has members. A group whose founder is dead is founded by a temporary process with its number.
//! 4. The numbers of dead leaders and founders stay in use as long as somebody is in their session or group, so nobody else has
//!    them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ckpt_objects::process::Life;
use ckpt_session::JobState;

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
    /// There for its number or its session, until everybody is in place.
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
}

/// All processes of a restart.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The first is init.
    pub nodes: Vec<Node>,
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
    /// A number that this machine does not give.
    #[error("process or thread {pid} has a number beyond this machine's kernel.pid_max ({max}); raise it")]
    PidMax {
        /// The number.
        pid: i32,
        /// The limit.
        max: i32,
    },
}

/// What the plan needs to know of a process.
#[derive(Clone, Copy, Debug)]
struct Member {
    pid: i32,
    ppid: i32,
    pgid: i32,
    sid: i32,
}

impl Member {
    fn leads(&self) -> bool {
        self.sid == self.pid
    }
}

impl Tree {
    /// Plans the tree of `job`. `pid_max` is the first number that this machine does not give.
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
    launcher: Member,
    members: Vec<Member>,
    /// Pid to index in `members`.
    by_pid: HashMap<i32, usize>,
    /// Numbers that nobody else may have.
    used: BTreeSet<i32>,
    nodes: Vec<Node>,
    /// Pid to node.
    node_of: BTreeMap<i32, Index>,
    /// Temporary process to fork orphans of a session from.
    nurse_of: HashMap<i32, Index>,
    next_free: i32,
    pid_max: i32,
}

impl<'a> Planner<'a> {
    fn new(job: &'a JobState, pid_max: i32) -> Result<Self, TreeError> {
        let info = &job.info;
        let launcher = Member { pid: info.launcher.0, ppid: 0, pgid: info.launcher_pgid.0, sid: info.launcher_sid.0 };
        let members: Vec<Member> = job
            .processes
            .iter()
            .map(|process| Member { pid: process.pid.0, ppid: process.ppid.0, pgid: process.pgid.0, sid: process.sid.0 })
            .collect();
        let mut tasks = BTreeSet::from([launcher.pid]);
        let mut by_pid = HashMap::new();
        for (i, process) in job.processes.iter().enumerate() {
            by_pid.insert(process.pid.0, i);
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
        used.extend(members.iter().chain([&launcher]).flat_map(|member| [member.pgid, member.sid]));
        used.remove(&0);
        for &pid in &used {
            if pid >= pid_max || pid < 1 {
                return Err(TreeError::PidMax { pid, max: pid_max });
            }
        }
        // Others follow after the highest, as the kernel goes on counting, or where there is room.
        let highest = used.last().copied().unwrap_or(1);
        let next_free = if highest < pid_max / 2 { highest + 1 } else { longest_gap(&used, pid_max) };
        let (nodes, node_of, nurse_of) = (Vec::new(), BTreeMap::new(), HashMap::new());
        Ok(Self { job, launcher, members, by_pid, used, nodes, node_of, nurse_of, next_free, pid_max })
    }

    fn plan(mut self) -> Result<Tree, TreeError> {
        for member in &self.members {
            self.check_ancestors(*member)?;
        }
        let stand_in = self.plant_stand_in();
        let job = self.job;
        for (i, process) in job.processes.iter().enumerate() {
            let member = self.members[i];
            let index = self.add(Role::Job(i), member.pid, member.leads());
            self.nodes[index].ends = matches!(process.life, Life::Zombie { .. });
        }
        for i in 0..self.members.len() {
            self.attach(self.members[i])?;
        }
        self.check_reached()?;
        self.plan_groups(stand_in);
        Ok(Tree { nodes: self.nodes, free_from: self.next_free })
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
        };
        self.nodes.push(node);
        self.node_of.insert(pid, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn add_temporary(&mut self, pid: i32, leads_session: bool, parent: Index) -> Index {
        let index = self.add(Role::Temporary, pid, leads_session);
        self.nodes[parent].late.push(index);
        index
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
        let Member { pid, sid, .. } = self.launcher;
        let leads = self.launcher.leads();
        if pid == 1 {
            return self.add(Role::StandIn, 1, leads);
        }
        let init = self.add(Role::Init, 1, false);
        // A session that the launcher itself saw as 0 was led from outside its pid namespace: so is that of this restart.
        let parent = if leads || sid == 0 { init } else { self.add_temporary(sid, true, init) };
        let stand_in = self.add(Role::StandIn, pid, leads);
        self.nodes[parent].late.push(stand_in);
        stand_in
    }

    fn parent(&self, member: Member) -> Result<Member, TreeError> {
        if member.ppid == self.launcher.pid {
            return Ok(self.launcher);
        }
        let parent = self.by_pid.get(&member.ppid).map(|&i| self.members[i]);
        parent.ok_or(TreeError::NoParent { pid: member.pid, ppid: member.ppid })
    }

    fn check_ancestors(&self, member: Member) -> Result<(), TreeError> {
        let mut at = member;
        for _ in 0..=self.members.len() {
            at = self.parent(at)?;
            if at.pid == self.launcher.pid {
                return Ok(());
            }
        }
        Err(TreeError::Circle(member.pid))
    }

    /// The session that a process must have been forked in; nothing where any will do.
    fn birth_session(&self, member: Member) -> Option<i32> {
        if !member.leads() {
            return Some(member.sid);
        }
        // What its children say who were forked before it became a leader.
        let foreign: BTreeSet<i32> = self
            .members
            .iter()
            .filter(|child| child.ppid == member.pid && child.pid != member.pid)
            .filter_map(|child| self.birth_session(*child))
            .filter(|&sid| sid != member.sid)
            .collect();
        // One that adopts orphans may have several; its own is its parent's, if anybody's.
        let parents = self.parent(member).ok().map(|parent| parent.sid);
        parents.filter(|sid| foreign.contains(sid)).or_else(|| foreign.first().copied())
    }

    /// Decides who forks a process, and when.
    fn attach(&mut self, member: Member) -> Result<(), TreeError> {
        let child = self.node_of[&member.pid];
        let parent = self.parent(member)?;
        let parent_node = self.node_of[&parent.pid];
        let birth = self.birth_session(member);
        if birth.is_none() || birth == Some(parent.sid) {
            self.nodes[parent_node].late.push(child);
            return Ok(());
        }
        let sid = birth.unwrap_or(0);
        if parent.leads() && parent.pid != self.launcher.pid && self.birth_session(parent) == birth {
            self.nodes[parent_node].early.push(child);
            return Ok(());
        }
        if !self.adopts(parent) {
            return Err(TreeError::Session { pid: member.pid, sid, ppid: parent.pid });
        }
        let nurse = match self.nurse_of.get(&sid) {
            Some(&nurse) => nurse,
            None => {
                let nurse = self.nurse(sid, parent_node);
                self.nurse_of.insert(sid, nurse);
                nurse
            }
        };
        self.nodes[nurse].late.push(child);
        Ok(())
    }

    fn adopts(&self, member: Member) -> bool {
        if member.pid == self.launcher.pid {
            return true;
        }
        let process = self.by_pid.get(&member.pid).map(|&i| &self.job.processes[i].life);
        matches!(process, Some(Life::Alive(live)) if live.settings.child_subreaper)
    }

    /// A temporary process in session `sid` whose children become `adopter`'s when it ends.
    fn nurse(&mut self, sid: i32, adopter: Index) -> Index {
        if sid == self.launcher.sid {
            let (pid, stand_in) = (self.fresh_pid(), self.node_of[&self.launcher.pid]);
            return self.add_temporary(pid, false, stand_in);
        }
        match self.node_of.get(&sid) {
            Some(&leader) => {
                let pid = self.fresh_pid();
                self.add_temporary(pid, false, leader)
            }
            None => self.add_temporary(sid, true, adopter),
        }
    }

    /// Hostile input could make a session's nurse its own descendant.
    fn check_reached(&self) -> Result<(), TreeError> {
        let mut seen = vec![false; self.nodes.len()];
        let mut next = vec![0];
        while let Some(index) = next.pop() {
            if std::mem::replace(&mut seen[index], true) {
                return Err(TreeError::Circle(self.nodes[index].pid));
            }
            next.extend(self.nodes[index].early.iter().chain(&self.nodes[index].late));
        }
        match seen.iter().position(|seen| !seen) {
            Some(index) => Err(TreeError::Circle(self.nodes[index].pid)),
            None => Ok(()),
        }
    }

    fn plan_groups(&mut self, stand_in: Index) {
        let wanted: Vec<(Index, Member)> = std::iter::once((stand_in, self.launcher))
            .chain(self.members.iter().map(|member| (self.node_of[&member.pid], *member)))
            .collect();
        for &(index, member) in &wanted {
            // 0: led from outside the namespace, as this restart's is.
            if member.pgid == 0 {
                continue;
            }
            self.nodes[index].group = Some(member.pgid);
            let founder = match self.node_of.get(&member.pgid) {
                Some(&founder) => founder,
                None => self.add_temporary(member.pgid, false, index),
            };
            self.nodes[founder].founds_group = !self.nodes[founder].leads_session;
        }
    }
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
    use super::*;
    use crate::testing::job;

    /// Plays a tree through as the kernel would; gives pid to (ppid, pgid, sid) of the lasting and the dead of the job.
    fn play(tree: &Tree) -> BTreeMap<i32, (i32, i32, i32)> {
        #[derive(Clone, Copy)]
        struct Process {
            parent: Index,
            pgid: i32,
            sid: i32,
        }
        fn grow(tree: &Tree, index: Index, mut me: Process, made: &mut BTreeMap<Index, Process>) {
            let node = &tree.nodes[index];
            for &child in &node.early {
                grow(tree, child, Process { parent: index, ..me }, made);
            }
            if node.leads_session {
                (me.pgid, me.sid) = (node.pid, node.pid);
            }
            for &child in &node.late {
                grow(tree, child, Process { parent: index, ..me }, made);
            }
            made.insert(index, me);
        }
        let stand_in = tree.nodes.iter().position(|node| node.role == Role::StandIn).unwrap();
        let mut made = BTreeMap::new();
        grow(tree, 0, Process { parent: 0, pgid: 0, sid: 0 }, &mut made);
        for (&index, process) in &mut made {
            if tree.nodes[index].founds_group {
                assert_ne!(process.sid, tree.nodes[index].pid, "a session leader cannot found a group");
                process.pgid = tree.nodes[index].pid;
            }
        }
        // Those who join do so while the founders are all still in place.
        let before = made.clone();
        for founders in [false, true] {
            for (&index, process) in &mut made {
                let node = &tree.nodes[index];
                if let Some(group) = node.group.filter(|&group| group != process.pgid && node.founds_group == founders) {
                    let members = before.values().filter(|other| other.pgid == group);
                    assert!(members.clone().any(|other| other.sid == process.sid), "{} cannot join {group}", node.pid);
                    process.pgid = group;
                }
            }
        }
        made.iter()
            .filter(|(index, _)| matches!(tree.nodes[**index].role, Role::Job(_) | Role::StandIn))
            .map(|(index, process)| {
                let mut parent = process.parent;
                while tree.nodes[parent].role == Role::Temporary {
                    // The nearest subreaper: in these tests only the stand-in, if it is above.
                    parent = made[&parent].parent;
                    if tree.nodes[parent].role != Role::Init {
                        parent = stand_in;
                    }
                }
                (tree.nodes[*index].pid, (tree.nodes[parent].pid, process.pgid, process.sid))
            })
            .collect()
    }

    /// Plans and plays a job of (pid, ppid, pgid, sid), launched by 100 (group 100, session 50), and compares.
    fn check(processes: &[(i32, i32, i32, i32)]) {
        let state = job(100, 100, 50, processes);
        let tree = Tree::plan(&state, 32768).unwrap();
        let got = play(&tree);
        for &(pid, ppid, pgid, sid) in processes {
            assert_eq!(got[&pid], (ppid, pgid, sid), "process {pid} of {tree:#?}");
        }
        assert_eq!((got[&100].1, got[&100].2), (state.info.launcher_pgid.0, state.info.launcher_sid.0));
        let mut pids: Vec<i32> = tree.nodes.iter().map(|node| node.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), tree.nodes.len(), "a number is used twice");
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
    fn a_launcher_that_leads_or_is_led_from_outside_or_is_process_1() {
        for (launcher, pgid, sid) in [(100, 100, 100), (100, 0, 0), (1, 1, 1), (1, 0, 0), (100, 60, 50), (100, 50, 50)] {
            let tree = Tree::plan(&job(launcher, pgid, sid, &[(101, launcher, 101, sid)]), 32768).unwrap();
            let got = play(&tree);
            assert_eq!(got[&101], (launcher, 101, sid));
            assert_eq!((got[&launcher].1, got[&launcher].2), (pgid, sid));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let plan = |processes: &[(i32, i32, i32, i32)]| Tree::plan(&job(100, 100, 50, processes), 1000).unwrap_err();
        assert_eq!(plan(&[(101, 7, 100, 50)]), TreeError::NoParent { pid: 101, ppid: 7 });
        assert_eq!(plan(&[(101, 100, 100, 50), (101, 100, 100, 50)]), TreeError::Twice(101));
        assert_eq!(plan(&[(101, 102, 100, 50), (102, 101, 100, 50)]), TreeError::Circle(101));
        assert_eq!(plan(&[(1000, 100, 100, 50)]), TreeError::PidMax { pid: 1000, max: 1000 });
        assert_eq!(plan(&[(101, 100, 100, 50), (102, 101, 77, 77)]), TreeError::Session { pid: 102, sid: 77, ppid: 101 });
        // The leader of 110's session is 110's own child.
        assert!(matches!(plan(&[(110, 100, 111, 111), (111, 110, 111, 111)]), TreeError::Circle(_)));
    }

    #[test]
    fn temporary_numbers_are_nobodys() {
        let used = BTreeSet::from([400, 500, 32000]);
        assert_eq!(longest_gap(&used, 32768), 501);
        assert_eq!(longest_gap(&BTreeSet::new(), 32768), 300);
    }
}
