//! What only the process itself can tell: of each thread, of itself, of its pending signals.

use core::sync::atomic::Ordering::Relaxed;

use ckpt_sys::blocked;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use ckpt_wire::{PAGE_SIZE, PendingSignal, ThreadRecord};
use linux_raw_sys::general as nr;

use crate::freeze::Shared;
use crate::state::{CONFIG, TRANSIENT, Transient, leave};
use crate::{call, procfs, timers};

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
/// What glibc registers at least (ORIG_RSEQ_SIZE, kernel/rseq.c).
const RSEQ_MIN_LEN: u32 = 32;
/// `RSEQ_SIG` of x86 (glibc, sysdeps/unix/sysv/linux/x86/bits/rseq.h).
const RSEQ_SIGNATURE: u32 = 0x5305_3053;

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
        record.rseq = 0;
        let config = CONFIG.get();
        if config.rseq_size > 0 {
            let area = record.fs_base.wrapping_add_signed(config.rseq_offset as i64);
            // `cpu_id`, the second word, is negative while the area is not registered.
            if core::ptr::read_volatile((area + 4) as *const i32) >= 0 {
                record.rseq = area;
                record.rseq_len = config.rseq_size.max(RSEQ_MIN_LEN);
                record.rseq_signature = RSEQ_SIGNATURE;
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
        for (which, timer) in process.interval_timers.iter_mut().enumerate() {
            let mut value = [0u64; 4];
            let _ = syscall!(nr::__NR_getitimer, which, value.as_mut_ptr());
            *timer = [value[0] * 1_000_000 + value[1], value[2] * 1_000_000 + value[3]];
        }
        process.brk = syscall!(nr::__NR_brk, 0).unwrap_or(0);
        process.dumpable = call::prctl_get(PR_GET_DUMPABLE).max(0) as u32;
        process.thp_disable = u32::from(call::prctl_get(PR_GET_THP_DISABLE) == 1);
        process.securebits = call::prctl_get(PR_GET_SECUREBITS).max(0) as u32;
        let mut subreaper = 0i32;
        let _ = syscall!(nr::__NR_prctl, PR_GET_CHILD_SUBREAPER, &raw mut subreaper, 0, 0, 0);
        process.child_subreaper = u32::from(subreaper != 0);
        if subreaper != 0 {
            let _ = syscall!(nr::__NR_prctl, PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
        }
        process.leave = leave as *const () as u64;
        process.transient_start = &raw const TRANSIENT as u64;
        process.transient_len = size_of::<Transient>() as u64;
        process.leaving = TRANSIENT.leaving.as_ptr() as u64;
        process.control_start = shared.control_mut() as u64;
        process.control_end = process.control_start + len.next_multiple_of(PAGE_SIZE) as u64;
    }
}

/// Gives the process its child subreaper setting back.
pub fn restore_subreaper(shared: &Shared) {
    if shared.control().process.child_subreaper != 0 {
        // SAFETY: takes no pointer.
        let _ = unsafe { syscall!(nr::__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    }
}

/// Whether signals are pending for this thread alone.
pub fn has_private_pending(tid: i32) -> bool {
    pending_set(tid, b"SigPnd:") != 0
}

/// Whether a signal is pending for this thread or the process.
pub fn is_pending(tid: i32, signal: i32) -> bool {
    let both = pending_set(tid, b"SigPnd:") | pending_set(tid, b"ShdPnd:");
    (1..=64).contains(&signal) && both & 1 << (signal - 1) != 0
}

fn pending_set(tid: i32, key: &[u8]) -> u64 {
    let mut buffer = [0u8; 2048];
    procfs::read_task(tid, b"/status", &mut buffer)
        .and_then(|status| blocked::after(status, key))
        .and_then(|rest| blocked::number(blocked::skip_blanks(rest), 16))
        .map_or(0, |(set, _)| set)
}

/// Records the signals that are pending for the calling thread, and with `whole_process` those for the process too, with all that
/// came with them, and leaves them pending. False when there are more than can be recorded.
///
/// There is no call to look at a queued signal: each is taken out and queued again. All signals are blocked meanwhile, and only a
/// process itself may queue signals that claim to come from the kernel, so it is done here.
pub fn capture_pending(shared: &Shared, tid: i32, whole_process: bool) -> bool {
    let first = shared.control().pending.load(Relaxed);
    let mut complete = true;
    for (key, owner) in [(&b"SigPnd:"[..], tid), (&b"ShdPnd:"[..], 0)] {
        if owner == 0 && !whole_process {
            break;
        }
        // The kernel takes a thread's own signals before the process's, so each set is emptied in its turn.
        while let set @ 1.. = pending_set(tid, key) {
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
                complete = false;
                break;
            }
        }
    }
    let control = shared.control();
    for i in first..control.pending.load(Relaxed) {
        requeue(&shared.pending(i), tid);
    }
    complete
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
