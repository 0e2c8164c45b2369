//! `PAGEMAP_SCAN` (Documentation/admin-guide/mm/pagemap.rst) of any process whose page map is open.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// `_IOWR('f', 16, struct pm_scan_arg)` (include/uapi/linux/fs.h).
const PAGEMAP_SCAN: u32 = 0xc060_6610;

/// Pages of the same categories (`struct page_region`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Their categories (`PAGE_IS_*`), as far as [`Query::told`] asks for them.
    pub categories: u64,
}

/// Which pages are looked for, by their categories (`PAGE_IS_*`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Query {
    /// Categories that count as the opposite in `all` and `any`.
    pub inverted: u32,
    /// A page must be of all of these.
    pub all: u32,
    /// A page must be of one of these; 0: of any.
    pub any: u32,
    /// Categories that the regions tell.
    pub told: u32,
}

/// Finds pages between `start` and `end`. Gives how many regions are in `found`, and the address from which to go on: `end` when all have
/// been seen.
///
/// # Errors
/// `ENOTTY` before Linux 6.7; `EINVAL` for categories that the kernel does not know.
pub fn scan(pagemap: i32, start: u64, end: u64, query: Query, found: &mut [Region]) -> Result<(usize, u64), Errno> {
    let mut arg = nr::pm_scan_arg {
        size: size_of::<nr::pm_scan_arg>() as u64,
        flags: 0,
        start,
        end,
        walk_end: 0,
        vec: if found.is_empty() { 0 } else { found.as_mut_ptr() as u64 },
        vec_len: found.len() as u64,
        max_pages: 0,
        category_inverted: query.inverted.into(),
        category_mask: query.all.into(),
        category_anyof_mask: query.any.into(),
        return_mask: query.told.into(),
    };
    // SAFETY: the argument and the vector it points to are writable, with their true sizes; `Region` is laid out as `struct page_region`.
    let count = unsafe { syscall!(nr::__NR_ioctl, pagemap, PAGEMAP_SCAN, &raw mut arg) }?;
    Ok((count as usize, arg.walk_end))
}
