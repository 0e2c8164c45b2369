//! Freezing the threads: each parks in its own signal handler, on a futex, its registers in the frame on its stack.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use ckpt_sys::sigframe::UContext;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::{BlockedCall, Feature, Report, ReportKind, Start, Step, ThreadOrder, ThreadStatus};
use linux_raw_sys::general as nr;

use crate::rendezvous::Connection;
use crate::shared::{Shared, Thread};
use crate::state::{CONFIG, TRANSIENT};
use crate::{call, interrupted, observe, pending, procfs, timers};

/// How long a thread may have the signal blocked before the coordinator is told, in milliseconds. Libraries block all signals for moments.
const BLOCKED_FOR_MS: i64 = 8;

/// Freezes every other thread of the process.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn freeze(connection: &Connection, shared: &Shared, start: &Start, frame: *mut UContext) -> Result<(), Report> {
    let tid = call::gettid();
    let leader = shared.thread(0);
    leader.set_tid(tid);
    leader.set_call(if start.tid == tid { start.call } else { BlockedCall::default() });
    leader.unblocked().store(start.unblocked, Relaxed);
    // SAFETY: the caller's promise.
    unsafe { enter_record(leader, frame, tid) };
    shared.control().threads.store(1, Release);
    TRANSIENT.control.store(shared.control_mut(), Release);
    freeze_others(connection, shared, start, tid)
}

/// Fills in the calling thread's record, and has its frame go on as if nothing had been.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
unsafe fn enter_record(record: Thread, frame: *mut UContext, tid: i32) {
    // SAFETY: the caller's promise.
    unsafe {
        record.set_facts(&observe::thread_facts(frame));
        if record.unblocked().load(Relaxed) != 0 {
            let mask = SignalSet::from_bits((*frame).sigmask).with(CONFIG.get().signal);
            (*frame).sigmask = mask.bits();
        }
        interrupted::make_again(frame, &record.call(), tid);
    }
    record.status().store(ThreadStatus::PARKED, Release);
}

fn freeze_others(connection: &Connection, shared: &Shared, start: &Start, leader: i32) -> Result<(), Report> {
    let pid = call::getpid();
    let deadline = now_ms() + i64::from(start.grace_ms);
    let most = shared.control().layout.room.threads;
    loop {
        let mut fresh = 0u32;
        let mut overflow = false;
        procfs::for_each_thread(|tid| {
            if tid == leader || shared.threads_from(0).any(|thread| thread.tid() == tid) {
                return;
            }
            let i = shared.threads_len();
            if i >= most {
                overflow = true;
                return;
            }
            fresh += 1;
            summon(shared, start, i, pid, tid);
        })
        .map_err(|errno| Report::failed(Step::ListThreads, errno.0))?;
        if overflow {
            return Err(Report::new(ReportKind::TooManyThreads, most.into()));
        }
        wait_until_parked(connection, shared, start, pid, deadline)?;
        if fresh == 0 {
            return Ok(());
        }
    }
}

/// Makes a record for a thread and signals it.
fn summon(shared: &Shared, start: &Start, i: u32, pid: i32, tid: i32) {
    let thread = shared.thread(i);
    let exited = tid == pid && has_exited(tid);
    thread.status().store(if exited { ThreadStatus::PARKED } else { ThreadStatus::CALLED }, Relaxed);
    thread.order().store(ThreadOrder::STAY, Relaxed);
    thread.exited().store(exited.into(), Relaxed);
    thread.set_call(interrupted::blocked_call(tid, start.features & Feature::SCHEDULER_NOTES != 0));
    thread.set_tid(tid);
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

/// Waits until every thread that was signalled is parked, or has ended. A thread that is parked inside the vDSO is let go and signalled again.
fn wait_until_parked(connection: &Connection, shared: &Shared, start: &Start, pid: i32, deadline: i64) -> Result<(), Report> {
    let mut wait_ms = 1;
    loop {
        let seen = TRANSIENT.changed.load(Acquire);
        let Some(missing) = find_missing(shared, start, pid) else { return Ok(()) };
        if now_ms() > deadline {
            return Err(Report::new(ReportKind::ThreadSilent, missing.into()));
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

/// The last thread that is not parked where it can stay.
fn find_missing(shared: &Shared, start: &Start, pid: i32) -> Option<i32> {
    let mut missing = None;
    for (i, thread) in shared.threads_from(0).enumerate() {
        let tid = thread.tid();
        if tid == 0 || thread.exited().load(Relaxed) != 0 {
            continue;
        }
        if thread.status().load(Acquire) != ThreadStatus::PARKED {
            missing = Some(tid);
        } else if i != 0 && (start.vdso_start..start.vdso_end).contains(&thread.rip()) {
            let_out_of_vdso(thread, start, pid, tid);
            missing = Some(tid);
        }
    }
    missing
}

/// Reports the threads that have not answered and block the signal: the coordinator has another way to them.
fn report_blocked(connection: &Connection, shared: &Shared) {
    for thread in shared.threads_from(1) {
        let tid = thread.tid();
        let is_parked = thread.status().load(Acquire) == ThreadStatus::PARKED;
        let is_done = is_parked || thread.exited().load(Relaxed) != 0 || thread.reported().load(Relaxed) != 0;
        if tid != 0 && !is_done && procfs::signal_set(tid, b"SigBlk:").contains(CONFIG.get().signal) {
            thread.reported().store(1, Relaxed);
            let _ = connection.send(&Report::new(ReportKind::ThreadBlocked, tid.into()));
        }
    }
}

/// A thread stopped inside the vDSO could not be restored where the vDSO is another: it goes on for a moment.
fn let_out_of_vdso(thread: Thread, start: &Start, pid: i32, tid: i32) {
    order(thread, ThreadOrder::GO);
    wait_for_status(thread, ThreadStatus::GONE);
    call::pause_us(50);
    // The thread has left and does not touch its record before it is signalled again.
    thread.set_call(interrupted::blocked_call(tid, start.features & Feature::SCHEDULER_NOTES != 0));
    thread.unblocked().store(0, Relaxed);
    thread.reported().store(0, Relaxed);
    thread.order().store(ThreadOrder::STAY, Relaxed);
    thread.status().store(ThreadStatus::CALLED, Release);
    signal_thread(pid, tid);
}

/// Makes void the records of threads that have ended before the signal reached them.
fn forget_the_ended(shared: &Shared, pid: i32) {
    for thread in shared.threads_from(0) {
        let tid = thread.tid();
        if tid == 0 || thread.status().load(Acquire) == ThreadStatus::PARKED {
            continue;
        }
        // SAFETY: signal 0 only asks whether the thread is there.
        if unsafe { syscall!(nr::__NR_tgkill, pid, tid, 0) }.is_err() {
            thread.set_tid(0);
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
        // SAFETY: the caller's promise. The signal does not come from a freeze of this process that goes on.
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
    let is_ours = |thread: &Thread| thread.tid() == tid && thread.status().load(Relaxed) == ThreadStatus::CALLED;
    let Some(record) = shared.threads_from(0).find(is_ours) else { return false };
    // SAFETY: the caller's promise.
    unsafe { enter_record(record, frame, tid) };
    tell_leader();
    loop {
        let word = record.order();
        match word.load(Acquire) {
            ThreadOrder::STAY => call::futex_wait(word, ThreadOrder::STAY, -1, false),
            ThreadOrder::CAPTURE => {
                // SAFETY: the frame is this thread's own.
                unsafe { pending::capture(shared, tid, frame) };
                timers::find_own(shared, tid);
                word.store(ThreadOrder::STAY, Release);
                tell_leader();
            }
            _ => break,
        }
    }
    // SAFETY: the frame is this thread's own.
    unsafe {
        pending::claim(shared, tid, frame);
        interrupted::end_if_signalled(frame);
    }
    record.status().store(ThreadStatus::GONE, Release);
    true
}

fn tell_leader() {
    TRANSIENT.changed.fetch_add(1, Release);
    call::futex_wake(&TRANSIENT.changed, false);
}

/// Gives a parked thread an order.
fn order(thread: Thread, what: u32) {
    thread.order().store(what, Release);
    call::futex_wake(thread.order(), false);
}

fn wait_for_status(thread: Thread, status: u32) {
    loop {
        let seen = TRANSIENT.changed.load(Acquire);
        if thread.status().load(Acquire) == status {
            return;
        }
        call::futex_wait(&TRANSIENT.changed, seen, 100, false);
    }
}

/// Has every thread but the leader record the signals pending for it, and find the timers that measure its processor time.
pub fn capture_pending_of_threads(shared: &Shared) {
    for thread in shared.threads_from(1) {
        let tid = thread.tid();
        let has_some = || pending::has_some(tid) || timers::any_without_thread(shared);
        if tid == 0 || thread.exited().load(Relaxed) != 0 || !has_some() {
            continue;
        }
        order(thread, ThreadOrder::CAPTURE);
        loop {
            let seen = TRANSIENT.changed.load(Acquire);
            if thread.order().load(Acquire) == ThreadOrder::STAY {
                break;
            }
            call::futex_wait(&TRANSIENT.changed, seen, 100, false);
        }
    }
}

/// Lets every parked thread go, the process's first one before the others, and waits until none uses the shared memory any more.
pub fn release(shared: &Shared) {
    let pid = call::getpid();
    // A thread that has ended is not waited for.
    let is_first = |thread: &Thread| {
        let is_parked = thread.exited().load(Relaxed) == 0 && thread.status().load(Acquire) == ThreadStatus::PARKED;
        thread.tid() == pid && is_parked
    };
    if let Some(thread) = shared.threads_from(1).find(is_first) {
        order(thread, ThreadOrder::GO);
        wait_for_status(thread, ThreadStatus::GONE);
    }
    for thread in shared.threads_from(1) {
        order(thread, ThreadOrder::GO);
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
