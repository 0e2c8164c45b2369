//! What only a thread can tell of itself, and a process of itself as a whole.

use core::sync::atomic::Ordering::Release;

use ckpt_sys::prctl;
use ckpt_sys::raw::Errno;
use ckpt_sys::sigframe::UContext;
use ckpt_sys::syscall;
use ckpt_wire::{PAGE_SIZE, PlanEntry, ProcessRecord, ThreadFacts};
use linux_raw_sys::general as nr;

use crate::call::nr_errno::{EBUSY, EINVAL, EPERM};
use crate::leave::leave;
use crate::shared::Shared;
use crate::state::{CONFIG, TRANSIENT, Transient};
use crate::{action, procfs, timers, touched};

/// The XSAVE component of AMX tile data, which a process must ask for (arch/x86/include/asm/fpu/types.h).
const XFEATURE_XTILEDATA: u64 = 18;
/// Protection keys of x86, but for key 0, which all memory has (arch/x86/include/asm/pkeys.h).
const PROTECTION_KEYS: usize = 15;
/// The least that glibc registers (ORIG_RSEQ_SIZE, kernel/rseq.c).
const RSEQ_MIN_LEN: u32 = 32;
/// `RSEQ_SIG` of x86 (glibc, sysdeps/unix/sysv/linux/x86/bits/rseq.h).
const RSEQ_SIGNATURE: u32 = 0x5305_3053;
/// include/uapi/linux/rseq.h.
const RSEQ_FLAG_UNREGISTER: u32 = 1;

/// What the calling thread can tell of itself.
///
/// # Safety
/// `frame` must be the calling thread's own signal frame.
pub unsafe fn thread_facts(frame: *mut UContext) -> ThreadFacts {
    let mut facts = ThreadFacts {
        frame: frame as u64,
        // SAFETY: the caller's promise.
        rip: unsafe { (*frame).context.rip },
        fs_base: prctl::fs_base().unwrap_or(0),
        gs_base: prctl::gs_base().unwrap_or(0),
        clear_child_tid: prctl::tid_address().unwrap_or(0),
        comm: prctl::name().unwrap_or_default(),
        timer_slack_ns: prctl::timer_slack().unwrap_or(0),
        parent_death_signal: prctl::parent_death_signal().unwrap_or(0),
        no_new_privs: prctl::no_new_privs().unwrap_or(0),
        securebits: prctl::securebits().unwrap_or(0),
        time_stamp_counter: prctl::time_stamp_counter().unwrap_or(0),
        cpuid: prctl::cpuid_enabled().unwrap_or(1),
        machine_check: prctl::machine_check_policy().unwrap_or(0),
        io_flusher: prctl::io_flusher().unwrap_or(0),
        ..ThreadFacts::default()
    };
    let bits = facts.policy_nodes.len() * 64;
    // SAFETY: each call writes to the fields that it is given, of the sizes that it writes.
    unsafe {
        let _ = syscall!(nr::__NR_get_robust_list, 0, &raw mut facts.robust_head, &raw mut facts.robust_len);
        let _ = syscall!(nr::__NR_get_mempolicy, &raw mut facts.policy, facts.policy_nodes.as_mut_ptr(), bits, 0, 0);
    }
    (facts.rseq, facts.rseq_len, facts.rseq_signature) = registered_rseq(facts.fs_base).unwrap_or_default();
    facts
}

/// The restartable sequences area that the calling thread has registered: address, size, signature. There is no call to ask. The kernel refuses a
/// registration with EBUSY if it is there already, and with EINVAL if there is another.
fn registered_rseq(fs_base: u64) -> Option<(u64, u32, u32)> {
    /// An area of the least size, for a moment.
    #[repr(C, align(32))]
    struct Area([u8; RSEQ_MIN_LEN as usize]);
    const UNKNOWN: Option<(u64, u32, u32)> = Some((ckpt_wire::RSEQ_UNKNOWN, 0, 0));
    let config = CONFIG.get();
    let (area, len) = (fs_base.wrapping_add_signed(config.rseq_offset as i64), config.rseq_size.max(RSEQ_MIN_LEN));
    // `cpu_id`, the second word, is negative in an area that the C library has not registered. One that is not, on a stack that is used
    // again, may be left from another thread.
    // SAFETY: the C library keeps the area there in every thread.
    let expected = config.rseq_size != 0 && unsafe { core::ptr::read_volatile((area + 4) as *const i32) } >= 0;
    let mut own = Area([0; RSEQ_MIN_LEN as usize]);
    let (tried, len) = if expected { (area, len) } else { (&raw mut own as u64, RSEQ_MIN_LEN) };
    // SAFETY: both areas live over the call, and what it registers is unregistered at once.
    match unsafe { syscall!(nr::__NR_rseq, tried, len, 0, RSEQ_SIGNATURE) } {
        Ok(_) => {
            // SAFETY: as above.
            let _ = unsafe { syscall!(nr::__NR_rseq, tried, len, RSEQ_FLAG_UNREGISTER, RSEQ_SIGNATURE) };
            None
        }
        Err(Errno(EBUSY)) => Some((tried, len, RSEQ_SIGNATURE)),
        Err(Errno(EINVAL | EPERM)) => UNKNOWN,
        Err(_) => None,
    }
}

/// Records the state of the process as a whole, and takes its child subreaper setting away until [`restore_subreaper`]: the twin must become
/// the coordinator's child, not one of the job's.
pub fn record_process(shared: &Shared, len: usize) {
    // SAFETY: only the leader uses the process record, before it reports.
    let process = unsafe { &mut (*shared.control_mut()).process };
    for (signal, action) in (1..).zip(&mut process.actions) {
        *action = action::of(signal).unwrap_or_default();
    }
    timers::record_interval_timers(&mut process.interval_timers);
    const ASK: u32 = u32::MAX;
    // SAFETY: both calls take numbers only, and change nothing.
    unsafe {
        process.brk = syscall!(nr::__NR_brk, 0).unwrap_or(0);
        process.personality = syscall!(nr::__NR_personality, ASK).unwrap_or(0) as u32;
    }
    process.dumpable = prctl::dumpable().unwrap_or(0);
    process.thp_disable = prctl::thp_disable().unwrap_or(0);
    process.securebits = prctl::securebits().unwrap_or(0);
    process.memory_merge = prctl::memory_merge().unwrap_or(0);
    process.no_exec_gain = prctl::mdwe().unwrap_or(0);
    (process.protection_keys, process.taken_keys) = protection_keys();
    process.memory_barriers = memory_barriers();
    process.tile_registers = u32::from(prctl::xsave_components().is_ok_and(|all| all & 1 << XFEATURE_XTILEDATA != 0));
    let is_subreaper = prctl::child_subreaper().unwrap_or(false);
    process.child_subreaper = u32::from(is_subreaper);
    if is_subreaper {
        let _ = prctl::set_child_subreaper(false);
    }
    record_places(process, shared, len);
}

/// The registrations with membarrier(2), `MEMBARRIER_CMD_REGISTER_*`.
fn memory_barriers() -> u32 {
    use linux_raw_sys::general::membarrier_cmd::{
        MEMBARRIER_CMD_GET_REGISTRATIONS, MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ,
        MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_QUERY, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
    };
    // SAFETY: all commands take numbers only, and register nothing.
    let ask = |command: u32| unsafe { syscall!(nr::__NR_membarrier, command, 0, 0) };
    if let Ok(registered) = ask(MEMBARRIER_CMD_GET_REGISTRATIONS as u32) {
        return registered as u32;
    }
    // Before Linux 6.3 only a barrier tells: it is refused to a process that has not registered. For that of all processes there is
    // nothing to ask, and to be registered costs nothing.
    if ask(MEMBARRIER_CMD_QUERY as u32).is_err() {
        return 0;
    }
    [MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ]
        .map(|command| command as u32)
        .into_iter()
        .filter(|command| ask(*command).is_ok())
        // Each registration is the bit above its barrier.
        .fold(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED as u32, |registered, command| registered | command << 1)
}

/// Records where the agent is.
fn record_places(process: &mut ProcessRecord, shared: &Shared, len: usize) {
    process.touched = touched::variable_address();
    process.leave = leave as *const () as u64;
    process.transient_start = &raw const TRANSIENT as u64;
    process.transient_len = size_of::<Transient>() as u64;
    process.leaving = TRANSIENT.leaving.as_ptr() as u64;
    process.control_start = shared.control_mut() as u64;
    process.control_end = process.control_start + len.next_multiple_of(PAGE_SIZE) as u64;
}

/// The protection keys (pkeys(7)) that this process may use, and those that it could not allocate, bit by bit. There is no call to ask.
fn protection_keys() -> (u32, u32) {
    /// No program has memory here: a call that gets as far as looking for it fails with ENOMEM.
    const NOBODYS: u64 = 1 << 63;
    const ENOMEM: i32 = linux_raw_sys::errno::ENOMEM as i32;
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
    let control = shared.control();
    let mut count = 0;
    let _ = procfs::for_each_mapping(|start, end| {
        let (mut mode, mut nodes) = (0u32, [0u64; ckpt_wire::POLICY_WORDS]);
        let bits = nodes.len() * 64;
        // SAFETY: mode and nodes are written, with their true sizes.
        let asked = unsafe {
            syscall!(
                nr::__NR_get_mempolicy,
                &raw mut mode,
                nodes.as_mut_ptr(),
                bits,
                start,
                linux_raw_sys::mempolicy::MPOL_F_ADDR
            )
        };
        if asked.is_ok() && mode != 0 && count < control.layout.room.plan {
            let [low, high, ..] = nodes;
            // SAFETY: the object has room for it; the coordinator looks when this process has reported.
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
        let _ = prctl::set_child_subreaper(true);
    }
}
