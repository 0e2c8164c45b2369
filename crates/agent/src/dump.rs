//! Hands pages over: copies the plan's ranges into the ring, page by page, without absent and zero pages.

use core::sync::atomic::Ordering::{Acquire, Release};

use ckpt_sys::prctl;
use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::{
    Feature, PAGE_SIZE, PlanEntry, PlanFlag, Report, ReportKind, Run, SLOT_DATA, SLOT_RUNS, Slot, SlotState, Start, Step,
};
use linux_raw_sys::general as nr;

use crate::call::{self, Fd};
use crate::pages::{self, PageMap};
use crate::rendezvous::Connection;
use crate::shared::Shared;

/// Hands over everything that the plan names. A `twin` has memory of its own.
pub fn dump(connection: &Connection, shared: &Shared, start: &Start, twin: bool) -> Result<Report, Report> {
    let fail = |errno: Errno| Report::failed(Step::Pagemap, errno.0);
    let (mut map, memory) = open_own_memory(start, twin).map_err(fail)?;
    let mut ring = Ring { connection, shared, memory, next: 0, slot: core::ptr::null_mut(), alive: true };
    for entry in shared.plan().iter().filter(|entry| entry.flags & PlanFlag::NOT_IN_TWIN == 0) {
        let source = if entry.source == 0 { entry.start } else { entry.source };
        let end = source + entry.len;
        if entry.flags & PlanFlag::ALL != 0 && entry.source == 0 {
            ring.put(entry, source, source, end, false);
        } else if entry.flags & PlanFlag::SHARED != 0 && entry.source == 0 {
            let readable = entry.flags & PlanFlag::UNREADABLE == 0;
            pages::shared_pages(source, end, |first, last| ring.put(entry, source, first, last, readable)).map_err(fail)?;
        } else {
            // A copy was made by the leader: it is ordinary memory, whatever the original is.
            let readable = entry.source != 0 || entry.flags & PlanFlag::UNREADABLE == 0;
            map.own_pages(source, end, |run| ring.put(entry, source, run.start, run.end, readable && run.present))
                .map_err(fail)?;
        }
        if !ring.alive {
            break;
        }
    }
    ring.hand_over();
    let control = shared.control();
    control.total_slots.store(ring.next, Release);
    control.finished.store(1, Release);
    for i in 0..control.layout.room.slots.into() {
        // SAFETY: the slot exists. A worker that waits for a slot that will not come is woken.
        call::futex_wake(unsafe { &(*shared.slot(i)).state }, true);
    }
    Ok(Report::new(ReportKind::Dumped, ring.next as i64))
}

/// Opens the page map and the memory of this process.
///
/// A process that has changed its user is not dumpable (prctl(2)), and its files in `/proc` are root's: it is made dumpable for as long as it takes
/// to open them. No process can set the value 2, which fs.suid_dumpable may give instead, so only a twin changes that: it may lose it.
pub fn open_own_memory(start: &Start, twin: bool) -> Result<(PageMap, Fd), Errno> {
    let hidden = match prctl::dumpable() {
        Ok(0) => true,
        Ok(2) => twin,
        _ => false,
    };
    if hidden {
        let _ = prctl::set_dumpable(1);
    }
    if twin {
        // They belong to the effective user, and another may open files.
        // SAFETY: takes numbers only; a twin needs no other user any more.
        let _ = unsafe { syscall!(nr::__NR_geteuid).and_then(|user| syscall!(nr::__NR_setfsuid, user)) };
    }
    let opened = PageMap::open(start.features & Feature::PAGEMAP_SCAN != 0)
        .and_then(|map| Ok((map, call::open(b"/proc/thread-self/mem\0")?)));
    if hidden {
        let _ = prctl::set_dumpable(0);
    }
    opened
}

struct Ring<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    memory: Fd,
    /// How many slots have been handed over.
    next: u64,
    /// The slot that is being filled; null: none.
    slot: *mut Slot,
    /// The coordinator still takes slots.
    alive: bool,
}

impl Ring<'_> {
    /// Puts the pages from `first` to `last` into the ring. `source` is where the entry's contents begin, `direct` says that the pages can be read.
    fn put(&mut self, entry: &PlanEntry, source: u64, first: u64, last: u64, direct: bool) {
        let keep_zero = entry.flags & PlanFlag::KEEP_ZERO != 0;
        let mut at = first;
        while at < last && self.alive {
            let address = entry.address + (at - source);
            if direct {
                // SAFETY: the page map says that the page is there, and the plan that it can be read.
                if keep_zero || !unsafe { is_zero(at) } {
                    let Some(room) = self.room() else { return };
                    // SAFETY: `room` has a page of room, and the page can be read.
                    unsafe { core::ptr::copy_nonoverlapping(at as *const u8, room, PAGE_SIZE) };
                    self.add(address, entry.space);
                }
            } else {
                let Some(room) = self.room() else { return };
                // A page beyond its file's end, or a guard, cannot be read by anybody: there is nothing to keep.
                // SAFETY: `room` has a page of room.
                let read = unsafe { call::pread(&self.memory, room, PAGE_SIZE, at) };
                // SAFETY: a whole page was read to `room`.
                if read == Ok(PAGE_SIZE) && (keep_zero || !unsafe { is_zero(room as u64) }) {
                    self.add(address, entry.space);
                }
            }
            at += PAGE_SIZE as u64;
        }
    }

    /// Room for one page in the slot that is being filled.
    fn room(&mut self) -> Option<*mut u8> {
        if !self.slot.is_null() {
            // SAFETY: the slot is the agent's while it is being filled.
            let (data_len, runs_len) = unsafe { ((*self.slot).data_len as usize, (*self.slot).runs_len as usize) };
            if data_len + PAGE_SIZE <= SLOT_DATA && runs_len < SLOT_RUNS {
                // SAFETY: within the slot's data.
                return Some(unsafe { (&raw mut (*self.slot).data).cast::<u8>().add(data_len) });
            }
            self.hand_over();
        }
        let slot = self.shared.slot(self.next);
        // SAFETY: the slot exists; its state is atomic.
        let state = unsafe { &(*slot).state };
        loop {
            let now = state.load(Acquire);
            if now == SlotState::FREE {
                break;
            }
            call::futex_wait(state, now, 500, true);
            if self.coordinator_gone() {
                self.alive = false;
                return None;
            }
        }
        // SAFETY: a free slot is the agent's.
        unsafe {
            (*slot).runs_len = 0;
            (*slot).data_len = 0;
        }
        self.slot = slot;
        // SAFETY: as above.
        Some(unsafe { (&raw mut (*slot).data).cast::<u8>() })
    }

    /// Counts the page that was put at [`Ring::room`].
    fn add(&mut self, address: u64, space: u32) {
        // SAFETY: the slot is the agent's, and `room` made sure that one more page and one more run fit.
        let slot = unsafe { &mut *self.slot };
        slot.data_len += PAGE_SIZE as u32;
        let last = (slot.runs_len as usize).checked_sub(1).and_then(|i| slot.runs.get_mut(i));
        match last {
            Some(run) if run.space == space && run.address + u64::from(run.len) == address => run.len += PAGE_SIZE as u32,
            _ => {
                if let Some(run) = slot.runs.get_mut(slot.runs_len as usize) {
                    *run = Run { address, len: PAGE_SIZE as u32, space };
                }
                slot.runs_len += 1;
            }
        }
    }

    /// Gives the slot that is being filled to the coordinator.
    fn hand_over(&mut self) {
        if self.slot.is_null() {
            return;
        }
        // SAFETY: the slot exists; its state is atomic.
        let state = unsafe { &(*self.slot).state };
        state.store(SlotState::FULL, Release);
        call::futex_wake(state, true);
        self.slot = core::ptr::null_mut();
        self.next += 1;
    }

    /// Whether the coordinator has died or given up.
    fn coordinator_gone(&self) -> bool {
        if self.shared.control().cancelled.load(Acquire) != 0 {
            return true;
        }
        // struct pollfd: fd (4), events (2), revents (2).
        let mut poll = [self.connection.0.0 as u32, 0];
        let time = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: one pollfd, and a time-out, that live over the call.
        let _ = unsafe { syscall!(nr::__NR_ppoll, poll.as_mut_ptr(), 1, &raw const time, 0, 8) };
        (poll[1] >> 16) as u16 & nr::POLLHUP as u16 != 0
    }
}

/// Whether the page at `at` holds only zeroes.
///
/// # Safety
/// The page must be readable.
unsafe fn is_zero(at: u64) -> bool {
    // SAFETY: the caller's promise; a page is 512 aligned words.
    let words = unsafe { core::slice::from_raw_parts(at as *const [u64; 8], PAGE_SIZE / 64) };
    words.iter().all(|w| w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7] == 0)
}

/// Copies memory that exists. Where it is not readable as it is mapped, it is read through `memory`, its `/proc/self/mem`.
///
/// # Safety
/// `first` must be mapped for `len` bytes, and `to` writable for as many.
pub unsafe fn copy_readable(memory: Option<&Fd>, first: u64, to: *mut u8, len: usize, flags: u32) {
    if flags & PlanFlag::UNREADABLE == 0 {
        // SAFETY: the caller's promise, and the plan says that it is readable.
        unsafe { core::ptr::copy_nonoverlapping(first as *const u8, to, len) };
        return;
    }
    let Some(memory) = memory else { return };
    let mut done = 0;
    while done < len {
        // SAFETY: within the caller's room.
        match unsafe { call::pread(memory, to.add(done), len - done, first + done as u64) } {
            Ok(n @ 1..) => done += n,
            _ => return,
        }
    }
}
