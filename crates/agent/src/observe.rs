//! What only the process itself can tell: of each thread, of itself, of its pending signals.

use core::sync::atomic::Ordering::{Relaxed, Release};

use ckpt_sys::blocked;
use ckpt_sys::raw::Errno;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use ckpt_wire::{PAGE_SIZE, PendingSignal, PlanEntry, ThreadRecord};
use linux_raw_sys::general as nr;

use crate::freeze::Shared;
use crate::state::{CONFIG, TRANSIENT, Transient, leave};
use crate::{call, interrupted, procfs, timers, touched};

const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;
const PR_GET_PDEATHSIG: u32 = 2;
const PR_GET_DUMPABLE: u32 = 3;
const PR_GET_NAME: u32 = 16;
const PR_GET_SECUREBITS: u32 = 27;
const PR_GET_TIMERSLACK: u32 = 30;
const PR_SET_CHILD_SUBREAPER: u32 = 36;
const PR_GET_CHILD_SUBREAPER: u32 = 37;
const PR_GET_NO_NEW_PRIVS: u32 = 39;
const PR_GET_TID_ADDRESS: u32 = 40;
const PR_GET_THP_DISABLE: u32 = 42;
const PR_GET_TSC: u32 = 25;
const PR_MCE_KILL_GET: u32 = 34;
const PR_GET_IO_FLUSHER: u32 = 58;
const PR_GET_MDWE: u32 = 66;
const PR_GET_MEMORY_MERGE: u32 = 68;
const ARCH_GET_CPUID: u32 = 0x1011;
const ARCH_GET_XCOMP_PERM: u32 = 0x1022;
/// The XSAVE component of AMX tile data, which a process must ask for (arch/x86/include/asm/fpu/types.h).
const XFEATURE_XTILEDATA: u64 = 18;
/// Protection keys of x86, but for key 0, which all memory has (arch/x86/include/asm/pkeys.h).
const PROTECTION_KEYS: usize = 15;
/// What glibc registers at least (ORIG_RSEQ_SIZE, kernel/rseq.c).
const RSEQ_MIN_LEN: u32 = 32;
/// `RSEQ_SIG` of x86 (glibc, sysdeps/unix/sysv/linux/x86/bits/rseq.h).
const RSEQ_SIGNATURE: u32 = 0x5305_3053;
const RSEQ_FLAG_UNREGISTER: u32 = 1;
/// Signals 1 to 31, which are queued once at most (signal(7)).
const STANDARD_SIGNALS: u64 = (1 << 31) - 1;

/// Fills in the calling thread's record.
///
/// # Safety
/// `record` must be the calling thread's, and `frame` its own signal frame.
pub unsafe fn record_thread(record: *mut ThreadRecord, frame: *mut UContext) {
    // SAFETY: the caller's promise; each call writes to the field that it is given, of the size that it writes.
    unsafe {
        let record = &mut *record;
        record.frame = frame as u64;
        record.rip = (*frame).context.rip;
        let _ = syscall!(nr::__NR_arch_prctl, ARCH_GET_FS, &raw mut record.fs_base);
        let _ = syscall!(nr::__NR_arch_prctl, ARCH_GET_GS, &raw mut record.gs_base);
        let _ = syscall!(nr::__NR_prctl, PR_GET_TID_ADDRESS, &raw mut record.clear_child_tid, 0, 0, 0);
        let _ = syscall!(nr::__NR_get_robust_list, 0, &raw mut record.robust_head, &raw mut record.robust_len);
        let _ = syscall!(nr::__NR_prctl, PR_GET_NAME, record.comm.as_mut_ptr(), 0, 0, 0);
        let _ = syscall!(nr::__NR_prctl, PR_GET_PDEATHSIG, &raw mut record.parent_death_signal, 0, 0, 0);
        record.timer_slack_ns = u64::try_from(call::prctl_get(PR_GET_TIMERSLACK)).unwrap_or(0);
        record.no_new_privs = u32::from(call::prctl_get(PR_GET_NO_NEW_PRIVS) == 1);
        record.securebits = call::prctl_get(PR_GET_SECUREBITS).max(0) as u32;
        let _ = syscall!(nr::__NR_prctl, PR_GET_TSC, &raw mut record.time_stamp_counter, 0, 0, 0);
        record.cpuid = syscall!(nr::__NR_arch_prctl, ARCH_GET_CPUID, 0).map_or(1, |on| on as u32);
        record.machine_check = call::prctl_get(PR_MCE_KILL_GET).max(0) as u32;
        record.io_flusher = call::prctl_get(PR_GET_IO_FLUSHER).max(0) as u32;
        let bits = record.policy_nodes.len() * 64;
        let _ = syscall!(nr::__NR_get_mempolicy, &raw mut record.policy, record.policy_nodes.as_mut_ptr(), bits, 0, 0);
        record.rseq = 0;
        let config = CONFIG.get();
        if config.rseq_size > 0 {
            let area = record.fs_base.wrapping_add_signed(config.rseq_offset as i64);
            let len = config.rseq_size.max(RSEQ_MIN_LEN);
            // `cpu_id`, the second word, is negative while the area is not registered; but what an ended thread has left on a stack that is used again
            // is not. Only the kernel knows: it registers an area that is not yet (EBUSY, EINVAL).
            if core::ptr::read_volatile((area + 4) as *const i32) >= 0 {
                if syscall!(nr::__NR_rseq, area, len, 0, RSEQ_SIGNATURE).is_ok() {
                    let _ = syscall!(nr::__NR_rseq, area, len, RSEQ_FLAG_UNREGISTER, RSEQ_SIGNATURE);
                } else {
                    (record.rseq, record.rseq_len, record.rseq_signature) = (area, len, RSEQ_SIGNATURE);
                }
            }
        }
    }
}

/// Fills in what is the process's as a whole, and takes its child subreaper setting away until [`restore_subreaper`]: the twin must become
/// the coordinator's child, not one of the job's.
pub fn record_process(shared: &Shared, len: usize) {
    // SAFETY: only the leader writes the process record, before it reports; each call writes to the field that it is given.
    unsafe {
        let process = &mut (*shared.control_mut()).process;
        for (i, action) in process.actions.iter_mut().enumerate() {
            let _ = syscall!(nr::__NR_rt_sigaction, i + 1, 0, action.as_mut_ptr(), 8);
        }
        timers::record_interval_timers(&mut process.interval_timers);
        process.brk = syscall!(nr::__NR_brk, 0).unwrap_or(0);
        process.dumpable = call::prctl_get(PR_GET_DUMPABLE).max(0) as u32;
        process.thp_disable = call::prctl_get(PR_GET_THP_DISABLE).max(0) as u32;
        process.securebits = call::prctl_get(PR_GET_SECUREBITS).max(0) as u32;
        const ASK: u32 = u32::MAX;
        process.personality = syscall!(nr::__NR_personality, ASK).unwrap_or(0) as u32;
        process.memory_merge = call::prctl_get(PR_GET_MEMORY_MERGE).max(0) as u32;
        process.no_exec_gain = call::prctl_get(PR_GET_MDWE).max(0) as u32;
        (process.protection_keys, process.taken_keys) = protection_keys();
        let mut components = 0u64;
        let _ = syscall!(nr::__NR_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut components);
        process.tile_registers = u32::from(components & 1 << XFEATURE_XTILEDATA != 0);
        let mut subreaper = 0i32;
        let _ = syscall!(nr::__NR_prctl, PR_GET_CHILD_SUBREAPER, &raw mut subreaper, 0, 0, 0);
        process.child_subreaper = u32::from(subreaper != 0);
        if subreaper != 0 {
            let _ = syscall!(nr::__NR_prctl, PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
        }
        process.touched = touched::variable_address();
        process.leave = leave as *const () as u64;
        process.transient_start = &raw const TRANSIENT as u64;
        process.transient_len = size_of::<Transient>() as u64;
        process.leaving = TRANSIENT.leaving.as_ptr() as u64;
        process.control_start = shared.control_mut() as u64;
        process.control_end = process.control_start + len.next_multiple_of(PAGE_SIZE) as u64;
    }
}

/// The protection keys (pkeys(7)) that this process may use, and those that it could not allocate, bit by bit. There is no call to ask.
fn protection_keys() -> (u32, u32) {
    /// No program has memory here: a call that gets as far as looking for it fails with ENOMEM.
    const NOBODYS: u64 = 1 << 63;
    const ENOMEM: i32 = 12;
    let mut usable = 0;
    for key in 1..=PROTECTION_KEYS as u32 {
        // SAFETY: there is no memory of this process whose protection could change.
        let asked = unsafe { syscall!(nr::__NR_pkey_mprotect, NOBODYS, PAGE_SIZE, 0, key) };
        usable |= u32::from(asked == Err(Errno(ENOMEM))) << key;
    }
    // All that are free are taken for a moment. The rights of the calling thread that this changes are the handler's; its frame has
    // those of the job.
    let mut free = [0u64; PROTECTION_KEYS];
    let mut count = 0;
    for key in &mut free {
        // SAFETY: takes numbers only, as below; nothing has a key that was free.
        match unsafe { syscall!(nr::__NR_pkey_alloc, 0, 0) } {
            Ok(got) => *key = got,
            Err(_) => break,
        }
        count += 1;
    }
    let mut taken = (1u32 << (PROTECTION_KEYS + 1)) - 1;
    for key in free.get(..count).unwrap_or(&[]) {
        // SAFETY: as above.
        let _ = unsafe { syscall!(nr::__NR_pkey_free, *key) };
        taken &= !(1 << key);
    }
    (usable, taken)
}

/// Lists the mappings that have a memory policy of their own (mbind(2)) in the place of the plan: see `ckpt_wire::Control::plan`.
pub fn record_policies(shared: &Shared) {
    const MPOL_F_ADDR: u32 = 2;
    let control = shared.control();
    let mut count = 0;
    let _ = procfs::for_each_mapping(|start, end| {
        let (mut mode, mut nodes) = (0u32, [0u64; ckpt_wire::POLICY_WORDS]);
        let bits = nodes.len() * 64;
        // SAFETY: mode and nodes are written, with their true sizes.
        let asked = unsafe { syscall!(nr::__NR_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), bits, start, MPOL_F_ADDR) };
        if asked.is_ok() && mode != 0 && count < control.max_plan {
            let [low, high, ..] = nodes;
            // SAFETY: below `max_plan`, for which the object has room; the coordinator looks when this process has reported.
            unsafe {
                shared.plan_entry(count).write(PlanEntry {
                    start,
                    len: end - start,
                    source: low,
                    address: high,
                    space: 0,
                    flags: mode,
                })
            };
            count += 1;
        }
    });
    control.plan.store(count, Release);
}

/// Gives the process its child subreaper setting back.
pub fn restore_subreaper(shared: &Shared) {
    if shared.control().process.child_subreaper != 0 {
        // SAFETY: takes no pointer.
        let _ = unsafe { syscall!(nr::__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    }
}

/// The sets of pending signals that a thread answers for: its own, and for a process's first thread those of the process.
fn pending_sets(tid: i32) -> &'static [(&'static [u8], bool)] {
    if tid == call::getpid() { &[(b"SigPnd:", true), (b"ShdPnd:", false)] } else { &[(b"SigPnd:", true)] }
}

/// Whether signals are pending for which this thread answers.
pub fn has_pending(tid: i32) -> bool {
    pending_sets(tid).iter().any(|(key, _)| signal_set(tid, key) != 0)
}

/// Makes signals to the process that the first thread would have got its own. The kernel gives it them when it does not block them (`complete_signal` in
/// kernel/signal.c); those that come while all threads are in the handler would go to whoever leaves it first, and a first thread that waits for them would not be woken.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn claim_pending(shared: &Shared, tid: i32, frame: *const UContext) {
    if tid != call::getpid() || shared.threads_len() == 1 {
        return;
    }
    // SAFETY: the caller's promise.
    let mask = unsafe { (*frame).sigmask };
    let mut claimed = signal_set(tid, b"ShdPnd:") & !mask & !(1 << (CONFIG.get().signal - 1));
    while claimed != 0 {
        let bit = claimed.trailing_zeros();
        claimed &= claimed - 1;
        if !interrupted::has_handler(bit) {
            continue;
        }
        let mut signal = PendingSignal { tid, reserved: 0, info: [0; 16] };
        let (set, no_wait) = (1u64 << bit, nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: as in `capture_pending`.
        let taken =
            unsafe { syscall!(nr::__NR_rt_sigtimedwait, &raw const set, signal.info.as_mut_ptr(), &raw const no_wait, 8) };
        if taken.is_ok() {
            requeue(&signal, tid);
        }
    }
}

/// Whether a signal is pending for this thread or the process.
pub fn is_pending(tid: i32, signal: i32) -> bool {
    let both = signal_set(tid, b"SigPnd:") | signal_set(tid, b"ShdPnd:");
    (1..=64).contains(&signal) && both & 1 << (signal - 1) != 0
}

/// Whether a thread blocks a signal.
pub fn blocks(tid: i32, signal: i32) -> bool {
    signal_set(tid, b"SigBlk:") & 1 << (signal - 1) != 0
}

/// A set of signals that a thread's status shows.
fn signal_set(tid: i32, key: &[u8]) -> u64 {
    let mut buffer = [0u8; 2048];
    procfs::read_task(tid, b"/status", &mut buffer)
        .and_then(|status| blocked::after(status, key))
        .and_then(|rest| blocked::number(blocked::skip_blanks(rest), 16))
        .map_or(0, |(set, _)| set)
}

/// Records the signals that are pending for the calling thread, and by a process's first thread those for the process too, with all
/// that came with them, and leaves them pending.
///
/// There is no call to look at a queued signal: each is taken out and queued again. All signals are blocked meanwhile, and only a
/// thread itself may queue signals that claim to come from the kernel (and for a process its first thread), so it is done here. Where the
/// first thread has ended, the coordinator looks at those of the process.
///
/// What is recorded is to end the call that this thread waits in, in the image too.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn capture_pending(shared: &Shared, tid: i32, frame: *mut UContext) {
    // SAFETY: the caller's promise.
    unsafe {
        claim_pending(shared, tid, frame);
        // Before, for those that a timer sends again a moment later.
        interrupted::end_if_signalled(frame);
    }
    let first = shared.control().pending.load(Relaxed);
    for &(key, own) in pending_sets(tid) {
        let owner = if own { tid } else { 0 };
        // Of those that are queued once at most, the next has come since: it is the one that is put back. An interval timer with a short period sends one after the other.
        let mut once = 0;
        // The kernel takes a thread's own signals before the process's, so each set is emptied in its turn.
        while let set @ 1.. = signal_set(tid, key) & !once {
            let mut signal = PendingSignal { tid: owner, reserved: 0, info: [0; 16] };
            let no_wait = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `set` is a signal set of 8 bytes, `info` has the 128 bytes of a siginfo.
            let taken =
                unsafe { syscall!(nr::__NR_rt_sigtimedwait, &raw const set, signal.info.as_mut_ptr(), &raw const no_wait, 8) };
            if taken.is_err() {
                break;
            }
            // One of ours that came twice means nothing to the job.
            if signal.info[0] as i32 == CONFIG.get().signal {
                continue;
            }
            // The signal of a timer comes from the timer again.
            if timers::note_pending(shared, &signal.info) {
                continue;
            }
            if !shared.push_pending(signal) {
                requeue(&signal, tid);
                break;
            }
            once |= 1 << (signal.info[0] as u32 - 1) & STANDARD_SIGNALS;
        }
    }
    let control = shared.control();
    for i in first..control.pending.load(Relaxed) {
        requeue(&shared.pending(i), tid);
    }
    // SAFETY: the caller's promise.
    unsafe { interrupted::end_if_signalled(frame) };
}

fn requeue(signal: &PendingSignal, tid: i32) {
    let number = signal.info[0] as u32;
    let pid = call::getpid();
    // SAFETY: `info` is a whole siginfo, as the kernel gave it.
    let _ = unsafe {
        if signal.tid == 0 {
            syscall!(nr::__NR_rt_sigqueueinfo, pid, number, signal.info.as_ptr())
        } else {
            syscall!(nr::__NR_rt_tgsigqueueinfo, pid, tid, number, signal.info.as_ptr())
        }
    };
}
