//! One process of the job: what it does, once it is in its place in the tree, to become what it was.
//!
//! 1. Forgets the signals that the building of the tree left pending.
//! 2. Maps and fills its memory ([`crate::memory`]).
//! 3. Arranges its descriptors ([`crate::descriptors`]), directories, umask.
//! 4. Writes the restorer's operations ([`crate::restorer`]): the swap of the address spaces, the threads, and what each thread has.
//! 5. Enters the restorer, and is itself no more.
#![allow(unsafe_code, reason = "this program's memory is replaced by the job's")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ckpt_objects::context::Context as _;
use ckpt_objects::credentials::Credentials;
use ckpt_objects::deferred::{Deferred, Purpose};
use ckpt_objects::memory::{AddressSpace, Backing, MmFields, Vma, VmaFlags};
use ckpt_objects::older::KernelFeature;
use ckpt_objects::open_file::{self, Files};
use ckpt_objects::process::{LiveProcess, ProcessState};
use ckpt_objects::signal::Siginfo;
use ckpt_objects::thread::{Scheduling, ThreadState};
use ckpt_objects::{FilePath, NsPid, epoll, file, file_lock, posix_timer, signal, signalling, sysv, timer};
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl::{
    PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, PR_MCE_KILL, PR_MCE_KILL_DEFAULT, PR_MCE_KILL_SET,
    PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_IO_FLUSHER, PR_SET_KEEPCAPS, PR_SET_MDWE, PR_SET_MEMORY_MERGE, PR_SET_MM,
    PR_SET_MM_MAP, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, PR_SET_PTRACER, PR_SET_SECUREBITS,
    PR_SET_SPECULATION_CTRL, PR_SET_THP_DISABLE, PR_SET_TIMERSLACK, PR_SET_TSC, PR_SET_VMA, PR_SET_VMA_ANON_NAME, PR_TSC_SIGSEGV,
};
use rustix::fs::Mode;

use crate::control::{Message, OPEN, SharedPage};
use crate::descriptors::{self, Move};
use crate::environment;
use crate::error::ProcessError;
use crate::holes::{PAGE, Ranges, TASK_SIZE};
use crate::memory::{self, Layout, Sources};
use crate::restart::Restart;
use crate::restorer::{self, Check, Operations, Region};
use crate::vdso::{self, Vdso};

/// Operations of arch_prctl(2), which linux-raw-sys lacks (arch/x86/include/uapi/asm/prctl.h).
const ARCH_SET_CPUID: u64 = 0x1012;
const ARCH_SET_GS: u64 = 0x1001;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
const ARCH_MAP_VDSO_64: u64 = 0x2003;
/// The XSAVE component of AMX tile data, which a process must ask for (`enum xfeature`, arch/x86/include/asm/fpu/types.h).
const XFEATURE_XTILEDATA: u64 = 18;

/// Makes this process adopt orphans below it.
pub fn set_subreaper(on: bool) -> Result<(), ProcessError> {
    // SAFETY: takes a number only.
    unsafe { syscall!(nr::__NR_prctl, PR_SET_CHILD_SUBREAPER, u32::from(on), 0, 0, 0) }
        .map(|_| ())
        .map_err(ProcessError::raw("adopt orphans"))
}

/// Names this thread. A name is for people: nothing depends on it.
pub fn set_name(name: &FilePath) {
    if let Ok(name) = CString::new(name.0.clone()) {
        // SAFETY: a string that ends with a zero byte.
        let _ = unsafe { syscall!(nr::__NR_prctl, PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    }
}

/// Becomes the process that `live` describes. Returns only with an error.
pub fn become_process(
    restart: &Restart<'_>,
    process: &ProcessState,
    live: &LiveProcess,
    files: &Files,
) -> Result<Infallible, ProcessError> {
    forget_signals();
    posix_timer::prepare(&live.posix_timers)?;
    sysv::rebuild_users(&restart.job.system_v.semaphores, process.pid.0)?;
    set_memory_settings(live)?;
    let mut vdso = VdsoPlan::of(restart, &live.memory)?;
    let mut vmas = vdso.replace_in(&live.memory.vmas);
    memory::replace_droppable(&mut vmas);
    let mut layout = map_memory(restart, live, &vmas, files)?;
    vdso.finish(&mut layout)?;
    prepare_agent(live, &layout)?;
    environment::refresh(&live.memory.fields, &layout, restart.environment)?;
    if live.agent.touched != 0 && !restart.touched.is_empty() {
        layout.write(live.agent.touched, restart.touched)?;
    }
    layout.finish()?;

    let timers = Timers::of(live, process.pid);
    let len = region_len(live, &vmas, &timers);
    let base = layout.set_aside(len)?;
    let control = restart.control.address();
    // SAFETY: the region has just been set aside; this process is done with the shared page but through the region.
    let mut region = unsafe { Region::new(base, len, control) }.map_err(ProcessError::raw("set up the restorer"))?;

    set_place(restart, live, files, process.pid)?;
    let own = Own::now()?;
    let (reports, exe) = arrange_descriptors(restart, live, files, process.pid)?;
    // Failures from here on must find the pipe by its new number.
    // SAFETY: it has been arranged, and stays open until the restorer closes it.
    let restart = &Restart { reports: unsafe { BorrowedFd::borrow_raw(reports) }, ..*restart };
    let builder = OperationsBuilder {
        restart,
        process,
        live,
        layout: &layout,
        vmas: &vmas,
        vdso: &vdso,
        timers: &timers,
        own,
        exe,
        reports,
    };
    let first = change_root(restart, live)
        .and_then(|()| builder.build(&mut region))
        .unwrap_or_else(|error| restart.fail(&format!("process {}", process.pid), &error));
    // SAFETY: the operations replace this program by the job's: nothing of it is used any more.
    unsafe { region.enter(first, reports) }
}

/// What holds for all memory, before there is any.
fn set_memory_settings(live: &LiveProcess) -> Result<(), ProcessError> {
    memory::allocate_keys(&live.memory)?;
    if live.settings.thp_disable != 0 {
        // The flags are told with the setting.
        let flags = live.settings.thp_disable & !1;
        // SAFETY: takes numbers only.
        unsafe { syscall!(nr::__NR_prctl, PR_SET_THP_DISABLE, 1, flags, 0, 0) }
            .map_err(ProcessError::raw("disable huge pages"))?;
    }
    if live.settings.memory_merge {
        // SAFETY: takes numbers only. That equal pages become one is about speed: a kernel without it does as well.
        let _ = unsafe { syscall!(nr::__NR_prctl, PR_SET_MEMORY_MERGE, 1, 0, 0, 0) };
    }
    Ok(())
}

/// Takes back what is pending: the ends of children that were needed for a moment.
fn forget_signals() {
    let all = u64::MAX;
    let no_wait = [0u64; 2];
    // SAFETY: the set and the time live over the call, and no siginfo is wanted.
    while unsafe { syscall!(nr::__NR_rt_sigtimedwait, &raw const all, 0, no_wait.as_ptr(), size_of::<u64>()) }.is_ok() {}
}

fn map_memory<'a>(restart: &Restart<'_>, live: &LiveProcess, vmas: &'a [Vma], files: &Files) -> Result<Layout<'a>, ProcessError> {
    let space = live.memory.space.0;
    let sources = Sources { files: restart.mapped, shared: &files.shared, objects: &restart.job.shared_memory };
    let layout = Layout::map(vmas, &sources, |start, end| {
        // The old vDSO's image, where it is bridged, comes from the metadata.
        memory::has_pages(restart.reader, space, start, end)
            || live.memory.vmas.iter().any(|vma| vma.start == start && vma.backing == Backing::Vdso)
    })?;
    layout.fill(restart.reader, space, restart.fill_threads, &restart.control.filled)?;
    Ok(layout)
}

/// Puts the agent back into the state between checkpoints, with the number of threads that are about to leave the restorer.
fn prepare_agent(live: &LiveProcess, layout: &Layout<'_>) -> Result<(), ProcessError> {
    let agent = &live.agent;
    if agent.leave == 0 || agent.transient_len > PAGE {
        return Err(ProcessError::Incomplete("the agent in a process"));
    }
    let leaving = live.threads.iter().filter(|thread| !thread.exited).count() as u32;
    if leaving == 0 {
        return Err(ProcessError::Incomplete("the threads of a process"));
    }
    layout.write(agent.transient_start, &vec![0; agent.transient_len as usize])?;
    layout.write(agent.leaving, &leaving.to_ne_bytes())?;
    Ok(())
}

/// How the process gets a vDSO where it had one.
enum VdsoPlan {
    /// It had none.
    None,
    /// This kernel's, at the old place of its data.
    Same { vvar: u64, start: u64, len: u64 },
    /// The old one's image, with this kernel's elsewhere.
    Bridge { start: u64, old: Vec<u8>, own: Vdso, at: u64 },
}

impl VdsoPlan {
    fn of(restart: &Restart<'_>, memory: &AddressSpace) -> Result<Self, ProcessError> {
        let old = &restart.job.machine.vdso;
        let Some(vdso) = memory.vmas.iter().find(|vma| vma.backing == Backing::Vdso) else { return Ok(Self::None) };
        let first_vvar = memory.vmas.iter().find(|vma| vma.backing == Backing::Vvar);
        let vvar = first_vvar.map_or(vdso.start, |vma| vma.start);
        let own = Vdso::own().ok_or_else(|| ProcessError::Vdso("this kernel gives none".to_owned()))?;
        let same = own.bytes == *old && own.start - own.vvar == vdso.start - vvar && vdso.len() == own.bytes.len() as u64;
        if same && !KernelFeature::SameVdso.is_off() {
            return Ok(Self::Same { vvar, start: vdso.start, len: vdso.len() });
        }
        if vdso.len() != old.len() as u64 {
            return Err(ProcessError::Vdso("the image holds another one than the process has".to_owned()));
        }
        Ok(Self::Bridge { start: vdso.start, old: old.clone(), own, at: 0 })
    }

    /// The mappings with the old vDSO as ordinary memory where it is bridged.
    fn replace_in(&self, vmas: &[Vma]) -> Vec<Vma> {
        let mut vmas = vmas.to_vec();
        if matches!(self, Self::Bridge { .. }) {
            vmas.retain(|vma| vma.backing != Backing::Vvar);
            for vma in vmas.iter_mut().filter(|vma| vma.backing == Backing::Vdso) {
                vma.backing = Backing::Anonymous;
            }
        }
        vmas
    }

    /// Finds a place for this kernel's vDSO, and writes the old one's image, where it is bridged.
    fn finish(&mut self, layout: &mut Layout<'_>) -> Result<(), ProcessError> {
        let Self::Bridge { start, old, own, at } = self else { return Ok(()) };
        *at = layout.free_address(own.start - own.vvar + own.bytes.len() as u64)?;
        let new_start = *at + (own.start - own.vvar);
        layout.write(*start, &vdso::bridge(old, &own.bytes, new_start).map_err(ProcessError::Vdso)?)?;
        Ok(())
    }
}

/// Room for the restorer's data: generous, since only what is used becomes memory.
fn region_len(live: &LiveProcess, vmas: &[Vma], timers: &Timers) -> u64 {
    let pending = |signals: &Vec<Siginfo>| signals.len() as u64;
    let signals = pending(&live.signals.pending) + live.threads.iter().map(|thread| pending(&thread.pending)).sum::<u64>();
    let ranges = (vmas.len() + live.memory.guards.len()) as u64;
    let items = (1 << 20) + ranges * 4096 + live.threads.len() as u64 * (32 << 10) + signals * 512 + timers.room();
    items.next_multiple_of(PAGE)
}

/// Gives every descriptor its number. The two that the restorer needs for itself get numbers that the job does not use: for reports,
/// and the program's file, if it can be had.
fn arrange_descriptors(
    restart: &Restart<'_>,
    live: &LiveProcess,
    files: &Files,
    pid: NsPid,
) -> Result<(RawFd, Option<RawFd>), ProcessError> {
    let mut moves = Vec::new();
    let mut own_files: HashMap<usize, OwnedFd> = HashMap::new();
    for entry in &live.descriptors {
        let file = entry.file.at();
        let from = match (files.get(file), own_files.entry(file)) {
            (Some(fd), _) => fd.as_raw_fd(),
            (None, Entry::Occupied(open)) => open.get().as_raw_fd(),
            (None, Entry::Vacant(place)) => {
                let description = restart.job.open_files.get(file).ok_or(ProcessError::Incomplete("a file that is open"))?;
                place.insert(open_file::rebuild_own(description, pid)?).as_raw_fd()
            }
        };
        moves.push(Move { from, to: entry.fd, close_on_exec: entry.close_on_exec });
    }
    epoll::register_own(restart, pid, |file| files.get(file.at()).or_else(|| own_files.get(&file.at()).map(AsFd::as_fd)))?;
    let mut free = (0..).filter(|number| !live.descriptors.iter().any(|entry| entry.fd == *number));
    let mut own = |from: RawFd| {
        let to = free.next().unwrap_or(RawFd::MAX);
        moves.push(Move { from, to, close_on_exec: true });
        to
    };
    let reports = own(restart.reports.as_raw_fd());
    let MmFields { exe, unnamed_exe, .. } = live.memory.fields;
    let unnamed = unnamed_exe.and_then(|number| files.programs.get(number as usize));
    let program_file = match restart.mapped.get(exe as usize).and_then(Option::as_ref) {
        Some(path) if unnamed_exe.is_none() => Some(file::rebuild_named(path, libc::O_RDONLY.cast_unsigned(), 0)?),
        _ => None,
    };
    let exe = unnamed.or(program_file.as_ref()).map(|file| own(file.as_raw_fd()));
    descriptors::arrange(&moves)?;
    // What these owned has been closed, or has another owner.
    std::mem::forget((own_files, program_file));
    Ok((reports, exe))
}

/// Directories, umask, and what else is set by calls that need no restorer.
fn set_place(restart: &Restart<'_>, live: &LiveProcess, files: &Files, pid: NsPid) -> Result<(), ProcessError> {
    let cwd = restart.paths.resolve(&live.cwd);
    let removed = live.removed_cwd.as_ref().map(|removed| files.removed.get(&(removed.device, removed.inode)));
    let changed = match removed {
        Some(fd) => rustix::process::fchdir(fd.ok_or(ProcessError::Incomplete("a directory"))?).map_err(std::io::Error::from),
        None => std::env::set_current_dir(&cwd),
    };
    changed.map_err(ProcessError::call(format!("change to directory {}", cwd.display())))?;
    rustix::process::umask(Mode::from_raw_mode(live.umask));
    if live.settings.core_filter != 0 {
        // What a core would hold is no reason to fail.
        let _ = std::fs::write("/proc/self/coredump_filter", format!("{:#x}", live.settings.core_filter));
    }
    let wanted = live.oom_score_adj.to_string();
    let path = "/proc/self/oom_score_adj";
    if std::fs::read_to_string(path).is_ok_and(|own| own.trim_end() != wanted)
        && let Err(error) = std::fs::write(path, &wanted)
    {
        restart.report(&Message::Note(format!("process {pid}: cannot set oom_score_adj to {wanted}: {error}")));
    }
    Ok(())
}

/// Changes the root directory, from below which no path leads to what a restart needs.
fn change_root(restart: &Restart<'_>, live: &LiveProcess) -> Result<(), ProcessError> {
    if live.root.0 == b"/" {
        return Ok(());
    }
    let root = restart.paths.resolve(&live.root);
    rustix::process::chroot(&root).map_err(ProcessError::call(format!("change the root to {}", root.display())))
}

/// Words by which the threads of one process wait for each other.
#[derive(Clone, Copy)]
struct Meeting {
    /// 1 when what must be done last is done.
    local: u64,
    /// 0 when a leader that had ended has ended again.
    ended: u64,
}

/// Calls for the timers of timer_create(2), whose number is not bounded by anything that the process has.
struct Timers {
    /// Made, when all threads are there.
    made: Deferred,
    /// Set, when the gate is open.
    armed: Deferred,
}

impl Timers {
    fn of(live: &LiveProcess, pid: NsPid) -> Self {
        Self { made: posix_timer::rebuild(&live.posix_timers), armed: posix_timer::arm(&live.posix_timers, pid) }
    }

    fn room(&self) -> u64 {
        restorer::room(&self.made) + restorer::room(&self.armed)
    }
}

/// Writes the operations of one process.
struct OperationsBuilder<'a> {
    restart: &'a Restart<'a>,
    process: &'a ProcessState,
    live: &'a LiveProcess,
    layout: &'a Layout<'a>,
    vmas: &'a [Vma],
    vdso: &'a VdsoPlan,
    timers: &'a Timers,
    own: Own,
    exe: Option<RawFd>,
    reports: RawFd,
}

impl OperationsBuilder<'_> {
    /// Writes them into the region; gives the address of the first.
    fn build(&self, region: &mut Region) -> Result<u64, ProcessError> {
        let meeting = Meeting { local: region.put(&0u32.to_ne_bytes())?, ended: region.put(&1u32.to_ne_bytes())? };
        let threads = &self.live.threads;
        let Some((leader, others)) = threads.split_first().filter(|(leader, _)| leader.tid == self.process.pid) else {
            return Err(ProcessError::Incomplete("the leader of a process's threads"));
        };
        // The first thread that is alive does, when the gate is open, what must not happen before.
        let finisher = threads.iter().find(|thread| !thread.exited).map(|thread| thread.tid);
        let mut main = Operations::new(leader.tid.0);
        self.swap_memory(region, &mut main)?;
        self.set_signal_actions(region, &mut main)?;
        let personality = self.live.settings.personality;
        main.call(Purpose::Setting, Check::Success, nr::__NR_personality, &[personality.into()]);
        for thread in others {
            let list = self.thread(region, thread, finisher == Some(thread.tid), meeting)?;
            let list = region.put_operations(&list)?;
            clone_thread(region, &mut main, thread.tid.0, list)?;
        }
        main.deferred(region, &signal::queue(leader.tid, None, &self.live.signals.pending)?)?;
        main.deferred(region, &self.timers.made)?;
        main.append(self.thread(region, leader, finisher == Some(leader.tid), meeting)?);
        Ok(region.put_operations(&main)?)
    }

    /// Unmaps what is there, and puts the job's memory in its place.
    fn swap_memory(&self, region: &mut Region, list: &mut Operations) -> Result<(), ProcessError> {
        let mut kept = Ranges::default();
        kept.insert(region.base(), region.base() + region.len());
        for placed in &self.layout.placed {
            kept.insert(placed.at, placed.at + (placed.end - placed.start));
        }
        for (start, end) in kept.gaps(0, TASK_SIZE) {
            list.call(Purpose::Unmap, Check::Success, nr::__NR_munmap, &[start, end - start]);
        }
        self.map_vdso(list);
        for placed in self.layout.placed.iter().filter(|placed| placed.at != placed.start) {
            let len = placed.end - placed.start;
            let flags = u64::from(nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED);
            list.call_expecting(Purpose::Move, nr::__NR_mremap, &[placed.at, len, len, flags, placed.start], placed.start);
        }
        for vma in &self.layout.deferred {
            let flags = u64::from(memory::anonymous_flags(vma) | nr::MAP_FIXED_NOREPLACE);
            let args = [vma.start, vma.len(), u64::from(vma.prot), flags, u64::MAX, 0];
            list.call_expecting(Purpose::Map, nr::__NR_mmap, &args, vma.start);
            for (advice, required) in memory::advices(vma.flags) {
                let check = if required { Check::Success } else { Check::Any };
                list.call(Purpose::Advise, check, nr::__NR_madvise, &[vma.start, vma.len(), u64::from(advice)]);
            }
            if vma.protection_key != 0 && vma.prot != nr::PROT_EXEC {
                let args = [vma.start, vma.len(), vma.prot.into(), vma.protection_key.into()];
                list.call(Purpose::ProtectionKey, Check::Success, nr::__NR_pkey_mprotect, &args);
            }
            if let Some(policy) = &vma.policy {
                let nodes = region.put_words(&policy.nodes)?;
                let args = [vma.start, vma.len(), policy.mode.into(), nodes, memory::policy_arguments(policy).bits, 0];
                list.call(Purpose::MemoryPolicy, Check::Any, nr::__NR_mbind, &args);
            }
            if let Some(name) = &vma.name {
                let name = region.put(&[&name.0[..], &[0]].concat())?;
                let args = [PR_SET_VMA.into(), PR_SET_VMA_ANON_NAME.into(), vma.start, vma.len(), name];
                list.call(Purpose::Name, Check::Any, nr::__NR_prctl, &args);
            }
        }
        self.set_guards(list);
        self.set_mm_fields(region, list)?;
        for vma in self.vmas.iter().filter(|vma| !matches!(vma.backing, Backing::Vvar | Backing::Vdso)) {
            if vma.flags.contains(VmaFlags::LOCKED) {
                let flags = if vma.flags.contains(VmaFlags::LOCKED_ON_FAULT) { nr::MLOCK_ONFAULT } else { 0 };
                list.call(Purpose::Lock, Check::Report, nr::__NR_mlock2, &[vma.start, vma.len(), flags.into()]);
            }
            if vma.flags.contains(VmaFlags::SEALED) {
                list.call(Purpose::Seal, Check::Report, nr::__NR_mseal, &[vma.start, vma.len(), 0]);
            }
        }
        self.finish_memory(list);
        Ok(())
    }

    /// Settings of the address space as a whole that come when it is complete.
    fn finish_memory(&self, list: &mut Operations) {
        let memory = &self.live.memory;
        if memory.lock_future != 0 {
            list.call(Purpose::Lock, Check::Report, nr::__NR_mlockall, &[memory.lock_future.into()]);
        }
        let no_exec_gain = self.live.settings.no_exec_gain;
        if no_exec_gain != 0 {
            list.call(Purpose::Setting, Check::Report, nr::__NR_prctl, &[PR_SET_MDWE.into(), no_exec_gain.into()]);
        }
        let barriers = self.live.settings.memory_barriers;
        for command in (0..u32::BITS).map(|bit| 1 << bit).filter(|command| barriers & command != 0) {
            list.call(Purpose::Setting, Check::Report, nr::__NR_membarrier, &[command.into(), 0, 0]);
        }
        if self.live.settings.tile_registers {
            list.call(Purpose::TileRegisters, Check::Success, nr::__NR_arch_prctl, &[ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA]);
        }
    }

    /// Guards what was guarded. A kernel that cannot do so within a mapping gives no access to it instead.
    fn set_guards(&self, list: &mut Operations) {
        let guards = &self.live.memory.guards;
        if guards.is_empty() {
            return;
        }
        let can_guard = !KernelFeature::Guards.is_off() && ckpt_sys::probe::guard_install().is_ok();
        for &(start, end) in guards {
            let (call, argument) =
                if can_guard { (nr::__NR_madvise, nr::MADV_GUARD_INSTALL) } else { (nr::__NR_mprotect, nr::PROT_NONE) };
            list.call(Purpose::Guard, Check::Success, call, &[start, end - start, argument.into()]);
        }
    }

    fn map_vdso(&self, list: &mut Operations) {
        let (at, start, len) = match self.vdso {
            VdsoPlan::None => return,
            VdsoPlan::Same { vvar, start, len } => (*vvar, *start, *len),
            VdsoPlan::Bridge { own, at, .. } => (*at, at + (own.start - own.vvar), own.bytes.len() as u64),
        };
        list.call(Purpose::Vdso, Check::Success, nr::__NR_arch_prctl, &[ARCH_MAP_VDSO_64, at]);
        // The address is a wish to the kernel: this fails where it was not granted.
        let protection = u64::from(nr::PROT_READ | nr::PROT_EXEC);
        list.call(Purpose::Vdso, Check::Success, nr::__NR_mprotect, &[start, len, protection]);
    }

    fn set_mm_fields(&self, region: &mut Region, list: &mut Operations) -> Result<(), ProcessError> {
        let fields = &self.live.memory.fields;
        let auxv = region.put(&fields.auxv)?;
        // struct prctl_mm_map (include/uapi/linux/prctl.h); the last word is auxv_size and exe_fd.
        let exe = self.exe.map_or(u32::MAX, i32::cast_unsigned);
        let map = region.put_words(&[
            fields.start_code,
            fields.end_code,
            fields.start_data,
            fields.end_data,
            fields.start_brk,
            fields.brk,
            fields.start_stack,
            fields.arg_start,
            fields.arg_end,
            fields.env_start,
            fields.env_end,
            auxv,
            fields.auxv.len() as u64 | u64::from(exe) << 32,
        ])?;
        list.call(Purpose::MmFields, Check::Success, nr::__NR_prctl, &[PR_SET_MM.into(), PR_SET_MM_MAP.into(), map, 13 * 8, 0]);
        if let Some(exe) = self.exe {
            list.call(Purpose::Close, Check::Success, nr::__NR_close, &[u64::from(exe.cast_unsigned())]);
        }
        Ok(())
    }

    fn set_signal_actions(&self, region: &mut Region, list: &mut Operations) -> Result<(), ProcessError> {
        for (signal, action) in (1u64..).zip(&self.live.signals.actions) {
            if signal == libc::SIGKILL as u64 || signal == libc::SIGSTOP as u64 {
                continue;
            }
            let action = region.put_words(&[action.handler, action.flags, action.restorer, action.mask])?;
            list.call(Purpose::SignalAction, Check::Success, nr::__NR_rt_sigaction, &[signal, action, 0, 8]);
        }
        Ok(())
    }

    /// What a thread does that had ended: it ends again.
    fn exited_thread(
        &self,
        region: &mut Region,
        thread: &ThreadState,
        mut list: Operations,
        meeting: Meeting,
    ) -> Result<Operations, ProcessError> {
        let tid = u64::from(thread.tid.0.cast_unsigned());
        list.call_expecting(Purpose::TidAddress, nr::__NR_set_tid_address, &[meeting.ended], tid);
        list.call(Purpose::RobustList, Check::Success, nr::__NR_set_robust_list, &[0, ROBUST_LIST_LEN]);
        self.set_credentials(region, &mut list, &self.live.credentials)?;
        list.call(Purpose::Exit, Check::Success, nr::__NR_exit, &[0]);
        Ok(list)
    }

    /// What a thread does from its beginning until it leaves.
    fn thread(
        &self,
        region: &mut Region,
        thread: &ThreadState,
        finishes: bool,
        meeting: Meeting,
    ) -> Result<Operations, ProcessError> {
        let mut list = Operations::new(thread.tid.0);
        let name = region.put(&[&thread.comm.0[..], &[0]].concat())?;
        list.call(Purpose::ThreadName, Check::Success, nr::__NR_prctl, &[PR_SET_NAME.into(), name]);
        if thread.exited {
            return self.exited_thread(region, thread, list, meeting);
        }
        list.call(Purpose::FsBase, Check::Success, nr::__NR_arch_prctl, &[nr::ARCH_SET_FS.into(), thread.fs_base]);
        list.call(Purpose::GsBase, Check::Success, nr::__NR_arch_prctl, &[ARCH_SET_GS, thread.gs_base]);
        let tid = u64::from(thread.tid.0.cast_unsigned());
        list.call_expecting(Purpose::TidAddress, nr::__NR_set_tid_address, &[thread.clear_child_tid], tid);
        let (head, len) = thread.robust_list;
        let len = if len == 0 { ROBUST_LIST_LEN } else { len };
        list.call(Purpose::RobustList, Check::Success, nr::__NR_set_robust_list, &[head, len]);
        if thread.timer_slack_ns != 0 {
            list.call(Purpose::TimerSlack, Check::Success, nr::__NR_prctl, &[PR_SET_TIMERSLACK.into(), thread.timer_slack_ns]);
        }
        set_scheduling(region, &mut list, &thread.scheduling)?;
        if thread.no_new_privs {
            list.call(Purpose::NoNewPrivileges, Check::Success, nr::__NR_prctl, &[PR_SET_NO_NEW_PRIVS.into(), 1]);
        }
        self.set_thread_settings(region, &mut list, thread)?;
        self.set_credentials(region, &mut list, thread.credentials.as_deref().unwrap_or(&self.live.credentials))?;
        // A change of user or capabilities takes it away.
        let parent_death = u64::from(thread.parent_death_signal.cast_unsigned());
        list.call(Purpose::ParentDeathSignal, Check::Success, nr::__NR_prctl, &[PR_SET_PDEATHSIG.into(), parent_death]);
        list.deferred(region, &signal::queue(self.process.pid, Some(thread.tid), &thread.pending)?)?;
        if finishes {
            self.set_limits(region, &mut list)?;
        }
        if let Some(rseq) = thread.rseq {
            let args = [rseq.address, rseq.len.into(), 0, rseq.signature.into()];
            list.call(Purpose::Rseq, Check::Success, nr::__NR_rseq, &args);
        }
        if finishes {
            self.arm_files(region, &mut list)?;
        }
        if finishes && self.live.threads.iter().any(|thread| thread.exited) {
            // A first thread that had ended does its part (pending signals, timers), and ends again. Nobody counts it at the gate, and the region
            // goes with the last of the others. The kernel clears the word when it has left.
            let args = [meeting.ended, nr::FUTEX_WAIT.into(), 1, 0];
            list.call(Purpose::Exit, Check::Any, nr::__NR_futex, &args);
        }
        // One that is to be stopped is so before the gate opens: when it goes on, nobody listens any more.
        if finishes && self.live.stopped {
            self.finish(region, &mut list)?;
        }
        if !self.live.stopped {
            self.let_ignored_in(region, &mut list, thread)?;
        }
        let gate = region.gate();
        list.arrive(gate + std::mem::offset_of!(SharedPage, arrived) as u64);
        if finishes {
            list.wait(gate + std::mem::offset_of!(SharedPage, gate) as u64, OPEN);
            if !self.live.stopped {
                self.finish(region, &mut list)?;
            }
            list.arrive(meeting.local);
        } else {
            list.wait(meeting.local, 1);
        }
        let agent = &self.live.agent;
        list.leave(agent.leave, [region.base(), region.len(), thread.frame, agent.leaving]);
        Ok(list)
    }

    /// Leaves only those signals blocked that the process does not ignore, or that the thread blocks itself. While one thread is still here, an ignored
    /// signal would be queued for it, and end a call of another that is not (`ckpt_agent`'s `ignored`). In a stopped process nobody is.
    fn let_ignored_in(&self, region: &mut Region, list: &mut Operations, thread: &ThreadState) -> Result<(), ProcessError> {
        use ckpt_sys::sigframe::UContext;
        const BY_DEFAULT: [i32; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
        let is_ignored = |signal: i32, handler: u64| handler == 1 || handler == 0 && BY_DEFAULT.contains(&signal);
        let actions = (1..).zip(&self.live.signals.actions).filter(|(signal, action)| is_ignored(*signal, action.handler));
        let ignored = actions.fold(0u64, |set, (signal, _)| set | 1 << (signal - 1));
        let mask_at = thread.frame + std::mem::offset_of!(UContext, sigmask) as u64;
        let own = self.layout.read(mask_at, 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
        let Some(own) = own else { return Ok(()) };
        let mask = region.put_words(&[!ignored | own])?;
        list.call(Purpose::Setting, Check::Success, nr::__NR_rt_sigprocmask, &[nr::SIG_SETMASK.into(), mask, 0, 8]);
        Ok(())
    }

    /// What a thread has set for itself beside what it is scheduled by.
    fn set_thread_settings(&self, region: &mut Region, list: &mut Operations, thread: &ThreadState) -> Result<(), ProcessError> {
        if thread.policy.mode != 0 || self.own.has_policy {
            let nodes = region.put_words(&thread.policy.nodes)?;
            let arguments = memory::policy_arguments(&thread.policy);
            let nodes = if arguments.nodes == 0 { 0 } else { nodes };
            let args = [arguments.mode.into(), nodes, arguments.bits];
            list.call(Purpose::MemoryPolicy, Check::Report, nr::__NR_set_mempolicy, &args);
        }
        let settings = &thread.settings;
        let mut set = |call, args: &[u64]| list.call(Purpose::Setting, Check::Report, call, args);
        for (which, control) in (0u64..).zip(settings.speculation).filter(|(_, control)| *control != 0) {
            set(nr::__NR_prctl, &[PR_SET_SPECULATION_CTRL.into(), which, control.into()]);
        }
        if settings.machine_check != PR_MCE_KILL_DEFAULT {
            set(nr::__NR_prctl, &[PR_MCE_KILL.into(), PR_MCE_KILL_SET.into(), settings.machine_check.into()]);
        }
        if settings.io_flusher {
            set(nr::__NR_prctl, &[PR_SET_IO_FLUSHER.into(), 1]);
        }
        if settings.no_time_stamp_counter {
            set(nr::__NR_prctl, &[PR_SET_TSC.into(), PR_TSC_SIGSEGV.into()]);
        }
        if settings.no_cpuid {
            set(nr::__NR_arch_prctl, &[ARCH_SET_CPUID, 0]);
        }
        if thread.tid == self.process.pid {
            // Who may be traced by whom where Yama confines that cannot be seen. Processes of an MPI job read each other's memory: within the job
            // they may.
            let launcher = u64::from(self.restart.job.info.launcher.0.cast_unsigned());
            list.call(Purpose::Setting, Check::Any, nr::__NR_prctl, &[PR_SET_PTRACER.into(), launcher]);
        }
        Ok(())
    }

    /// What belongs to a process and its open files: locks, and whom files send signals. Other processes must be there.
    fn arm_files(&self, region: &mut Region, list: &mut Operations) -> Result<(), ProcessError> {
        let objects = self.restart.job.objects();
        list.deferred(region, &file_lock::take_of_process(objects, self.process.pid))?;
        Ok(list.deferred(region, &signalling::arm(objects, self.process.pid))?)
    }

    /// What is done last, once for the whole process.
    fn finish(&self, region: &mut Region, list: &mut Operations) -> Result<(), ProcessError> {
        list.call(Purpose::Close, Check::Success, nr::__NR_close, &[u64::from(self.reports.cast_unsigned())]);
        // Nothing but 0 and 1 can be set; what the kernel itself set for a set-uid program counts as 0.
        let dumpable = u64::from(self.live.settings.dumpable == 1);
        list.call(Purpose::Dumpable, Check::Any, nr::__NR_prctl, &[PR_SET_DUMPABLE.into(), dumpable]);
        list.deferred(region, &timer::arm(&self.live.interval_timers))?;
        Ok(list.deferred(region, &self.timers.armed)?)
    }

    /// User, groups and capabilities, which each thread has for itself.
    fn set_credentials(&self, region: &mut Region, list: &mut Operations, wanted: &Credentials) -> Result<(), ProcessError> {
        let own = &self.own;
        let [inheritable, permitted, effective, bounding, ambient] = wanted.capabilities;
        for capability in 0..64u64 {
            if own.bounding & !bounding & 1 << capability != 0 {
                list.call(Purpose::BoundingSet, Check::Report, nr::__NR_prctl, &[PR_CAPBSET_DROP.into(), capability]);
            }
        }
        if !self.restart.has_user_namespace() && own.groups != wanted.groups {
            let groups: Vec<u8> = wanted.groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
            let groups = region.put(&groups)?;
            list.call(Purpose::Groups, Check::Success, nr::__NR_setgroups, &[wanted.groups.len() as u64, groups]);
        }
        let changes_user = own.uids != wanted.uids || own.gids != wanted.gids;
        if changes_user {
            // Else the capabilities would go with the user, and with them the right to set what follows.
            list.call(Purpose::User, Check::Success, nr::__NR_prctl, &[PR_SET_KEEPCAPS.into(), 1]);
            let ids = |ids: [u32; 4]| ids.map(u64::from);
            let (uids, gids) = (ids(wanted.uids), ids(wanted.gids));
            list.call(Purpose::User, Check::Success, nr::__NR_setresgid, &gids[..3]);
            list.call(Purpose::User, Check::Success, nr::__NR_setresuid, &uids[..3]);
        }
        // What this restart does not have it cannot give.
        let permitted = permitted & own.permitted;
        let halves = |set: u64, shift: u32| (set >> shift) as u32;
        let header = region.put_words(&[nr::_LINUX_CAPABILITY_VERSION_3.into()])?;
        let capset = |region: &mut Region, list: &mut Operations, [effective, permitted, inheritable]: [u64; 3]| {
            let words: Vec<u8> = [0, 32]
                .into_iter()
                .flat_map(|shift| [effective, permitted, inheritable].map(|set| halves(set, shift)))
                .flat_map(u32::to_ne_bytes)
                .collect();
            let data = region.put(&words)?;
            list.call(Purpose::Capabilities, Check::Success, nr::__NR_capset, &[header, data]);
            Ok::<(), ProcessError>(())
        };
        if wanted.securebits != 0 || changes_user {
            capset(region, list, [own.permitted, own.permitted, inheritable])?;
            // These two tell nothing of failure.
            list.call(Purpose::User, Check::Any, nr::__NR_setfsgid, &[wanted.gids[3].into()]);
            list.call(Purpose::User, Check::Any, nr::__NR_setfsuid, &[wanted.uids[3].into()]);
            let bits = u64::from(wanted.securebits & !libc::SECBIT_KEEP_CAPS.cast_unsigned());
            list.call(Purpose::SecureBits, Check::Report, nr::__NR_prctl, &[PR_SET_SECUREBITS.into(), bits]);
        }
        capset(region, list, [effective & permitted, permitted, inheritable & (permitted | own.inheritable)])?;
        if wanted.securebits & libc::SECBIT_KEEP_CAPS.cast_unsigned() != 0 {
            list.call(Purpose::SecureBits, Check::Report, nr::__NR_prctl, &[PR_SET_KEEPCAPS.into(), 1]);
        }
        for capability in (0..64u64).filter(|capability| ambient & permitted & 1 << capability != 0) {
            let args = [PR_CAP_AMBIENT.into(), PR_CAP_AMBIENT_RAISE.into(), capability];
            list.call(Purpose::Capabilities, Check::Report, nr::__NR_prctl, &args);
        }
        Ok(())
    }

    fn set_limits(&self, region: &mut Region, list: &mut Operations) -> Result<(), ProcessError> {
        for (resource, limit) in (0u32..).zip(&self.live.limits) {
            let mut own = [0u64; 2];
            // SAFETY: `own` is a `struct rlimit64`, to be written.
            unsafe { syscall!(nr::__NR_prlimit64, 0, resource, 0, own.as_mut_ptr()) }
                .map_err(ProcessError::raw("read a resource limit"))?;
            // Only root may raise what this restart was given.
            let hard = limit.hard.min(own[1]);
            let limit = region.put_words(&[limit.soft.min(hard), hard])?;
            list.call(Purpose::Limit, Check::Report, nr::__NR_prlimit64, &[0, resource.into(), limit, 0]);
        }
        Ok(())
    }
}

/// Size of `struct robust_list_head`: the only length that the kernel takes.
const ROBUST_LIST_LEN: u64 = 24;

fn clone_thread(region: &mut Region, list: &mut Operations, tid: i32, operations: u64) -> Result<(), ProcessError> {
    let flags = nr::CLONE_VM | nr::CLONE_FS | nr::CLONE_FILES | nr::CLONE_SIGHAND | nr::CLONE_THREAD | nr::CLONE_SYSVSEM;
    let set_tid = region.put(&tid.to_ne_bytes())?;
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
    let args = region.put_words(&[flags.into(), 0, 0, 0, 0, 0, 0, 0, set_tid, 1, 0])?;
    list.clone_thread(tid, args, 11 * 8, operations);
    Ok(())
}

fn set_scheduling(region: &mut Region, list: &mut Operations, wanted: &Scheduling) -> Result<(), ProcessError> {
    // A policy that does not heed it keeps it all the same, and the next call does not take it then.
    let nice = i64::from(wanted.nice).cast_unsigned();
    list.call(Purpose::Scheduling, Check::Report, nr::__NR_setpriority, &[nr::PRIO_PROCESS.into(), 0, nice]);
    // struct sched_attr: size, policy, flags (8), nice, priority, runtime (8), deadline (8), period (8).
    let [runtime, deadline, period] = wanted.deadline;
    let attr = region.put_words(&[
        48 | u64::from(wanted.policy) << 32,
        wanted.flags,
        u64::from(wanted.nice.cast_unsigned()) | u64::from(wanted.priority) << 32,
        runtime,
        deadline,
        period,
    ])?;
    list.call(Purpose::Scheduling, Check::Report, nr::__NR_sched_setattr, &[0, attr, 0]);
    if !wanted.affinity.is_empty() {
        let mut own = vec![0u64; wanted.affinity.len().max(16)];
        // SAFETY: `own` is writable for its length.
        let _ = unsafe { syscall!(nr::__NR_sched_getaffinity, 0, own.len() * 8, own.as_mut_ptr()) };
        let both: Vec<u64> = wanted.affinity.iter().zip(&own).map(|(wanted, own)| wanted & own).collect();
        // Where none of its processors is to be had here, it may run on any.
        if both.iter().any(|word| *word != 0) {
            let mask = region.put_words(&both)?;
            list.call(Purpose::Affinity, Check::Report, nr::__NR_sched_setaffinity, &[0, both.len() as u64 * 8, mask]);
        }
    }
    if wanted.io_priority != 0 {
        // include/uapi/linux/ioprio.h
        const IOPRIO_WHO_PROCESS: u64 = 1;
        let args = [IOPRIO_WHO_PROCESS, 0, wanted.io_priority.into()];
        list.call(Purpose::IoPriority, Check::Report, nr::__NR_ioprio_set, &args);
    }
    Ok(())
}

/// What this process is, before it becomes what it was.
struct Own {
    uids: [u32; 4],
    gids: [u32; 4],
    groups: Vec<u32>,
    inheritable: u64,
    permitted: u64,
    bounding: u64,
    /// It was started with a memory policy, as by numactl(8).
    has_policy: bool,
}

impl Own {
    fn now() -> Result<Self, ProcessError> {
        let text = std::fs::read_to_string("/proc/self/status").map_err(ProcessError::call("read /proc/self/status"))?;
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        let numbers = |key: &str| field(key).split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>();
        let ids = |key: &str| numbers(key).try_into().map_err(|_| ProcessError::Incomplete("this process in /proc/self/status"));
        let set = |key: &str| u64::from_str_radix(field(key), 16).unwrap_or(0);
        Ok(Self {
            uids: ids("Uid:")?,
            gids: ids("Gid:")?,
            groups: numbers("Groups:"),
            inheritable: set("CapInh:"),
            permitted: set("CapPrm:"),
            bounding: set("CapBnd:"),
            has_policy: has_policy(),
        })
    }
}

/// Whether this thread has a memory policy.
fn has_policy() -> bool {
    let mut mode = 0u32;
    // SAFETY: the mode is written, and no nodes are asked for.
    unsafe { syscall!(nr::__NR_get_mempolicy, &raw mut mode, 0, 0, 0, 0) }.is_ok() && mode != 0
}
