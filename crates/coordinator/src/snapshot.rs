//! The snapshot: every process makes a twin, a copy of its memory by fork(2), which hands that over while the job goes on.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ckpt_objects::older::KernelFeature;
use ckpt_objects::subject::Subject;
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::Received;
use ckpt_wire::{Order, PlanFlag, Report, ReportKind, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{CheckpointError, FreezeError};
use crate::frozen::{Frozen, FrozenProcess};
use crate::room::{Needed, Room};
use crate::survey::Plans;
use crate::tree::Anchor;

/// How long an agent may take to make its twin, beyond what forking its memory takes.
const TWIN_GRACE: Duration = Duration::from_secs(60);
/// The time after which it is looked whether a silent twin lives.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// What a fork fails with where a twin is forbidden: by memory or the overcommit rule, or by a limit of processes
/// (`RLIMIT_NPROC`, which some programs set to 0 once they have begun; pids.max of a cgroup).
const NO_TWIN: [i32; 2] = [libc::ENOMEM, libc::EAGAIN];

/// Whether twins are made: what was killed once will be again, where it is for lack of memory.
#[derive(Default)]
pub struct TwinChoice {
    /// Checkpoints that failed since a twin was killed.
    losses: AtomicU32,
    /// How many are still taken without twins.
    without: AtomicU32,
}

impl TwinChoice {
    /// Whether a checkpoint is to be taken with twins, where there was so much room before the job was frozen.
    pub fn may_be_made(&self, room: &Room, needed: &Needed) -> bool {
        room.holds(needed) && self.without.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// A twin was killed: the next checkpoints are taken without, twice as many each time.
    pub fn note_loss(&self) {
        let losses = self.losses.fetch_add(1, Ordering::Relaxed).min(10);
        self.without.store(1 << losses, Ordering::Relaxed);
    }
}

/// What the twins of a frozen job need, by the plans for its memory.
#[must_use]
pub fn needed(frozen: &Frozen, plans: &Plans) -> Needed {
    let resident = |key: &str| frozen.processes.iter().map(|process| process.status.number(key) << 10).sum::<u64>();
    let copied = |is_whole: bool| {
        let entries = plans.values().flatten().filter(|entry| entry.flags & PlanFlag::SHARED != 0);
        entries.filter(|entry| (entry.flags & PlanFlag::ALL != 0) == is_whole).map(|entry| entry.len).sum::<u64>()
    };
    // Files are copied as a whole; of memory, the pages that exist.
    let shared = copied(true) + copied(false).min(resident("RssShmem"));
    Needed { processes: frozen.processes.len() as u64, private: resident("RssAnon"), shared }
}

/// Twins of one checkpoint: when it is over, for whatever reason, none must linger.
pub struct Twins<'a> {
    anchor: &'a Anchor,
    /// Each by a descriptor, which never comes to mean another process.
    twins: Vec<(HostPid, Option<OwnedFd>)>,
    /// Every process has one. A process without a twin hands over as it stands.
    pub are_complete: bool,
}

/// Has every process make its twin, or, where that fails for lack of memory or twins are not to be made, hand over as it stands.
///
/// # Errors
///
/// When a process ends, or its agent fails.
pub fn snapshot<'a>(anchor: &'a Anchor, frozen: &Frozen, plans: &Plans, may_twin: bool) -> Result<Twins<'a>, CheckpointError> {
    let with_twins = may_twin && !KernelFeature::Twin.is_off();
    for process in &frozen.processes {
        hand_plan(process, plans)?;
        give_order(process, if with_twins { Order::Twin } else { Order::DumpInPlace })?;
    }
    let mut twins = Twins { anchor, twins: Vec::new(), are_complete: with_twins };
    if with_twins {
        for process in &frozen.processes {
            twins.are_complete &= twins.wait_for(process)?;
        }
    }
    Ok(twins)
}

fn hand_plan(process: &FrozenProcess, plans: &Plans) -> Result<(), FreezeError> {
    let plan = plans.get(&process.pid).map_or(&[][..], Vec::as_slice);
    if process.memory.set_plan(plan) {
        return Ok(());
    }
    Err(process.failure(&Report { kind: ReportKind::Failed as u32, errno: 0, value: Step::Plan as i64 }))
}

impl Twins<'_> {
    /// Waits for a process to make its twin. Whether it has; if it may not, it is told to hand over as it stands.
    fn wait_for(&mut self, process: &FrozenProcess) -> Result<bool, CheckpointError> {
        // The twin speaks for itself, the leader of having made it, in either order.
        let (mut twin, mut made) = (false, None);
        let begun = Instant::now();
        while !twin || made.is_none() {
            let Some((report, sender)) = next_report(process, begun)? else {
                match made {
                    Some(pid) if !self.is_there(pid) => {
                        return Err(CheckpointError::Twin { pid: process.ns_pid, name: process.name() });
                    }
                    _ => continue,
                }
            };
            match ReportKind::of(&report) {
                Some(ReportKind::TwinReady) => {
                    self.add(sender);
                    twin = true;
                }
                Some(ReportKind::Frozen) => made = Some(NsPid(i32::try_from(report.value).unwrap_or(0))),
                // A small process may be done before its leader has spoken.
                Some(ReportKind::Dumped) => (),
                Some(ReportKind::Failed) if NO_TWIN.contains(&report.errno) => {
                    give_order(process, Order::DumpInPlace)?;
                    return Ok(false);
                }
                _ => return Err(process.failure(&report).into()),
            }
        }
        Ok(true)
    }

    /// Whether a twin that has not spoken yet lives. Its leader keeps the connection open, so only this shows that it does not.
    fn is_there(&self, twin: NsPid) -> bool {
        self.anchor.scan().iter().any(|member| member.status.ns_pid() == twin && !member.is_zombie())
    }

    fn add(&mut self, pid: HostPid) {
        self.anchor.add_twin(pid);
        let raw = rustix::process::Pid::from_raw(pid.0);
        let descriptor = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok());
        self.twins.push((pid, descriptor));
    }
}

impl Drop for Twins<'_> {
    fn drop(&mut self) {
        for (pid, descriptor) in &self.twins {
            if let Some(descriptor) = descriptor {
                let _ = pidfd_send_signal(descriptor, Signal::KILL);
                let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&timeout));
            }
            self.anchor.remove_twin(*pid);
        }
    }
}

/// Waits for the next report on a process's connection; nothing where none comes for a moment. All have to come a while after `begun`.
fn next_report(process: &FrozenProcess, begun: Instant) -> Result<Option<(Report, HostPid)>, CheckpointError> {
    let lost = || CheckpointError::Lost { pid: process.ns_pid, name: process.name() };
    let mut polled = false;
    loop {
        match process.connection.receive::<Report>() {
            Received::Message(report, sender) => return Ok(Some((report, sender))),
            Received::Closed => return Err(lost()),
            Received::Nothing if begun.elapsed() > TWIN_GRACE => return Err(lost()),
            Received::Nothing if polled => return Ok(None),
            Received::Nothing => {
                let _ = poll(&mut [PollFd::new(&process.connection, PollFlags::IN)], Some(&MOMENT));
                polled = true;
            }
        }
    }
}

fn give_order(process: &FrozenProcess, order: Order) -> Result<(), CheckpointError> {
    process.order(order).map_err(|source| CheckpointError::Order { pid: process.ns_pid, name: process.name(), source })
}
