//! prctl(2) and arch_prctl(2) of the calling thread and its process, one function for each operation. rustix has some of them, but stands on
//! libc; these serve the agent too.

use linux_raw_sys::{general as nr, prctl};

use crate::raw::Errno;
use crate::syscall;

/// Operations of arch_prctl(2), which linux-raw-sys lacks (arch/x86/include/uapi/asm/prctl.h).
mod arch {
    pub const GET_FS: u32 = 0x1003;
    pub const GET_GS: u32 = 0x1004;
    pub const GET_CPUID: u32 = 0x1011;
    pub const GET_XCOMP_PERM: u32 = 0x1022;
}

/// An operation that takes a number or nothing, and gives a number.
fn number(option: u32, argument: u64) -> Result<u32, Errno> {
    // SAFETY: the callers name operations whose argument is a number; the others must be 0.
    unsafe { syscall!(nr::__NR_prctl, option, argument, 0, 0, 0) }.map(|value| value as u32)
}

/// An operation that writes a value of this type to its argument.
///
/// # Safety
/// The operation must write no more bytes than `T` has, and any bytes must make one.
unsafe fn written<T: Default>(option: u32) -> Result<T, Errno> {
    let mut value = T::default();
    // SAFETY: the caller's promise; the value is writable.
    unsafe { syscall!(nr::__NR_prctl, option, &raw mut value, 0, 0, 0) }.map(|_| value)
}

/// As [`written`], of arch_prctl(2).
///
/// # Safety
/// As for [`written`].
unsafe fn arch_written(option: u32) -> Result<u64, Errno> {
    let mut value = 0u64;
    // SAFETY: the caller's promise; the value is writable.
    unsafe { syscall!(nr::__NR_arch_prctl, option, &raw mut value) }.map(|_| value)
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $option:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the kernel does not know the operation, or does not allow it.
        pub fn $name() -> Result<u32, Errno> {
            number(prctl::$option, 0)
        }
    )*};
}

numbers! {
    /// `PR_GET_DUMPABLE`: 0 no, 1 yes, 2 by root only.
    dumpable: PR_GET_DUMPABLE;
    /// `PR_GET_SECUREBITS`: see capabilities(7).
    securebits: PR_GET_SECUREBITS;
    /// `PR_GET_NO_NEW_PRIVS`: 1 where `exec` gives no privileges.
    no_new_privs: PR_GET_NO_NEW_PRIVS;
    /// `PR_GET_THP_DISABLE` (Linux 3.15): 1 where the process gets no transparent huge pages.
    thp_disable: PR_GET_THP_DISABLE;
    /// `PR_MCE_KILL_GET`: the thread's policy on corrupt memory, `PR_MCE_KILL_*`.
    machine_check_policy: PR_MCE_KILL_GET;
    /// `PR_GET_IO_FLUSHER` (Linux 5.6; needs `CAP_SYS_RESOURCE`): 1 where the thread serves writing of memory to disk.
    io_flusher: PR_GET_IO_FLUSHER;
    /// `PR_GET_MDWE` (Linux 6.3): whether memory may gain the right to be executed, `PR_MDWE_*`.
    mdwe: PR_GET_MDWE;
    /// `PR_GET_MEMORY_MERGE` (Linux 6.4): 1 where equal pages of the process are merged.
    memory_merge: PR_GET_MEMORY_MERGE;
}

/// `PR_GET_TIMERSLACK`: the thread's timer slack in nanoseconds.
///
/// # Errors
/// None are documented.
pub fn timer_slack() -> Result<u64, Errno> {
    // SAFETY: takes no argument.
    unsafe { syscall!(nr::__NR_prctl, prctl::PR_GET_TIMERSLACK, 0, 0, 0, 0) }
}

/// `PR_GET_TID_ADDRESS` (Linux 3.5, `CONFIG_CHECKPOINT_RESTORE`): the address that the kernel clears when the thread ends.
///
/// # Errors
/// `EINVAL` where the kernel lacks it.
pub fn tid_address() -> Result<u64, Errno> {
    // SAFETY: writes an address.
    unsafe { written(prctl::PR_GET_TID_ADDRESS) }
}

/// `PR_GET_NAME`: the thread's name, with a zero byte behind it.
///
/// # Errors
/// None are documented.
pub fn name() -> Result<[u8; 16], Errno> {
    // SAFETY: writes 16 bytes.
    unsafe { written(prctl::PR_GET_NAME) }
}

/// `PR_GET_PDEATHSIG`: the signal that the thread gets when its parent ends; 0: none.
///
/// # Errors
/// None are documented.
pub fn parent_death_signal() -> Result<i32, Errno> {
    // SAFETY: writes an int.
    unsafe { written(prctl::PR_GET_PDEATHSIG) }
}

/// `PR_GET_TSC`: whether the thread may read the time stamp counter, `PR_TSC_*`.
///
/// # Errors
/// None are documented for x86.
pub fn time_stamp_counter() -> Result<u32, Errno> {
    // SAFETY: writes an int.
    unsafe { written(prctl::PR_GET_TSC) }
}

/// `PR_GET_CHILD_SUBREAPER` (Linux 3.4): whether orphans below the process become its children.
///
/// # Errors
/// None are documented.
pub fn child_subreaper() -> Result<bool, Errno> {
    // SAFETY: writes an int.
    unsafe { written::<i32>(prctl::PR_GET_CHILD_SUBREAPER) }.map(|set| set != 0)
}

/// `PR_SET_CHILD_SUBREAPER`: see [`child_subreaper`].
///
/// # Errors
/// None are documented.
pub fn set_child_subreaper(set: bool) -> Result<(), Errno> {
    number(prctl::PR_SET_CHILD_SUBREAPER, set.into()).map(|_| ())
}

/// `PR_SET_DUMPABLE`: see [`dumpable`].
///
/// # Errors
/// `EINVAL` for any value but 0 and 1.
pub fn set_dumpable(value: u32) -> Result<(), Errno> {
    number(prctl::PR_SET_DUMPABLE, value.into()).map(|_| ())
}

/// `ARCH_GET_FS`: the base of fs, the thread pointer.
///
/// # Errors
/// None are documented.
pub fn fs_base() -> Result<u64, Errno> {
    // SAFETY: writes an address.
    unsafe { arch_written(arch::GET_FS) }
}

/// `ARCH_GET_GS`: the base of gs.
///
/// # Errors
/// None are documented.
pub fn gs_base() -> Result<u64, Errno> {
    // SAFETY: writes an address.
    unsafe { arch_written(arch::GET_GS) }
}

/// `ARCH_GET_XCOMP_PERM` (Linux 5.16): the XSAVE components that the process may use, bit by bit.
///
/// # Errors
/// `EINVAL` where the kernel lacks it.
pub fn xsave_components() -> Result<u64, Errno> {
    // SAFETY: writes 64 bits.
    unsafe { arch_written(arch::GET_XCOMP_PERM) }
}

/// `ARCH_GET_CPUID` (Linux 4.12): 0 where the instruction `cpuid` faults in the thread.
///
/// # Errors
/// When the kernel does not know the operation.
pub fn cpuid_enabled() -> Result<u32, Errno> {
    // SAFETY: takes no pointer.
    unsafe { syscall!(nr::__NR_arch_prctl, arch::GET_CPUID, 0) }.map(|on| on as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_itself() {
        assert_eq!(dumpable(), Ok(1));
        assert_eq!(child_subreaper(), Ok(false));
        assert!(fs_base().unwrap() != 0 && timer_slack().unwrap() > 0);
        assert_eq!((gs_base(), parent_death_signal()), (Ok(0), Ok(0)));
        assert!(name().unwrap().contains(&0));
        assert_eq!(time_stamp_counter(), Ok(prctl::PR_TSC_ENABLE));
    }
}
