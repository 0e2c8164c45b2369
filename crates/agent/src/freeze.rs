//! Freezing the threads: each parks in its own signal handler, on a futex, its registers in the frame on its stack.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use ckpt_wire::{
    BlockedCall, Control, Feature, PendingSignal, PlanEntry, Report, ReportKind, Slot, Start, Step, ThreadOrder, ThreadRecord,
    ThreadStatus, TimerRecord,
};
use linux_raw_sys::general as nr;

use crate::interrupted;
use crate::rendezvous::Connection;
use crate::state::{CONFIG, TRANSIENT};
use crate::{call, handler, observe, procfs, timers};

/// How long a thread may have the signal blocked before the coordinator is told, in milliseconds. Libraries block all signals for moments.
const BLOCKED_FOR_MS: i64 = 8;

/// The shared memory object, mapped. Its layout is the coordinator's word; both are one program.
#[derive(Clone, Copy)]
pub struct Shared {
    base: *mut u8,
}

impl Shared {
    /// The object that is mapped at `base`.
    pub fn new(base: *mut u8) -> Self {
        Self { base }
    }

    /// Its head.
    pub fn control(&self) -> &Control {
        // SAFETY: the object begins with a Control; fields that both sides write are atomic.
        unsafe { &*self.base.cast::<Control>() }
    }

    /// Its head, to write what was observed.
    pub fn control_mut(&self) -> *mut Control {
        self.base.cast()
    }

    /// Record `i`.
    pub fn thread(&self, i: u32) -> *mut ThreadRecord {
        // SAFETY: callers stay below `max_threads`, for which the object has room.
        unsafe { self.base.add(self.control().threads_off as usize).cast::<ThreadRecord>().add(i as usize) }
    }

    /// Records in use.
    pub fn threads_len(&self) -> u32 {
        self.control().threads.load(Acquire)
    }

    fn records(&self) -> impl Iterator<Item = &ThreadRecord> {
        // SAFETY: records below `threads` are initialised; what is written concurrently is atomic.
        (0..self.threads_len()).map(|i| unsafe { &*self.thread(i) })
    }

    /// Adds a pending signal; false when there is no room.
    pub fn push_pending(&self, signal: PendingSignal) -> bool {
        let control = self.control();
        let at = control.pending.load(Relaxed);
        if at >= control.max_pending {
            return false;
        }
        // SAFETY: below `max_pending`, for which the object has room; one thread captures at a time.
        unsafe { self.base.add(control.pending_off as usize).cast::<PendingSignal>().add(at as usize).write(signal) };
        control.pending.store(at + 1, Release);
        true
    }

    /// Pending signal `i`, which must have been pushed.
    pub fn pending(&self, i: u32) -> PendingSignal {
        // SAFETY: it was written by push_pending.
        unsafe { self.base.add(self.control().pending_off as usize).cast::<PendingSignal>().add(i as usize).read() }
    }

    /// The timers.
    #[allow(clippy::mut_from_ref, reason = "the object is shared memory; one thread at a time looks at the timers")]
    pub fn timers(&self) -> &mut [TimerRecord] {
        let control = self.control();
        let len = control.timers.load(Acquire).min(control.max_timers) as usize;
        // SAFETY: the coordinator wrote this many before it gave the order.
        unsafe { core::slice::from_raw_parts_mut(self.base.add(control.timers_off as usize).cast(), len) }
    }

    /// The plan.
    #[allow(clippy::mut_from_ref, reason = "the object is shared memory; only the leader or its twin uses the plan")]
    pub fn plan(&self) -> &mut [PlanEntry] {
        let control = self.control();
        let len = control.plan.load(Acquire).min(control.max_plan) as usize;
        // SAFETY: the coordinator wrote this many entries before it gave the order.
        unsafe { core::slice::from_raw_parts_mut(self.base.add(control.plan_off as usize).cast(), len) }
    }

    /// Entry `i` of the plan, which must be below `max_plan`.
    pub fn plan_entry(&self, i: u32) -> *mut PlanEntry {
        // SAFETY: the object has room for `max_plan` entries.
        unsafe { self.base.add(self.control().plan_off as usize).cast::<PlanEntry>().add(i as usize) }
    }

    /// Slot `i` of the ring.
    pub fn slot(&self, i: u64) -> *mut Slot {
        let control = self.control();
        let i = (i % u64::from(control.slots.max(1))) as usize;
        // SAFETY: below `slots`, for which the object has room.
        unsafe { self.base.add(control.ring_off as usize).cast::<Slot>().add(i) }
    }
}

/// Freezes every other thread of the process.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn freeze(connection: &Connection, shared: &Shared, start: &Start, frame: *mut UContext) -> Result<(), Report> {
    let tid = call::gettid();
    let leader = shared.thread(0);
    // SAFETY: record 0 exists, and is the leader's.
    unsafe {
        (*leader).tid.store(tid as u32, Relaxed);
        (*leader).call = if start.tid == tid { start.call } else { BlockedCall::default() };
        observe::record_thread(leader, frame);
        block_again(frame, start.unblocked);
        interrupted::make_again(frame, &(*leader).call, tid);
        (*leader).status.store(ThreadStatus::PARKED, Release);
    }
    shared.control().threads.store(1, Release);
    TRANSIENT.control.store(shared.control_mut(), Release);
    freeze_others(connection, shared, start, tid)
}

fn freeze_others(connection: &Connection, shared: &Shared, start: &Start, leader: i32) -> Result<(), Report> {
    let pid = call::getpid();
    let deadline = now_ms() + i64::from(start.grace_ms);
    loop {
        let mut fresh = 0u32;
        let mut overflow = false;
        procfs::for_each_thread(|tid| {
            if tid == leader || shared.records().any(|record| record.tid.load(Relaxed) == tid as u32) {
                return;
            }
            let i = shared.threads_len();
            if i >= shared.control().max_threads {
                overflow = true;
                return;
            }
            fresh += 1;
            summon(shared, start, i, pid, tid);
        })
        .map_err(|errno| handler::failed(Step::ListThreads, errno.0))?;
        if overflow {
            return Err(Report {
                kind: ReportKind::TooManyThreads as u32,
                errno: 0,
                value: i64::from(shared.control().max_threads),
            });
        }
        wait_until_parked(connection, shared, start, pid, deadline)?;
        if fresh == 0 {
            return Ok(());
        }
    }
}

/// Makes a record for a thread and signals it.
fn summon(shared: &Shared, start: &Start, i: u32, pid: i32, tid: i32) {
    let record = shared.thread(i);
    let exited = tid == pid && has_exited(tid);
    // SAFETY: record `i` is below `max_threads`, and nobody else looks at it before `threads` counts it.
    unsafe {
        (*record).status.store(if exited { ThreadStatus::PARKED } else { ThreadStatus::CALLED }, Relaxed);
        (*record).order.store(ThreadOrder::STAY, Relaxed);
        (*record).exited = u32::from(exited);
        (*record).call = interrupted::blocked_call(tid, start.features & Feature::SCHEDULER_NOTES != 0);
        (*record).tid.store(tid as u32, Relaxed);
    }
    shared.control().threads.store(i + 1, Release);
    if !exited {
        signal_thread(pid, tid);
    }
}

/// Sends the checkpoint signal to a thread of this process; false when it has ended.
fn signal_thread(pid: i32, tid: i32) -> bool {
    // SAFETY: takes no pointer. The thread has our handler: handlers are the whole process's.
    unsafe { syscall!(nr::__NR_tgkill, pid, tid, CONFIG.get().signal) }.is_ok()
}

/// Waits until every thread that was signalled is parked, or has ended; one that parked inside the vDSO is let go and signalled again.
fn wait_until_parked(connection: &Connection, shared: &Shared, start: &Start, pid: i32, deadline: i64) -> Result<(), Report> {
    let mut wait_ms = 1;
    loop {
        let seen = TRANSIENT.changed.load(Acquire);
        let mut missing = 0;
        for i in 0..shared.threads_len() {
            // SAFETY: the record exists; a thread that has not parked writes it, and only its atomics are read before that.
            let record = unsafe { &*shared.thread(i) };
            let tid = record.tid.load(Relaxed) as i32;
            if tid == 0 || record.exited != 0 {
                continue;
            }
            if record.status.load(Acquire) == ThreadStatus::PARKED {
                if i != 0 && (start.vdso_start..start.vdso_end).contains(&record.rip) {
                    let_out_of_vdso(shared, start, i, pid, tid);
                    missing = tid;
                }
            } else {
                missing = tid;
            }
        }
        if missing == 0 {
            return Ok(());
        }
        if now_ms() > deadline {
            return Err(Report { kind: ReportKind::ThreadSilent as u32, errno: 0, value: i64::from(missing) });
        }
        call::futex_wait(&TRANSIENT.changed, seen, wait_ms, false);
        if TRANSIENT.changed.load(Acquire) == seen {
            wait_ms = (wait_ms * 2).min(50);
            forget_the_ended(shared, pid);
            if wait_ms >= BLOCKED_FOR_MS {
                report_blocked(connection, shared);
            }
        }
    }
}

/// Reports the threads that have not answered and block the signal: the coordinator has another way to them.
fn report_blocked(connection: &Connection, shared: &Shared) {
    for i in 1..shared.threads_len() {
        let record = shared.thread(i);
        // SAFETY: the record exists; only the leader writes `reported`.
        let (tid, done) = unsafe {
            let done = (*record).status.load(Acquire) == ThreadStatus::PARKED || (*record).exited != 0 || (*record).reported != 0;
            ((*record).tid.load(Relaxed), done)
        };
        if tid == 0 || done || !observe::blocks(tid as i32, CONFIG.get().signal) {
            continue;
        }
        // SAFETY: as above.
        unsafe { (*record).reported = 1 };
        let _ = connection.send(&Report { kind: ReportKind::ThreadBlocked as u32, errno: 0, value: i64::from(tid) });
    }
}

/// Puts the checkpoint signal back into the mask that a thread goes on with.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
unsafe fn block_again(frame: *mut UContext, unblocked: u32) {
    if unblocked != 0 {
        // SAFETY: the caller's promise.
        unsafe { (*frame).sigmask |= 1 << (CONFIG.get().signal - 1) };
    }
}

/// A thread stopped inside the vDSO could not be restored where the vDSO is another: it goes on for a moment.
fn let_out_of_vdso(shared: &Shared, start: &Start, i: u32, pid: i32, tid: i32) {
    let record = shared.thread(i);
    order(record, ThreadOrder::GO);
    wait_for_status(record, ThreadStatus::GONE);
    crate::rendezvous::pause_us(50);
    // SAFETY: the thread has left and does not touch its record before it is signalled again.
    unsafe {
        (*record).call = interrupted::blocked_call(tid, start.features & Feature::SCHEDULER_NOTES != 0);
        (*record).unblocked.store(0, Relaxed);
        (*record).reported = 0;
        (*record).order.store(ThreadOrder::STAY, Relaxed);
        (*record).status.store(ThreadStatus::CALLED, Release);
    }
    signal_thread(pid, tid);
}

/// Makes void the records of threads that have ended before the signal reached them.
fn forget_the_ended(shared: &Shared, pid: i32) {
    for record in shared.records() {
        let tid = record.tid.load(Relaxed) as i32;
        if tid == 0 || record.status.load(Acquire) == ThreadStatus::PARKED {
            continue;
        }
        // SAFETY: signal 0 only asks whether the thread is there.
        if unsafe { syscall!(nr::__NR_tgkill, pid, tid, 0) }.is_err() {
            record.tid.store(0, Relaxed);
        }
    }
}

/// Whether a thread group's leader has ended while others go on (`Z` in its `stat`).
fn has_exited(tid: i32) -> bool {
    let mut buffer = [0u8; 256];
    let Some(stat) = procfs::read_task(tid, b"/stat", &mut buffer) else { return false };
    // The name, in parentheses, may hold any character: the state follows the last one.
    let Some(end) = stat.iter().rposition(|&byte| byte == b')') else { return false };
    stat.get(end + 2) == Some(&b'Z')
}

/// Parks the calling thread until it is told to go on.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn park(frame: *mut UContext) {
    // Counted before the look at `control`: the leader takes the shared memory away only when nobody is counted.
    TRANSIENT.users.fetch_add(1, SeqCst);
    let control = TRANSIENT.control.load(SeqCst);
    // SAFETY: the shared memory stays while this thread is counted.
    let parked = !control.is_null() && unsafe { park_with(&Shared::new(control.cast()), frame) };
    if !parked {
        // SAFETY: the caller's promise. It was signalled by nobody who freezes this process now.
        unsafe { interrupted::leave_as_found(frame) };
    }
    TRANSIENT.users.fetch_sub(1, SeqCst);
    tell_leader();
}

/// Whether it was to park.
///
/// # Safety
/// As for [`park`]; the shared memory must stay mapped meanwhile.
unsafe fn park_with(shared: &Shared, frame: *mut UContext) -> bool {
    let tid = call::gettid();
    let Some(i) = (0..shared.threads_len()).find(|&i| {
        // SAFETY: records below `threads` exist.
        let record = unsafe { &*shared.thread(i) };
        record.tid.load(Relaxed) == tid as u32 && record.status.load(Relaxed) == ThreadStatus::CALLED
    }) else {
        return false;
    };
    let record = shared.thread(i);
    // SAFETY: the record is this thread's; the leader reads the plain fields only once the status says so.
    unsafe {
        observe::record_thread(record, frame);
        block_again(frame, (*record).unblocked.load(Relaxed));
        interrupted::make_again(frame, &(*record).call, tid);
        (*record).status.store(ThreadStatus::PARKED, Release);
    }
    tell_leader();
    loop {
        // SAFETY: the caller's promise.
        let word = unsafe { &(*record).order };
        match word.load(Acquire) {
            ThreadOrder::STAY => call::futex_wait(word, ThreadOrder::STAY, -1, false),
            ThreadOrder::CAPTURE => {
                // SAFETY: the frame is this thread's own.
                unsafe { observe::capture_pending(shared, tid, frame) };
                timers::find_own(shared, tid);
                word.store(ThreadOrder::STAY, Release);
                tell_leader();
            }
            _ => break,
        }
    }
    // SAFETY: the frame is this thread's own.
    unsafe {
        observe::claim_pending(shared, tid, frame);
        interrupted::end_if_signalled(frame);
        (*record).status.store(ThreadStatus::GONE, Release);
    }
    true
}

fn tell_leader() {
    TRANSIENT.changed.fetch_add(1, Release);
    call::futex_wake(&TRANSIENT.changed, false);
}

/// Gives a parked thread an order.
fn order(record: *mut ThreadRecord, what: u32) {
    // SAFETY: the record exists; its order is atomic.
    let word = unsafe { &(*record).order };
    word.store(what, Release);
    call::futex_wake(word, false);
}

fn wait_for_status(record: *mut ThreadRecord, status: u32) {
    loop {
        let seen = TRANSIENT.changed.load(Acquire);
        // SAFETY: the record exists; its status is atomic.
        if unsafe { (*record).status.load(Acquire) } == status {
            return;
        }
        call::futex_wait(&TRANSIENT.changed, seen, 100, false);
    }
}

/// Has every thread but the leader record the signals pending for it, and find the timers that measure its processor time.
pub fn capture_pending_of_threads(shared: &Shared) {
    for i in 1..shared.threads_len() {
        let record = shared.thread(i);
        // SAFETY: the record exists.
        let (tid, exited) = unsafe { ((*record).tid.load(Relaxed), (*record).exited) };
        let has_some = |tid| observe::has_pending(tid) || timers::any_without_thread(shared);
        if tid == 0 || exited != 0 || !has_some(tid as i32) {
            continue;
        }
        order(record, ThreadOrder::CAPTURE);
        loop {
            let seen = TRANSIENT.changed.load(Acquire);
            // SAFETY: the record exists; its order is atomic.
            if unsafe { (*record).order.load(Acquire) } == ThreadOrder::STAY {
                break;
            }
            call::futex_wait(&TRANSIENT.changed, seen, 100, false);
        }
    }
}

/// Lets every parked thread go, the process's first one before the others, and waits until none uses the shared memory any more.
pub fn release(shared: &Shared) {
    let pid = call::getpid() as u32;
    // SAFETY: the records exist; a thread that has ended is not waited for.
    let first = (1..shared.threads_len()).map(|i| shared.thread(i)).find(|&record| unsafe {
        (*record).tid.load(Relaxed) == pid && (*record).exited == 0 && (*record).status.load(Acquire) == ThreadStatus::PARKED
    });
    if let Some(record) = first {
        order(record, ThreadOrder::GO);
        wait_for_status(record, ThreadStatus::GONE);
    }
    for i in 1..shared.threads_len() {
        order(shared.thread(i), ThreadOrder::GO);
    }
    TRANSIENT.control.store(core::ptr::null_mut(), SeqCst);
    loop {
        let seen = TRANSIENT.changed.load(Acquire);
        if TRANSIENT.users.load(SeqCst) == 0 {
            return;
        }
        call::futex_wait(&TRANSIENT.changed, seen, 10, false);
    }
}

/// `CLOCK_MONOTONIC` in milliseconds.
pub fn now_ms() -> i64 {
    let mut time = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is writable.
    let _ = unsafe { syscall!(nr::__NR_clock_gettime, nr::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}
