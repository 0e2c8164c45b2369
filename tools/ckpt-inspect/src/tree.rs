//! Processes in the order of their tree.

use std::collections::HashMap;

use ckpt_objects::process::ProcessState;

/// Every process once, each after its parent, with its depth: 0 for one whose parent is not in the image.
///
/// Nothing is assumed of the pids: in a damaged image parents may form a circle, which then begins with its first process.
pub fn in_tree_order(processes: &[ProcessState]) -> Vec<(usize, &ProcessState)> {
    let by_pid: HashMap<_, _> = processes.iter().enumerate().map(|(n, process)| (process.pid, n)).collect();
    let mut children = vec![Vec::new(); processes.len()];
    let mut roots = Vec::new();
    for (n, process) in processes.iter().enumerate() {
        match by_pid.get(&process.ppid) {
            Some(&parent) if parent != n => children[parent].push(n),
            _ => roots.push(n),
        }
    }
    let mut order = Vec::with_capacity(processes.len());
    let mut seen = vec![false; processes.len()];
    for root in roots.into_iter().chain(0..processes.len()) {
        let mut next = vec![(0, root)];
        while let Some((depth, n)) = next.pop() {
            if !std::mem::replace(&mut seen[n], true) {
                order.push((depth, &processes[n]));
                next.extend(children[n].iter().rev().map(|&child| (depth + 1, child)));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use ckpt_objects::process::Life;
    use ckpt_objects::{FilePath, NsPid};

    use super::*;

    fn order(parents: &[(i32, i32)]) -> Vec<(usize, i32)> {
        let processes: Vec<_> = parents
            .iter()
            .map(|&(pid, ppid)| ProcessState {
                exit_signal: 17,
                started: 0,
                pid: NsPid(pid),
                ppid: NsPid(ppid),
                pgid: NsPid(pid),
                sid: NsPid(pid),
                comm: FilePath::default(),
                life: Life::Zombie { status: 0 },
            })
            .collect();
        in_tree_order(&processes).into_iter().map(|(depth, process)| (depth, process.pid.0)).collect()
    }

    #[test]
    fn children_follow_their_parent() {
        assert_eq!(order(&[(10, 1), (11, 10), (12, 10), (13, 11), (20, 1)]), [(0, 10), (1, 11), (2, 13), (1, 12), (0, 20)]);
        assert_eq!(order(&[(5, 9), (9, 1)]), [(0, 9), (1, 5)]);
    }

    #[test]
    fn impossible_parents_lose_no_process() {
        assert_eq!(order(&[(1, 2), (2, 1), (3, 3)]), [(0, 3), (0, 1), (1, 2)]);
        assert_eq!(order(&[(4, 0), (4, 4), (4, 4)]).len(), 3);
        assert_eq!(order(&[]), []);
    }
}
