//! The shared memory object of this checkpoint, mapped ([`ckpt_wire::memory`]). Its layout is the coordinator's word; both are of one build.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use ckpt_wire::{BlockedCall, Control, PendingSignal, PlanEntry, Slot, ThreadFacts, ThreadRecord, TimerRecord};

/// The object.
#[derive(Clone, Copy)]
pub struct Shared {
    base: *mut u8,
}

impl Shared {
    /// The object that is mapped at `base`.
    pub fn new(base: *mut u8) -> Self {
        Self { base }
    }

    /// Its head, by a reference that is for the layout, the plan, and the fields that are atomic.
    pub fn control(&self) -> &Control {
        // SAFETY: the object begins with a Control; fields that both sides write are atomic.
        unsafe { &*self.base.cast::<Control>() }
    }

    /// Its head, to write what was observed.
    pub fn control_mut(&self) -> *mut Control {
        self.base.cast()
    }

    /// Where an object of type `T` is.
    fn at<T>(&self, offset: u64) -> *mut T {
        self.base.wrapping_add(offset as usize).cast()
    }

    /// Thread record `i`, which must be below the number that there is room for.
    pub fn thread(&self, i: u32) -> Thread<'_> {
        // SAFETY: within the object, for which `self` stands.
        unsafe { Thread::new(self.at::<ThreadRecord>(self.control().layout.threads_off).wrapping_add(i as usize)) }
    }

    /// How many thread records are in use.
    pub fn threads_len(&self) -> u32 {
        self.control().threads.load(Acquire)
    }

    /// The thread records in use from number `first` on.
    pub fn threads_from(&self, first: u32) -> impl Iterator<Item = Thread<'_>> {
        (first..self.threads_len()).map(|i| self.thread(i))
    }

    /// Adds a pending signal; false when there is no room.
    pub fn push_pending(&self, signal: PendingSignal) -> bool {
        let control = self.control();
        let at = control.pending.load(Relaxed);
        if at >= control.layout.room.pending {
            return false;
        }
        // SAFETY: the object has room for it; one thread captures at a time.
        unsafe { self.pending_at(at).write(signal) };
        control.pending.store(at + 1, Release);
        true
    }

    fn pending_at(&self, i: u32) -> *mut PendingSignal {
        self.at::<PendingSignal>(self.control().layout.pending_off).wrapping_add(i as usize)
    }

    /// Pending signal `i`, which must have been pushed.
    pub fn pending(&self, i: u32) -> PendingSignal {
        // SAFETY: it was written by push_pending.
        unsafe { self.pending_at(i).read() }
    }

    /// The timers.
    #[allow(clippy::mut_from_ref, reason = "the object is shared memory; one thread at a time looks at the timers")]
    pub fn timers(&self) -> &mut [TimerRecord] {
        let control = self.control();
        let len = control.timers.load(Acquire).min(control.layout.room.timers) as usize;
        // SAFETY: the coordinator wrote this many before it gave the order.
        unsafe { core::slice::from_raw_parts_mut(self.at(control.layout.timers_off), len) }
    }

    /// The plan.
    #[allow(clippy::mut_from_ref, reason = "the object is shared memory; only the leader or its twin uses the plan")]
    pub fn plan(&self) -> &mut [PlanEntry] {
        let control = self.control();
        let len = control.plan.load(Acquire).min(control.layout.room.plan) as usize;
        // SAFETY: the coordinator wrote this many entries before it gave the order.
        unsafe { core::slice::from_raw_parts_mut(self.at(control.layout.plan_off), len) }
    }

    /// Entry `i` of the plan, which must be below the number that there is room for.
    pub fn plan_entry(&self, i: u32) -> *mut PlanEntry {
        self.at::<PlanEntry>(self.control().layout.plan_off).wrapping_add(i as usize)
    }

    /// The slot of the ring for number `i` of the sequence.
    pub fn slot(&self, i: u64) -> *mut Slot {
        let layout = &self.control().layout;
        let i = (i % u64::from(layout.room.slots.max(1))) as usize;
        self.at::<Slot>(layout.ring_off).wrapping_add(i)
    }
}

/// A thread's record. The thread and the leader may use it at the same time, so there is no reference to the whole of it.
#[derive(Clone, Copy)]
pub struct Thread<'a> {
    record: *mut ThreadRecord,
    shared: core::marker::PhantomData<&'a Shared>,
}

macro_rules! fields {
    ($($field:ident),*) => {$(
        #[doc = concat!("See [`ThreadRecord::", stringify!($field), "`].")]
        pub fn $field(&self) -> &'a AtomicU32 {
            // SAFETY: the record lies within the object, which stays mapped; the field is atomic.
            unsafe { &(*self.record).$field }
        }
    )*};
}

impl Thread<'_> {
    /// # Safety
    /// The record must lie within the object, which must stay mapped while this is used.
    unsafe fn new(record: *mut ThreadRecord) -> Self {
        Self { record, shared: core::marker::PhantomData }
    }
}

impl<'a> Thread<'a> {
    fields!(status, order, exited, unblocked, reported);

    /// Its number; 0: the record is void.
    pub fn tid(&self) -> i32 {
        self.tid_word().load(Relaxed).cast_signed()
    }

    /// Sets its number.
    pub fn set_tid(&self, tid: i32) {
        self.tid_word().store(tid.cast_unsigned(), Relaxed);
    }

    fn tid_word(&self) -> &'a AtomicU32 {
        // SAFETY: as for the other fields.
        unsafe { &(*self.record).tid }
    }

    /// The call that it was blocked in. The leader writes it before it signals the thread, and the coordinator while it holds the thread;
    /// the thread reads it after that.
    pub fn call(&self) -> BlockedCall {
        // SAFETY: within the object.
        unsafe { (&raw const (*self.record).call).read() }
    }

    /// See [`Thread::call`].
    pub fn set_call(&self, call: BlockedCall) {
        // SAFETY: within the object.
        unsafe { (&raw mut (*self.record).call).write(call) };
    }

    /// What the thread has found out about itself, which the leader reads once its status says that it is parked.
    pub fn rip(&self) -> u64 {
        // SAFETY: within the object.
        unsafe { (&raw const (*self.record).facts.rip).read() }
    }

    /// Writes what the calling thread has found out about itself.
    pub fn set_facts(&self, facts: &ThreadFacts) {
        // SAFETY: within the object; only the thread itself writes this.
        unsafe { (&raw mut (*self.record).facts).write(*facts) };
    }
}
