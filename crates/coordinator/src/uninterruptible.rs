//! Threads in an uninterruptible wait (`D` in `/proc/PID/task/TID/status`). They take no signal until the wait ends.
//!
//! A disk read is such a wait too, but a short one. So a thread counts for as long as it has not run in between.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ckpt_objects::HostPid;
use ckpt_objects::process::{Status, threads};

use crate::tree::Member;

/// What was seen of waiting threads so far.
#[derive(Default)]
pub struct Uninterruptible {
    /// How often each has been switched away from, and when it was first seen so.
    seen: HashMap<HostPid, (u64, Instant)>,
}

impl Uninterruptible {
    /// Looks at all threads of these processes. Gives a process with a thread that waits, and for how long it was seen to: the longest.
    pub fn look<'a>(&mut self, members: impl Iterator<Item = &'a Member>) -> Option<(&'a Member, Duration)> {
        let mut before = std::mem::take(&mut self.seen);
        let mut longest: Option<(&Member, Duration)> = None;
        for member in members {
            for (tid, switches) in waiting_threads(member) {
                let since = match before.remove(&tid) {
                    Some((same, since)) if same == switches => since,
                    _ => Instant::now(),
                };
                self.seen.insert(tid, (switches, since));
                let waited = since.elapsed();
                if longest.is_none_or(|(_, most)| waited > most) {
                    longest = Some((member, waited));
                }
            }
        }
        longest
    }
}

fn waiting_threads(member: &Member) -> Vec<(HostPid, u64)> {
    let waits = |status: &Status| (status.state() == 'D').then(|| status.number("voluntary_ctxt_switches"));
    if member.status.number("Threads") <= 1 {
        return waits(&member.status).map(|switches| (member.pid, switches)).into_iter().collect();
    }
    let one = |tid: HostPid| Some((tid, waits(&Status::of_thread(member.pid, tid).ok()?)?));
    threads(member.pid).into_iter().filter_map(one).collect()
}
