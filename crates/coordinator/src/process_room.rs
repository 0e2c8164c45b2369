//! How many more processes the control groups of this process allow (`pids.max`): twins must not take what the job itself needs to fork.
//!
//! `RLIMIT_NPROC` is not looked at: to count a user's processes takes a walk through `/proc`. If it forbids a twin, the fork fails.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are, with all controllers (version 2) and with this one (version 1).
const MOUNTS: [(&str, &str); 3] = [("", "/sys/fs/cgroup"), ("", "/sys/fs/cgroup/unified"), ("pids", "/sys/fs/cgroup/pids")];

/// How many more processes may be made; nothing where no group limits that.
pub fn left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(group).flat_map(|(mount, path)| left_below(mount, &path)).min()
}

/// The group that a line of `/proc/self/cgroup` names, and where its kind is mounted.
fn group(line: &str) -> Option<(&'static Path, PathBuf)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let has = |wanted: &str| controllers.split(',').any(|controller| controller == wanted);
    let mounts = MOUNTS.iter().filter(|(controller, _)| has(controller));
    let below = |(_, mount): &(&str, &'static str)| (Path::new(*mount), Path::new(*mount).join(path.trim_start_matches('/')));
    mounts.map(below).find(|(_, path)| path.join("pids.max").exists())
}

/// What a group and those above it leave.
fn left_below(mount: &Path, group: &Path) -> Vec<u64> {
    let number = |group: &Path, file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let left = |group: &Path| Some(number(group, "pids.max")?.saturating_sub(number(group, "pids.current")?));
    group.ancestors().take_while(|above| above.starts_with(mount)).filter_map(left).collect()
}
