//! Which pages of a range exist: `PAGEMAP_SCAN` where the kernel has it, `/proc/thread-self/pagemap` else, `mincore` for shared memory.

use ckpt_sys::pagemap::{self, Query, Region};
use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::PAGE_SIZE;
use linux_raw_sys::general as nr;

use crate::call::nr_errno::{EINVAL, ENOTTY};
use crate::call::{self, Fd};

/// Pages that are in memory or swapped out, and neither a file's nor the page of zeroes.
const OWN: Query = Query {
    inverted: nr::PAGE_IS_FILE | nr::PAGE_IS_PFNZERO,
    all: nr::PAGE_IS_FILE | nr::PAGE_IS_PFNZERO,
    any: nr::PAGE_IS_PRESENT | nr::PAGE_IS_SWAPPED,
    told: nr::PAGE_IS_PRESENT,
};

/// Bits of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
const PM_PRESENT: u64 = 1 << 63;
const PM_SWAP: u64 = 1 << 62;
const PM_FILE: u64 = 1 << 61;

/// A run of pages that exist.
#[derive(Clone, Copy)]
pub struct Pages {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// They are in memory; else they are swapped out, or a marker that only looks so.
    pub present: bool,
}

/// Reads the page map of the process that opened it.
pub struct PageMap {
    file: Fd,
    scan: bool,
}

impl PageMap {
    /// Opens the calling process's page map; `scan` says whether `PAGEMAP_SCAN` may be used.
    pub fn open(scan: bool) -> Result<Self, Errno> {
        Ok(Self { file: call::open(b"/proc/thread-self/pagemap\0")?, scan })
    }

    /// Calls `each` with every run of the process's own pages (anonymous ones: never written file pages are not among them) in a range.
    pub fn own_pages(&mut self, start: u64, end: u64, mut each: impl FnMut(Pages)) -> Result<(), Errno> {
        if self.scan {
            match self.scan_pages(start, end, &mut each) {
                Err(Errno(ENOTTY | EINVAL)) => self.scan = false,
                other => return other,
            }
        }
        self.read_pages(start, end, &mut each)
    }

    fn scan_pages(&self, start: u64, end: u64, each: &mut impl FnMut(Pages)) -> Result<(), Errno> {
        let mut regions = [Region::default(); 128];
        let mut at = start;
        while at < end {
            let (count, next) = pagemap::scan(self.file.0, at, end, OWN, &mut regions)?;
            for region in regions.get(..count).unwrap_or(&[]) {
                let present = region.categories & u64::from(nr::PAGE_IS_PRESENT) != 0;
                each(Pages { start: region.start, end: region.end, present });
            }
            if next <= at {
                return Ok(());
            }
            at = next;
        }
        Ok(())
    }

    fn read_pages(&self, start: u64, end: u64, each: &mut impl FnMut(Pages)) -> Result<(), Errno> {
        let page = PAGE_SIZE as u64;
        let mut entries = [0u64; 512];
        let mut at = start;
        let mut run: Option<Pages> = None;
        while at < end {
            let want = ((end - at) / page).min(entries.len() as u64) as usize;
            // SAFETY: the entries are writable for this many bytes.
            let n = unsafe { call::pread(&self.file, entries.as_mut_ptr().cast(), want * 8, at / page * 8) }? / 8;
            if n == 0 {
                break;
            }
            for entry in entries.get(..n).unwrap_or(&[]) {
                let exists = entry & (PM_PRESENT | PM_SWAP) != 0 && entry & PM_FILE == 0;
                let present = entry & PM_PRESENT != 0;
                run = match run {
                    Some(run) if exists && run.present == present => Some(Pages { end: at + page, ..run }),
                    other => {
                        if let Some(run) = other {
                            each(run);
                        }
                        exists.then_some(Pages { start: at, end: at + page, present })
                    }
                };
                at += page;
            }
        }
        if let Some(run) = run {
            each(run);
        }
        Ok(())
    }
}

/// Calls `each` with every run of pages of a shared mapping whose object has them in memory.
pub fn shared_pages(start: u64, end: u64, mut each: impl FnMut(u64, u64)) -> Result<(), Errno> {
    let page = PAGE_SIZE as u64;
    let mut present = [0u8; 1024];
    let mut at = start;
    let mut run: Option<(u64, u64)> = None;
    while at < end {
        let pages = ((end - at) / page).min(present.len() as u64);
        // SAFETY: one byte a page is written to `present`.
        unsafe { syscall!(nr::__NR_mincore, at, pages * page, present.as_mut_ptr()) }?;
        for byte in present.get(..pages as usize).unwrap_or(&[]) {
            run = match run {
                Some((first, _)) if byte & 1 != 0 => Some((first, at + page)),
                other => {
                    if let Some((first, last)) = other {
                        each(first, last);
                    }
                    (byte & 1 != 0).then_some((at, at + page))
                }
            };
            at += page;
        }
    }
    if let Some((first, last)) = run {
        each(first, last);
    }
    Ok(())
}
