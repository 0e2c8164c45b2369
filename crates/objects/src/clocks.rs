//! The clocks that count from a machine's start, `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`: to a job they never go back, and a restart is no
//! time at all to it.
//!
//! A restarted job lives in a time namespace (time_namespaces(7)) in which both go on from where they were at the checkpoint, whatever the
//! machine's say. So deadlines that lie in the job's memory mean what they meant: `pthread_cond_timedwait`, absolute sleeps and timers. The
//! wall clock is the machine's. What processors have worked is counted anew in each run.

use std::fs;
use std::io;

use ckpt_sys::process::unshare_time;
use ckpt_sys::raw::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::HostPid;
use crate::observe::proc_path;
use crate::older::KernelFeature;

const SECOND: i64 = 1_000_000_000;

/// What the two clocks show to somebody, or by how much they are ahead of the machine's own, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: i64,
}

impl Clocks {
    /// What they show to this process.
    #[must_use]
    pub fn own() -> Self {
        let now = |clock| {
            let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
            tv_sec * SECOND + tv_nsec
        };
        Self { monotonic_ns: now(ClockId::Monotonic), boottime_ns: now(ClockId::Boottime) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            monotonic_ns: self.monotonic_ns.saturating_add(other.monotonic_ns),
            boottime_ns: self.boottime_ns.saturating_add(other.boottime_ns),
        }
    }

    fn minus(self, other: Self) -> Self {
        self.plus(Self { monotonic_ns: -other.monotonic_ns, boottime_ns: -other.boottime_ns })
    }
}

/// What the clocks show to a process of the job.
#[must_use]
pub fn observe(pid: HostPid) -> Clocks {
    let offsets = |path: std::path::PathBuf| fs::read(path).map(|text| parse(&text)).unwrap_or_default();
    // Offsets count from the machine's own clocks; this process may be in a time namespace too.
    Clocks::own().plus(offsets(proc_path(pid, "timens_offsets"))).minus(offsets("/proc/self/timens_offsets".into()))
}

/// `CLOCK SECONDS NANOSECONDS`, a line each.
pub(crate) fn parse(text: &[u8]) -> Clocks {
    let text = String::from_utf8_lossy(text);
    let offset = |clock: &str| {
        let mut words = text.lines().find_map(|line| line.strip_prefix(clock))?.split_ascii_whitespace();
        let seconds: i64 = words.next()?.parse().ok()?;
        Some(seconds * SECOND + words.next()?.parse::<i64>().ok()?)
    };
    Clocks { monotonic_ns: offset("monotonic").unwrap_or(0), boottime_ns: offset("boottime").unwrap_or(0) }
}

/// Makes a time namespace in which the clocks go on from `state`, for the processes that the caller forks from now on. The caller itself
/// stays where it is, and must have one thread. Where this is not allowed, the error is the system's; the clocks go back then if the
/// machine's are [`behind`].
///
/// # Errors
/// See above.
pub fn rebuild(state: Clocks) -> io::Result<()> {
    const FILE: &str = "/proc/self/timens_offsets";
    if KernelFeature::TimeNamespace.is_off() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let present = parse(&fs::read(FILE)?);
    unshare_time().map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))?;
    let Clocks { monotonic_ns, boottime_ns } = state.minus(Clocks::own()).plus(present);
    let line = |clock, ns: i64| format!("{clock} {} {}\n", ns.div_euclid(SECOND), ns.rem_euclid(SECOND));
    fs::write(FILE, line("monotonic", monotonic_ns) + &line("boottime", boottime_ns))
}

/// Whether this process's clocks show less than `state`.
#[must_use]
pub fn behind(state: Clocks) -> bool {
    let own = Clocks::own();
    own.monotonic_ns < state.monotonic_ns || own.boottime_ns < state.boottime_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_shows() {
        let text = b"monotonic           1         2\nboottime           -1 999999999\n";
        assert_eq!(parse(text), Clocks { monotonic_ns: 1_000_000_002, boottime_ns: -1 });
        assert_eq!(parse(b""), Clocks::default());
    }

    #[test]
    fn a_process_of_the_same_namespace_has_the_same_clocks() {
        let before = Clocks::own();
        let seen = observe(HostPid(std::process::id() as i32));
        assert!(before.monotonic_ns <= seen.monotonic_ns && seen.monotonic_ns <= Clocks::own().monotonic_ns);
        assert!(before.boottime_ns <= seen.boottime_ns && !behind(before));
    }
}
