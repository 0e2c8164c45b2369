//! Running as on an older kernel: facilities that are used where they are there can be switched off, so that what stands in for them is tested.
//!
//! The environment variable `CKPT_WITHOUT` of `ckpt-launch` and `ckpt-restart` names them, with commas in between. The job itself never looks.

use std::env;

/// Environment variable that names the facilities that are not to be used.
pub const ENV_WITHOUT: &str = "CKPT_WITHOUT";

/// A facility that has a stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFeature {
    /// `PAGEMAP_SCAN`; without: `/proc/PID/pagemap` is read.
    PagemapScan,
    /// `/proc/PID/task/TID/sched`; without: time-outs of interrupted calls begin anew.
    SchedulerNotes,
    /// `/proc/PID/task/TID/syscall` of another process; without: the call is read from the program's code.
    BlockedCall,
    /// A copy-on-write twin; without: the job waits while its memory is read.
    Twin,
    /// Mapping this kernel's vDSO where the job had the same one; without: the old one leads into it.
    SameVdso,
    /// Mounting `/proc`; without: the job sees that of the machine.
    MountProc,
    /// `MAP_DROPPABLE`; without: memory that is wiped in children.
    Droppable,
    /// `MADV_GUARD_INSTALL`; without: memory without access.
    Guards,
    /// A time namespace; without: the job's clocks jump to those of the machine.
    TimeNamespace,
    /// `PR_TIMER_CREATE_RESTORE_IDS`; without: timers are made and deleted until the id comes that is wanted.
    TimerIds,
    /// `/proc/PID/timers`; without: timers of timer_create(2) are refused.
    TimerList,
}

impl KernelFeature {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PagemapScan,
        Self::SchedulerNotes,
        Self::BlockedCall,
        Self::Twin,
        Self::SameVdso,
        Self::MountProc,
        Self::Droppable,
        Self::Guards,
        Self::TimeNamespace,
        Self::TimerIds,
        Self::TimerList,
    ];

    /// Its name in `CKPT_WITHOUT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PagemapScan => "pagemap_scan",
            Self::SchedulerNotes => "sched",
            Self::BlockedCall => "syscall",
            Self::Twin => "twin",
            Self::SameVdso => "same_vdso",
            Self::MountProc => "mount_proc",
            Self::Droppable => "map_droppable",
            Self::Guards => "guard_install",
            Self::TimeNamespace => "time_namespace",
            Self::TimerIds => "timer_ids",
            Self::TimerList => "timer_list",
        }
    }

    /// Whether it is switched off.
    #[must_use]
    pub fn is_off(self) -> bool {
        env::var(ENV_WITHOUT).is_ok_and(|names| names.split(',').any(|name| name.trim() == self.name()))
    }
}
