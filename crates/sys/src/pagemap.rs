//! `PAGEMAP_SCAN` (Documentation/admin-guide/mm/pagemap.rst) of any process whose page map is open.

use linux_raw_sys::general as nr;

use crate::raw::Errno;
use crate::syscall;

/// `_IOWR('f', 16, struct pm_scan_arg)` (include/uapi/linux/fs.h).
const PAGEMAP_SCAN: u32 = 0xc060_6610;

/// Pages from an address up to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pages {
    /// First address.
    pub start: u64,
    /// First address after them.
    pub end: u64,
    /// `PAGE_IS_*` of those that were asked for.
    pub categories: u64,
}

/// Finds runs of pages between `start` and `end` that are all of `categories` (`PAGE_IS_*`). Gives how many there are in `found`, and the
/// address from which to go on: `end` when all have been seen.
pub fn scan(pagemap: i32, start: u64, end: u64, categories: u32, found: &mut [Pages]) -> Result<(usize, u64), Errno> {
    let mut arg = nr::pm_scan_arg {
        size: size_of::<nr::pm_scan_arg>() as u64,
        flags: 0,
        start,
        end,
        walk_end: 0,
        vec: if found.is_empty() { 0 } else { found.as_mut_ptr() as u64 },
        vec_len: found.len() as u64,
        max_pages: 0,
        category_inverted: 0,
        category_mask: categories.into(),
        category_anyof_mask: 0,
        return_mask: categories.into(),
    };
    // SAFETY: the argument and the vector it points to are writable, with their true sizes; `Pages` is laid out as `struct page_region`.
    let count = unsafe { syscall!(nr::__NR_ioctl, pagemap, PAGEMAP_SCAN, &raw mut arg) }?;
    Ok((count as usize, arg.walk_end))
}
