//! Who forks whom, so that each process can get into its session and, in the end, to its parent.
//!
//! A process moves only upwards: when its parent ends, it becomes the child of the nearest ancestor that is a subreaper. A restart may make
//! any process a subreaper for a moment. So a process can be forked anywhere below its parent (by a temporary process, which ends). What
//! decides is the session, which is inherited:
//!
//! 1. If the parent is, or was before it called `setsid`, in the session that the process was born in, then the parent forks it.
//! 2. Otherwise a child of the session's leader forks it. Then the leader must be forked below that parent, and may have to move too.
//!
//! The ancestors that a process must be forked below are on one line. If two of them are not, one of the two branches is forked below
//! the other. Where there is a choice, one is taken, and the other is tried if that leads nowhere.

use std::collections::HashMap;

/// What must be known of a process.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its number.
    pub pid: i32,
    /// Its session.
    pub sid: i32,
    /// Index of its parent. Nobody is told to be the parent of the launcher, which is the first, nor of dead session leaders.
    pub parent: Option<usize>,
    /// Only a child of its own parent tells its end by another signal than `SIGCHLD`: it has not moved.
    pub is_fixed: bool,
    /// It is a subreaper. Others may have been one before.
    pub is_subreaper: bool,
}

impl Member {
    /// Whether it leads its session.
    pub fn leads(&self) -> bool {
        self.sid == self.pid
    }
}

/// Who forks a process, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Index of the one that forks it, or a temporary process that does.
    pub forker: usize,
    /// Before the forker calls `setsid`.
    pub early: bool,
}

/// How often another choice is tried before a tree is held for impossible. Trees of real jobs need a few.
const MOST_RETREATS: usize = 3000;
/// How often all processes are looked at.
const MOST_ROUNDS: usize = 10_000;

/// Finds out who forks each of `members`. The first is the launcher; each session that somebody is in but the launcher's has its leader
/// among them. Parents must lead to the launcher.
///
/// # Errors
/// The index of a process that cannot have got into its session below its parent.
pub fn find(members: &[Member]) -> Result<Vec<Origin>, usize> {
    let mut search = Search::new(members);
    search.run()?;
    Ok(search.origins)
}

/// Something that is decided; the alternative to it is open.
#[derive(Clone, Copy)]
enum Decision {
    /// A session leader was born in this session.
    BornIn(usize, i32),
    /// The first is forked below the second.
    Below(usize, usize),
}

/// What was before a change, for going back.
enum Change {
    Origin(usize, Origin),
    Birth(usize),
    Required(usize),
}

/// What has come of putting a process in its place.
enum Step {
    /// It is there.
    Stayed,
    /// It, or something else, has been moved.
    Moved,
    /// It must be below these two, which are on different branches.
    Parted(usize, usize),
}

/// A choice leads nowhere.
struct Impossible;

struct Search<'a> {
    members: &'a [Member],
    leader_of: HashMap<i32, usize>,
    origins: Vec<Origin>,
    /// Of session leaders: the session that they were born in, where that is decided.
    births: Vec<Option<i32>>,
    /// Whom each must be forked below.
    required: Vec<Vec<usize>>,
    changes: Vec<Change>,
    /// How many changes there were before each decision, and what else to do.
    alternatives: Vec<(usize, Decision)>,
}

impl<'a> Search<'a> {
    fn new(members: &'a [Member]) -> Self {
        let mut leader_of: HashMap<i32, usize> = (0..).zip(members).filter(|(_, m)| m.leads()).map(|(i, m)| (m.pid, i)).collect();
        leader_of.extend(members.first().map(|launcher| (launcher.sid, 0)));
        Self {
            members,
            leader_of,
            origins: members.iter().map(|member| Origin { forker: member.parent.unwrap_or(0), early: false }).collect(),
            births: vec![None; members.len()],
            required: members.iter().map(|member| member.parent.into_iter().collect()).collect(),
            changes: Vec::new(),
            alternatives: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), usize> {
        let (mut first_failure, mut retreats) = (None, 0);
        for _ in 0..MOST_ROUNDS {
            let mut has_changed = false;
            let mut forked_path = None;
            for index in 1..self.members.len() {
                match self.place(index) {
                    Ok(Step::Stayed) => (),
                    Ok(Step::Moved) => has_changed = true,
                    Ok(Step::Parted(one, other)) => forked_path = Some((one, other)),
                    Err(Impossible) => {
                        retreats += 1;
                        has_changed = true;
                        let first = *first_failure.get_or_insert(index);
                        let (length, decision) = self.alternatives.pop().filter(|_| retreats < MOST_RETREATS).ok_or(first)?;
                        self.go_back(length);
                        self.decide(decision);
                        break;
                    }
                }
            }
            match forked_path {
                // What is not on one line now may be when all others are in their places.
                _ if has_changed => (),
                Some((one, other)) => self.join(one, other),
                None => return Ok(()),
            }
        }
        Err(first_failure.unwrap_or(0))
    }

    /// Puts two that are on different branches on one line.
    fn join(&mut self, one: usize, other: usize) {
        let alternative = Decision::Below(self.branch(other, one), other);
        self.alternatives.push((self.changes.len(), alternative));
        self.decide(Decision::Below(self.branch(one, other), one));
    }

    /// Puts a process where it must be, as far as is known now.
    fn place(&mut self, index: usize) -> Result<Step, Impossible> {
        let lowest = match self.lowest_required(index) {
            Ok(lowest) => lowest,
            Err((one, other)) if self.is_above(index, one) || self.is_above(index, other) => return Err(Impossible),
            Err((one, other)) => return Ok(Step::Parted(one, other)),
        };
        let member = self.members[index];
        let birth = if member.leads() { self.births[index] } else { Some(member.sid) };
        let Some(session) = birth.filter(|session| *session != self.members[lowest].sid) else {
            return self.set_origin(index, Origin { forker: lowest, early: false });
        };
        if self.births[lowest] == Some(session) {
            return self.set_origin(index, Origin { forker: lowest, early: true });
        }
        let leader = *self.leader_of.get(&session).ok_or(Impossible)?;
        if self.required[leader].contains(&lowest) {
            return self.set_origin(index, Origin { forker: leader, early: false });
        }
        self.choose(lowest, leader, session)?;
        Ok(Step::Moved)
    }

    /// A child of `parent` was born in `session`, which that is not in: either it was when it forked the child, or the session's leader
    /// is below it.
    fn choose(&mut self, parent: usize, leader: usize, session: i32) -> Result<(), Impossible> {
        let member = self.members[parent];
        let is_open = parent != 0 && member.leads() && self.births[parent].is_none();
        let born = (is_open && !self.is_above(parent, leader)).then_some(Decision::BornIn(parent, session));
        let below = (leader != 0 && !self.is_above(leader, parent)).then_some(Decision::Below(leader, parent));
        let is_grandparents = member.parent.is_some_and(|above| self.members[above].sid == session);
        let (first, second) = if is_grandparents || !member.is_subreaper { (born, below) } else { (below, born) };
        match (first, second) {
            (Some(first), Some(second)) => {
                self.alternatives.push((self.changes.len(), second));
                self.decide(first);
            }
            (Some(only), None) | (None, Some(only)) => self.decide(only),
            (None, None) => return Err(Impossible),
        }
        Ok(())
    }

    fn decide(&mut self, decision: Decision) {
        match decision {
            Decision::BornIn(index, session) => {
                self.births[index] = Some(session);
                self.changes.push(Change::Birth(index));
            }
            Decision::Below(index, above) => {
                self.required[index].push(above);
                self.changes.push(Change::Required(index));
            }
        }
    }

    fn set_origin(&mut self, index: usize, origin: Origin) -> Result<Step, Impossible> {
        let before = self.origins[index];
        let member = self.members[index];
        if before == origin {
            return Ok(Step::Stayed);
        }
        if member.is_fixed && member.parent != Some(origin.forker) || self.is_above(index, origin.forker) {
            return Err(Impossible);
        }
        self.changes.push(Change::Origin(index, before));
        self.origins[index] = origin;
        Ok(Step::Moved)
    }

    fn go_back(&mut self, length: usize) {
        for change in self.changes.drain(length..).rev() {
            match change {
                Change::Origin(index, before) => self.origins[index] = before,
                Change::Birth(index) => self.births[index] = None,
                Change::Required(index) => {
                    self.required[index].pop();
                }
            }
        }
    }

    /// The lowest of those that a process must be forked below; two of them where neither is above the other.
    fn lowest_required(&self, index: usize) -> Result<usize, (usize, usize)> {
        let mut all = self.required[index].iter().copied();
        let Some(mut lowest) = all.next() else { return Ok(0) };
        for other in all {
            if self.is_above(lowest, other) {
                lowest = other;
            } else if !self.is_above(other, lowest) {
                return Err((lowest, other));
            }
        }
        Ok(lowest)
    }

    /// From a process up to the launcher.
    fn line(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(from), |&at| (at != 0).then(|| self.origins[at].forker))
    }

    /// Whether the first is the second or forked it, itself or by others.
    fn is_above(&self, first: usize, second: usize) -> bool {
        first == 0 || self.line(second).any(|at| at == first)
    }

    /// The highest on the line to `to` that is not on that to `other`.
    fn branch(&self, other: usize, to: usize) -> usize {
        let common: std::collections::HashSet<usize> = self.line(other).collect();
        self.line(to).take_while(|at| !common.contains(at)).last().unwrap_or(to)
    }
}
