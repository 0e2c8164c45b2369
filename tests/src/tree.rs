//! Trees of processes: who descends from whom, and how to end a whole tree as a power cut would.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use procfs::process::Stat;

/// How long processes may take to be gone after SIGKILL.
const GONE: Duration = Duration::from_secs(20);

/// Every process of the machine, as `/proc/PID/stat` shows it.
fn processes() -> Vec<Stat> {
    procfs::process::all_processes()
        .map(|all| all.flatten().filter_map(|process| process.stat().ok()).collect())
        .unwrap_or_default()
}

/// The process itself and all that descend from it, those that are dead but not waited for left out.
#[must_use]
pub fn family(root: i32) -> Vec<i32> {
    members(&processes(), root).into_iter().filter(|stat| !dead(stat)).map(|stat| stat.pid).collect()
}

/// A child of a process, where it has one.
#[must_use]
pub fn child(parent: i32) -> Option<i32> {
    processes().iter().find(|stat| stat.ppid == parent).map(|stat| stat.pid)
}

/// Its children that are alive.
#[must_use]
pub fn children(parent: i32) -> Vec<i32> {
    processes().iter().filter(|stat| stat.ppid == parent && !dead(stat)).map(|stat| stat.pid).collect()
}

/// The process and its descendants among `all`, parents first.
fn members(all: &[Stat], root: i32) -> Vec<&Stat> {
    let mut found: Vec<&Stat> = all.iter().filter(|stat| stat.pid == root).collect();
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].pid;
        found.extend(all.iter().filter(|stat| stat.ppid == parent));
        next += 1;
    }
    found
}

/// Whether it has ended, and not only its first thread.
fn dead(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X') && stat.num_threads <= 1
}

/// Ends a process and all its descendants at one instant: they are stopped first, so that none sees another's death, and the children die
/// first: the kernel lets a stopped process group go on (`SIGCONT`) when it is orphaned, and a shell would take the terminal.
pub fn kill_tree(root: i32) {
    let mut stopped = Vec::new();
    loop {
        let new: Vec<i32> = family(root).into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            // A process that is gone by now needs no signal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
            stopped.push(pid);
        }
    }
    stopped.reverse();
    kill_all(&stopped);
}

/// Ends these processes and waits until they are gone; those that have become this process's children are reaped.
///
/// # Panics
/// When one of them outlives SIGKILL.
pub fn kill_all(pids: &[i32]) {
    for &pid in pids {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let end = Instant::now() + GONE;
    loop {
        let left: Vec<Stat> = processes().into_iter().filter(|stat| pids.contains(&stat.pid)).collect();
        reap(&left);
        if left.iter().all(dead) {
            return;
        }
        assert!(Instant::now() < end, "processes outlive SIGKILL:\n{}", describe(&left.iter().collect::<Vec<_>>()));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reaps those that have ended and have become this process's children.
fn reap(stats: &[Stat]) {
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    for orphan in stats.iter().filter(|stat| dead(stat) && stat.ppid == own) {
        // Those that the standard library knows as its children are left for it to wait for.
        if !crate::sandbox::is_direct_child(orphan.pid) {
            let _ = waitpid(Pid::from_raw(orphan.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Every process that works in a folder.
#[must_use]
pub fn working_in(dir: &Path) -> Vec<i32> {
    procfs::process::all_processes()
        .map(|all| {
            all.flatten()
                .filter(|process| process.cwd().is_ok_and(|cwd| cwd.starts_with(dir)))
                .map(|process| process.pid)
                .collect()
        })
        .unwrap_or_default()
}

/// Ends what a sandbox's job has left behind: every process that works in its folder.
pub fn kill_in(dir: &Path) {
    for pid in working_in(dir) {
        kill_tree(pid);
    }
    reap(&processes());
}

/// A line for each process of a tree, for the message of a test that has waited too long.
#[must_use]
pub fn describe_tree(root: i32) -> String {
    describe(&members(&processes(), root))
}

/// A line for each process.
fn describe(stats: &[&Stat]) -> String {
    let read = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    stats
        .iter()
        .map(|stat| {
            format!(
                "  pid {} ppid {} pgid {} sid {} state {} threads {} ({}) in {} syscall {}\n",
                stat.pid,
                stat.ppid,
                stat.pgrp,
                stat.session,
                stat.state,
                stat.num_threads,
                stat.comm,
                read(stat.pid, "wchan"),
                read(stat.pid, "syscall").trim(),
            )
        })
        .collect()
}
