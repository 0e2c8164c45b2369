//! The shared memory object of one process and one checkpoint. The coordinator makes it and keeps its [`Layout`] to itself; the copy in
//! [`Control`] is for the agent.
//!
//! ```text
//! 0            +----------------------------------------------+
//!              | Control: layout, counts, the process         |
//! threads_off  | [ThreadRecord; max_threads]                  |
//! pending_off  | [PendingSignal; max_pending]                 |
//! timers_off   | [TimerRecord; max_timers]                    |
//! plan_off     | [PlanEntry; max_plan]   what is to be dumped |
//! ring_off     | [Slot; slots]           pages, handed over   |
//! len          +----------------------------------------------+
//! ```

use core::sync::atomic::{AtomicU32, AtomicU64};

use bytemuck::{Pod, Zeroable};

use crate::PAGE_SIZE;
use crate::records::{PendingSignal, PlanEntry, ProcessRecord, ThreadRecord, TimerRecord};

/// Bytes of page data that one slot holds: one chunk of the image.
pub const SLOT_DATA: usize = 1 << 20;

/// Runs of pages that one slot holds at most: each could be a page of its own.
pub const SLOT_RUNS: usize = SLOT_DATA / PAGE_SIZE;

/// How many records of each kind the object has room for.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Room {
    /// Thread records.
    pub threads: u32,
    /// Pending signals.
    pub pending: u32,
    /// Timers.
    pub timers: u32,
    /// Entries of the plan.
    pub plan: u32,
    /// Slots of the ring.
    pub slots: u32,
    /// Nothing.
    pub reserved: u32,
}

/// Where the parts of the object begin, as byte offsets.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// The thread records.
    pub threads_off: u64,
    /// The pending signals.
    pub pending_off: u64,
    /// The timers.
    pub timers_off: u64,
    /// The plan.
    pub plan_off: u64,
    /// The ring.
    pub ring_off: u64,
    /// Bytes of the object.
    pub len: u64,
    /// How many records each part has room for.
    pub room: Room,
}

impl Layout {
    /// The layout with this room. Each part begins on a page.
    #[must_use]
    pub const fn new(room: Room) -> Self {
        // Numbers of 32 bits and sizes below 2 MiB: no sum comes near 64 bits.
        const fn after(offset: u64, count: u32, size: usize) -> u64 {
            (offset + count as u64 * size as u64).next_multiple_of(PAGE_SIZE as u64)
        }
        let threads_off = after(0, 1, size_of::<Control>());
        let pending_off = after(threads_off, room.threads, size_of::<ThreadRecord>());
        let timers_off = after(pending_off, room.pending, size_of::<PendingSignal>());
        let plan_off = after(timers_off, room.timers, size_of::<TimerRecord>());
        let ring_off = after(plan_off, room.plan, size_of::<PlanEntry>());
        let len = after(ring_off, room.slots, size_of::<Slot>());
        Self { threads_off, pending_off, timers_off, plan_off, ring_off, len, room }
    }
}

/// The head of the object.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Control {
    /// Where the parts are. Read by the agent alone.
    pub layout: Layout,
    /// How many thread records are in use. Written by the agent.
    pub threads: AtomicU32,
    /// How many signals are pending. Written by the agent.
    pub pending: AtomicU32,
    /// How many timers there are. Written by the coordinator, with their ids and clocks, before [`Order::Twin`](crate::Order::Twin).
    pub timers: AtomicU32,
    /// How many entries the plan has. Written by the coordinator before [`Order::Twin`](crate::Order::Twin). Until then by the agent,
    /// which lists the mappings with a memory policy of their own there: the mode in `flags`, the nodes in `source` (0 to 63) and
    /// `address` (64 to 127).
    pub plan: AtomicU32,
    /// Nonzero: the dump goes no further. Written by the coordinator.
    pub cancelled: AtomicU32,
    /// Nonzero once `total_slots` is right.
    pub finished: AtomicU32,
    /// How many slots have been handed over in all. Written by the agent or its twin at the end of the dump.
    pub total_slots: AtomicU64,
    /// What is observed of the process as a whole.
    pub process: ProcessRecord,
    /// The system call of [`Order::Call`](crate::Order::Call). Written by the coordinator.
    pub call: CallRecord,
}

/// A system call that the coordinator has the process make: about objects that only the job's namespaces or the process itself can name.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CallRecord {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Bit `i`: argument `i` is a byte offset in this memory object, and the call is given its address.
    pub offsets: u64,
}

/// A run of pages in a slot.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Run {
    /// Address in its space.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Its space.
    pub space: u32,
}

/// A slot of the ring: the runs of its pages, and the pages one after the other.
#[repr(C, align(4096))]
pub struct Slot {
    /// [`SlotState`]. A futex.
    pub state: AtomicU32,
    /// How many runs it has.
    pub runs_len: u32,
    /// Bytes of `data` in use.
    pub data_len: u32,
    /// Keeps the layout plain.
    pub reserved: u32,
    /// The runs.
    pub runs: [Run; SLOT_RUNS],
    /// The pages.
    pub data: SlotData,
}

/// The pages of a slot, aligned as pages are.
#[repr(C, align(4096))]
pub struct SlotData(pub [u8; SLOT_DATA]);

/// Who may use a slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotState;

impl SlotState {
    /// The agent, to fill it.
    pub const FREE: u32 = 0;
    /// The coordinator, to take it.
    pub const FULL: u32 = 1;
    /// One of the coordinator's workers, which reads it.
    pub const TAKEN: u32 = 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_each_other_on_pages_of_their_own() {
        let room = Room { threads: 3, pending: 5, timers: 7, plan: 1000, slots: 2, reserved: 0 };
        let layout = Layout::new(room);
        let parts = [
            (0, size_of::<Control>()),
            (layout.threads_off, 3 * size_of::<ThreadRecord>()),
            (layout.pending_off, 5 * size_of::<PendingSignal>()),
            (layout.timers_off, 7 * size_of::<TimerRecord>()),
            (layout.plan_off, 1000 * size_of::<PlanEntry>()),
            (layout.ring_off, 2 * size_of::<Slot>()),
            (layout.len, 0),
        ];
        for pair in parts.windows(2) {
            let ((start, size), (next, _)) = (pair[0], pair[1]);
            assert!(start + size as u64 <= next && next - start < (size + PAGE_SIZE) as u64, "{layout:?}");
            assert_eq!(next % PAGE_SIZE as u64, 0);
        }
    }

    #[test]
    fn the_largest_layout_does_not_overflow() {
        let most = u32::MAX;
        let room = Room { threads: most, pending: most, timers: most, plan: most, slots: most, reserved: 0 };
        assert!(Layout::new(room).len > u64::from(most) * SLOT_DATA as u64);
    }
}
