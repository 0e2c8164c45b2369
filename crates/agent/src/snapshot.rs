//! The snapshot: a copy-on-write twin of the process, which dumps while the process goes on.

use core::sync::atomic::Ordering::Relaxed;

use ckpt_sys::raw::Errno;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use ckpt_wire::{PlanFlag, Report, ReportKind, Start, Step};
use linux_raw_sys::general as nr;

use crate::rendezvous::Connection;
use crate::shared::Shared;
use crate::{call, dump, freeze, pages, pending, stack, timers};

/// Copies of the memory that the twin would not see as it is now.
pub struct Copies {
    at: *mut u8,
    len: usize,
}

impl Copies {
    /// Gives the memory back.
    pub fn unmap(self) {
        if self.len > 0 {
            // SAFETY: only the plan refers to it, and the dump (here) or the twin (which has its own copy) is done with it.
            unsafe { call::munmap(self.at, self.len) };
        }
    }
}

/// Records pending signals and timers.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
unsafe fn record(shared: &Shared, frame: *mut UContext) -> Result<(), Report> {
    shared.control().pending.store(0, Relaxed);
    let tid = call::gettid();
    timers::record(shared);
    // The leader first: while others look for theirs, it may run too.
    timers::find_own(shared, tid);
    freeze::capture_pending_of_threads(shared);
    // SAFETY: the caller's promise.
    unsafe { pending::capture(shared, tid, frame) };
    timers::fire_again(shared);
    // Again: a timer that has expired meanwhile has sent a signal, which is pending or came too late to be recorded.
    // SAFETY: the leader writes this record, and the coordinator reads it when it has been told that this is done.
    timers::record_interval_timers(unsafe { &mut (*shared.control_mut()).process.interval_timers });
    // Where the room is full there may have been more.
    if shared.control().pending.load(Relaxed) >= shared.control().layout.room.pending {
        return Err(Report::failed(Step::Pending, 0));
    }
    Ok(())
}

/// Hands everything over while the process stands.
///
/// # Safety
/// As for [`twin`].
pub unsafe fn in_place(connection: &Connection, shared: &Shared, start: &Start, frame: *mut UContext) -> Result<Report, Report> {
    // SAFETY: the caller's promise.
    unsafe { record(shared, frame)? };
    // A twin that could not be made has left its copies' addresses there.
    for entry in shared.plan() {
        entry.source = 0;
    }
    dump::dump(connection, shared, start, false)
}

/// Copies the memory that a twin would not see as it is now: what `fork` does not keep, and what is shared.
fn copy_first(shared: &Shared, start: &Start) -> Result<Copies, Errno> {
    let len: u64 = shared.plan().iter().filter(|entry| entry.flags & PlanFlag::COPY_FIRST != 0).map(|entry| entry.len).sum();
    if len == 0 {
        return Ok(Copies { at: core::ptr::null_mut(), len: 0 });
    }
    let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE;
    let at = call::mmap(len as usize, nr::PROT_READ | nr::PROT_WRITE, flags, -1)?;
    let copies = Copies { at, len: len as usize };
    let mut own = None;
    let mut to = at as u64;
    for entry in shared.plan() {
        if entry.flags & PlanFlag::COPY_FIRST == 0 {
            continue;
        }
        let (from, end, base) = (entry.start, entry.start + entry.len, to);
        // Most entries that are copied first are shared memory that can be read as it is mapped.
        let needed = entry.flags & PlanFlag::SHARED == 0 || entry.flags & PlanFlag::UNREADABLE != 0;
        if needed && own.is_none() {
            own = Some(dump::open_own_memory(start, false)?);
        }
        let (mut map, memory) = own.as_mut().map_or((None, None), |(map, memory)| (Some(map), Some(&*memory)));
        let copy = |first: u64, last: u64| {
            let target = base + (first - from);
            // SAFETY: the source pages exist and are mapped; the target is room of the same size in the copies.
            unsafe { dump::copy_readable(memory, first, target as *mut u8, (last - first) as usize, entry.flags) };
        };
        match &mut map {
            Some(map) if entry.flags & PlanFlag::SHARED == 0 => map.own_pages(from, end, |run| copy(run.start, run.end))?,
            _ if entry.flags & PlanFlag::ALL != 0 => copy(from, end),
            _ => pages::shared_pages(from, end, copy)?,
        }
        entry.source = base;
        to += entry.len;
    }
    Ok(copies)
}

struct ForkArguments<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    start: &'a Start,
    result: i64,
}

/// Makes the twin. It reports for itself once it is there; this reports only failures.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn twin(connection: &Connection, shared: &Shared, start: &Start, frame: *mut UContext) -> Result<Report, Report> {
    // SAFETY: the caller's promise.
    unsafe { record(shared, frame)? };
    let copies = copy_first(shared, start).map_err(|errno| Report::failed(Step::MapCopies, errno.0))?;
    withhold(shared, nr::MADV_DONTFORK);
    let mut arguments = ForkArguments { connection, shared, start, result: 0 };
    // SAFETY: this is the leader; `fork_twin` only writes to the arguments.
    let helper = unsafe { stack::run_in_helper(fork_twin, (&raw mut arguments).cast()) };
    if helper > 0 {
        // SAFETY: waits for the helper, which has ended; nothing is written. The job's own waits never see it: it has no exit
        // signal.
        let _ = unsafe { syscall!(nr::__NR_wait4, helper, 0, nr::__WALL, 0) };
    }
    withhold(shared, nr::MADV_DOFORK);
    copies.unmap();
    let result = if helper < 0 { helper } else { arguments.result };
    if result < 0 {
        return Err(Report::failed(Step::Fork, -result as i32));
    }
    Ok(Report::new(ReportKind::Frozen, result))
}

/// Keeps memory from the twin (`MADV_DONTFORK`), or gives it back to children (`MADV_DOFORK`).
fn withhold(shared: &Shared, advice: u32) {
    for entry in shared.plan().iter().filter(|entry| entry.flags & PlanFlag::NOT_IN_TWIN != 0) {
        // SAFETY: the advice is about children only; the coordinator names no range that had it already.
        let _ = unsafe { syscall!(nr::__NR_madvise, entry.start, entry.len, advice) };
    }
}

/// Runs in the helper: it shares the memory of the leader, but has descriptors of its own, which the twin must not hold: a pipe
/// whose last writer ends would not end for its reader.
unsafe extern "C" fn fork_twin(arguments: *mut u8) {
    // SAFETY: the leader passed its arguments, and waits.
    let arguments = unsafe { &mut *arguments.cast::<ForkArguments>() };
    close_all_but(arguments.connection.0.0, call::PROC.get());
    // fork: no exit signal, so that a process that inherits the twin is not told.
    // SAFETY: with no flags, the child runs on a copy of this very stack.
    match unsafe { syscall!(nr::__NR_clone, 0, 0, 0, 0, 0) } {
        Ok(0) => run_twin(arguments),
        Ok(pid) => arguments.result = pid as i64,
        Err(errno) => arguments.result = -i64::from(errno.0),
    }
}

/// Closes the descriptors of the caller's own table, but for these.
fn close_all_but(connection: i32, proc: Option<i32>) {
    let proc = proc.unwrap_or(connection);
    let (first, last) = (connection.min(proc) as u32, connection.max(proc) as u32);
    for (from, to) in [(0, first.checked_sub(1)), (first + 1, last.checked_sub(1)), (last + 1, Some(u32::MAX))] {
        if let Some(to) = to.filter(|&to| from <= to) {
            // SAFETY: nobody else has this table.
            let _ = unsafe { syscall!(nr::__NR_close_range, from, to, 0) };
        }
    }
}

fn run_twin(arguments: &ForkArguments) -> ! {
    let _ = arguments.connection.send(&Report::new(ReportKind::TwinReady, call::getpid().into()));
    // Out of the job's process group and session: a stop of the group must not stop the dump.
    // SAFETY: takes no argument.
    let _ = unsafe { syscall!(nr::__NR_setsid) };
    // When copy-on-write runs the node out of memory, the kernel is to kill this process, not the job.
    if let Ok(file) = call::open_with(b"/proc/self/oom_score_adj\0", nr::O_WRONLY) {
        let _ = call::write(&file, b"1000");
    }
    let report = match dump::dump(arguments.connection, arguments.shared, arguments.start, true) {
        Ok(report) | Err(report) => report,
    };
    let _ = arguments.connection.send(&report);
    // SAFETY: ends the twin.
    let _ = unsafe { syscall!(nr::__NR_exit_group, 0) };
    loop {
        core::hint::spin_loop();
    }
}
