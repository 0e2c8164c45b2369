//! The shared memory object of one process and one checkpoint (see `ckpt_wire`), from the coordinator's side.
//!
//! The only unsafe code of this crate: the agent writes this memory while it is read here, as the protocol of `ckpt_wire` orders it. What the
//! agent wrote is copied out and checked before it is used: an agent's memory is the job's, which may be out of its mind.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::Duration;

use ckpt_objects::memory::MemoryPolicy;
use ckpt_objects::thread::ThreadSettings;
use ckpt_wire::{
    BlockedCall, CallRecord, Control, PAGE_SIZE, PendingSignal, PlanEntry, ProcessRecord, Run, SLOT_DATA, SLOT_RUNS, Slot,
    SlotState, ThreadRecord, TimerRecord,
};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::thread::futex;

/// `PR_TSC_SIGSEGV` (include/uapi/linux/prctl.h).
const PR_TSC_SIGSEGV: u32 = 2;
/// Most signals that can be pending in one process and be kept.
const MAX_PENDING: u32 = 8192;

/// Most timers that one process can have and be kept.
pub const MAX_TIMERS: u32 = 65536;

/// What the agent found out about one thread, copied out of the shared memory.
#[derive(Clone, Debug)]
pub struct SeenThread {
    /// Its id as it sees it.
    pub tid: i32,
    /// It is a thread group leader that has ended.
    pub exited: bool,
    /// See [`ThreadRecord`]; so for all below.
    pub frame: u64,
    #[allow(missing_docs)]
    pub fs_base: u64,
    #[allow(missing_docs)]
    pub gs_base: u64,
    #[allow(missing_docs)]
    pub clear_child_tid: u64,
    #[allow(missing_docs)]
    pub robust_list: (u64, u64),
    #[allow(missing_docs)]
    pub rseq: (u64, u32, u32),
    #[allow(missing_docs)]
    pub comm: [u8; 16],
    #[allow(missing_docs)]
    pub timer_slack_ns: u64,
    #[allow(missing_docs)]
    pub parent_death_signal: i32,
    #[allow(missing_docs)]
    pub no_new_privs: bool,
    #[allow(missing_docs)]
    pub securebits: u32,
    #[allow(missing_docs)]
    pub settings: ThreadSettings,
    #[allow(missing_docs)]
    pub policy: MemoryPolicy,
}

/// The shared memory object.
pub struct HandOver {
    memory: OwnedFd,
    map: MmapRaw,
}

impl HandOver {
    /// Makes one with room for so many threads, plan entries and slots.
    pub fn new(threads: u32, plan: u32, slots: u32) -> io::Result<Self> {
        let pages = |bytes: usize| bytes.next_multiple_of(PAGE_SIZE);
        let threads_off = pages(size_of::<Control>());
        let pending_off = threads_off + pages(threads as usize * size_of::<ThreadRecord>());
        let timers_off = pending_off + pages(MAX_PENDING as usize * size_of::<PendingSignal>());
        let plan_off = timers_off + pages(MAX_TIMERS as usize * size_of::<TimerRecord>());
        let ring_off = plan_off + pages(plan as usize * size_of::<PlanEntry>());
        let len = ring_off + slots as usize * size_of::<Slot>();
        let memory = memfd_create("ckpt", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, len as u64)?;
        let map = MmapOptions::new().len(len).map_raw(&memory)?;
        let control = Control {
            threads_off: threads_off as u64,
            max_threads: threads,
            pending_off: pending_off as u64,
            max_pending: MAX_PENDING,
            timers_off: timers_off as u64,
            max_timers: MAX_TIMERS,
            plan_off: plan_off as u64,
            max_plan: plan,
            ring_off: ring_off as u64,
            slots,
            ..Control::default()
        };
        // SAFETY: the object is longer than a Control, page-aligned, and not yet shared with anybody.
        unsafe { map.as_mut_ptr().cast::<Control>().write(control) };
        Ok(Self { memory, map })
    }

    /// Its descriptor.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// An object of type `T` at a byte offset; the layout was set by `new`, from values that are kept here and not in the shared memory.
    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.map.len(), "the layout of the hand-over memory is wrong");
        self.map.as_mut_ptr().wrapping_add(offset).cast()
    }

    fn control_field(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the offset is that of an AtomicU32 in Control, which begins the object.
        unsafe { &*self.at::<AtomicU32>(offset) }
    }

    /// Offsets as `new` computes them; recomputed from the sizes, which the agent cannot change.
    fn layout(&self) -> Layout {
        // SAFETY: the agent only reads these fields; were it to write them, `at` checks each access.
        unsafe {
            let control = self.at::<Control>(0);
            Layout {
                threads: (*control).threads_off as usize,
                max_threads: (*control).max_threads,
                pending: (*control).pending_off as usize,
                timers: (*control).timers_off as usize,
                plan: (*control).plan_off as usize,
                max_plan: (*control).max_plan,
                ring: (*control).ring_off as usize,
                slots: (*control).slots,
            }
        }
    }

    /// What the agent found out about its process.
    pub fn process(&self) -> ProcessRecord {
        // SAFETY: within the object; the agent has reported that it is written.
        unsafe { self.at::<ProcessRecord>(offset_of!(Control, process)).read() }
    }

    /// What the agent found out about its threads.
    pub fn threads(&self) -> Vec<SeenThread> {
        let layout = self.layout();
        let count = self.control_field(offset_of!(Control, threads)).load(Acquire).min(layout.max_threads);
        (0..count as usize)
            .filter_map(|i| {
                // SAFETY: within the object; parked threads do not write their records.
                let record = unsafe { &*self.at::<ThreadRecord>(layout.threads + i * size_of::<ThreadRecord>()) };
                let tid = record.tid.load(Acquire);
                (tid != 0).then_some(SeenThread {
                    tid: tid as i32,
                    exited: record.exited != 0,
                    frame: record.frame,
                    fs_base: record.fs_base,
                    gs_base: record.gs_base,
                    clear_child_tid: record.clear_child_tid,
                    robust_list: (record.robust_head, record.robust_len),
                    rseq: (record.rseq, record.rseq_len, record.rseq_signature),
                    comm: record.comm,
                    timer_slack_ns: record.timer_slack_ns,
                    parent_death_signal: record.parent_death_signal,
                    no_new_privs: record.no_new_privs != 0,
                    securebits: record.securebits,
                    settings: ThreadSettings {
                        no_time_stamp_counter: record.time_stamp_counter == PR_TSC_SIGSEGV,
                        no_cpuid: record.cpuid == 0,
                        machine_check: record.machine_check,
                        io_flusher: record.io_flusher == 1,
                        speculation: [0; 2],
                    },
                    policy: MemoryPolicy::new(record.policy, &record.policy_nodes),
                })
            })
            .collect()
    }

    /// Notes that a thread was made to take the checkpoint signal, which it blocks, and what it was blocked in; before it takes it.
    pub fn note_unblocked(&self, tid: i32, call: BlockedCall) {
        let layout = self.layout();
        let count = self.control_field(offset_of!(Control, threads)).load(Acquire).min(layout.max_threads);
        for i in 0..count as usize {
            let record = self.at::<ThreadRecord>(layout.threads + i * size_of::<ThreadRecord>());
            // SAFETY: within the object. The call is written by the leader before it reports the thread, and read by the thread, which is held.
            unsafe {
                if (*record).tid.load(Acquire) == tid as u32 {
                    (*record).call = call;
                    (*record).unblocked.store(1, Release);
                }
            }
        }
    }

    /// The signals that are pending.
    pub fn pending(&self) -> Vec<PendingSignal> {
        let layout = self.layout();
        let count = self.control_field(offset_of!(Control, pending)).load(Acquire).min(MAX_PENDING);
        (0..count as usize)
            // SAFETY: within the object; the agent has reported that it is done.
            .map(|i| unsafe { self.at::<PendingSignal>(layout.pending + i * size_of::<PendingSignal>()).read() })
            .collect()
    }

    /// Writes the system call that the agent is to make.
    pub fn set_call(&self, call: CallRecord) {
        // SAFETY: within the object; the agent does not look before it is ordered to.
        unsafe { self.at::<CallRecord>(offset_of!(Control, call)).write(call) };
    }

    /// Byte offset of the window, through which system calls made by the agent are given bytes and give them back: the data of the first slot,
    /// of which nothing is dumped yet. It is [`SLOT_DATA`] bytes long.
    pub fn window(&self) -> u64 {
        (self.layout().ring + offset_of!(Slot, data)) as u64
    }

    /// Puts bytes into the window; what does not fit is left out.
    pub fn put(&self, bytes: &[u8]) {
        let len = bytes.len().min(SLOT_DATA);
        let to = self.at::<[u8; SLOT_DATA]>(self.layout().ring + offset_of!(Slot, data)).cast::<u8>();
        // SAFETY: the window is this long; the agent waits for an order.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
    }

    /// The first bytes of the window.
    pub fn get(&self, len: usize) -> Vec<u8> {
        let from = self.at::<[u8; SLOT_DATA]>(self.layout().ring + offset_of!(Slot, data)).cast::<u8>();
        // SAFETY: the window is this long; the agent waits for an order.
        unsafe { std::slice::from_raw_parts(from, len.min(SLOT_DATA)) }.to_vec()
    }

    /// Says which timers the process has; false when there are more than there is room for.
    pub fn set_timers(&self, timers: &[TimerRecord]) -> bool {
        if timers.len() > MAX_TIMERS as usize {
            return false;
        }
        let layout = self.layout();
        for (i, timer) in timers.iter().enumerate() {
            // SAFETY: within the object; the agent does not look before it is ordered to.
            unsafe { self.at::<TimerRecord>(layout.timers + i * size_of::<TimerRecord>()).write(*timer) };
        }
        self.control_field(offset_of!(Control, timers)).store(timers.len() as u32, Release);
        true
    }

    /// The timers, once the agent has looked at them.
    pub fn timers(&self) -> Vec<TimerRecord> {
        let layout = self.layout();
        let count = self.control_field(offset_of!(Control, timers)).load(Acquire).min(MAX_TIMERS);
        (0..count as usize)
            // SAFETY: within the object; the agent has reported that it is done.
            .map(|i| unsafe { self.at::<TimerRecord>(layout.timers + i * size_of::<TimerRecord>()).read() })
            .collect()
    }

    /// The mappings that have a memory policy of their own, by their first address. Only before [`HandOver::set_plan`].
    pub fn policies(&self) -> HashMap<u64, MemoryPolicy> {
        let layout = self.layout();
        let count = self.control_field(offset_of!(Control, plan)).load(Acquire) as usize;
        (0..count.min(layout.max_plan as usize))
            .map(|i| {
                // SAFETY: within the object; the agent has reported that it is done.
                let entry = unsafe { self.at::<PlanEntry>(layout.plan + i * size_of::<PlanEntry>()).read() };
                (entry.start, MemoryPolicy::new(entry.flags, &[entry.source, entry.address]))
            })
            .collect()
    }

    /// Writes the plan; false when it has more entries than there is room.
    pub fn set_plan(&self, plan: &[PlanEntry]) -> bool {
        let layout = self.layout();
        if plan.len() > layout.max_plan as usize {
            return false;
        }
        for (i, entry) in plan.iter().enumerate() {
            // SAFETY: within the object; the agent does not look before it is ordered to.
            unsafe { self.at::<PlanEntry>(layout.plan + i * size_of::<PlanEntry>()).write(*entry) };
        }
        self.control_field(offset_of!(Control, plan)).store(plan.len() as u32, Release);
        true
    }

    /// Tells whoever dumps to stop.
    pub fn cancel(&self) {
        self.control_field(offset_of!(Control, cancelled)).store(1, Release);
    }

    /// How many slots there are in all, once everything has been handed over.
    pub fn total_slots(&self) -> Option<u64> {
        let finished = self.control_field(offset_of!(Control, finished)).load(Acquire) != 0;
        // SAFETY: within the object, aligned; written before `finished`.
        finished.then(|| unsafe { (*self.at::<std::sync::atomic::AtomicU64>(offset_of!(Control, total_slots))).load(Acquire) })
    }

    fn slot(&self, number: u64) -> *mut Slot {
        let layout = self.layout();
        let i = (number % u64::from(layout.slots.max(1))) as usize;
        self.at::<Slot>(layout.ring + i * size_of::<Slot>())
    }

    /// Takes slot `number` of the sequence if it has been handed over: it is the caller's until it is given back.
    pub fn take(&self, number: u64) -> bool {
        // SAFETY: the slot exists; its state is atomic.
        unsafe { (*self.slot(number)).state.compare_exchange(SlotState::FULL, SlotState::TAKEN, AcqRel, Acquire).is_ok() }
    }

    /// Waits a moment for slot `number` to be handed over; whether anything happened to it.
    pub fn wait(&self, number: u64, at_most: Duration) -> bool {
        let timeout = rustix::time::Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
        // SAFETY: the slot exists; its state is atomic.
        let state = unsafe { &(*self.slot(number)).state };
        let now = state.load(Acquire);
        now == SlotState::FULL || futex::wait(state, futex::Flags::empty(), now, Some(&timeout)).is_ok()
    }

    /// What slot `number` holds: its runs and its pages. It must have been taken.
    pub fn contents(&self, number: u64) -> (Vec<Run>, &[u8]) {
        let slot = self.slot(number);
        // SAFETY: a taken slot is the coordinator's: the agent does not write it until it is given back.
        unsafe {
            let runs_len = ((*slot).runs_len as usize).min(SLOT_RUNS);
            let data_len = ((*slot).data_len as usize).min(SLOT_DATA);
            let runs = std::slice::from_raw_parts((&raw const (*slot).runs).cast::<Run>(), runs_len).to_vec();
            (runs, std::slice::from_raw_parts((&raw const (*slot).data).cast::<u8>(), data_len))
        }
    }

    /// Gives slot `number` back to be filled again.
    pub fn give_back(&self, number: u64) {
        // SAFETY: the slot exists; its state is atomic.
        let state = unsafe { &(*self.slot(number)).state };
        state.store(SlotState::FREE, Release);
        let _ = futex::wake(state, futex::Flags::empty(), u32::MAX);
    }
}

struct Layout {
    threads: usize,
    max_threads: u32,
    pending: usize,
    timers: usize,
    plan: usize,
    max_plan: u32,
    ring: usize,
    slots: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_does_not_fit_is_refused() {
        let memory = HandOver::new(4, 2, 1).unwrap();
        assert!(memory.set_plan(&[PlanEntry::default(); 2]));
        assert!(!memory.set_plan(&[PlanEntry::default(); 3]));
        assert!(memory.threads().is_empty() && memory.pending().is_empty());
        assert_eq!(memory.total_slots(), None);
    }
}
