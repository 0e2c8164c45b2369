//! The shared memory object of one process and one checkpoint (see [`ckpt_wire::memory`]), from the coordinator's side.
//!
//! The job can write all of this memory at any time. So the layout is kept here and never read back; a value is copied out, once,
//! before it is checked; and what no agent would write is a [`HandOverError`]. The job cannot make the object shorter either: it is
//! sealed.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use bytemuck::{AnyBitPattern, Zeroable};
use ckpt_objects::memory::MemoryPolicy;
use ckpt_objects::thread::ThreadSettings;
use ckpt_wire::{
    BlockedCall, CallRecord, Control, Layout, PAGE_SIZE, PendingSignal, PlanEntry, PlanFlag, ProcessRecord, Room, Run, SLOT_DATA,
    SLOT_RUNS, Slot, SlotState, ThreadFacts, ThreadRecord, TimerRecord,
};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::thread::futex;

/// Most signals that can be pending in one process and be kept.
const MAX_PENDING: u32 = 8192;
/// Most timers that one process can have and be kept.
const MAX_TIMERS: u32 = 65536;
/// No process has memory beyond (five-level page tables, Documentation/arch/x86/x86_64/5level-paging.rst).
const END_OF_MEMORY: u64 = 1 << 56;

/// What the user can do about a [`HandOverError`].
pub const REMEDY: &str = "look for what overwrites memory in this program, with AddressSanitizer or valgrind";

/// What an agent never hands over: the program has overwritten its agent's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// More records than there is room for.
    #[error("it lists {count} {what}, but there is room for {room}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many it says.
        count: u32,
        /// How many there can be.
        room: u32,
    },
    /// A thread whose number no thread can have.
    #[error("it lists a thread {0}")]
    Thread(i32),
    /// The same thread a second time.
    #[error("it lists thread {0} twice")]
    Twice(i32),
    /// A signal that does not exist.
    #[error("it lists signal {0} as pending")]
    Signal(i32),
    /// A timer that it was not asked about.
    #[error("it tells of timer {found} in the place of timer {expected}")]
    Timer {
        /// Which.
        found: i32,
        /// The timer that was meant.
        expected: i32,
    },
    /// The object cannot be mapped there.
    #[error("it maps the hand-over memory at {start:#x} to {end:#x}")]
    Mapping {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
    /// The parts of a slot contradict each other.
    #[error("it hands over {bytes} bytes in {runs} runs")]
    Slot {
        /// Bytes of data.
        bytes: u32,
        /// Runs.
        runs: u32,
    },
    /// Pages that it was not asked for.
    #[error("it hands over {len} bytes at {address:#x} of address space {space}, which are not in the plan")]
    Unplanned {
        /// The space.
        space: u32,
        /// The address.
        address: u64,
        /// How many bytes.
        len: u32,
    },
    /// More bytes than the plan has.
    #[error("it hands over more than the plan has")]
    TooMuch,
    /// The end, though slots are missing.
    #[error("it says that it has handed over {total} slots, but slot {missing} is missing")]
    Missing {
        /// How many it says.
        total: u64,
        /// The first that is not there.
        missing: u64,
    },
}

/// What the agent has found out about one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenThread {
    /// Its id as it sees it.
    pub tid: i32,
    /// It is a thread group leader that has ended.
    pub exited: bool,
    /// Address of its `ucontext`.
    pub frame: u64,
    /// Base of fs.
    pub fs_base: u64,
    /// Base of gs.
    pub gs_base: u64,
    /// `PR_GET_TID_ADDRESS`.
    pub clear_child_tid: u64,
    /// get_robust_list(2): head and length.
    pub robust_list: (u64, u64),
    /// Restartable sequences area: address (0: none), size, signature.
    pub rseq: (u64, u32, u32),
    /// `PR_GET_NAME`.
    pub comm: [u8; 16],
    /// `PR_GET_TIMERSLACK`.
    pub timer_slack_ns: u64,
    /// `PR_GET_PDEATHSIG`.
    pub parent_death_signal: i32,
    /// `PR_GET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// `PR_GET_SECUREBITS`.
    pub securebits: u32,
    /// Settings of prctl(2), but for speculation.
    pub settings: ThreadSettings,
    /// Its memory policy.
    pub policy: MemoryPolicy,
}

impl SeenThread {
    fn new(tid: i32, exited: bool, facts: &ThreadFacts) -> Self {
        Self {
            tid,
            exited,
            frame: facts.frame,
            fs_base: facts.fs_base,
            gs_base: facts.gs_base,
            clear_child_tid: facts.clear_child_tid,
            robust_list: (facts.robust_head, facts.robust_len),
            rseq: (facts.rseq, facts.rseq_len, facts.rseq_signature),
            comm: facts.comm,
            timer_slack_ns: facts.timer_slack_ns,
            parent_death_signal: facts.parent_death_signal,
            no_new_privs: facts.no_new_privs != 0,
            securebits: facts.securebits,
            settings: ThreadSettings {
                no_time_stamp_counter: facts.time_stamp_counter == libc::PR_TSC_SIGSEGV as u32,
                no_cpuid: facts.cpuid == 0,
                machine_check: facts.machine_check,
                io_flusher: facts.io_flusher == 1,
                speculation: [0; 2],
            },
            policy: MemoryPolicy::new(facts.policy, &facts.policy_nodes),
        }
    }
}

/// The shared memory object.
pub struct HandOver {
    memory: OwnedFd,
    map: MmapRaw,
    layout: Layout,
    planned: OnceLock<Planned>,
    /// Bytes that were handed over.
    handed: AtomicU64,
}

impl HandOver {
    /// Makes one with room for so many threads, plan entries and slots.
    ///
    /// # Errors
    ///
    /// When the kernel has not that much memory to give, or `ulimit -f` forbids it.
    pub fn new(threads: u32, plan: u32, slots: u32) -> io::Result<Self> {
        let room = Room { threads, pending: MAX_PENDING, timers: MAX_TIMERS, plan, slots: slots.max(1), reserved: 0 };
        let layout = Layout::new(room);
        let memory = memfd_create("ckpt", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, layout.len)?;
        // Were it shorter, a look at it would end this process (SIGBUS).
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let len = usize::try_from(layout.len).map_err(io::Error::other)?;
        let map = MmapOptions::new().len(len).map_raw(&memory)?;
        let made = Self { memory, map, layout, planned: OnceLock::new(), handed: AtomicU64::new(0) };
        // SAFETY: the object is longer than a Control, page-aligned, and not yet shared with anybody.
        unsafe { made.at::<Control>(0).write(Control { layout, ..Control::default() }) };
        Ok(made)
    }

    /// Its descriptor.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Where an object of type `T` is. Every offset comes from the layout that is kept here, never from the shared memory.
    fn at<T>(&self, offset: u64) -> *mut T {
        debug_assert!(offset + size_of::<T>() as u64 <= self.layout.len, "outside of the hand-over memory");
        self.map.as_mut_ptr().wrapping_add(offset as usize).cast()
    }

    /// Record `i` of those from `offset` on; `i` must be below the number that there is room for.
    fn record<T>(&self, offset: u64, i: u32) -> *mut T {
        self.at(offset + u64::from(i) * size_of::<T>() as u64)
    }

    /// Copies a value out. The job may write it meanwhile, so it must be of a type that any bytes make.
    fn copy_out<T: AnyBitPattern>(from: *const T) -> T {
        // SAFETY: `at` gives addresses within the object, which stays mapped and as long as it is, and aligned as the layout's parts are.
        unsafe { from.read_volatile() }
    }

    fn control_field(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the offset is that of an AtomicU32 in Control, which begins the object.
        unsafe { &*self.at::<AtomicU32>(offset as u64) }
    }

    /// A count that the job can write.
    fn count(&self, field: usize, room: u32, what: &'static str) -> Result<u32, HandOverError> {
        let count = self.control_field(field).load(Acquire);
        if count > room { Err(HandOverError::Count { what, count, room }) } else { Ok(count) }
    }

    /// What the agent has found out about its process.
    ///
    /// # Errors
    ///
    /// When the object cannot be mapped where the agent says.
    pub fn process(&self) -> Result<ProcessRecord, HandOverError> {
        let process = Self::copy_out(self.at::<ProcessRecord>(offset_of!(Control, process) as u64));
        let (start, end) = (process.control_start, process.control_end);
        let fits = start.checked_add(self.layout.len).is_some_and(|last| last == end && end <= END_OF_MEMORY);
        if fits && start.is_multiple_of(PAGE_SIZE as u64) { Ok(process) } else { Err(HandOverError::Mapping { start, end }) }
    }

    fn thread(&self, i: u32) -> *mut ThreadRecord {
        self.record(self.layout.threads_off, i)
    }

    /// What the agent has found out about its threads.
    ///
    /// # Errors
    ///
    /// When there are more than there is room for, or numbers that no two threads can have.
    pub fn threads(&self) -> Result<Vec<SeenThread>, HandOverError> {
        let count = self.count(offset_of!(Control, threads), self.layout.room.threads, "threads")?;
        let (mut threads, mut known) = (Vec::new(), HashSet::new());
        for record in (0..count).map(|i| self.thread(i)) {
            // SAFETY: within the object; the fields are atomic.
            let (tid, exited) = unsafe { ((*record).tid.load(Acquire).cast_signed(), (*record).exited.load(Relaxed) != 0) };
            match tid {
                0 => continue,
                ..0 => return Err(HandOverError::Thread(tid)),
                _ if !known.insert(tid) => return Err(HandOverError::Twice(tid)),
                _ => (),
            }
            // SAFETY: a field of a record within the object; nothing is read.
            let facts = Self::copy_out(unsafe { &raw const (*record).facts });
            threads.push(SeenThread::new(tid, exited, &facts));
        }
        Ok(threads)
    }

    /// Notes that a thread was made to take the checkpoint signal, which it blocks, and the call that it was blocked in; before it takes it.
    pub fn note_unblocked(&self, tid: i32, call: BlockedCall) {
        let count = self.control_field(offset_of!(Control, threads)).load(Acquire).min(self.layout.room.threads);
        for record in (0..count).map(|i| self.thread(i)) {
            // SAFETY: within the object. The leader writes the call before it reports the thread, which reads it and is held.
            unsafe {
                if (*record).tid.load(Acquire) == tid.cast_unsigned() {
                    (&raw mut (*record).call).write(call);
                    (*record).unblocked.store(1, Release);
                }
            }
        }
    }

    /// The signals that are pending.
    ///
    /// # Errors
    ///
    /// When there are more than there is room for, or some that do not exist.
    pub fn pending(&self) -> Result<Vec<PendingSignal>, HandOverError> {
        let count = self.count(offset_of!(Control, pending), self.layout.room.pending, "pending signals")?;
        let signals = (0..count).map(|i| Self::copy_out(self.record::<PendingSignal>(self.layout.pending_off, i)));
        signals
            .map(|signal| match signal.info[0] as i32 {
                _ if signal.tid < 0 => Err(HandOverError::Thread(signal.tid)),
                1..=64 => Ok(signal),
                number => Err(HandOverError::Signal(number)),
            })
            .collect()
    }

    /// Writes the system call that the agent is to make.
    pub fn set_call(&self, call: CallRecord) {
        // SAFETY: within the object; the agent does not look before it is ordered to.
        unsafe { self.at::<CallRecord>(offset_of!(Control, call) as u64).write(call) };
    }

    /// Byte offset of the window, through which system calls made by the agent are given bytes and give them back: the data of the first slot,
    /// before the dump. It is [`SLOT_DATA`] bytes long.
    pub fn window(&self) -> u64 {
        self.layout.ring_off + offset_of!(Slot, data) as u64
    }

    /// Puts bytes into the window; what does not fit is left out.
    pub fn put(&self, bytes: &[u8]) {
        let len = bytes.len().min(SLOT_DATA);
        let to = self.at::<[u8; SLOT_DATA]>(self.window()).cast::<u8>();
        // SAFETY: the window is this long.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
    }

    /// The first bytes of the window, [`SLOT_DATA`] at most.
    pub fn get(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        copy_bytes(self.at::<[u8; SLOT_DATA]>(self.window()), len, &mut bytes);
        bytes
    }

    /// Says which timers the process has; false when there are more than there is room for.
    pub fn set_timers(&self, timers: &[TimerRecord]) -> bool {
        let Some(count) = u32::try_from(timers.len()).ok().filter(|count| *count <= self.layout.room.timers) else {
            return false;
        };
        for (i, timer) in (0..).zip(timers) {
            // SAFETY: within the object; the agent does not look before it is ordered to.
            unsafe { self.record::<TimerRecord>(self.layout.timers_off, i).write(*timer) };
        }
        self.control_field(offset_of!(Control, timers)).store(count, Release);
        true
    }

    /// How these timers stand, once the agent has looked at them: those of [`HandOver::set_timers`], in the same order.
    ///
    /// # Errors
    ///
    /// When the agent tells of others.
    pub fn timers(&self, ids: impl IntoIterator<Item = i32>) -> Result<Vec<TimerRecord>, HandOverError> {
        let records = (0..self.layout.room.timers).zip(ids);
        records
            .map(|(i, expected)| match Self::copy_out(self.record::<TimerRecord>(self.layout.timers_off, i)) {
                record if record.id == expected => Ok(record),
                record => Err(HandOverError::Timer { found: record.id, expected }),
            })
            .collect()
    }

    fn plan_entry(&self, i: u32) -> *mut PlanEntry {
        self.record(self.layout.plan_off, i)
    }

    /// The mappings that have a memory policy of their own, by their first address. Only before [`HandOver::set_plan`].
    ///
    /// # Errors
    ///
    /// When there are more than there is room for.
    pub fn policies(&self) -> Result<HashMap<u64, MemoryPolicy>, HandOverError> {
        let count = self.count(offset_of!(Control, plan), self.layout.room.plan, "mappings with a memory policy")?;
        let entries = (0..count).map(|i| Self::copy_out(self.plan_entry(i)));
        Ok(entries.map(|entry| (entry.start, MemoryPolicy::new(entry.flags, &[entry.source, entry.address]))).collect())
    }

    /// Writes the plan, once; false when it has more entries than there is room for.
    pub fn set_plan(&self, plan: &[PlanEntry]) -> bool {
        let Some(count) = u32::try_from(plan.len()).ok().filter(|count| *count <= self.layout.room.plan) else { return false };
        for (i, entry) in (0..).zip(plan) {
            // SAFETY: within the object; the agent does not look before it is ordered to.
            unsafe { self.plan_entry(i).write(*entry) };
        }
        self.control_field(offset_of!(Control, plan)).store(count, Release);
        self.planned.set(Planned::new(plan)).is_ok()
    }

    /// Tells the agent or its twin to stop the dump.
    pub fn cancel(&self) {
        self.control_field(offset_of!(Control, cancelled)).store(1, Release);
    }

    /// How many slots there are in all, once everything has been handed over.
    pub fn total_slots(&self) -> Option<u64> {
        let finished = self.control_field(offset_of!(Control, finished)).load(Acquire) != 0;
        // SAFETY: within the object, aligned; written before `finished`.
        finished.then(|| unsafe { (*self.at::<AtomicU64>(offset_of!(Control, total_slots) as u64)).load(Acquire) })
    }

    fn slot(&self, number: u64) -> *mut Slot {
        self.record(self.layout.ring_off, (number % u64::from(self.layout.room.slots)) as u32)
    }

    fn state(&self, number: u64) -> &AtomicU32 {
        // SAFETY: the slot is within the object; its state is atomic.
        unsafe { &(*self.slot(number)).state }
    }

    /// Takes slot `number` of the sequence if it has been handed over: it is the caller's until it is given back.
    pub fn take(&self, number: u64) -> bool {
        self.state(number).compare_exchange(SlotState::FULL, SlotState::TAKEN, AcqRel, Acquire).is_ok()
    }

    /// Waits a moment for slot `number` to be handed over; whether anything happened to it.
    pub fn wait(&self, number: u64, at_most: Duration) -> bool {
        let timeout = rustix::time::Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let state = self.state(number);
        let now = state.load(Acquire);
        now == SlotState::FULL || futex::wait(state, futex::Flags::empty(), now, Some(&timeout)).is_ok()
    }

    /// Copies out what slot `number` holds: its runs, and its pages into `data`. It must have been taken.
    ///
    /// # Errors
    ///
    /// When the pages are not in the plan, or more than it has.
    pub fn contents(&self, number: u64, data: &mut Vec<u8>) -> Result<Vec<Run>, HandOverError> {
        let slot = self.slot(number);
        // SAFETY: fields of a slot within the object; nothing is read.
        let [bytes, runs] = unsafe { [&raw const (*slot).data_len, &raw const (*slot).runs_len] }.map(Self::copy_out);
        let invalid = HandOverError::Slot { bytes, runs };
        if bytes as usize > SLOT_DATA || runs as usize > SLOT_RUNS {
            return Err(invalid);
        }
        // SAFETY: as above.
        let (from, pages) = unsafe { (&raw const (*slot).runs, &raw const (*slot).data) };
        let mut list = vec![Run::zeroed(); runs as usize];
        for (i, run) in list.iter_mut().enumerate() {
            *run = Self::copy_out(from.cast::<Run>().wrapping_add(i));
        }
        if list.iter().map(|run| u64::from(run.len)).sum::<u64>() != u64::from(bytes) {
            return Err(invalid);
        }
        let planned = self.planned.get_or_init(Planned::default);
        if let Some(&Run { space, address, len }) = list.iter().find(|run| !planned.has(run)) {
            return Err(HandOverError::Unplanned { space, address, len });
        }
        // Only the last slot may be empty.
        let cost = u64::from(bytes.max(1));
        if self.handed.fetch_add(cost, Relaxed) + cost > planned.bytes + 1 {
            return Err(HandOverError::TooMuch);
        }
        copy_bytes(pages.cast(), bytes as usize, data);
        Ok(list)
    }

    /// Gives slot `number` back to be filled again.
    pub fn give_back(&self, number: u64) {
        let state = self.state(number);
        state.store(SlotState::FREE, Release);
        let _ = futex::wake(state, futex::Flags::empty(), u32::MAX);
    }
}

/// Copies bytes of the shared memory into a buffer, in the place of what that held.
fn copy_bytes(from: *const [u8; SLOT_DATA], len: usize, to: &mut Vec<u8>) {
    let len = len.min(SLOT_DATA);
    to.clear();
    to.reserve(len);
    // SAFETY: callers give an address within the object; `to` has room for as many bytes, which any bytes may be.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.as_mut_ptr(), len);
        to.set_len(len);
    }
}

/// The pages that an agent was asked for.
#[derive(Debug, Default)]
struct Planned {
    /// Ranges of addresses by space, in ascending order and apart from each other: space, first address, first address after it.
    ranges: Vec<(u32, u64, u64)>,
    bytes: u64,
}

impl Planned {
    fn new(plan: &[PlanEntry]) -> Self {
        let dumped = plan.iter().filter(|entry| entry.flags & PlanFlag::NOT_IN_TWIN == 0);
        let mut sorted: Vec<_> =
            dumped.map(|entry| (entry.space, entry.address, entry.address.saturating_add(entry.len))).collect();
        sorted.sort_unstable();
        let mut ranges: Vec<(u32, u64, u64)> = Vec::new();
        for (space, start, end) in sorted {
            match ranges.last_mut() {
                Some(last) if last.0 == space && start <= last.2 => last.2 = last.2.max(end),
                _ => ranges.push((space, start, end)),
            }
        }
        let bytes = ranges.iter().fold(0u64, |bytes, (_, start, end)| bytes.saturating_add(end - start));
        Self { ranges, bytes: bytes.min(u64::MAX / 2) }
    }

    /// Whether a run is of whole pages that are all planned.
    fn has(&self, run: &Run) -> bool {
        let page = PAGE_SIZE as u64;
        let whole = run.len > 0 && u64::from(run.len).is_multiple_of(page) && run.address.is_multiple_of(page);
        let after = self.ranges.partition_point(|&(space, start, _)| (space, start) <= (run.space, run.address));
        let Some(&(space, _, end)) = after.checked_sub(1).and_then(|at| self.ranges.get(at)) else { return false };
        whole && space == run.space && run.address.checked_add(run.len.into()).is_some_and(|last| last <= end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn entry(space: u32, address: u64, pages: u64) -> PlanEntry {
        PlanEntry { start: address, address, len: pages * PAGE, space, ..PlanEntry::default() }
    }

    fn run(space: u32, address: u64, pages: u32) -> Run {
        Run { address, len: pages * PAGE_SIZE as u32, space }
    }

    /// Fills slot 0 as an agent would, and takes it.
    fn fill(memory: &HandOver, runs: &[Run], bytes: u32) {
        let slot = memory.slot(0);
        // SAFETY: nobody else uses the object.
        unsafe {
            (&raw mut (*slot).runs_len).write(runs.len() as u32);
            (&raw mut (*slot).data_len).write(bytes);
            for (i, run) in runs.iter().enumerate() {
                (&raw mut (*slot).runs).cast::<Run>().add(i).write(*run);
            }
        }
        memory.state(0).store(SlotState::FULL, Release);
        assert!(memory.take(0));
    }

    #[test]
    fn a_plan_that_does_not_fit_is_refused() {
        let memory = HandOver::new(4, 2, 1).unwrap();
        assert!(memory.set_plan(&[entry(0, 0, 1), entry(0, PAGE, 1)]));
        assert!(!memory.set_plan(&[PlanEntry::default(); 3]));
        assert_eq!((memory.threads(), memory.pending().unwrap().len()), (Ok(vec![]), 0));
        assert_eq!(memory.total_slots(), None);
    }

    #[test]
    fn pages_of_the_plan_are_taken_and_no_others() {
        let memory = HandOver::new(4, 8, 2).unwrap();
        let hidden = PlanEntry { flags: PlanFlag::NOT_IN_TWIN, ..entry(3, 0, 9) };
        assert!(memory.set_plan(&[entry(1, 4 * PAGE, 2), entry(1, 6 * PAGE, 1), entry(2, 0, 1), hidden]));
        let mut data = Vec::new();
        let mut look = |runs: &[Run], bytes: u32| {
            fill(&memory, runs, bytes);
            memory.contents(0, &mut data)
        };
        for bad in [
            run(1, 3 * PAGE, 1),
            run(1, 6 * PAGE, 2),
            run(3, 0, 1),
            run(2, PAGE, 1),
            run(0, 0, 1),
            run(1, u64::MAX - PAGE + 1, 1),
        ] {
            let Run { space, address, len } = bad;
            assert_eq!(look(&[bad], len), Err(HandOverError::Unplanned { space, address, len }));
        }
        assert!(matches!(look(&[run(1, 4 * PAGE, 1)], 2 * PAGE_SIZE as u32), Err(HandOverError::Slot { .. })));
        assert!(matches!(look(&[run(1, 4 * PAGE, 1)], u32::MAX), Err(HandOverError::Slot { .. })));
        assert!(matches!(look(&[Run { len: 1, ..run(2, 0, 1) }], 1), Err(HandOverError::Unplanned { .. })));
        fill(&memory, &[run(1, 4 * PAGE, 3), run(2, 0, 1)], 4 * PAGE_SIZE as u32);
        let mut data = Vec::new();
        assert_eq!(memory.contents(0, &mut data).unwrap().len(), 2);
        assert_eq!(data.len(), 4 * PAGE_SIZE);
        fill(&memory, &[run(2, 0, 1)], PAGE_SIZE as u32);
        assert_eq!(memory.contents(0, &mut data), Err(HandOverError::TooMuch));
    }

    #[test]
    fn counts_beyond_the_room_are_errors() {
        let memory = HandOver::new(4, 2, 1).unwrap();
        for field in [offset_of!(Control, threads), offset_of!(Control, pending), offset_of!(Control, plan)] {
            memory.control_field(field).store(u32::MAX, Release);
        }
        assert!(matches!(memory.threads(), Err(HandOverError::Count { count: u32::MAX, room: 4, .. })));
        assert!(matches!(memory.pending(), Err(HandOverError::Count { room: MAX_PENDING, .. })));
        assert!(matches!(memory.policies(), Err(HandOverError::Count { room: 2, .. })));
    }

    #[test]
    fn records_that_no_agent_writes_are_errors() {
        let memory = HandOver::new(4, 2, 1).unwrap();
        memory.control_field(offset_of!(Control, threads)).store(2, Release);
        memory.control_field(offset_of!(Control, pending)).store(1, Release);
        let set = |i: u32, tid: i32| {
            // SAFETY: nobody else uses the object.
            unsafe { (*memory.thread(i)).tid.store(tid.cast_unsigned(), Release) };
        };
        set(0, 7);
        assert_eq!(memory.threads().unwrap().len(), 1);
        set(1, 7);
        assert_eq!(memory.threads(), Err(HandOverError::Twice(7)));
        set(1, -7);
        assert_eq!(memory.threads(), Err(HandOverError::Thread(-7)));
        assert!(matches!(memory.pending(), Err(HandOverError::Signal(0))));
        assert!(matches!(memory.process(), Err(HandOverError::Mapping { start: 0, end: 0 })));
        assert!(memory.set_timers(&[TimerRecord { id: 3, ..TimerRecord::default() }]));
        assert_eq!(memory.timers([3]).unwrap().len(), 1);
        assert_eq!(memory.timers([4]), Err(HandOverError::Timer { found: 3, expected: 4 }));
    }

    #[test]
    fn the_job_cannot_make_the_memory_shorter() {
        let memory = HandOver::new(4, 2, 1).unwrap();
        assert!(ftruncate(memory.memory(), 0).is_err() && ftruncate(memory.memory(), memory.layout.len * 2).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_hand_over_memory(seed: u64, density in 1u64..8, window in 0usize..3 * SLOT_DATA) {
            let memory = HandOver::new(4, 2, 1).unwrap();
            memory.set_plan(&[entry(0, 0, 1 << 20)]);
            let mut state = seed | 1;
            for word in 0..memory.layout.len / 8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Small numbers too, which are nearly right.
                let value = if state % density == 0 { state } else { state % 9 };
                // SAFETY: within the object, which nobody else uses.
                unsafe { memory.at::<u64>(word * 8).write(value) };
            }
            let _ = (memory.process(), memory.threads(), memory.pending(), memory.policies(), memory.timers(0..9));
            let _ = (memory.total_slots(), memory.take(seed), memory.get(window).len());
            memory.note_unblocked(3, BlockedCall::default());
            memory.cancel();
            let _ = memory.contents(seed, &mut Vec::new());
            memory.give_back(seed);
        }
    }
}
