//! The checkpoint signal's handler, and the leader's conversation with the coordinator.

use core::sync::atomic::Ordering;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use ckpt_wire::{Order, Report, ReportKind, Start, Step};
use linux_raw_sys::general as nr;

use crate::rendezvous::{self, Connection};
use crate::shared::Shared;
use crate::siginfo::Siginfo;
use crate::state::{BUSY, IDLE, OWNER, TRANSIENT};
use crate::{call, freeze, ignored, interrupted, observe, own_handler, pending, shield, snapshot, stack, touched};

/// The handler: the first thread of a process to enter it leads, the others park. Unless it came to let a signal in, or is
/// the program's.
///
/// # Safety
/// The kernel calls it, with every signal blocked, with `info` at the signal's whole `siginfo_t` and `frame` at the `ucontext` of the interrupted
/// thread.
pub unsafe extern "C" fn on_checkpoint_signal(signal: i32, info: *const Siginfo, frame: *mut UContext) {
    // SAFETY: the caller's promise.
    if unsafe { shield::lets_in(info, frame) || own_handler::takes(signal, info, frame) } {
        return;
    }
    if !memory_is_our_own() {
        // SAFETY: `frame` is this thread's own frame.
        unsafe { interrupted::leave_as_found(frame) };
        return;
    }
    // SAFETY: the caller's promise.
    let mask = unsafe { (*frame).sigmask };
    if TRANSIENT.phase.compare_exchange(IDLE, BUSY, AcqRel, Acquire).is_ok() {
        ignored::let_in_for_all(mask);
        // SAFETY: the exchange made this thread the only leader.
        unsafe { stack::call_on_leader_stack(lead, frame.cast()) };
    } else {
        ignored::let_in_as_found(mask);
        // SAFETY: `frame` is this thread's own frame, still live.
        unsafe { freeze::park(frame) };
    }
}

/// Whether this process may use the agent's memory: a child of `vfork` runs in its parent's, which must not be touched. Such a child will
/// soon call `exec`, and is then signalled again.
fn memory_is_our_own() -> bool {
    let pid = call::getpid();
    let owner = OWNER.load(Ordering::Relaxed);
    if owner == pid {
        return true;
    }
    // The memory of a child of vfork is its parent's. The owner is asked too: the child's parent may have ended.
    if call::shares_memory_with(owner) || call::shares_memory_with(call::getppid()) {
        return false;
    }
    // A child of fork has a copy of its parent's memory, perhaps taken during a checkpoint. No other thread of this process can be here
    // at the same time: the coordinator signals one, and that one all others.
    OWNER.store(pid, Ordering::Relaxed);
    TRANSIENT.control.store(core::ptr::null_mut(), Release);
    TRANSIENT.users.store(0, Release);
    TRANSIENT.ignored.store(0, Release);
    TRANSIENT.phase.store(IDLE, Release);
    true
}

/// Leads a checkpoint of this process, from the rendezvous to the moment when its threads go on.
unsafe extern "C" fn lead(frame: *mut u8) {
    let frame = frame.cast::<UContext>();
    let started = rendezvous::connect().ok().and_then(|connection| {
        let hello = connection.hello(0);
        connection.send(&hello).ok()?;
        let (start, memory) = connection.receive::<Start>()?;
        (start.go != 0).then_some((connection, start, memory?))
    });
    match started {
        // SAFETY: `frame` is this thread's own frame, still live beneath the stack that the leader left.
        Some((connection, start, memory)) => unsafe { converse(&connection, &start, memory, frame) },
        // SAFETY: as above. Nobody has asked, or not any more.
        None => unsafe { interrupted::leave_as_found(frame) },
    }
    TRANSIENT.ignored.store(0, Release);
    TRANSIENT.phase.store(IDLE, Release);
}

/// # Safety
/// `frame` must be the calling thread's own signal frame.
unsafe fn converse(connection: &Connection, start: &Start, memory: call::Fd, frame: *mut UContext) {
    // SAFETY: the frame is live.
    let rip = unsafe { (*frame).context.rip };
    if (start.vdso_start..start.vdso_end).contains(&rip) {
        let _ = connection.send(&Report::new(ReportKind::InVdso, 0));
        return;
    }
    let len = start.len as usize;
    let base = match call::mmap(len, nr::PROT_READ | nr::PROT_WRITE, nr::MAP_SHARED, memory.0) {
        Ok(base) => base,
        Err(errno) => {
            let _ = connection.send(&Report::failed(Step::MapControl, errno.0));
            return;
        }
    };
    drop(memory);
    let shared = Shared::new(base);
    // SAFETY: the frame is the leader's own.
    let frozen = unsafe { freeze::freeze(connection, &shared, start, frame) };
    let report = match frozen {
        Ok(()) => {
            touched::forget();
            observe::record_process(&shared, len);
            observe::record_policies(&shared);
            Report::new(ReportKind::Frozen, shared.threads_len().into())
        }
        Err(report) => report,
    };
    if connection.send(&report).is_ok() && ReportKind::of(&report) == Some(ReportKind::Frozen) {
        // SAFETY: the frame is the leader's own.
        unsafe { obey(connection, &shared, start, frame) };
    }
    observe::restore_subreaper(&shared);
    // SAFETY: the frame is the leader's own.
    unsafe { pending::claim(&shared, call::gettid(), frame) };
    freeze::release(&shared);
    // SAFETY: all threads have marked their records as left, and this one uses it no more.
    unsafe { call::munmap(base, len) };
    // SAFETY: the frame is the leader's own.
    unsafe { interrupted::end_if_signalled(frame) };
}

/// Follows the coordinator's orders until it says to go on, or is gone.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
unsafe fn obey(connection: &Connection, shared: &Shared, start: &Start, frame: *mut UContext) {
    while let Some((order, _)) = connection.receive::<u32>() {
        let outcome = if order == Order::Twin as u32 {
            // SAFETY: the caller's promise.
            unsafe { snapshot::twin(connection, shared, start, frame) }
        } else if order == Order::Call as u32 {
            Ok(Report::new(ReportKind::Called, call_for(shared)))
        } else if order == Order::DumpInPlace as u32 {
            // SAFETY: the caller's promise.
            unsafe { snapshot::in_place(connection, shared, start, frame) }
        } else {
            return;
        };
        let report = match outcome {
            Ok(report) | Err(report) => report,
        };
        if connection.send(&report).is_err() {
            return;
        }
    }
}

/// Makes a system call for the coordinator.
fn call_for(shared: &Shared) -> i64 {
    let call = shared.control().call;
    let base = shared.control_mut() as u64;
    let at = |i: usize| if call.offsets & 1 << i != 0 { base + call.args[i] } else { call.args[i] };
    // SAFETY: the coordinator asks only for calls that look at the job's objects, and write to the shared memory object.
    let result = unsafe { syscall!(call.number as u32, at(0), at(1), at(2), at(3), at(4), at(5)) };
    result.map_or_else(|errno| -i64::from(errno.0), |value| value as i64)
}
