//! The time for which a job stands still: how long it was, and a bound on it where a disk does not answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ckpt_session::Connection;
use rustix::net::{Shutdown, shutdown};
use rustix::time::{ClockId, clock_gettime};

/// How long nothing may get on.
const PATIENCE: Duration = Duration::from_secs(10);
/// The processor time in which the launcher is said to get on, in that time: enough to copy about a mebibyte a second.
const LITTLE: Duration = Duration::from_millis(5);

/// A job that stands still since a moment.
pub struct Standstill {
    /// Since when.
    pub since: Instant,
    shared: Arc<Shared>,
}

struct Shared {
    since: Instant,
    /// Where the time is added to when it is over, in nanoseconds.
    sum: Arc<AtomicU64>,
    end: Mutex<Option<End>>,
    ended: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// As it was to be.
    Planned,
    /// By the guard.
    Stalled,
}

impl Standstill {
    /// Begins where the first process was signalled. `sum`: where its time is added to.
    #[must_use]
    pub fn new(since: Instant, sum: Arc<AtomicU64>) -> Self {
        Self { since, shared: Arc::new(Shared { since, sum, end: Mutex::new(None), ended: Condvar::new() }) }
    }

    /// Lets the job go on by itself, through its agents' connections, when a file system has not answered for a while. What waits for that then
    /// fails, whenever it comes back: [`Standstill::end`] tells. Without a thread for it, nobody does.
    pub fn guard(&self, connections: Vec<Weak<Connection>>) {
        let shared = Arc::clone(&self.shared);
        let _ = std::thread::Builder::new().name("guard".into()).spawn(move || shared.guard(&connections));
    }

    /// Ends it: the job goes on now, or is to end. Whether it was not ended before, because a disk did not answer.
    #[must_use]
    pub fn end(&self) -> bool {
        self.shared.end(End::Planned) == End::Planned
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        self.shared.end(End::Planned);
    }
}

impl Shared {
    /// How it has ended: so, if it had not yet.
    fn end(&self, how: End) -> End {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *end.get_or_insert_with(|| {
            let time = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.sum.fetch_add(time, Ordering::AcqRel);
            self.ended.notify_all();
            how
        })
    }

    fn guard(&self, connections: &[Weak<Connection>]) {
        loop {
            let before = processor_time();
            let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.ended.wait_timeout_while(end, PATIENCE, |end| end.is_none());
            if waited.unwrap_or_else(PoisonError::into_inner).0.is_some() {
                return;
            }
            if processor_time().saturating_sub(before) < LITTLE {
                break;
            }
        }
        if self.end(End::Stalled) == End::Stalled {
            for connection in connections.iter().filter_map(Weak::upgrade) {
                // An agent takes the end of its connection as the order to go on.
                let _ = shutdown(&*connection, Shutdown::Both);
            }
        }
    }
}

/// The processor time of all threads of this process: what is read, compressed or written adds to it, while a wait does not.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_time_is_added_once() {
        let sum = Arc::new(AtomicU64::new(0));
        let standstill = Standstill::new(Instant::now(), Arc::clone(&sum));
        assert!(standstill.end());
        let time = sum.load(Ordering::Acquire);
        assert!(time > 0 && standstill.end());
        drop(standstill);
        assert_eq!(sum.load(Ordering::Acquire), time);
    }
}
