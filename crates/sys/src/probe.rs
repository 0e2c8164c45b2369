//! Asking the kernel for its newer and optional facilities, each by a call that changes nothing that lasts.
//!
//! Only what rustix cannot ask is here. What an answer means for a checkpoint is not known here.

use linux_raw_sys::{errno, general as nr, ioctl, net, prctl};

use crate::raw::Errno;
use crate::{pagemap, syscall};

/// arch/x86/include/uapi/asm/prctl.h.
const ARCH_MAP_VDSO_64: u32 = 0x2003;
const EEXIST: i32 = errno::EEXIST as i32;
const EINVAL: i32 = errno::EINVAL as i32;
const PAGE: u64 = 4096;

/// `PAGEMAP_SCAN` on a `/proc/PID/pagemap` that is open, of no page at all.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn pagemap_scan(pagemap: i32) -> Result<(), Errno> {
    pagemap::scan(pagemap, 0, 0, pagemap::Query::default(), &mut []).map(|_| ())
}

/// `PR_SET_MM_MAP`: asks for the size of its argument.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn set_mm_map() -> Result<(), Errno> {
    let mut size = 0u32;
    // SAFETY: the size is written to `size`.
    unsafe { syscall!(nr::__NR_prctl, prctl::PR_SET_MM, prctl::PR_SET_MM_MAP_SIZE, &raw mut size, 0, 0) }.map(|_| ())
}

/// `PR_GET_TID_ADDRESS`.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn get_tid_address() -> Result<(), Errno> {
    let mut address = 0u64;
    // SAFETY: the address is written to `address`.
    unsafe { syscall!(nr::__NR_prctl, prctl::PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) }.map(|_| ())
}

/// `PR_TIMER_CREATE_RESTORE_IDS`: asks for the present setting.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn timer_create_restore_ids() -> Result<(), Errno> {
    let (option, get) = (prctl::PR_TIMER_CREATE_RESTORE_IDS, prctl::PR_TIMER_CREATE_RESTORE_IDS_GET);
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_prctl, option, get, 0, 0, 0) }.map(|_| ())
}

/// `ARCH_MAP_VDSO_64`, in a process that has a vDSO: the kernel refuses a second one. A process without one gets it.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn map_vdso() -> Result<(), Errno> {
    // SAFETY: at most the vDSO is mapped, at an address that the kernel finds free.
    match unsafe { syscall!(nr::__NR_arch_prctl, ARCH_MAP_VDSO_64, 0) } {
        Ok(_) | Err(Errno(EEXIST)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// `MADV_GUARD_INSTALL`, on a page of its own.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn guard_install() -> Result<(), Errno> {
    with_page(nr::MAP_PRIVATE | nr::MAP_ANONYMOUS, |page| {
        // SAFETY: the page was mapped for this and is used by nobody.
        unsafe { syscall!(nr::__NR_madvise, page, PAGE, nr::MADV_GUARD_INSTALL) }.map(|_| ())
    })
}

/// `MAP_DROPPABLE`.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn map_droppable() -> Result<(), Errno> {
    with_page(nr::MAP_DROPPABLE | nr::MAP_ANONYMOUS, |_| Ok(()))
}

/// `PR_SET_VMA_ANON_NAME`, on a page of its own.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn name_memory() -> Result<(), Errno> {
    with_page(nr::MAP_PRIVATE | nr::MAP_ANONYMOUS, |page| {
        let (option, name) = (prctl::PR_SET_VMA_ANON_NAME, c"ckpt".as_ptr());
        // SAFETY: the name is a string that ends with a zero byte; only a label is set.
        unsafe { syscall!(nr::__NR_prctl, prctl::PR_SET_VMA, option, page, PAGE, name) }.map(|_| ())
    })
}

/// mseal(2), of no page at all.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn seal_memory() -> Result<(), Errno> {
    // SAFETY: an empty range is checked and nothing is sealed.
    unsafe { syscall!(nr::__NR_mseal, 0, 0, 0) }.map(|_| ())
}

fn with_page(flags: u32, act: impl FnOnce(u64) -> Result<(), Errno>) -> Result<(), Errno> {
    // SAFETY: the kernel chooses where; no mapping of the program is touched.
    let page = unsafe { syscall!(nr::__NR_mmap, 0, PAGE, nr::PROT_READ | nr::PROT_WRITE, flags, u64::MAX, 0) }?;
    let result = act(page);
    // SAFETY: mapped above, and used by nobody any more.
    let _ = unsafe { syscall!(nr::__NR_munmap, page, PAGE) };
    result
}

/// `SO_PEEK_OFF` on a socket: reading data in flight without taking it out.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn peek_offset(socket: i32) -> Result<(), Errno> {
    let offset = 0i32;
    let (level, option) = (net::SOL_SOCKET, net::SO_PEEK_OFF);
    // SAFETY: the option is an int, which lives over the call.
    unsafe { syscall!(nr::__NR_setsockopt, socket, level, option, &raw const offset, size_of::<i32>()) }.map(|_| ())
}

/// `UFFD_FEATURE_WP_ASYNC` and `UFFD_FEATURE_WP_UNPOPULATED` of userfaultfd(2), for faults of user mode only.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn async_write_protection() -> Result<(), Errno> {
    let flags = nr::O_CLOEXEC | nr::O_NONBLOCK | nr::UFFD_USER_MODE_ONLY;
    // SAFETY: takes numbers only.
    let descriptor = unsafe { syscall!(nr::__NR_userfaultfd, flags) }?;
    let features = u64::from(nr::UFFD_FEATURE_WP_ASYNC | nr::UFFD_FEATURE_WP_UNPOPULATED);
    let mut api = nr::uffdio_api { api: u64::from(nr::UFFD_API), features, ioctls: 0 };
    // SAFETY: the argument is a writable `struct uffdio_api`; the descriptor was opened above, and nobody else closes it.
    unsafe {
        let result = syscall!(nr::__NR_ioctl, descriptor, ioctl::UFFDIO_API, &raw mut api);
        let _ = syscall!(nr::__NR_close, descriptor);
        result.map(|_| ())
    }
}

/// rseq(2), with flags that no kernel has: a kernel that knows the call refuses them.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn restartable_sequences() -> Result<(), Errno> {
    const NO_SUCH_FLAG: u32 = 1 << 31;
    // SAFETY: the flags are refused before anything is registered.
    known(unsafe { syscall!(nr::__NR_rseq, 0, 0, NO_SUCH_FLAG, 0) })
}

/// close_range(2), of numbers that no descriptor has.
///
/// # Errors
/// The error of the kernel that lacks the facility, or of the rule that forbids it.
pub fn close_range() -> Result<(), Errno> {
    // SAFETY: descriptors are positive ints: none is closed.
    unsafe { syscall!(nr::__NR_close_range, u32::MAX, u32::MAX, 0) }.map(|_| ())
}

/// Whether there is a call, by its error for a wrong argument.
fn known(result: Result<u64, Errno>) -> Result<(), Errno> {
    match result {
        Ok(_) | Err(Errno(EINVAL)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a kernel has, asking it twice gives the same answer: nothing was left behind.
    #[test]
    fn asking_changes_nothing() {
        let probes = [
            set_mm_map,
            get_tid_address,
            timer_create_restore_ids,
            map_vdso,
            guard_install,
            map_droppable,
            name_memory,
            seal_memory,
            async_write_protection,
            restartable_sequences,
            close_range,
        ];
        for probe in probes {
            assert_eq!(probe(), probe());
        }
    }

    #[test]
    fn what_is_no_page_map_cannot_be_scanned() {
        assert!(pagemap_scan(-1).is_err() && peek_offset(-1).is_err());
    }
}
