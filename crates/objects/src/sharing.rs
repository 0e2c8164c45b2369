//! What tasks share of what each usually has for itself (clone(2)): memory, descriptors, directories, signal actions. Threads of one process
//! share all of it, processes share none of it, and all live in the namespaces of their launcher. A job that is otherwise is refused.

use std::cmp::Ordering;

use ckpt_sys::process::{kcmp, shared};

use crate::HostPid;
use crate::namespaces::Namespaces;
use crate::observe::ObserveError;
use crate::process::{Status, threads};
use crate::subject::Subject;

/// What processes may share by clone(2), and what that is called. Whoever shares signal actions shares memory.
const BETWEEN_PROCESSES: [(u32, &str); 3] =
    [(shared::VM, "its memory"), (shared::FILES, "its table of descriptors"), (shared::FS, "its working directory and umask")];

/// What threads may have parted with by unshare(2).
const BETWEEN_THREADS: [(u32, &str); 2] = [(shared::FILES, "descriptors"), (shared::FS, "a working directory, root and umask")];

/// The order of kcmp(2); equal: the two share. Where kcmp(2) fails one of them has ended, and shares nothing.
fn compare(a: HostPid, b: HostPid, kind: u32) -> Ordering {
    match kcmp(a.0, b.0, kind, 0, 0) {
        Ok(0) => Ordering::Equal,
        Ok(1) => Ordering::Less,
        _ => Ordering::Greater,
    }
}

/// Two processes of the job that share something, and what.
fn between_processes(pids: &[HostPid]) -> Option<(HostPid, HostPid, &'static str)> {
    for (kind, what) in BETWEEN_PROCESSES {
        // By the kernel's order the search is short.
        let mut ordered: Vec<HostPid> = Vec::with_capacity(pids.len());
        for &pid in pids {
            match ordered.binary_search_by(|other| compare(*other, pid, kind)) {
                Ok(at) => return Some((ordered[at], pid, what)),
                Err(at) => ordered.insert(at, pid),
            }
        }
    }
    None
}

/// A thread that has something for itself that it should share with the first, and what.
fn within_process(first: HostPid, threads: &[HostPid]) -> Option<(HostPid, &'static str)> {
    let parted = |tid: HostPid, kind: u32| tid != first && matches!(kcmp(first.0, tid.0, kind, 0, 0), Ok(1..));
    threads.iter().find_map(|&tid| BETWEEN_THREADS.iter().find(|(kind, _)| parted(tid, *kind)).map(|(_, what)| (tid, *what)))
}

/// `CAP_SYS_ADMIN` (include/uapi/linux/capability.h): without it no single thread enters a namespace.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Refuses processes that are less separate from each other, or farther from their launcher, than a restart makes them. `reaper` is where
/// the job hangs: its launcher, or the stand-in.
///
/// # Errors
///
/// When a process shares something with another, a thread has something for itself, or either is in another namespace than its launcher.
pub fn check<S: Subject>(processes: &[S], reaper: HostPid) -> Result<(), ObserveError> {
    let home = Namespaces::of_children(reaper);
    for process in processes {
        let threads = living(process.pid(), threads(process.pid()));
        // A process with one thread, and one without the right, is all in one place.
        let apart = process.status().set("CapPrm") & CAP_SYS_ADMIN != 0;
        let places = if apart { &threads[..] } else { &[process.live()][..] };
        if let Some(what) = places.iter().find_map(|tid| Namespaces::of(*tid).difference(&home)) {
            let what = format!("has entered a namespace of {what} of its own");
            return Err(process.refuse(what, "run that part outside of the job"));
        }
        if let Some((_, what)) = within_process(process.live(), &threads) {
            return Err(process.refuse(format!("has a thread with {what} of its own"), "run without that"));
        }
    }
    let pids: Vec<HostPid> = processes.iter().map(Subject::live).collect();
    let Some((first, second, what)) = between_processes(&pids) else { return Ok(()) };
    let find = |pid| processes.iter().find(|process| process.live() == pid);
    let (Some(first), Some(second)) = (find(first), find(second)) else {
        return Err(ObserveError::Internal("processes that share something are none of the job's"));
    };
    let what = format!("shares {what} with process {} ({})", second.ns_pid(), second.name());
    Err(first.refuse(what, "use threads, or processes made by fork"))
}

/// Threads but for a leader that has ended: it has let go of everything.
fn living(pid: HostPid, threads: Vec<HostPid>) -> Vec<HostPid> {
    let has_ended = |tid: &HostPid| *tid == pid && Status::of(pid).is_ok_and(|status| status.state() == 'Z');
    threads.into_iter().filter(|tid| !has_ended(tid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shares_nothing_with_its_parent() {
        let (own, parent) = (HostPid(std::process::id() as i32), HostPid(std::os::unix::process::parent_id() as i32));
        assert_eq!(between_processes(&[own, parent]), None);
        assert_eq!(between_processes(&[own]), None);
    }

    #[test]
    fn threads_share_all() {
        let own = HostPid(std::process::id() as i32);
        let (say, hear) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            say.send(rustix::thread::gettid()).unwrap();
            let _ = wait.recv();
        });
        let tid = HostPid(hear.recv().unwrap().as_raw_nonzero().get());
        assert_eq!(within_process(own, &[own, tid]), None);
        drop(end);
        thread.join().unwrap();
    }
}
