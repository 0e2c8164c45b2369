//! The namespaces that a restarted job lives in: pids, so that every process has its number again; mounts, for a `/proc` of its
//! own; and, for an ordinary user, a user namespace with that one user, in which the rest is allowed.
#![allow(unsafe_code, reason = "the first process is forked, and what the C library has registered of it is undone")]

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

use ckpt_objects::context::Context as _;
use ckpt_objects::older::KernelFeature;
use ckpt_objects::process::Life;
use ckpt_objects::rebuild;
use ckpt_objects::shared_memory::SharedMemoryKind;
use ckpt_objects::{HostPid, clocks};
use ckpt_session::JobState;
use ckpt_sys::fork::{Fork, fork};
use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;
use rustix::process::Resource;

use crate::control::Message;
use crate::error::{ProcessError, RestoreError};
use crate::family;
use crate::restart::{Restart, exit};

/// Magic number of the file system of message queues (ipc/mqueue.c).
const MQUEUE_MAGIC: i64 = 0x1980_0202;

/// Forks the first process of the new namespaces, which grows the tree; gives its pid out here.
pub fn make_init(restart: &Restart<'_>) -> Result<HostPid, RestoreError> {
    let ipc = if has_ipc(restart.job) { nr::CLONE_NEWIPC } else { 0 };
    let user = if restart.has_user_namespace() { nr::CLONE_NEWUSER } else { 0 };
    // SAFETY: the caller of a restart has one thread at this point; the child works on its copy of all memory, and never returns.
    match unsafe { fork(u64::from(nr::CLONE_NEWPID | nr::CLONE_NEWNS | ipc | user), None) } {
        Ok(Fork::Parent(pid)) => Ok(HostPid(pid)),
        Ok(Fork::Child) => match furnish(restart).and_then(|()| out_of_the_way(restart)) {
            Ok((lowest, [reports, ends, processes])) => {
                let (reports, ends, processes) = (reports.as_fd(), ends.as_fd(), processes.as_fd());
                family::grow(&Restart { lowest, reports, ends, processes, ..*restart }, 0, None)
            }
            Err(error) => restart.fail("the new namespaces", &error),
        },
        Err(Errno(errno)) => Err(RestoreError::Namespaces {
            kind: if restart.has_user_namespace() { "user, pid and mount" } else { "pid and mount" },
            source: io::Error::from_raw_os_error(errno),
            remedy: remedy(errno),
        }),
    }
}

/// The first number that a process of a new pid namespace cannot have: since Linux 6.14 each namespace has a limit of its own, before that it is
/// the machine's. The caller must have one thread.
#[must_use]
pub fn pid_max(has_user_namespace: bool) -> i32 {
    let read = || -> Option<i32> { std::fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok() };
    let user = if has_user_namespace { nr::CLONE_NEWUSER } else { 0 };
    let Ok((reader, writer)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return read().unwrap_or(1 << 22);
    };
    let mut answer = [0u8; 4];
    // SAFETY: the caller's promise; the child reads a file, writes four bytes, and ends.
    match unsafe { fork(u64::from(nr::CLONE_NEWPID | user), None) } {
        Ok(Fork::Child) => {
            let _ = rustix::io::write(&writer, &read().unwrap_or(0).to_ne_bytes());
            exit(0)
        }
        Ok(Fork::Parent(child)) => {
            drop(writer);
            let _ = rustix::io::read(&reader, &mut answer);
            let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(child), rustix::process::WaitOptions::empty());
        }
        // The restart says why there are no namespaces.
        Err(_) => (),
    }
    let within = i32::from_ne_bytes(answer);
    if within > 0 { within } else { read().unwrap_or(1 << 22) }
}

/// Whether the job has objects that are known by numbers in an IPC namespace: it gets one of its own, where all are free.
fn has_ipc(job: &JobState) -> bool {
    let has_memory = job.shared_memory.iter().any(|object| matches!(object.kind, SharedMemoryKind::SystemV { .. }));
    has_memory || !job.mqueues.is_empty() || !job.system_v.semaphores.is_empty() || !job.system_v.queues.is_empty()
}

/// What to look at when namespaces cannot be made.
#[must_use]
pub fn remedy(errno: i32) -> &'static str {
    match errno {
        libc::ENOSPC | libc::EUSERS => {
            "there are too many already, or none are allowed: see user.max_user_namespaces, user.max_pid_namespaces and user.max_mnt_namespaces"
        }
        libc::EPERM | libc::EACCES => {
            "see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns and, in a container, its seccomp profile; or restart as root"
        }
        libc::ENOSYS => "clone3 is forbidden here, perhaps by a container's seccomp profile",
        _ => "ask the administrator of this machine whether user namespaces are allowed",
    }
}

/// In the new namespaces, before anything else is done there.
fn furnish(restart: &Restart<'_>) -> Result<(), ProcessError> {
    // Until the job is complete it is nothing without the restart.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(ProcessError::call("be tied to the restart"))?;
    if restart.has_user_namespace() {
        // A group map may be written by an ordinary user only where groups cannot be dropped.
        write("/proc/self/setgroups", "deny")?;
        let (uid, gid) = (restart.user.uid, restart.user.gid);
        write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
        write("/proc/self/gid_map", &format!("{gid} {gid} 1"))?;
    }
    // What is mounted later outside is to be seen, and nothing that is mounted here outside.
    mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None).map_err(|error| mount_error("separate the mounts", error))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let forbidden = if KernelFeature::MountProc.is_off() { Err(Errno(libc::EPERM)) } else { Ok(()) };
    if let Err(error) = forbidden.and_then(|()| mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, None)) {
        // In a container where parts of /proc are covered, the kernel does not give an ordinary user a whole one.
        restart.report(&Message::Note(format!(
            "cannot mount /proc ({}): the job sees the processes of the machine there, with other numbers than its own",
            io::Error::from_raw_os_error(error.0)
        )));
    }
    if has_ipc(restart.job) && rustix::fs::statfs("/dev/mqueue").is_ok_and(|stat| stat.f_type == MQUEUE_MAGIC) {
        // The message queues of the job's own namespace. Where they cannot be shown, they can be used all the same.
        let _ = mount(Some(c"mqueue"), c"/dev/mqueue", Some(c"mqueue"), flags, None);
    }
    if let Err(error) = clocks::rebuild(restart.job.machine.clocks)
        && clocks::behind(restart.job.machine.clocks)
    {
        restart.report(&Message::Note(format!(
            "the job's clocks go back to those of this machine, which was started later ({error}): a program that measures time may wait too long"
        )));
    }
    // Numbers that are not asked for by name are to come after the job's. Where that is not allowed they are low ones.
    let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", (restart.tree.free_from - 1).to_string());
    unregister_rseq();
    give_up_alternate_stack()
}

/// The lowest number that is none of the job's, and the pipes moved there: out of the way of the job's descriptors: what is reported must never end in a file of the job.
fn out_of_the_way(restart: &Restart<'_>) -> Result<(RawFd, [OwnedFd; 3]), ProcessError> {
    raise_limits();
    let lowest = raise_limit(restart);
    let lift = |fd| rebuild::lift(fd, lowest);
    Ok((lowest, [lift(restart.reports)?, lift(restart.ends)?, lift(restart.processes)?]))
}

/// Raises the limit on descriptors as far as it goes; gives the first number above all of the job's, if the job's leave enough
/// room.
fn raise_limit(restart: &Restart<'_>) -> RawFd {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    let highest = restart
        .job
        .processes
        .iter()
        .filter_map(|process| match &process.life {
            Life::Alive(live) => live.descriptors.iter().map(|entry| entry.fd).max(),
            Life::Zombie { .. } => None,
        })
        .max()
        .unwrap_or(2);
    let needed = restart.job.open_files.len() + restart.job.shared_memory.len() + 64;
    let room = limit.maximum.is_none_or(|maximum| maximum > highest.unsigned_abs() as u64 + needed as u64);
    if room { highest + 1 } else { 3 }
}

/// Raises what limits this process as far as it may: the job's own limits, which come last, must not hinder it before.
fn raise_limits() {
    // `RLIM_NLIMITS` (include/uapi/asm-generic/resource.h).
    for resource in 0..16 {
        let mut limit = [0u64; 2];
        // SAFETY: a `struct rlimit64` is read and written, which lives over the calls.
        unsafe {
            if syscall!(nr::__NR_prlimit64, 0, resource, 0, limit.as_mut_ptr()).is_ok() && limit[0] < limit[1] {
                let raised = [limit[1]; 2];
                let _ = syscall!(nr::__NR_prlimit64, 0, resource, raised.as_ptr(), 0);
            }
        }
    }
}

fn write(path: &str, text: &str) -> Result<(), ProcessError> {
    std::fs::write(Path::new(path), text).map_err(ProcessError::call(format!("write {path}")))
}

/// mount(2).
pub(crate) fn mount(
    source: Option<&std::ffi::CStr>,
    target: &std::ffi::CStr,
    kind: Option<&std::ffi::CStr>,
    flags: u64,
    options: Option<&std::ffi::CStr>,
) -> Result<(), Errno> {
    let text = |text: Option<&std::ffi::CStr>| text.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: strings that end with a zero byte, or null where the call allows it.
    unsafe { syscall!(nr::__NR_mount, text(source), target.as_ptr(), text(kind), flags, text(options)) }.map(|_| ())
}

fn mount_error(what: &str, Errno(errno): Errno) -> ProcessError {
    ProcessError::Call { what: format!("{what} ({})", remedy(errno)), source: io::Error::from_raw_os_error(errno) }
}

/// Ends the use of the alternate signal stack that Rust gave its main thread. The signal frame of a thread that never had one
/// does not say so in a way that the kernel heeds, and it would keep this one.
fn give_up_alternate_stack() -> Result<(), ProcessError> {
    let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: `none` lives over the call; Rust's handlers do without such a stack, and all signals are blocked.
    unsafe { syscall!(nr::__NR_sigaltstack, &raw const none, 0) }
        .map_err(ProcessError::raw("give up the alternate signal stack"))?;
    Ok(())
}

/// Ends the C library's registration of restartable sequences of this thread: its memory will be gone, and all processes of the
/// job come from this one. The library then asks the kernel where it would have looked there.
fn unregister_rseq() {
    /// `RSEQ_SIG` of x86 (glibc, sysdeps/unix/sysv/linux/x86/bits/rseq.h).
    const SIGNATURE: u32 = 0x5305_3053;
    /// `RSEQ_FLAG_UNREGISTER` (include/uapi/linux/rseq.h).
    const UNREGISTER: u32 = 1;
    // SAFETY: dlsym looks a name up; glibc documents both symbols (`__rseq_offset` is a ptrdiff_t, `__rseq_size` an unsigned
    // int).
    let (offset, size) = unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        if offset.is_null() || size.is_null() { return } else { (*offset, *size) }
    };
    let mut thread_pointer = 0u64;
    // arch/x86/include/uapi/asm/prctl.h
    const ARCH_GET_FS: u32 = 0x1003;
    // SAFETY: the call writes to `thread_pointer`.
    let _ = unsafe { syscall!(nr::__NR_arch_prctl, ARCH_GET_FS, &raw mut thread_pointer) };
    let area = thread_pointer.wrapping_add_signed(offset as i64);
    // glibc tells how many bytes are in use, which may be fewer than it registered: the kernel wants the latter.
    for len in [size.max(32), size, 32, size.next_multiple_of(32), size.next_power_of_two().max(32)] {
        // SAFETY: ends what the library registered for this thread; the call checks that it was that.
        if unsafe { syscall!(nr::__NR_rseq, area, len, UNREGISTER, SIGNATURE) }.is_ok() {
            return;
        }
    }
}
