//! When processes started: many programs know a process by its number and this time (psutil, Java's `ProcessHandle`). A restart makes new
//! processes, and nothing in the kernel can change when they started. So the agent's library gives the former time to whoever reads it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::observe::{ObserveError, proc_path};
use crate::process::start_ticks;
use crate::{HostPid, NsPid, clocks};

/// How far two times of the same process may lie apart, in ticks: they are rounded before and after an offset is added.
const ROUNDING: u64 = 1;
/// Nanoseconds in a tick of `/proc` (`USER_HZ` is 100 on x86).
const TICK_NS: i64 = 10_000_000;

/// A process that a restart has made. Times are in ticks since the boot of the machine, as the job sees it (field 22 of `/proc/PID/stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The process.
    pub pid: NsPid,
    /// When it has started.
    pub now: u64,
    /// When the process started whose place it takes.
    pub former: u64,
}

/// When a process has started.
///
/// # Errors
/// It has ended, or the file is not as proc(5) describes it.
pub fn observe(pid: HostPid) -> Result<u64, ObserveError> {
    let offset = std::fs::read(proc_path(pid, "timens_offsets")).map(|text| clocks::parse(&text)).unwrap_or_default();
    let own = std::fs::read("/proc/self/timens_offsets").map(|text| clocks::parse(&text)).unwrap_or_default();
    // A process that has ended has no namespace any more.
    let ahead = (offset.boottime_ns - own.boottime_ns).div_euclid(TICK_NS);
    Ok(start_ticks(pid)?.saturating_add_signed(ahead))
}

/// When the process started that a restart, or none, has made: as the job knows it.
#[must_use]
pub fn former(restarted: &[Start], pid: NsPid, now: u64) -> u64 {
    restarted.iter().find(|start| start.pid == pid && start.now.abs_diff(now) <= ROUNDING).map_or(now, |start| start.former)
}

/// What the agent's library reads: `PID NOW FORMER`, a line each.
#[must_use]
pub fn table(restarted: &[Start]) -> String {
    let mut text = String::new();
    for Start { pid, now, former } in restarted {
        let _ = writeln!(text, "{pid} {now} {former}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_restart_has_made_has_a_former_time() {
        let own = observe(HostPid::own()).unwrap();
        assert!(own > 0);
        let starts = [Start { pid: NsPid(7), now: 1000, former: 50 }];
        let asked = [(7, 1000), (7, 1001), (7, 1002), (8, 1000)].map(|(pid, now)| former(&starts, NsPid(pid), now));
        assert_eq!(asked, [50, 50, 1002, 1000]);
        assert_eq!(table(&starts), "7 1000 50\n");
    }
}
