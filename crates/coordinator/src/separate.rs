//! Whether the processes of a job are as separate from each other, and as close to their launcher, as a restart makes them: what threads share
//! all of a process share, what processes have for themselves each has, and all live in their launcher's namespaces.

use ckpt_objects::namespaces::Namespaces;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::process::{Status, threads};
use ckpt_objects::{HostPid, sharing};

use crate::freeze::Frozen;
use crate::survey::refuse;

/// `CAP_SYS_ADMIN`: without it no single thread enters a namespace.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Refuses what is otherwise. `reaper` is where the job hangs: its launcher, or the stand-in.
pub fn check(frozen: &Frozen, reaper: HostPid) -> Result<(), ObserveError> {
    let home = Namespaces::of_children(reaper);
    for process in &frozen.processes {
        let threads = living(process.pid, threads(process.pid));
        // A process with one thread, and one without the right, is all in one place.
        let apart = process.status.set("CapPrm") & CAP_SYS_ADMIN != 0;
        let places = if apart { &threads[..] } else { &[process.live][..] };
        if let Some(what) = places.iter().find_map(|tid| Namespaces::of(*tid).difference(&home)) {
            return Err(refuse(
                process,
                format!("has entered a namespace of {what} of its own"),
                "run that part outside of the job",
            ));
        }
        if let Some((_, what)) = sharing::within_process(process.live, &threads) {
            return Err(refuse(process, format!("has a thread with {what} of its own"), "run without that"));
        }
    }
    let pids: Vec<HostPid> = frozen.processes.iter().map(|process| process.live).collect();
    let Some((first, second, what)) = sharing::between_processes(&pids) else { return Ok(()) };
    let find = |pid| frozen.processes.iter().find(|process| process.live == pid);
    match (find(first), find(second)) {
        (Some(first), Some(second)) => {
            let what = format!("shares {what} with process {} ({})", second.ns_pid, second.name());
            Err(refuse(first, what, "use threads, or processes made by fork"))
        }
        _ => Ok(()),
    }
}

/// Threads but for a leader that has ended: it has let go of everything.
fn living(pid: HostPid, threads: Vec<HostPid>) -> Vec<HostPid> {
    let has_ended = |tid: &HostPid| *tid == pid && Status::of(pid).is_ok_and(|status| status.state() == 'Z');
    threads.into_iter().filter(|tid| !has_ended(tid)).collect()
}
