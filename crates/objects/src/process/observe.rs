//! Observing a process and its threads from outside: `/proc/PID/status`, `limits`, `stat` and their like.

use std::collections::HashMap;
use std::fs;
use std::io;

use ckpt_sys::process::{SchedAttributes, sched_getattr};
use ckpt_sys::raw::Errno;
use ckpt_sys::signal_set::SignalSet;

use super::Limit;
use crate::credentials::Credentials;
use crate::observe::{ObserveError, parse_error, proc_path, read_proc};
use crate::thread::Scheduling;
use crate::{FilePath, HostPid, NsPid};

/// `/proc/PID/status` or `/proc/PID/task/TID/status`: its lines by their keys.
#[derive(Clone, Debug)]
pub struct Status {
    pid: HostPid,
    fields: HashMap<String, Vec<u8>>,
}

impl Status {
    /// Of a process.
    ///
    /// # Errors
    /// The process has ended, or the file is not as proc(5) describes it.
    pub fn of(pid: HostPid) -> Result<Self, ObserveError> {
        Ok(Self::parse(pid, &read_proc(pid, "status")?))
    }

    /// Of a thread.
    ///
    /// # Errors
    /// The process has ended, or the file is not as proc(5) describes it.
    pub fn of_thread(pid: HostPid, tid: HostPid) -> Result<Self, ObserveError> {
        Ok(Self::parse(pid, &read_proc(pid, &format!("task/{tid}/status"))?))
    }

    fn parse(pid: HostPid, text: &[u8]) -> Self {
        let fields = text
            .split(|&byte| byte == b'\n')
            .filter_map(|line| {
                let colon = line.iter().position(|&byte| byte == b':')?;
                let key = String::from_utf8(line[..colon].to_vec()).ok()?;
                Some((key, line[colon + 1..].trim_ascii().to_vec()))
            })
            .collect();
        Self { pid, fields }
    }

    fn raw(&self, key: &str) -> &[u8] {
        self.fields.get(key).map_or(b"", Vec::as_slice)
    }

    fn text(&self, key: &str) -> &str {
        std::str::from_utf8(self.raw(key)).unwrap_or("")
    }

    fn numbers(&self, key: &str) -> Vec<i64> {
        self.text(key).split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    fn innermost(&self, key: &str) -> NsPid {
        NsPid(self.numbers(key).last().and_then(|pid| i32::try_from(*pid).ok()).unwrap_or(0))
    }

    /// The signals that it has handlers for (`SigCgt`).
    #[must_use]
    pub fn caught(&self) -> SignalSet {
        SignalSet::from_bits(self.set("SigCgt"))
    }

    /// The signals that this thread blocks (`SigBlk`).
    #[must_use]
    pub fn blocked(&self) -> SignalSet {
        SignalSet::from_bits(self.set("SigBlk"))
    }

    /// The signals that are pending for this thread alone (`SigPnd`).
    #[must_use]
    pub fn pending(&self) -> SignalSet {
        SignalSet::from_bits(self.set("SigPnd"))
    }

    /// The signals that are pending for the process as a whole (`ShdPnd`).
    #[must_use]
    pub fn pending_for_process(&self) -> SignalSet {
        SignalSet::from_bits(self.set("ShdPnd"))
    }

    /// A signal set or capability set: hexadecimal.
    #[must_use]
    pub fn set(&self, key: &str) -> u64 {
        u64::from_str_radix(self.text(key), 16).unwrap_or(0)
    }

    /// A decimal number; 0 where the line is missing.
    #[must_use]
    pub fn number(&self, key: &str) -> u64 {
        self.numbers(key).first().and_then(|number| u64::try_from(*number).ok()).unwrap_or(0)
    }

    /// Whose it is, or whose thread's.
    #[must_use]
    pub fn process(&self) -> HostPid {
        self.pid
    }

    /// Its name (`Name`).
    #[must_use]
    pub fn name(&self) -> FilePath {
        FilePath(self.raw("Name").to_vec())
    }

    /// Its state: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`.
    #[must_use]
    pub fn state(&self) -> char {
        self.text("State").chars().next().unwrap_or('?')
    }

    /// Its parent, outside.
    #[must_use]
    pub fn parent(&self) -> HostPid {
        HostPid(i32::try_from(self.number("PPid")).unwrap_or(0))
    }

    /// Its id in the innermost pid namespace.
    #[must_use]
    pub fn ns_pid(&self) -> NsPid {
        self.innermost("NSpid")
    }

    /// How many pid namespaces deep it is, counted from the reader's.
    #[must_use]
    pub fn namespace_depth(&self) -> usize {
        self.numbers("NSpid").len()
    }

    /// Its process group in the innermost pid namespace; 0: a group outside of it.
    #[must_use]
    pub fn ns_pgid(&self) -> NsPid {
        self.innermost("NSpgid")
    }

    /// Its session in the innermost pid namespace; 0: a session outside of it.
    #[must_use]
    pub fn ns_sid(&self) -> NsPid {
        self.innermost("NSsid")
    }

    /// Its umask.
    ///
    /// # Errors
    /// The kernel does not show it.
    pub fn umask(&self) -> Result<u32, ObserveError> {
        u32::from_str_radix(self.text("Umask"), 8).map_err(|_| parse_error(self.pid, "status", b"Umask"))
    }

    /// Who it runs as.
    ///
    /// # Errors
    /// The kernel does not show all of it.
    pub fn credentials(&self, securebits: u32) -> Result<Credentials, ObserveError> {
        let ids = |key: &str| -> Result<[u32; 4], ObserveError> {
            let ids: Vec<u32> = self.numbers(key).iter().filter_map(|id| u32::try_from(*id).ok()).collect();
            ids.try_into().map_err(|_| parse_error(self.pid, "status", key.as_bytes()))
        };
        Ok(Credentials {
            uids: ids("Uid")?,
            gids: ids("Gid")?,
            groups: self.numbers("Groups").iter().filter_map(|id| u32::try_from(*id).ok()).collect(),
            capabilities: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|key| self.set(key)),
            securebits,
        })
    }

    /// Processors it may run on, as words of a bit mask, lowest first.
    #[must_use]
    pub fn affinity(&self) -> Vec<u64> {
        let mut halves: Vec<u64> =
            self.text("Cpus_allowed").split(',').rev().filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
        if halves.len() % 2 == 1 {
            halves.push(0);
        }
        halves.chunks_exact(2).map(|pair| pair[0] | pair[1] << 32).collect()
    }
}

/// Whether a process is there, and what it is; `None` when it has gone meanwhile.
#[must_use]
pub fn status_if_there(pid: HostPid) -> Option<Status> {
    Status::of(pid).ok()
}

/// The children of a process, those of all its threads.
#[must_use]
pub fn children(pid: HostPid) -> Vec<HostPid> {
    threads(pid)
        .into_iter()
        .filter_map(|tid| fs::read_to_string(proc_path(pid, &format!("task/{tid}/children"))).ok())
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(HostPid).collect::<Vec<_>>())
        .collect()
}

/// The threads of a process.
#[must_use]
pub fn threads(pid: HostPid) -> Vec<HostPid> {
    let Ok(list) = fs::read_dir(proc_path(pid, "task")) else { return Vec::new() };
    list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(HostPid).collect()
}

/// Whether the kernel gave a process more than its caller had, for the mode or the capabilities of its program's file (`AT_SECURE` of getauxval(3));
/// nothing if it does not show.
#[must_use]
pub fn is_secure(pid: HostPid) -> Option<bool> {
    says_secure(&read_proc(pid, "auxv").ok()?)
}

/// The value of `AT_SECURE` in an auxiliary vector, which has pairs of words.
fn says_secure(vector: &[u8]) -> Option<bool> {
    let (words, _) = vector.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    let entry = pairs.iter().find(|[key, _]| u64::from_ne_bytes(*key) == libc::AT_SECURE)?;
    Some(entry[1] != [0; 8])
}

/// The resource limits of a process, indexed by `RLIMIT_*`: the kernel lists them in that order (fs/proc/base.c).
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn limits(pid: HostPid) -> Result<Vec<Limit>, ObserveError> {
    let text = read_proc(pid, "limits")?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .skip(1)
        .map(|line| {
            // The name takes 25 columns and a blank, each limit 20 and a blank.
            let limit = |from: usize| match line.get(from..from + 20).map(str::trim) {
                Some("unlimited") => Some(u64::MAX),
                Some(number) => number.parse().ok(),
                None => None,
            };
            limit(26)
                .zip(limit(47))
                .map(|(soft, hard)| Limit { soft, hard })
                .ok_or_else(|| parse_error(pid, "limits", line.as_bytes()))
        })
        .collect()
}

/// `/proc/PID/oom_score_adj`.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn oom_score_adj(pid: HostPid) -> Result<i32, ObserveError> {
    let text = read_proc(pid, "oom_score_adj")?;
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| parse_error(pid, "oom_score_adj", &text))
}

/// The wait status of a process that has ended and was not waited for (`exit_code`, field 52 of `/proc/PID/stat`).
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn wait_status(pid: HostPid) -> Result<i32, ObserveError> {
    let stat = read_proc(pid, "stat")?;
    stat_fields(&stat).last().and_then(|status| status.parse().ok()).ok_or_else(|| parse_error(pid, "stat", &stat))
}

/// When a process started, in ticks since the boot (field 22 of `/proc/PID/stat`), as seen here.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn start_ticks(pid: HostPid) -> Result<u64, ObserveError> {
    let stat = read_proc(pid, "stat")?;
    stat_fields(&stat).get(19).and_then(|ticks| ticks.parse().ok()).ok_or_else(|| parse_error(pid, "stat", &stat))
}

/// Fields of a `stat` file from the third (the state) on.
fn stat_fields(stat: &[u8]) -> Vec<&str> {
    let end = stat.iter().rposition(|&byte| byte == b')').unwrap_or(0);
    std::str::from_utf8(&stat[end + 1..]).unwrap_or("").split_ascii_whitespace().collect()
}

/// The process group, session, and controlling terminal's device number (0: none) of a process, as seen here (`/proc/PID/stat`).
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn group_session_and_terminal(pid: HostPid) -> Result<(i32, i32, i32), ObserveError> {
    let stat = read_proc(pid, "stat")?;
    let fields = stat_fields(&stat);
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok());
    match (field(5), field(6), field(7)) {
        (Some(group), Some(session), Some(terminal)) => Ok((group, session, terminal)),
        _ => Err(parse_error(pid, "stat", &stat)),
    }
}

/// The signal that tells the parent of a process's end (field 38 of `/proc/PID/stat`).
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn exit_signal(pid: HostPid) -> Result<i32, ObserveError> {
    let stat = read_proc(pid, "stat")?;
    stat_fields(&stat).get(38 - 3).and_then(|signal| signal.parse().ok()).ok_or_else(|| parse_error(pid, "stat", &stat))
}

/// `/proc/PID/coredump_filter`; 0 where the kernel has none.
pub fn core_filter(pid: HostPid) -> u32 {
    let text = fs::read_to_string(proc_path(pid, "coredump_filter")).unwrap_or_default();
    u32::from_str_radix(text.trim(), 16).unwrap_or(0)
}

/// How a thread is scheduled. Processors are given only where they are fewer than `all`, the coordinator's own.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn scheduling(pid: HostPid, tid: HostPid, status: &Status, all: &[u64]) -> Result<Scheduling, ObserveError> {
    let attributes = sched_getattr(tid.0).map_err(|Errno(errno)| ObserveError::Read {
        pid,
        path: proc_path(pid, &format!("task/{tid} (sched_getattr)")),
        source: io::Error::from_raw_os_error(errno),
    })?;
    let affinity = status.affinity();
    let SchedAttributes { policy, flags, priority, runtime, deadline, period, .. } = attributes;
    // The call tells it only of a policy that heeds it.
    let file = format!("task/{tid}/stat");
    let stat = read_proc(pid, &file)?;
    let nice = stat_fields(&stat).get(19 - 3).and_then(|nice| nice.parse().ok()).ok_or_else(|| parse_error(pid, &file, &stat))?;
    Ok(Scheduling {
        policy,
        flags: flags & SCHED_FLAGS_KEPT,
        // Other policies tell their time slice there, which is the machine's.
        deadline: if policy == libc::SCHED_DEADLINE.cast_unsigned() { [runtime, deadline, period] } else { [0; 3] },
        priority,
        nice,
        affinity: if affinity == all { Vec::new() } else { affinity },
        io_priority: ckpt_sys::process::ioprio_get(tid.0).unwrap_or(0),
    })
}

const SCHED_FLAGS_KEPT: u64 = (libc::SCHED_FLAG_RESET_ON_FORK | libc::SCHED_FLAG_RECLAIM | libc::SCHED_FLAG_DL_OVERRUN) as u64;

impl Status {
    /// What is set for this thread that no restart could set again, and what to do, if there is anything. What `other`, a process outside of
    /// the job that its first one descends from, has too, it has from there.
    #[must_use]
    pub fn unkept(&self, other: &Self) -> Option<(&'static str, &'static str)> {
        let seccomp = ["Seccomp", "Seccomp_filters"];
        if seccomp.iter().any(|key| self.text(key) != other.text(key)) {
            return Some(match self.number("Seccomp") {
                1 => ("is in strict seccomp mode", "checkpoint it before it enters that, or let it run without"),
                _ => ("has installed a seccomp filter, which cannot be read", "run the program without its sandbox"),
            });
        }
        if self.text("x86_Thread_features").split_ascii_whitespace().any(|feature| feature == "shstk") {
            return Some(("has a shadow stack", "run it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off"));
        }
        // Who is about to end has no memory whose addresses could be masked.
        let mask = self.text("untag_mask");
        if !mask.is_empty() && mask != other.text("untag_mask") {
            return Some(("uses linear address masking", "run it without tagged pointers"));
        }
        None
    }

    /// Speculation controls of this thread, as the values that set them (`PR_SET_SPECULATION_CTRL`); 0: as the machine has it.
    #[must_use]
    pub fn speculation(&self) -> [u32; 2] {
        use libc::{PR_SPEC_DISABLE, PR_SPEC_ENABLE, PR_SPEC_FORCE_DISABLE};
        // fs/proc/array.c, task_seccomp.
        ["Speculation_Store_Bypass", "SpeculationIndirectBranch"].map(|key| match self.text(key) {
            "thread vulnerable" | "conditional enabled" => PR_SPEC_ENABLE,
            "thread mitigated" | "conditional disabled" => PR_SPEC_DISABLE,
            "thread force mitigated" | "conditional force disabled" => PR_SPEC_FORCE_DISABLE,
            _ => 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auxiliary_vector_tells_of_privileges() {
        let vector = |secure: u64| [6, 4096, libc::AT_SECURE, secure, 0, 0].map(u64::to_ne_bytes).as_flattened().to_vec();
        assert_eq!((says_secure(&vector(0)), says_secure(&vector(1)), says_secure(&[])), (Some(false), Some(true), None));
        assert_eq!(is_secure(HostPid::own()), Some(false));
    }

    #[test]
    fn reads_its_own_limits_and_status() {
        let pid = HostPid(std::process::id() as i32);
        let limits = limits(pid).unwrap();
        assert_eq!(limits.len(), 16);
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(limits[7], Limit { soft: files.current.unwrap_or(u64::MAX), hard: files.maximum.unwrap_or(u64::MAX) });
        let status = Status::of(pid).unwrap();
        assert_eq!(status.credentials(0).unwrap().uids[1], rustix::process::geteuid().as_raw());
        assert!(!status.affinity().is_empty());
        assert!(threads(pid).contains(&pid));
    }
}
