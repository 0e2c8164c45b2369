//! What the limits of this machine, user and control groups leave for twins, which must not take what the job itself needs.

use std::fs;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use procfs::{Current, LoadAverage, Meminfo};
use rustix::process::{Resource, getrlimit, getuid};

/// Processes that are left to the job beside its twins, however few it has.
const SPARE: u64 = 16;
/// A twin needs page tables, and a copy of each page that the job changes until its memory is written: this part of its memory is expected to be
/// enough. Where it is not, the kernel kills the twin first (its oom_score_adj is 1000), and the checkpoint is taken again without.
const COPIED_PART: u64 = 8;

/// What is left now.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Processes and threads; nothing where nobody limits them.
    processes: Option<u64>,
    /// Bytes of memory.
    memory: Option<u64>,
}

/// What the twins of a job would need.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Processes of the job.
    pub processes: u64,
    /// Bytes of memory that its processes share with nobody (`RssAnon` of proc_pid_status(5)).
    pub private: u64,
    /// Bytes that are copied before the job goes on, since its processes share them.
    pub shared: u64,
}

impl Room {
    /// Looks at the limits.
    #[must_use]
    pub fn look() -> Self {
        let groups = Groups::find();
        let processes = groups.processes().into_iter().chain(processes_of_user()).min();
        let machine = Meminfo::current().ok().and_then(|memory| memory.mem_available);
        Self { processes, memory: groups.memory().into_iter().chain(machine).min() }
    }

    /// Whether twins fit.
    #[must_use]
    pub fn holds(&self, needed: &Needed) -> bool {
        // A twin is forked by a helper, and the job may double meanwhile.
        self.processes.is_none_or(|left| left >= 3 * needed.processes + SPARE)
            && self.memory.is_none_or(|left| left >= needed.shared.saturating_add(needed.private / COPIED_PART))
    }
}

/// What `RLIMIT_NPROC` leaves to this user, for whom the kernel counts threads too. It does not hold for root.
fn processes_of_user() -> Option<u64> {
    let limit = getrlimit(Resource::Nproc).current.filter(|_| !getuid().is_root())?;
    // A walk through /proc takes long: mostly the number of all threads shows that there is room.
    let of_all = LoadAverage::current().map_or(u64::MAX, |load| load.max.into());
    if limit / 2 > of_all {
        return Some(limit - of_all);
    }
    let own = getuid().as_raw();
    let processes = procfs::process::all_processes().ok()?.flatten().filter(|process| process.uid().is_ok_and(|uid| uid == own));
    let threads = processes.filter_map(|process| u64::try_from(process.stat().ok()?.num_threads).ok()).sum();
    Some(limit.saturating_sub(threads))
}

/// The control groups of this process (cgroups(7)), by the files that hold their limits.
struct Groups {
    /// Where the controller of processes has this process's group, and its mount.
    pids: Option<(PathBuf, PathBuf)>,
    /// The same for memory, and whether it is of version 2.
    memory: Option<(PathBuf, PathBuf, bool)>,
}

impl Groups {
    fn find() -> Self {
        Self {
            pids: place("pids", "pids.max").map(|(mount, group, _)| (mount, group)),
            memory: place("memory", "memory.max").or_else(|| place("memory", "memory.limit_in_bytes")),
        }
    }

    fn processes(&self) -> Option<u64> {
        let (mount, group) = self.pids.as_ref()?;
        let left = |group: &Path| Some(number(group, "pids.max")?.saturating_sub(number(group, "pids.current")?));
        levels(mount, group).filter_map(left).min()
    }

    /// Page cache counts as used, but gives way.
    fn memory(&self) -> Option<u64> {
        let (mount, group, is_v2) = self.memory.as_ref()?;
        let [limit, usage, prefix] = if *is_v2 {
            ["memory.max", "memory.current", ""]
        } else {
            ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_"]
        };
        let left = |group: &Path| {
            let free = number(group, limit)?.saturating_sub(number(group, usage)?);
            let cache = |line: &str| {
                let (name, bytes) = line.strip_prefix(prefix)?.split_once(' ')?;
                matches!(name, "inactive_file" | "active_file").then(|| bytes.parse::<u64>().ok())?
            };
            let cached: u64 = fs::read_to_string(group.join("memory.stat")).ok()?.lines().filter_map(cache).sum();
            Some(free.saturating_add(cached))
        };
        levels(mount, group).filter_map(left).min()
    }
}

/// Where the mount of a controller is, this process's group below it, and whether that is of version 2; nothing where the group has no such file.
fn place(controller: &str, file: &str) -> Option<(PathBuf, PathBuf, bool)> {
    let own = Process::myself().ok()?;
    let (groups, mounts) = (own.cgroups().ok()?, own.mountinfo().ok()?);
    mounts.into_iter().find_map(|mount| {
        let is_v2 = mount.fs_type == "cgroup2";
        if !is_v2 && (mount.fs_type != "cgroup" || !mount.super_options.contains_key(controller)) {
            return None;
        }
        let is_it = |group: &&procfs::ProcessCGroup| match is_v2 {
            true => group.hierarchy == 0,
            false => group.controllers.iter().any(|name| name == controller),
        };
        let group = (&groups).into_iter().find(is_it)?;
        // A container may see its own group only, as the mount's root.
        let below = Path::new(&group.pathname).strip_prefix(&mount.root).ok()?;
        let path = mount.mount_point.join(below);
        path.join(file).exists().then_some((mount.mount_point, path, is_v2))
    })
}

/// A group and those above it.
fn levels<'a>(mount: &'a Path, group: &'a Path) -> impl Iterator<Item = &'a Path> {
    group.ancestors().take_while(move |above| above.starts_with(mount))
}

/// A number in a group's file; nothing where it says `max`, or is not there, as in the root.
fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_needs_room_as_a_whole_and_what_is_not_a_part() {
        let room = Room { processes: Some(22), memory: Some(1000) };
        let needed = Needed { processes: 2, private: 4000, shared: 500 };
        assert!(room.holds(&needed));
        assert!(!room.holds(&Needed { processes: 3, ..needed }));
        assert!(!room.holds(&Needed { private: 4008, ..needed }));
        assert!(!room.holds(&Needed { shared: 501, ..needed }));
        assert!(Room { processes: None, memory: None }.holds(&Needed { processes: u64::MAX / 4, private: 0, shared: u64::MAX }));
    }

    #[test]
    fn this_machine_has_memory_left() {
        assert!(Room::look().memory.is_some_and(|left| left > 0));
    }
}
