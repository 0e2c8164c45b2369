//! Namespaces: a job lives in those of its launcher. A process that entered others, by unshare(2), setns(2) or as a container's, is refused.

use std::fs;
use std::path::PathBuf;

use crate::HostPid;
use crate::observe::proc_path;

/// The namespaces of namespaces(7): their names below `/proc/PID/ns`, and what they are of.
const KINDS: [(&str, &str); 8] = [
    ("user", "users"),
    ("mnt", "mounts"),
    ("pid", "processes"),
    ("net", "networks"),
    ("uts", "host names"),
    ("ipc", "System V objects"),
    ("cgroup", "control groups"),
    ("time", "clocks"),
];

/// The namespaces that somebody is in. A kernel that lacks a kind shows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces([Option<PathBuf>; KINDS.len()]);

impl Namespaces {
    /// Those of a process or thread.
    #[must_use]
    pub fn of(pid: HostPid) -> Self {
        Self(KINDS.map(|(name, _)| fs::read_link(proc_path(pid, &format!("ns/{name}"))).ok()))
    }

    /// Those that children of a process will be in, which are the process's own but for what unshare(2) has set aside for them.
    #[must_use]
    pub fn of_children(pid: HostPid) -> Self {
        let mut own = Self::of(pid);
        for ((name, _), namespace) in KINDS.iter().zip(&mut own.0) {
            if let ("pid" | "time", Ok(theirs)) = (*name, fs::read_link(proc_path(pid, &format!("ns/{name}_for_children")))) {
                *namespace = Some(theirs);
            }
        }
        own
    }

    /// What the first kind is of in which two differ.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        KINDS.iter().zip(self.0.iter().zip(&other.0)).find(|(_, (own, other))| own != other).map(|((_, what), _)| *what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_where_its_children_will_be() {
        let own = HostPid(std::process::id() as i32);
        let here = Namespaces::of(own);
        assert!(here.0[0].is_some());
        assert_eq!(here.difference(&Namespaces::of_children(own)), None);
        let mut elsewhere = here.clone();
        elsewhere.0[3] = None;
        assert_eq!(here.difference(&elsewhere), Some("networks"));
    }
}
