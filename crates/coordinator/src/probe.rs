//! The table of the facilities that checkpoints and restarts need, with the consequence if a machine lacks one.
//!
//! Each probe tries its facility as the user who asks: a sysctl or a container may forbid a facility of the kernel. No probe decides
//! anything for a job. The code that uses a facility relies on the call's own result, or on
//! [`checkpoint::features`](crate::checkpoint::features).

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use ckpt_objects::HostPid;
use ckpt_objects::observe::proc_path;
use ckpt_objects::older::{ENV_WITHOUT, KernelFeature};
use ckpt_objects::process::Status;
use ckpt_sys::raw::Errno;
use ckpt_sys::{blocked, cpu, probe, process};
use procfs::{Current, Meminfo};
use rustix::fs::{Access, MemfdFlags, access, memfd_create, statvfs};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};

use ckpt_session::Bytes;
use ckpt_session::library::find_agent;

mod trial;

use trial::Namespaces;

/// The oldest supported kernel.
const OLDEST: (u32, u32) = (5, 14);
/// include/uapi/linux/capability.h
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// `KCMP_VM` (include/uapi/linux/kcmp.h): needs no descriptor.
const KCMP_VM: u32 = 1;

/// The use of a facility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nothing works without it.
    Both,
    /// A checkpoint fails without it.
    Checkpoint,
    /// A restart fails without it.
    Restart,
    /// There is something that stands in for it, or little is lost.
    Better,
    /// It is for kinds of programs that are refused so far.
    Later,
    /// A limit of this user or machine.
    Limit,
}

impl Need {
    /// In the order in which they are shown, each with its heading.
    const ALL: [(Self, &'static str); 6] = [
        (Self::Both, "for checkpoints and restarts"),
        (Self::Checkpoint, "for a checkpoint"),
        (Self::Restart, "for a restart"),
        (Self::Better, "better with it, possible without"),
        (Self::Later, "for what is not kept yet"),
        (Self::Limit, "limits"),
    ];
}

/// Whether a facility is there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// It is. What there is to say of it.
    Yes(String),
    /// Not wholly, and why.
    Limited(String),
    /// It is not, and why.
    No(String),
}

impl Answer {
    fn of<E: Into<io::Error>>(result: Result<(), E>) -> Self {
        result.map_or_else(|error| Self::No(error.into().to_string()), |()| Self::Yes(String::new()))
    }

    fn of_raw(result: Result<(), Errno>) -> Self {
        Self::of(result.map_err(|Errno(errno)| io::Error::from_raw_os_error(errno)))
    }

    /// The same, where half of the facility would do.
    fn at_least_limited(self) -> Self {
        match self {
            Self::No(why) => Self::Limited(why),
            other => other,
        }
    }
}

/// A row of the table.
struct Facility {
    name: &'static str,
    /// Which kernels have it, and by which option; empty: all.
    since: &'static str,
    need: Need,
    /// What it is for.
    purpose: &'static str,
    /// What comes of its absence.
    without: &'static str,
    /// By which name `CKPT_WITHOUT` switches it off.
    switch: Option<KernelFeature>,
    probe: fn(&Ground) -> Answer,
}

const FACILITIES: &[Facility] = &[
    Facility {
        name: "Linux 5.14",
        since: "",
        need: Need::Both,
        purpose: "the oldest kernel that this is made for",
        without: "older kernels lack calls that everything is built on",
        switch: None,
        probe: |ground| ground.kernel(),
    },
    Facility {
        name: "agent's library",
        since: "",
        need: Need::Both,
        purpose: "is loaded into every process of a job",
        without: "no job can be launched or restarted",
        switch: None,
        probe: |_| match find_agent() {
            Some(path) => Answer::Yes(path.display().to_string()),
            None => Answer::No("it is neither beside ckpt-launch nor in ../lib".into()),
        },
    },
    Facility {
        name: "/proc/PID/task/TID/children",
        since: "Linux 4.2, CONFIG_PROC_CHILDREN",
        need: Need::Both,
        purpose: "finds the processes of a job",
        without: "no process of a job is found",
        switch: None,
        probe: |ground| ground.look(|_| fs::read(format!("/proc/self/task/{}/children", getpid())).map(drop)),
    },
    Facility {
        name: "close_range",
        since: "Linux 5.9",
        need: Need::Both,
        purpose: "keeps descriptors out of processes that they are not meant for",
        without: "a job's descriptors cannot be arranged; a container's seccomp profile may forbid it",
        switch: None,
        probe: |_| Answer::of_raw(probe::close_range()),
    },
    Facility {
        name: "image directory",
        since: "",
        need: Need::Checkpoint,
        purpose: "images are written there",
        without: "give another directory with --dir",
        switch: None,
        probe: |ground| ground.directory(),
    },
    Facility {
        name: "/proc of a descendant",
        since: "",
        need: Need::Checkpoint,
        purpose: "shows memory, files and settings of a job's processes",
        without: "the state of a process cannot be read; see the option hidepid of /proc, and security modules",
        switch: None,
        probe: |ground| ground.look(see_inside),
    },
    Facility {
        name: "kcmp",
        since: "Linux 3.5, CONFIG_KCMP",
        need: Need::Checkpoint,
        purpose: "tells which descriptors share one open file",
        without: "descriptors that share one cannot be told from those that do not; a container's seccomp profile may forbid it",
        switch: None,
        probe: |_| Answer::of(kcmp()),
    },
    Facility {
        name: "PR_GET_TID_ADDRESS",
        since: "Linux 3.5, CONFIG_CHECKPOINT_RESTORE",
        need: Need::Checkpoint,
        purpose: "tells who is woken when a thread ends",
        without: "nobody would learn that a restarted thread has ended",
        switch: None,
        probe: |_| Answer::of_raw(probe::get_tid_address()),
    },
    Facility {
        name: "memfd_create",
        since: "Linux 3.17",
        need: Need::Checkpoint,
        purpose: "makes the memory through which pages are handed over",
        without: "no page can be handed over; see vm.memfd_noexec",
        switch: None,
        probe: |_| Answer::of(memfd_create("ckpt", MemfdFlags::CLOEXEC).map(drop)),
    },
    Facility {
        name: "user namespace",
        since: "Linux 3.8, CONFIG_USER_NS",
        need: Need::Restart,
        purpose: "lets an ordinary user give a job its pids",
        without: "only root can restart a job here",
        switch: None,
        probe: |ground| ground.user_namespace(),
    },
    Facility {
        name: "pid namespace with clone3(set_tid)",
        since: "Linux 5.5",
        need: Need::Restart,
        purpose: "gives processes and threads the numbers that they had",
        without: "no job can be restarted here",
        switch: None,
        probe: |ground| ground.step(ground.namespaces.choose_pid),
    },
    Facility {
        name: "mount namespace",
        since: "",
        need: Need::Restart,
        purpose: "keeps the job's own /proc from everybody else",
        without: "no job can be restarted here",
        switch: None,
        probe: |ground| ground.step(ground.namespaces.separate_mounts),
    },
    Facility {
        name: "PR_SET_MM_MAP",
        since: "Linux 3.18, CONFIG_CHECKPOINT_RESTORE",
        need: Need::Restart,
        purpose: "puts back where a program's heap, arguments and /proc/self/exe are",
        without: "no job can be restarted here",
        switch: None,
        probe: |_| Answer::of_raw(probe::set_mm_map()),
    },
    Facility {
        name: "ARCH_MAP_VDSO_64",
        since: "Linux 4.9, CONFIG_CHECKPOINT_RESTORE",
        need: Need::Restart,
        purpose: "maps the kernel's vDSO where programs expect it",
        without: "no job can be restarted here",
        switch: None,
        probe: |_| Answer::of_raw(probe::map_vdso()),
    },
    Facility {
        name: "mounting /proc",
        since: "",
        need: Need::Better,
        purpose: "shows a restarted job its own processes",
        without: "a restarted job sees the machine's processes there, with other numbers than its own; parts of /proc may be covered in a container",
        switch: Some(KernelFeature::MountProc),
        probe: |ground| ground.step(ground.namespaces.mount_proc).at_least_limited(),
    },
    Facility {
        name: "PAGEMAP_SCAN",
        since: "Linux 6.7",
        need: Need::Better,
        purpose: "finds the pages that exist in one call",
        without: "each page is looked up in /proc/PID/pagemap, which takes longer in large sparse memory",
        switch: Some(KernelFeature::PagemapScan),
        probe: |_| Answer::of_raw(pagemap_scan()),
    },
    Facility {
        name: "/proc/PID/task/TID/syscall",
        since: "CONFIG_HAVE_ARCH_TRACEHOOK",
        need: Need::Better,
        purpose: "tells what a thread is blocked in, so that the call goes on with the time that is left",
        without: "a time-out that a checkpoint interrupts begins anew in the process's first thread; see kernel.yama.ptrace_scope",
        switch: Some(KernelFeature::BlockedCall),
        probe: |ground| ground.look(|child| readable(child, &format!("task/{child}/syscall"))).at_least_limited(),
    },
    Facility {
        name: "/proc/PID/task/TID/sched",
        since: "CONFIG_SCHED_DEBUG, Linux 6.15 always",
        need: Need::Better,
        purpose: "tells for how long a thread has been blocked, so that the call goes on with the time that is left",
        without: "a time-out that a checkpoint interrupts begins anew",
        switch: Some(KernelFeature::SchedulerNotes),
        probe: |_| match fs::read(format!("/proc/self/task/{}/sched", getpid())) {
            Ok(text) if blocked::parse_last_ran(&text).is_some() => Answer::Yes(String::new()),
            Ok(_) => Answer::Limited("it is not understood".into()),
            Err(error) => Answer::Limited(error.to_string()),
        },
    },
    Facility {
        name: "ptrace of a descendant",
        since: "",
        need: Need::Better,
        purpose: "reaches threads that block every signal",
        without: "a checkpoint of a job with such a thread is refused; see kernel.yama.ptrace_scope",
        switch: None,
        probe: |ground| ground.look(attach).at_least_limited(),
    },
    Facility {
        name: "pidfd_open",
        since: "Linux 5.3",
        need: Need::Better,
        purpose: "ends a copy that is being written without mistaking another process for it",
        without: "a copy that hangs is left to itself",
        switch: None,
        probe: |_| Answer::of(pidfd_open(getpid(), PidfdFlags::empty()).map(drop)),
    },
    Facility {
        name: "rseq",
        since: "Linux 4.18",
        need: Need::Better,
        purpose: "puts back the restartable sequences of programs that use them",
        without: "a job that used them elsewhere cannot be restarted here",
        switch: None,
        probe: |_| Answer::of_raw(probe::restartable_sequences()),
    },
    Facility {
        name: "MAP_DROPPABLE",
        since: "Linux 6.11",
        need: Need::Better,
        purpose: "puts back memory that the kernel may drop, such as getrandom's state",
        without: "ordinary memory that is wiped in children stands in",
        switch: Some(KernelFeature::Droppable),
        probe: |_| Answer::of_raw(probe::map_droppable()),
    },
    Facility {
        name: "MADV_GUARD_INSTALL",
        since: "Linux 6.13, seen from 6.15 on",
        need: Need::Better,
        purpose: "guards pages within mappings again, such as those of thread stacks",
        without: "memory without access stands in",
        switch: Some(KernelFeature::Guards),
        probe: |_| Answer::of_raw(probe::guard_install()),
    },
    Facility {
        name: "names of memory",
        since: "Linux 5.17, CONFIG_ANON_VMA_NAME",
        need: Need::Better,
        purpose: "puts back the names that programs give their memory",
        without: "such names are missing from /proc/PID/maps after a restart",
        switch: None,
        probe: |_| Answer::of_raw(probe::name_memory()),
    },
    Facility {
        name: "mseal",
        since: "Linux 6.10",
        need: Need::Better,
        purpose: "seals memory again that a program had sealed",
        without: "such memory can be changed after a restart, which is reported",
        switch: None,
        probe: |_| Answer::of_raw(probe::seal_memory()),
    },
    Facility {
        name: "time namespace",
        since: "Linux 5.6, CONFIG_TIME_NS",
        need: Need::Better,
        purpose: "lets the clocks that count from a machine's start go on where the checkpoint left them",
        without: "they jump where a job is restarted later or on another machine; where they would go back it is reported",
        switch: Some(KernelFeature::TimeNamespace),
        probe: |_| Answer::of(fs::metadata("/proc/self/timens_offsets").map(drop)),
    },
    Facility {
        name: "SO_PEEK_OFF of UNIX sockets",
        since: "Linux 3.4",
        need: Need::Better,
        purpose: "reads what is in flight without taking it out",
        without: "a job with bytes in flight over UNIX sockets cannot be checkpointed",
        switch: None,
        probe: |_| peek_offset(AddressFamily::UNIX),
    },
    Facility {
        name: "SO_PEEK_OFF of TCP sockets",
        since: "Linux 6.9",
        need: Need::Better,
        purpose: "reads what is in flight without taking it out",
        without: "a job with bytes in flight behind an urgent one cannot be checkpointed",
        switch: None,
        probe: |_| peek_offset(AddressFamily::INET),
    },
    Facility {
        name: "PR_TIMER_CREATE_RESTORE_IDS",
        since: "Linux 6.15",
        need: Need::Better,
        purpose: "gives POSIX timers the ids that they had",
        without: "timers are made and thrown away until the id is right",
        switch: Some(KernelFeature::TimerIds),
        probe: |_| Answer::of_raw(probe::timer_create_restore_ids()),
    },
    Facility {
        name: "userfaultfd with WP_ASYNC",
        since: "Linux 6.7",
        need: Need::Later,
        purpose: "tells which pages were written since the last checkpoint",
        without: "every image holds all pages",
        switch: None,
        probe: |_| Answer::of_raw(probe::async_write_protection()),
    },
    Facility {
        name: "vm.overcommit_memory",
        since: "",
        need: Need::Limit,
        purpose: "a copy-on-write copy of a process is made, and the job goes on while that is written",
        without: "where the copy is refused for lack of memory, the job stands still until it is written",
        switch: Some(KernelFeature::Twin),
        probe: |_| match sysctl("vm/overcommit_memory") {
            Some(2) => Answer::Limited("it is 2: copies count in full".into()),
            mode => Answer::Yes(mode.map_or_else(String::new, |mode| format!("it is {mode}"))),
        },
    },
    Facility {
        name: "memory",
        since: "",
        need: Need::Limit,
        purpose: "a restart needs as much as the image holds, a checkpoint what the job writes meanwhile",
        without: "a checkpoint may fail, and the job go on",
        switch: None,
        probe: |_| memory(),
    },
    Facility {
        name: "open files (ulimit -n)",
        since: "",
        need: Need::Limit,
        purpose: "a restart has all files of a job open in one process",
        without: "a job with more cannot be restarted",
        switch: None,
        probe: |_| limit(Resource::Nofile, Some(1024), |files| files.to_string()),
    },
    Facility {
        name: "processes (ulimit -u)",
        since: "",
        need: Need::Limit,
        purpose: "a checkpoint makes a copy of each process",
        without: "a checkpoint of a job with half as many fails",
        switch: None,
        probe: |_| limit(Resource::Nproc, Some(256), |processes| processes.to_string()),
    },
    Facility {
        name: "locked memory (ulimit -l)",
        since: "",
        need: Need::Limit,
        purpose: "memory that a job has locked is locked again",
        without: "locking more is reported and left out",
        switch: None,
        probe: |_| limit(Resource::Memlock, Some(64 << 10), |bytes| Bytes(bytes).to_string()),
    },
    Facility {
        name: "file size (ulimit -f)",
        since: "",
        need: Need::Limit,
        purpose: "an image may have any size",
        without: "a larger image cannot be written, nor larger memory handed over",
        switch: None,
        probe: |_| limit(Resource::Fsize, None, |bytes| Bytes(bytes).to_string()),
    },
    Facility {
        name: "address space (ulimit -v)",
        since: "",
        need: Need::Limit,
        purpose: "the hand-over memory finds room in each process",
        without: "a checkpoint of a process that is near it fails",
        switch: None,
        probe: |_| limit(Resource::As, None, |bytes| Bytes(bytes).to_string()),
    },
    Facility {
        name: "kernel.pid_max",
        since: "",
        need: Need::Limit,
        purpose: "before Linux 6.14, a job can be restarted where this is above its pids",
        without: "a job with higher pids cannot be restarted here; from Linux 6.14 on it can",
        switch: None,
        probe: |_| match sysctl("kernel/pid_max") {
            Some(max) if max < 32768 => Answer::Limited(format!("it is {max}")),
            max => Answer::Yes(max.map_or_else(String::new, |max| format!("it is {max}"))),
        },
    },
    Facility {
        name: "processor",
        since: "",
        need: Need::Limit,
        purpose: "a job can be restarted where the processor has what this one has",
        without: "",
        switch: None,
        probe: |_| {
            Answer::Yes(format!("registers XCR0 {:#x}, up to {} in a signal frame", cpu::xcr0(), Bytes(cpu::xsave_size().into())))
        },
    },
];

/// What probes look at.
struct Ground {
    dir: PathBuf,
    /// Namespaces can be made without a user namespace.
    privileged: bool,
    namespaces: Namespaces,
}

fn own() -> HostPid {
    HostPid(getpid().as_raw_nonzero().get())
}

fn see_inside(child: HostPid) -> io::Result<()> {
    fs::read_dir(proc_path(child, "fd"))?;
    ["smaps", "auxv", "limits"].into_iter().try_for_each(|file| readable(child, file))
}

fn readable(pid: HostPid, file: &str) -> io::Result<()> {
    fs::read(proc_path(pid, file)).map(drop)
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

/// Whether this kernel has `PAGEMAP_SCAN`.
///
/// # Errors
/// `ENOTTY` before Linux 6.7.
pub fn pagemap_scan() -> Result<(), Errno> {
    let file = File::open("/proc/self/pagemap").map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
    probe::pagemap_scan(file.as_raw_fd())
}

/// Whether processes of one user may be compared.
///
/// # Errors
/// `ENOSYS` without `CONFIG_KCMP`, `EPERM` where a filter forbids it.
pub fn kcmp() -> io::Result<()> {
    let compared = process::kcmp(own().0, own().0, KCMP_VM, 0, 0);
    compared.map(drop).map_err(|Errno(errno)| io::Error::from_raw_os_error(errno))
}

fn peek_offset(family: AddressFamily) -> Answer {
    match socket(family, SocketType::STREAM, None) {
        Ok(socket) => Answer::of_raw(probe::peek_offset(socket.as_raw_fd())),
        Err(errno) => Answer::No(io::Error::from(errno).to_string()),
    }
}

fn attach(child: HostPid) -> io::Result<()> {
    let pid = nix::unistd::Pid::from_raw(child.0);
    nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()).map_err(io::Error::from)
}

fn memory() -> Answer {
    const LITTLE: u64 = 256 << 20;
    match Meminfo::current().ok().and_then(|memory| memory.mem_available) {
        Some(bytes) if bytes < LITTLE => Answer::Limited(format!("{} available", Bytes(bytes))),
        Some(bytes) => Answer::Yes(format!("{} available", Bytes(bytes))),
        None => Answer::Limited("/proc/meminfo does not tell how much is available".into()),
    }
}

/// A resource limit; one that is below `enough` is worth a word, or any at all where there is no such number.
fn limit(resource: Resource, enough: Option<u64>, show: impl Fn(u64) -> String) -> Answer {
    let limit = getrlimit(resource);
    let text = match (limit.current, limit.maximum) {
        (None, _) => return Answer::Yes("no limit".into()),
        (Some(soft), Some(hard)) if soft == hard => show(soft),
        (Some(soft), Some(hard)) => format!("{}, may be raised to {}", show(soft), show(hard)),
        (Some(soft), None) => format!("{}, may be raised", show(soft)),
    };
    let suffices = limit.maximum.is_none_or(|hard| enough.is_some_and(|enough| hard >= enough));
    if suffices && enough.is_some() { Answer::Yes(text) } else { Answer::Limited(text) }
}

/// A kernel release's first two numbers: `5.14.0-427.el9.x86_64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Ground {
    fn survey(dir: &Path) -> Self {
        let privileged = Status::of(own()).is_ok_and(|status| status.set("CapEff") & CAP_SYS_ADMIN != 0);
        Self { dir: dir.to_owned(), privileged, namespaces: trial::namespaces(!privileged) }
    }

    fn kernel(&self) -> Answer {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        match version(&release) {
            Some(version) if version >= OLDEST => Answer::Yes(format!("this is {release}")),
            Some(_) => Answer::No(format!("this is {release}")),
            None => Answer::Limited(format!("{release:?} is no version that is understood")),
        }
    }

    fn directory(&self) -> Answer {
        if let Err(errno) = access(&self.dir, Access::WRITE_OK | Access::EXEC_OK) {
            return Answer::No(format!("{}: {}", self.dir.display(), io::Error::from(errno)));
        }
        let free = statvfs(&self.dir).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let text = format!("{}, {} free", self.dir.display(), Bytes(free));
        if free == 0 { Answer::Limited(text) } else { Answer::Yes(text) }
    }

    /// What is seen of a child that shares this process's files.
    fn look(&self, look: impl FnOnce(HostPid) -> io::Result<()>) -> Answer {
        match trial::with_child(look) {
            Ok(seen) => Answer::of(seen),
            Err(Errno(errno)) => Answer::No(format!("a child could not be made: {}", io::Error::from_raw_os_error(errno))),
        }
    }

    fn user_namespace(&self) -> Answer {
        let forbidden = self.who_forbids();
        if self.privileged {
            return Answer::Yes("not needed by root".into());
        }
        match (self.namespaces.make, self.namespaces.map_user) {
            (Some(Ok(())), Some(Ok(()))) => Answer::Yes(String::new()),
            (Some(Err(error)), _) | (_, Some(Err(error))) => {
                let reason = io::Error::from_raw_os_error(error.0).to_string();
                Answer::No(forbidden.map_or(reason.clone(), |setting| format!("{reason}: {setting}")))
            }
            _ => Answer::No("the trial was not finished".into()),
        }
    }

    /// A step of the trial in namespaces of its own.
    fn step(&self, step: Option<Result<(), Errno>>) -> Answer {
        match (step, self.namespaces.make) {
            (Some(Ok(())), _) => Answer::Yes(String::new()),
            (Some(Err(Errno(errno))), _) => {
                let reason = io::Error::from_raw_os_error(errno).to_string();
                let setting = self.who_forbids().filter(|_| !self.privileged && matches!(errno, libc::EPERM | libc::EACCES));
                Answer::No(setting.map_or(reason.clone(), |setting| format!("{reason}: {setting}")))
            }
            (None, Some(Err(Errno(errno)))) => {
                Answer::No(format!("the namespaces could not be made: {}", io::Error::from_raw_os_error(errno)))
            }
            (None, _) => Answer::No("the trial was not finished".into()),
        }
    }

    /// The setting that keeps user namespaces from working.
    fn who_forbids(&self) -> Option<String> {
        let settings = [
            ("user/max_user_namespaces", 0),
            ("user/max_pid_namespaces", 0),
            ("user/max_mnt_namespaces", 0),
            ("kernel/unprivileged_userns_clone", 0),
            ("kernel/apparmor_restrict_unprivileged_userns", 1),
        ];
        let set = settings.into_iter().find(|(name, forbidding)| sysctl(name) == Some(*forbidding));
        set.map(|(name, value)| format!("{} is {value}", name.replace('/', "."))).or_else(|| {
            (self.namespaces.make == Some(Err(Errno(libc::EPERM))))
                .then(|| "a container's seccomp profile, a security module or a chroot may forbid it".into())
        })
    }
}

/// What is known of this machine.
pub struct Findings(Vec<(&'static Facility, Answer)>);

/// Probes everything. `dir` is where images would go. The caller must have one thread.
#[must_use]
pub fn check(dir: &Path) -> Findings {
    let ground = Ground::survey(dir);
    Findings(FACILITIES.iter().map(|facility| (facility, (facility.probe)(&ground))).collect())
}

impl Findings {
    /// Whether jobs can be both checkpointed and restarted here.
    #[must_use]
    pub fn suffices(&self) -> bool {
        self.missing(Need::Checkpoint).is_empty() && self.missing(Need::Restart).is_empty()
    }

    /// What is not there that a checkpoint or a restart needs.
    fn missing(&self, need: Need) -> Vec<&'static str> {
        let needed = |facility: &Facility| facility.need == need || facility.need == Need::Both;
        self.0
            .iter()
            .filter(|(facility, answer)| needed(facility) && matches!(answer, Answer::No(_)))
            .map(|(facility, _)| facility.name)
            .collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (need, heading) in Need::ALL {
            writeln!(f, "{heading}:")?;
            for (facility, answer) in self.0.iter().filter(|(facility, _)| facility.need == need) {
                writeln!(f, "  {}", Line(facility, answer))?;
            }
        }
        let without = std::env::var(ENV_WITHOUT).unwrap_or_default();
        let is_known = |name: &&str| KernelFeature::ALL.iter().any(|switch| switch.name() == *name);
        for name in without.split(',').map(str::trim).filter(|name| !name.is_empty() && !is_known(name)) {
            writeln!(
                f,
                "{ENV_WITHOUT}: there is no {name:?}; known are {}",
                KernelFeature::ALL.map(KernelFeature::name).join(", ")
            )?;
        }
        for (need, what) in [(Need::Checkpoint, "checkpoint"), (Need::Restart, "restart")] {
            let missing = self.missing(need);
            if missing.is_empty() {
                writeln!(f, "{what}: works here")?;
            } else {
                writeln!(f, "{what}: does not work here, for lack of: {}", missing.join(", "))?;
            }
        }
        Ok(())
    }
}

/// One line about one facility.
struct Line<'a>(&'a Facility, &'a Answer);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(facility, answer) = self;
        let (word, about, consequence) = match answer {
            _ if facility.switch.is_some_and(KernelFeature::is_off) => ("off", "switched off", facility.without),
            Answer::Yes(about) => ("yes", about.as_str(), facility.purpose),
            Answer::Limited(why) => ("limited", why.as_str(), facility.without),
            Answer::No(why) => ("no", why.as_str(), facility.without),
        };
        write!(f, "{word:<8} {}", facility.name)?;
        if !facility.since.is_empty() {
            write!(f, " ({})", facility.since)?;
        }
        let pieces: Vec<&str> = [about, consequence].into_iter().filter(|piece| !piece.is_empty()).collect();
        write!(f, ": {}", pieces.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(version("5.14.0-427.13.1.el9_4.x86_64"), Some((5, 14)));
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version("Linux"), None);
    }

    #[test]
    fn the_handbook_knows_every_facility_and_every_switch() {
        let handbook = include_str!("../../../docs/kernels.md");
        for facility in FACILITIES {
            assert!(handbook.contains(facility.name), "{}", facility.name);
            assert!(handbook.contains(facility.without), "{}: {}", facility.name, facility.without);
        }
        for switch in KernelFeature::ALL {
            assert!(handbook.contains(&format!("`{}`", switch.name())), "{}", switch.name());
        }
    }

    #[test]
    fn what_is_needed_and_missing_is_named() {
        let absent =
            |name: &str| FACILITIES.iter().find(|facility| facility.name == name).map(|row| (row, Answer::No("gone".into())));
        let findings = Findings(vec![absent("kcmp").unwrap(), absent("PAGEMAP_SCAN").unwrap()]);
        assert!(!findings.suffices());
        let text = findings.to_string();
        assert!(text.contains("\n  no       kcmp (Linux 3.5, CONFIG_KCMP): gone; descriptors that share one"), "{text}");
        assert!(text.ends_with("checkpoint: does not work here, for lack of: kcmp\nrestart: works here\n"), "{text}");
    }
}
