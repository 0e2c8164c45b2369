//! The kernel's rules for process trees, played in memory: random histories give the trees that Linux can make, and each plan is carried out.

use std::collections::{BTreeMap, BTreeSet};

use ckpt_objects::process::Life;
use ckpt_session::JobState;
use proptest::prelude::*;

use super::{Index, Role, Tree};
use crate::testing::job;

const INIT: i32 = 1;
const LAUNCHER: i32 = 100;
const LAUNCHERS_SESSION: i32 = 50;

#[derive(Clone, Copy, Debug)]
struct Process {
    parent: i32,
    pgid: i32,
    sid: i32,
    is_subreaper: bool,
    is_dead: bool,
}

/// What is seen of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub pid: i32,
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
    pub is_subreaper: bool,
    pub is_dead: bool,
}

/// Processes by their pid.
#[derive(Clone, Debug, Default)]
pub struct Kernel(BTreeMap<i32, Process>);

impl Kernel {
    pub fn see(&self, pid: i32) -> Seen {
        let Process { parent: ppid, pgid, sid, is_subreaper, is_dead } = self.0[&pid];
        Seen { pid, ppid, pgid, sid, is_subreaper, is_dead }
    }

    fn fork(&mut self, parent: i32, pid: i32) {
        let in_use = self.0.iter().any(|(&other, process)| [other, process.pgid, process.sid].contains(&pid));
        assert!(!in_use, "{pid} is in use");
        let process = Process { parent, is_subreaper: false, ..self.0[&parent] };
        assert!(!process.is_dead);
        self.0.insert(pid, process);
    }

    fn setsid(&mut self, pid: i32) -> bool {
        let may = self.0.values().all(|process| process.pgid != pid);
        if may {
            self.0.entry(pid).and_modify(|process| (process.pgid, process.sid) = (pid, pid));
        }
        may
    }

    fn setpgid(&mut self, pid: i32, pgid: i32) -> bool {
        let sid = self.0[&pid].sid;
        let exists = pgid == pid || self.0.values().any(|process| process.pgid == pgid && process.sid == sid);
        let may = sid != pid && exists;
        if may {
            self.0.entry(pid).and_modify(|process| process.pgid = pgid);
        }
        may
    }

    fn exit(&mut self, pid: i32) {
        let mut reaper = self.0[&pid].parent;
        while reaper != INIT && (!self.0[&reaper].is_subreaper || self.0[&reaper].is_dead) {
            reaper = self.0[&reaper].parent;
        }
        for process in self.0.values_mut().filter(|process| process.parent == pid) {
            process.parent = reaper;
        }
        self.0.entry(pid).and_modify(|process| process.is_dead = true);
    }

    fn reap(&mut self, pid: i32) {
        let process = self.0.remove(&pid).unwrap();
        assert!(process.is_dead && !self.0[&process.parent].is_dead);
    }
}

/// Carries out a plan as `family` does.
pub fn replay(tree: &Tree, job: &JobState) -> Kernel {
    let init = Process { parent: 0, pgid: 0, sid: 0, is_subreaper: false, is_dead: false };
    let mut kernel = Kernel(BTreeMap::from([(INIT, init)]));
    let mut forker = BTreeMap::new();
    grow(tree, 0, &mut kernel, &mut forker);
    take_groups(tree, &mut kernel);
    let mut left: Vec<Index> = (0..tree.nodes.len()).collect();
    for (step, &present) in tree.present.iter().enumerate() {
        assert_eq!(left.len(), present as usize);
        for &index in &left {
            let node = &tree.nodes[index];
            kernel.0.get_mut(&node.pid).unwrap().is_subreaper = node.adopts_at == Some(step);
        }
        let ends = |index: &Index| tree.nodes[*index].role == Role::Temporary && tree.nodes[*index].ends_at == step;
        let (dying, others): (Vec<Index>, Vec<Index>) = left.into_iter().partition(ends);
        dying.iter().for_each(|index| kernel.exit(tree.nodes[*index].pid));
        for index in dying {
            let pid = tree.nodes[index].pid;
            assert_eq!(kernel.0[&pid].parent, tree.nodes[forker[&index]].pid, "{pid} is waited for by its forker");
            kernel.reap(pid);
        }
        left = others;
    }
    assert!(left.iter().all(|&index| tree.nodes[index].role != Role::Temporary));
    for &index in &left {
        let node = &tree.nodes[index];
        let is_subreaper = match node.role {
            Role::Job(index) => job.processes[index].live().is_some_and(|live| live.settings.child_subreaper),
            role => role == Role::StandIn,
        };
        kernel.0.get_mut(&node.pid).unwrap().is_subreaper = is_subreaper;
        if node.ends {
            kernel.exit(node.pid);
        }
        for pid in &node.dead_children {
            assert_eq!(kernel.0[pid].parent, node.pid);
        }
    }
    kernel
}

fn grow(tree: &Tree, index: Index, kernel: &mut Kernel, forker: &mut BTreeMap<Index, Index>) {
    let node = &tree.nodes[index];
    for &child in &node.early {
        make(tree, index, child, kernel, forker);
    }
    if node.leads_session {
        assert!(kernel.setsid(node.pid), "{} cannot lead a session", node.pid);
    }
    for &child in &node.late {
        make(tree, index, child, kernel, forker);
    }
}

fn make(tree: &Tree, index: Index, child: Index, kernel: &mut Kernel, forker: &mut BTreeMap<Index, Index>) {
    forker.insert(child, index);
    kernel.fork(tree.nodes[index].pid, tree.nodes[child].pid);
    grow(tree, child, kernel, forker);
}

fn take_groups(tree: &Tree, kernel: &mut Kernel) {
    for node in tree.nodes.iter().filter(|node| node.founds_group) {
        assert!(kernel.setpgid(node.pid, node.pid), "{} cannot found its group", node.pid);
    }
    for leave_own in [false, true] {
        for node in &tree.nodes {
            let leaves = node.founds_group && node.group.is_some_and(|group| group != node.pid);
            if let Some(group) = node.group.filter(|group| leaves == leave_own && kernel.0[&node.pid].pgid != *group) {
                assert!(kernel.setpgid(node.pid, group), "{} cannot join {group}", node.pid);
            }
        }
    }
}

/// One thing that a process does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Fork,
    ForkAndEnd,
    Setsid,
    Setpgid(usize),
    Subreaper(bool),
    End,
    Reap,
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let act = prop_oneof![
        6 => Just(Act::Fork),
        2 => Just(Act::ForkAndEnd),
        3 => Just(Act::Setsid),
        3 => (0..100usize).prop_map(Act::Setpgid),
        2 => any::<bool>().prop_map(Act::Subreaper),
        3 => Just(Act::End),
        1 => Just(Act::Reap),
    ];
    prop::collection::vec((0..1000usize, act), 1..120)
}

/// A job whose processes have done this.
struct History {
    kernel: Kernel,
    next: i32,
}

impl History {
    fn of(acts: &[(usize, Act)]) -> Self {
        let outside = Process { parent: 0, pgid: 0, sid: 0, is_subreaper: false, is_dead: false };
        let launcher = Process { parent: INIT, pgid: LAUNCHER, sid: LAUNCHERS_SESSION, is_subreaper: true, is_dead: false };
        let mut history = Self { kernel: Kernel(BTreeMap::from([(INIT, outside), (LAUNCHER, launcher)])), next: 101 };
        history.fork(LAUNCHER);
        for &(who, act) in acts {
            let living = history.living();
            if let Some(&pid) = living.get(who % living.len().max(1)) {
                history.act(pid, act);
            }
        }
        history
    }

    fn living(&self) -> Vec<i32> {
        self.kernel.0.iter().filter(|(pid, process)| **pid > LAUNCHER && !process.is_dead).map(|(pid, _)| *pid).collect()
    }

    fn fork(&mut self, parent: i32) {
        self.kernel.fork(parent, self.next);
        self.next += 1;
    }

    fn act(&mut self, pid: i32, act: Act) {
        match act {
            Act::Fork => self.fork(pid),
            Act::ForkAndEnd => {
                self.fork(pid);
                self.end(pid);
            }
            Act::Setsid => _ = self.kernel.setsid(pid),
            Act::Setpgid(which) => {
                let groups: BTreeSet<i32> = self.kernel.0.values().map(|process| process.pgid).chain([pid]).collect();
                let group = groups.iter().nth(which % groups.len()).copied().unwrap_or(pid);
                self.kernel.setpgid(pid, group);
            }
            Act::Subreaper(on) => _ = self.kernel.0.entry(pid).and_modify(|process| process.is_subreaper = on),
            Act::End => self.end(pid),
            Act::Reap => {
                let dead = self.kernel.0.iter().find(|(_, process)| process.is_dead && process.parent == pid);
                if let Some(dead) = dead.map(|(pid, _)| *pid) {
                    self.kernel.reap(dead);
                }
            }
        }
    }

    /// The launcher waits for its children at once.
    fn end(&mut self, pid: i32) {
        self.kernel.exit(pid);
        let dead = self.kernel.0.iter().filter(|(_, process)| process.is_dead && process.parent == LAUNCHER);
        for dead in dead.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            self.kernel.reap(dead);
        }
    }

    /// The job as an image has it.
    fn state(&self) -> JobState {
        let seen: Vec<Seen> = self.kernel.0.keys().filter(|pid| **pid > LAUNCHER).map(|pid| self.kernel.see(*pid)).collect();
        let processes: Vec<_> = seen.iter().map(|seen| (seen.pid, seen.ppid, seen.pgid, seen.sid)).collect();
        let mut state = job(LAUNCHER, LAUNCHER, LAUNCHERS_SESSION, &processes);
        for (process, seen) in state.processes.iter_mut().zip(seen) {
            if seen.is_dead {
                process.life = Life::Zombie { status: 0 };
            } else if let Some(live) = process.live_mut() {
                live.settings.child_subreaper = seen.is_subreaper;
            }
        }
        state
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_that_linux_makes_is_made_again(acts in acts()) {
        let history = History::of(&acts);
        let state = history.state();
        let tree = Tree::plan(&state, 32768).map_err(|error| TestCaseError::fail(format!("{error}: {:#?}", history.kernel)))?;
        let kernel = replay(&tree, &state);
        for process in &state.processes {
            let pid = process.pid.0;
            let mut wanted = history.kernel.see(pid);
            wanted.is_subreaper &= !wanted.is_dead;
            prop_assert_eq!(kernel.see(pid), wanted, "in {:#?}", tree);
        }
    }
}
