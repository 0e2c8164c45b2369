//! The job's memory: mapped and filled in ordinary Rust, beside the restart's own, before the restorer swaps one for the other.
//!
//! A mapping is made at its final address where that is free now. Where the restart's own memory is in the way it waits
//! elsewhere, in a hole of both address spaces, at the same offset within two mebibytes, so that the kernel moves whole page
//! tables. Empty anonymous mappings in the way (reservations of terabytes among them) are left to the restorer.
#![allow(unsafe_code, reason = "the job's memory is mapped and filled")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ckpt_image::{ImageReader, PlacedExtent, ReadError};
use ckpt_objects::memory::{AddressSpace, Backing, MemoryPolicy, Vma, VmaFlags};
use ckpt_objects::older::KernelFeature;
use ckpt_objects::shared_memory::{SharedMemory, SharedMemoryKind};
use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_sys::sysv::{self, SHM_EXEC, SHM_RDONLY};
use linux_raw_sys::general as nr;
use linux_raw_sys::prctl::{PR_SET_VMA, PR_SET_VMA_ANON_NAME};

use crate::holes::{PAGE, Ranges, TASK_SIZE};

/// How far the restart's own stack may still grow.
const STACK_MARGIN: u64 = 16 << 20;

/// Why memory cannot be brought back.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The kernel does not map it.
    #[error("cannot map {len} bytes for {start:#x} ({what}): {source}")]
    Map {
        /// Its final address.
        start: u64,
        /// Bytes.
        len: u64,
        /// What is mapped.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// No hole is large enough.
    #[error("the address space has no room for {0} bytes beside the job's memory")]
    NoRoom(u64),
    /// A file that is mapped cannot be opened.
    #[error("cannot open {path}, which the job has mapped: {source}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image has pages for addresses where nothing is mapped.
    #[error(
        "the image holds pages at {0:#x}, where the job has no memory of its own; it contradicts itself, use another generation"
    )]
    Stray(u64),
    /// A call failed.
    #[error("cannot {what} memory at {start:#x}: {source}")]
    Call {
        /// What was to be done.
        what: &'static str,
        /// The final address.
        start: u64,
        /// What the system said.
        source: io::Error,
    },
    /// `/proc/self/maps` cannot be read.
    #[error("cannot read /proc/self/maps: {0}")]
    OwnMaps(io::Error),
    /// The image cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Memory of the job, where it is now.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its final first address.
    pub start: u64,
    /// Its final end.
    pub end: u64,
    /// Where it begins now.
    pub at: u64,
    /// It is private, and readable and writable until [`Layout::finish`].
    fillable: bool,
}

/// Where the mappings of one process are, before the swap.
#[derive(Debug)]
pub struct Layout<'a> {
    /// Those that are mapped, by ascending final address.
    pub placed: Vec<Placed>,
    /// Those that the restorer maps.
    pub deferred: Vec<&'a Vma>,
    vmas: Vec<&'a Vma>,
    /// Addresses that are taken now or will be.
    taken: Ranges,
}

/// What memory is mapped from.
pub struct Sources<'a> {
    /// By index in [`ckpt_session::JobState::mapped_files`]: where the file is; nothing for one that is gone or has changed.
    pub files: &'a [Option<PathBuf>],
    /// By index in [`ckpt_session::JobState::shared_memory`]; nothing for System V shared memory.
    pub shared: &'a [Option<OwnedFd>],
    /// The objects themselves.
    pub objects: &'a [SharedMemory],
}

impl<'a> Layout<'a> {
    /// Maps everything that can be mapped now. `has_pages` tells whether the image holds pages in a range.
    pub fn map(vmas: &'a [Vma], sources: &Sources<'_>, has_pages: impl Fn(u64, u64) -> bool) -> Result<Self, MemoryError> {
        let vmas: Vec<&Vma> = vmas.iter().filter(|vma| is_restored(vma)).collect();
        let own = own_memory()?;
        let mut layout = Self { placed: Vec::new(), deferred: Vec::new(), vmas, taken: own.clone() };
        let mut opened = BTreeMap::new();
        let mut in_the_way = Vec::new();
        for vma in layout.vmas.clone() {
            layout.taken.insert(vma.start, vma.end);
            let source = Source::of(vma, sources, &mut opened, has_pages(vma.start, vma.end))?;
            if own.is_free(vma.start, vma.end) && source.map(vma.start, vma.len()).is_ok() {
                layout.placed.push(source.placed(vma, vma.start));
            } else {
                in_the_way.push((vma, source));
            }
        }
        // What will be mapped at last must all be known before a hole is sought.
        for (vma, source) in in_the_way {
            if source.is_empty_anonymous {
                layout.deferred.push(vma);
                continue;
            }
            let at = layout.in_hole(vma.len(), vma.start, |at| source.map(at, vma.len())).map_err(|error| match error {
                None => MemoryError::NoRoom(vma.len()),
                Some(Errno(errno)) => {
                    let what = source.describe(vma, sources);
                    let source = io::Error::from_raw_os_error(errno);
                    MemoryError::Map { start: vma.start, len: vma.len(), what, source }
                }
            })?;
            layout.placed.push(source.placed(vma, at));
        }
        layout.placed.sort_by_key(|placed| placed.start);
        for placed in &layout.placed {
            let Some(vma) = layout.vma_at(placed.start) else { continue };
            for (advice, required) in advices(vma.flags) {
                advise(placed, advice, required)?;
            }
            if let Some(policy) = &vma.policy {
                let args = policy_arguments(policy);
                // SAFETY: the nodes live over the call; where pages come to lie changes nothing for a program. Nodes may be missing here.
                let _ = unsafe { syscall!(nr::__NR_mbind, placed.at, vma.len(), args.mode, args.nodes, args.bits, 0) };
            }
        }
        layout.name_memory();
        Ok(layout)
    }

    /// Finds a hole of both address spaces that `map` can use. The error is the kernel's, or nothing where there is no hole.
    fn in_hole(&mut self, len: u64, like: u64, map: impl Fn(u64) -> Result<(), Errno>) -> Result<u64, Option<Errno>> {
        loop {
            let at = self.taken.find(len, like).ok_or(None)?;
            // A failed attempt is noted too: Rust's own allocations may have come there meanwhile.
            self.taken.insert(at, at + len);
            match map(at) {
                Ok(()) => return Ok(at),
                Err(Errno(libc::EEXIST)) => (),
                Err(error) => return Err(Some(error)),
            }
        }
    }

    /// A range of `len` bytes, readable, writable and zero, that is free before the swap and after it.
    pub fn set_aside(&mut self, len: u64) -> Result<u64, MemoryError> {
        let map =
            |at| mmap(at, len, nr::PROT_READ | nr::PROT_WRITE, nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE, None);
        self.in_hole(len, 0, map).map_err(|error| match error {
            None => MemoryError::NoRoom(len),
            Some(Errno(errno)) => {
                let source = io::Error::from_raw_os_error(errno);
                MemoryError::Map { start: 0, len, what: "the restorer".to_owned(), source }
            }
        })
    }

    /// Addresses that are free before the swap and after it; nothing is mapped there yet.
    pub fn free_address(&mut self, len: u64) -> Result<u64, MemoryError> {
        self.in_hole(len, 0, |_| Ok(())).map_err(|_| MemoryError::NoRoom(len))
    }

    fn vma_at(&self, start: u64) -> Option<&'a Vma> {
        self.vmas.binary_search_by_key(&start, |vma| vma.start).ok().map(|i| self.vmas[i])
    }

    fn name_memory(&self) {
        for placed in &self.placed {
            let Some(name) = self.vma_at(placed.start).and_then(|vma| vma.name.as_ref()) else { continue };
            let Ok(name) = std::ffi::CString::new(name.0.clone()) else { continue };
            // A kernel without names for memory (CONFIG_ANON_VMA_NAME) does as well: they are for people who read
            // `/proc/PID/maps`. SAFETY: the name is a string that ends with a zero byte; only a label is set.
            let _ = unsafe {
                syscall!(nr::__NR_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, placed.at, placed.end - placed.start, name.as_ptr())
            };
        }
    }

    /// Fills in the pages that the image holds under `space`.
    pub fn fill(&self, reader: &ImageReader, space: u32, threads: usize, filled: &AtomicU64) -> Result<(), MemoryError> {
        fill(reader, space, &self.placed, threads, filled)
    }

    /// Where the job's `len` bytes at `address` are now, if they are in memory that is being filled.
    fn now_at(&self, address: u64, len: usize) -> Option<u64> {
        let i = self.placed.partition_point(|placed| placed.end <= address);
        let placed = self.placed.get(i).filter(|placed| placed.start <= address && placed.fillable)?;
        (address.checked_add(len as u64)? <= placed.end).then(|| placed.at + (address - placed.start))
    }

    /// Overwrites memory of the job, before [`Layout::finish`].
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let at = self.now_at(address, bytes.len()).ok_or(MemoryError::Stray(address))?;
        // SAFETY: the range is inside a mapping that is writable until `finish`, and no Rust object is in it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        Ok(())
    }

    /// Reads memory of the job, before [`Layout::finish`]; nothing where none is being filled.
    #[must_use]
    pub fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let at = self.now_at(address, len)?;
        // SAFETY: the range is inside a mapping that is readable until `finish`, and nobody writes it meanwhile.
        Some(unsafe { std::slice::from_raw_parts(at as *const u8, len) }.to_vec())
    }

    /// Gives the mappings their protection.
    pub fn finish(&self) -> Result<(), MemoryError> {
        for placed in &self.placed {
            let Some(vma) = self.vma_at(placed.start) else { continue };
            if vma.protection_key != 0 && vma.prot != nr::PROT_EXEC {
                // SAFETY: memory of the job, which no Rust code uses any more.
                unsafe { syscall!(nr::__NR_pkey_mprotect, placed.at, vma.len(), vma.prot, vma.protection_key) }
                    .map_err(call_error("give its protection key to", placed.start))?;
            } else if placed.fillable && vma.prot != nr::PROT_READ | nr::PROT_WRITE {
                // SAFETY: as above.
                unsafe { syscall!(nr::__NR_mprotect, placed.at, vma.len(), vma.prot) }
                    .map_err(call_error("protect", placed.start))?;
            }
        }
        Ok(())
    }
}

/// Fills in the pages of an object that is open for reading and writing, such as shared memory.
pub fn fill_object(
    reader: &ImageReader,
    space: u32,
    fd: BorrowedFd<'_>,
    size: u64,
    threads: usize,
    filled: &AtomicU64,
) -> Result<(), MemoryError> {
    let len = size.next_multiple_of(PAGE);
    if len == 0 || reader.extents_of(space).is_empty() {
        return Ok(());
    }
    let protection = nr::PROT_READ | nr::PROT_WRITE;
    // SAFETY: the kernel chooses where; nobody else knows the mapping.
    let at = unsafe { syscall!(nr::__NR_mmap, 0, len, protection, nr::MAP_SHARED, fd.as_raw_fd(), 0) }
        .map_err(call_error("map shared", 0))?;
    let result = fill(reader, space, &[Placed { start: 0, end: len, at, fillable: true }], threads, filled);
    // SAFETY: mapped above, and used by nobody any more.
    let _ = unsafe { syscall!(nr::__NR_munmap, at, len) };
    result
}

/// Fills in the pages of System V shared memory.
pub fn fill_segment(
    reader: &ImageReader,
    object: &SharedMemory,
    id: i32,
    threads: usize,
    filled: &AtomicU64,
) -> Result<(), MemoryError> {
    if reader.extents_of(object.space.0).is_empty() {
        return Ok(());
    }
    let at = sysv::attach(id, 0, 0).map_err(call_error("attach shared", 0))?;
    let end = object.size.next_multiple_of(PAGE);
    let result = fill(reader, object.space.0, &[Placed { start: 0, end, at, fillable: true }], threads, filled);
    // SAFETY: attached above, and used by nobody any more.
    let _ = unsafe { sysv::detach(at) };
    result
}

/// Whether a mapping is one that is mapped and filled: not the kernel's own.
fn is_restored(vma: &Vma) -> bool {
    !matches!(vma.backing, Backing::Vvar | Backing::Vdso) && vma.end <= TASK_SIZE
}

/// What madvise(2) is to be told, and whether it must succeed.
pub fn advices(flags: VmaFlags) -> impl Iterator<Item = (u32, bool)> {
    // What is only about speed may be missing from a kernel.
    [
        (VmaFlags::DONT_FORK, nr::MADV_DONTFORK, true),
        (VmaFlags::WIPE_ON_FORK, nr::MADV_WIPEONFORK, true),
        (VmaFlags::DONT_DUMP, nr::MADV_DONTDUMP, false),
        (VmaFlags::HUGE_PAGE, nr::MADV_HUGEPAGE, false),
        (VmaFlags::NO_HUGE_PAGE, nr::MADV_NOHUGEPAGE, false),
        (VmaFlags::MERGEABLE, nr::MADV_MERGEABLE, false),
        (VmaFlags::SEQUENTIAL, nr::MADV_SEQUENTIAL, false),
        (VmaFlags::RANDOM, nr::MADV_RANDOM, false),
    ]
    .into_iter()
    .filter(move |(flag, ..)| flags.contains(*flag) && !flags.contains(VmaFlags::DROPPABLE))
    .map(|(_, advice, required)| (advice, required))
}

/// The arguments of mbind(2) and set_mempolicy(2).
pub struct PolicyArguments {
    /// `MPOL_*` with its flags.
    pub mode: u32,
    /// Address of the nodes; 0: none.
    pub nodes: u64,
    /// How many there can be, and one: the kernel takes that off again.
    pub bits: u64,
}

/// What tells a policy to the kernel, as long as the policy lives.
#[must_use]
pub fn policy_arguments(policy: &MemoryPolicy) -> PolicyArguments {
    let nodes = if policy.nodes.is_empty() { 0 } else { policy.nodes.as_ptr() as u64 };
    PolicyArguments { mode: policy.mode, nodes, bits: if nodes == 0 { 0 } else { policy.nodes.len() as u64 * 64 + 1 } }
}

/// Allocates the protection keys of an address space by their numbers (pkeys(7)). To be done before anything is mapped that is only to be executed: the
/// kernel takes a key for that by itself, which must be the same one.
pub fn allocate_keys(memory: &AddressSpace) -> Result<(), MemoryError> {
    let wanted = memory.protection_keys | 1 << memory.execute_only_key;
    if wanted & !1 == 0 {
        return Ok(());
    }
    let failed = call_error("allocate the protection keys of", 0);
    // Keys come in ascending order.
    match allocate_in_order(memory.execute_only_key, u32::BITS - 1 - wanted.leading_zeros(), wanted) {
        Ok(()) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn allocate_in_order(execute_only: u32, highest: u32, wanted: u32) -> Result<(), Errno> {
    for key in 1..=highest {
        if key == execute_only {
            // SAFETY: the page was mapped for this and is used by nobody.
            unsafe {
                let page = syscall!(nr::__NR_mmap, 0, PAGE, nr::PROT_EXEC, nr::MAP_PRIVATE | nr::MAP_ANONYMOUS, u64::MAX, 0)?;
                syscall!(nr::__NR_munmap, page, PAGE)?;
            }
            continue;
        }
        // SAFETY: takes numbers only.
        let got = unsafe { syscall!(nr::__NR_pkey_alloc, 0, 0) }?;
        if got != u64::from(key) {
            return Err(Errno(libc::EBUSY));
        }
    }
    for key in (1..highest).filter(|key| wanted & 1 << key == 0) {
        // SAFETY: takes numbers only; nothing has this key.
        unsafe { syscall!(nr::__NR_pkey_free, key) }?;
    }
    Ok(())
}

fn advise(placed: &Placed, advice: u32, required: bool) -> Result<(), MemoryError> {
    // SAFETY: these advices keep the contents; the memory is the job's.
    match unsafe { syscall!(nr::__NR_madvise, placed.at, placed.end - placed.start, advice) } {
        Err(error) if required => Err(call_error("set the properties of", placed.start)(error)),
        _ => Ok(()),
    }
}

fn call_error(what: &'static str, start: u64) -> impl FnOnce(Errno) -> MemoryError {
    move |Errno(errno)| MemoryError::Call { what, start, source: io::Error::from_raw_os_error(errno) }
}

/// Where this kernel has no memory that it may drop, makes it ordinary memory that is wiped in children, as that would be: the
/// other flags of such a mapping say so already. It begins empty in any case.
pub fn replace_droppable(vmas: &mut [Vma]) {
    let is_droppable = |vma: &&mut Vma| vma.flags.contains(VmaFlags::DROPPABLE);
    let mut droppable = vmas.iter_mut().filter(is_droppable).peekable();
    if droppable.peek().is_some() && (KernelFeature::Droppable.is_off() || ckpt_sys::probe::map_droppable().is_err()) {
        droppable.for_each(|vma| vma.flags = VmaFlags(vma.flags.0 & !VmaFlags::DROPPABLE.0));
    }
}

/// The flags of mmap(2) for anonymous memory like `vma`.
#[must_use]
pub fn anonymous_flags(vma: &Vma) -> u32 {
    let mut flags = nr::MAP_ANONYMOUS;
    flags |= if vma.flags.contains(VmaFlags::DROPPABLE) { nr::MAP_DROPPABLE } else { nr::MAP_PRIVATE };
    for (flag, map) in [
        (VmaFlags::NO_RESERVE, nr::MAP_NORESERVE),
        (VmaFlags::GROWS_DOWN, nr::MAP_GROWSDOWN | nr::MAP_STACK),
        (VmaFlags::HUGETLB, nr::MAP_HUGETLB),
    ] {
        if vma.flags.contains(flag) {
            flags |= map;
        }
    }
    flags
}

/// How a mapping is made.
struct Source {
    flags: u32,
    protection: u32,
    fd: Option<(RawFd, u64)>,
    segment: Option<Segment>,
    fillable: bool,
    is_empty_anonymous: bool,
}

/// A part of System V shared memory: it is attached, not mapped.
#[derive(Clone, Copy)]
struct Segment {
    id: i32,
    /// Bytes of the whole.
    len: u64,
    offset: u64,
    /// `SHM_RDONLY`.
    read_only: bool,
}

impl Segment {
    /// Attaches it, so that the part is at `at`, or fails with `EEXIST` where something is mapped.
    fn attach(&self, at: u64, len: u64, protection: u32) -> Result<(), Errno> {
        let mut flags = if self.read_only { SHM_RDONLY } else { 0 };
        if protection & nr::PROT_EXEC != 0 {
            flags |= SHM_EXEC;
        }
        let given = nr::PROT_READ | if self.read_only { 0 } else { nr::PROT_WRITE } | protection & nr::PROT_EXEC;
        if (self.offset, len) == (0, self.len) {
            sysv::attach(self.id, at, flags)
                .map_err(|error| if error == Errno(libc::EINVAL) { Errno(libc::EEXIST) } else { error })?;
        } else {
            // The place is taken first, where nothing is; then the part is moved there, and the rest goes.
            mmap(at, len, nr::PROT_NONE, nr::MAP_PRIVATE | nr::MAP_ANONYMOUS | nr::MAP_NORESERVE, None)?;
            let whole = sysv::attach(self.id, 0, flags)?;
            let part = whole + self.offset;
            // SAFETY: the whole was attached just now, the place at `at` was mapped just now: nobody else knows either.
            unsafe {
                syscall!(nr::__NR_mremap, part, len, len, nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED, at)?;
                for (start, end) in [(whole, part), (part + len, whole + self.len)] {
                    if start < end {
                        syscall!(nr::__NR_munmap, start, end - start)?;
                    }
                }
            }
        }
        if protection != given {
            // SAFETY: memory of the job's, which no Rust code uses.
            unsafe { syscall!(nr::__NR_mprotect, at, len, protection) }?;
        }
        Ok(())
    }
}

impl Source {
    fn of(vma: &Vma, sources: &Sources<'_>, opened: &mut BTreeMap<u32, File>, has_pages: bool) -> Result<Self, MemoryError> {
        let mut file = |index: u32| -> Result<Option<RawFd>, MemoryError> {
            let Some(Some(path)) = sources.files.get(index as usize) else { return Ok(None) };
            if let Some(file) = opened.get(&index) {
                return Ok(Some(file.as_raw_fd()));
            }
            let file = File::open(path).map_err(|source| MemoryError::Open { path: path.clone(), source })?;
            Ok(Some(opened.entry(index).or_insert(file).as_raw_fd()))
        };
        let private = |fd: Option<(RawFd, u64)>| {
            let fillable = has_pages && !vma.flags.contains(VmaFlags::DROPPABLE);
            let flags = match fd {
                Some(_) if vma.flags.contains(VmaFlags::NO_RESERVE) => nr::MAP_PRIVATE | nr::MAP_NORESERVE,
                Some(_) => nr::MAP_PRIVATE,
                None => anonymous_flags(vma),
            };
            let protection = if fillable { nr::PROT_READ | nr::PROT_WRITE } else { vma.prot };
            Self { flags, protection, fd, segment: None, fillable, is_empty_anonymous: fd.is_none() && !fillable }
        };
        let shared = |fd: RawFd, offset: u64| Self {
            flags: nr::MAP_SHARED,
            protection: vma.prot,
            fd: Some((fd, offset)),
            segment: None,
            fillable: false,
            is_empty_anonymous: false,
        };
        Ok(match &vma.backing {
            Backing::PrivateFile { file: index, offset, .. } => private(file(*index)?.map(|fd| (fd, *offset))),
            Backing::SharedFile { file: index, offset } => {
                let fd = file(*index)?.ok_or(MemoryError::Stray(vma.start))?;
                shared(fd, *offset)
            }
            Backing::SharedMemory { object, offset } => {
                let at = *object as usize;
                let fd = sources.shared.get(at).ok_or(MemoryError::Stray(vma.start))?;
                let fd = fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
                let mut source = shared(fd, *offset);
                if let Some(SharedMemory { size, kind: SharedMemoryKind::SystemV { identity, .. }, .. }) = sources.objects.get(at)
                {
                    let (id, len, offset) = (identity.id, size.next_multiple_of(PAGE), *offset);
                    source.segment = Some(Segment { id, len, offset, read_only: vma.flags.contains(VmaFlags::READ_ONLY) });
                }
                source
            }
            Backing::Anonymous | Backing::Vvar | Backing::Vdso => private(None),
        })
    }

    fn map(&self, at: u64, len: u64) -> Result<(), Errno> {
        if let Some(segment) = self.segment {
            return segment.attach(at, len, self.protection);
        }
        let result = mmap(at, len, self.protection, self.flags, self.fd);
        // Huge pages may not be set aside here: ordinary pages serve.
        if self.flags & nr::MAP_HUGETLB != 0 && matches!(result, Err(Errno(libc::ENOMEM | libc::EINVAL))) {
            return mmap(at, len, self.protection, self.flags & !nr::MAP_HUGETLB, self.fd);
        }
        if result == Err(Errno(libc::ENOMEM)) && self.fd.is_none() && len > PIECE && self.flags & nr::MAP_GROWSDOWN == 0 {
            return self.map_in_pieces(at, len);
        }
        result
    }

    /// What has grown little by little may be larger than what the kernel gives out at once, which is no more than all of the machine's memory
    /// (`vm.overcommit_memory`). Neighbours that are alike become one mapping.
    fn map_in_pieces(&self, at: u64, len: u64) -> Result<(), Errno> {
        let mut done = 0;
        while done < len {
            let piece = PIECE.min(len - done);
            if let Err(error) = mmap(at + done, piece, self.protection, self.flags, None) {
                // SAFETY: the pieces before were mapped just now.
                let _ = unsafe { syscall!(nr::__NR_munmap, at, done) };
                return Err(error);
            }
            done += piece;
        }
        Ok(())
    }

    fn placed(&self, vma: &Vma, at: u64) -> Placed {
        Placed { start: vma.start, end: vma.end, at, fillable: self.fillable }
    }

    fn describe(&self, vma: &Vma, sources: &Sources<'_>) -> String {
        match &vma.backing {
            Backing::PrivateFile { file, .. } | Backing::SharedFile { file, .. } => sources
                .files
                .get(*file as usize)
                .and_then(Option::as_ref)
                .map_or_else(|| "a file that is gone".to_owned(), |path| path.display().to_string()),
            Backing::SharedMemory { .. } => "shared memory".to_owned(),
            _ => "memory".to_owned(),
        }
    }
}

/// Bytes that are mapped at once where the whole is too much.
const PIECE: u64 = 1 << 30;

/// Maps at exactly `at`, or fails with `EEXIST` where something is mapped.
fn mmap(at: u64, len: u64, protection: u32, flags: u32, fd: Option<(RawFd, u64)>) -> Result<(), Errno> {
    let (fd, offset) = fd.unwrap_or((-1, 0));
    let flags = flags | nr::MAP_FIXED_NOREPLACE;
    // SAFETY: the kernel replaces nothing that is mapped, so no Rust object is touched.
    unsafe { syscall!(nr::__NR_mmap, at, len, protection, flags, i64::from(fd), offset) }.map(|_| ())
}

/// The restart's own memory, with room for its stack to grow.
fn own_memory() -> Result<Ranges, MemoryError> {
    let text = std::fs::read_to_string("/proc/self/maps").map_err(MemoryError::OwnMaps)?;
    let mut ranges = Ranges::default();
    for line in text.lines() {
        let parse = || {
            let (start, rest) = line.split_once('-')?;
            let (end, _) = rest.split_once(' ')?;
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        };
        let Some((start, end)) = parse() else { continue };
        let margin = if line.ends_with("[stack]") { STACK_MARGIN } else { 0 };
        ranges.insert(start.saturating_sub(margin), end);
    }
    Ok(ranges)
}

/// Fills targets, which are sorted by their final address, with what the image has under `space`. Uses up to `threads` threads,
/// which have all ended when it returns.
fn fill(reader: &ImageReader, space: u32, targets: &[Placed], threads: usize, filled: &AtomicU64) -> Result<(), MemoryError> {
    let mut by_chunk: BTreeMap<u32, Vec<&PlacedExtent>> = BTreeMap::new();
    for placed in reader.extents_of(space) {
        by_chunk.entry(placed.chunk).or_default().push(placed);
    }
    let work: Vec<_> = by_chunk.into_iter().collect();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(None);
    let run = || {
        let mut buffer = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some((chunk, extents)) = work.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match fill_from(reader, *chunk, extents, targets, &mut buffer) {
                Ok(bytes) => _ = filled.fetch_add(bytes, Ordering::Relaxed),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Without a helper it takes longer, and no more.
        let helpers: Vec<_> =
            (1..threads.min(work.len())).filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, run).ok()).collect();
        run();
        // The end of a scope waits for what its threads do, not for the threads: one that is still on its way out would run on
        // when the address space is taken away. A join waits until the kernel is done with it.
        for helper in helpers {
            let _ = helper.join();
        }
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Puts one chunk's pages into place; gives how many bytes that was.
fn fill_from(
    reader: &ImageReader,
    chunk: u32,
    extents: &[&PlacedExtent],
    targets: &[Placed],
    buffer: &mut Vec<u8>,
) -> Result<u64, MemoryError> {
    let chunk_len = reader.chunks().get(chunk as usize).map_or(0, |entry| entry.raw_len);
    if let [only] = extents
        && only.extent.len == chunk_len
        && let Some((at, len @ 1..)) = piece(targets, only.extent.address, u64::from(chunk_len))
        && len == u64::from(chunk_len)
    {
        // All its pages at once cost half of what a fault for each does. A kernel before 5.14 has them fault one by one.
        // SAFETY: the range is inside a writable mapping of the job's; this changes no contents.
        let _ = unsafe { syscall!(nr::__NR_madvise, at, len, nr::MADV_POPULATE_WRITE) };
        // SAFETY: the range is inside a writable mapping of the job's, in which there is no Rust object; pages of an image
        // do not overlap, so no other thread writes there.
        let target = unsafe { std::slice::from_raw_parts_mut(at as *mut u8, chunk_len as usize) };
        reader.read_chunk_into(chunk, target)?;
        return Ok(len);
    }
    reader.read_chunk(chunk, buffer)?;
    let mut bytes = 0;
    for placed in extents {
        let extent = placed.extent;
        let mut address = extent.address;
        let mut rest = buffer.get(extent.offset as usize..).and_then(|rest| rest.get(..extent.len as usize)).unwrap_or_default();
        while !rest.is_empty() {
            let (at, len) = piece(targets, address, rest.len() as u64).ok_or(MemoryError::Stray(address))?;
            let (now, later) = rest.split_at(len as usize);
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), at as *mut u8, now.len()) };
            (address, rest) = (address + len, later);
            bytes += len;
        }
    }
    Ok(bytes)
}

/// Where `address` is now, and how many of `len` bytes follow it there.
fn piece(targets: &[Placed], address: u64, len: u64) -> Option<(u64, u64)> {
    let i = targets.partition_point(|placed| placed.end <= address);
    let placed = targets.get(i).filter(|placed| placed.start <= address && placed.fillable)?;
    Some((placed.at + (address - placed.start), len.min(placed.end - address)))
}

/// Whether the image has pages of `space` in `start..end`.
#[must_use]
pub fn has_pages(reader: &ImageReader, space: u32, start: u64, end: u64) -> bool {
    let extents = reader.extents_of(space);
    let i = extents.partition_point(|placed| placed.extent.address + u64::from(placed.extent.len) <= start);
    extents.get(i).is_some_and(|placed| placed.extent.address < end)
}

/// Writes the pages of `space` to a file at their offsets: for a mapped file that has a name.
pub fn write_back(reader: &ImageReader, space: u32, file: &File, path: &Path, size: u64) -> Result<(), MemoryError> {
    use std::os::unix::fs::FileExt;
    let mut buffer = Vec::new();
    let mut loaded = None;
    for placed in reader.extents_of(space) {
        if loaded != Some(placed.chunk) {
            reader.read_chunk(placed.chunk, &mut buffer)?;
            loaded = Some(placed.chunk);
        }
        let extent = placed.extent;
        // The last page may reach beyond the end of the file, and must not make it longer.
        let len = u64::from(extent.len).min(size.saturating_sub(extent.address)) as usize;
        let bytes = buffer.get(extent.offset as usize..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        file.write_all_at(bytes, extent.address).map_err(|source| MemoryError::Open { path: path.to_owned(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use ckpt_image::{Codec, Extent, ImageName, ImageWriter, encode};
    use ckpt_objects::FilePath;

    use crate::holes::TABLE;

    const READ_WRITE: u32 = nr::PROT_READ | nr::PROT_WRITE;

    /// An image whose space 1 has these pages: first address and contents, each in a chunk with one more page that is nobody's.
    fn image(pages: &[(u64, &[u8])]) -> (tempfile::TempDir, ImageReader) {
        let dir = tempfile::tempdir().unwrap();
        let writer = ImageWriter::create(dir.path(), &ImageName::new("test", "0123456789abcdef", 1).unwrap()).unwrap();
        for (address, contents) in pages {
            let chunk = [&vec![0xee; PAGE as usize], *contents].concat();
            let extent = Extent { space: 1, address: *address, len: contents.len() as u32, offset: PAGE as u32 };
            writer.append(&encode(Codec::Lz4, &chunk), &[extent]).unwrap();
        }
        let path = writer.commit(b"").unwrap().path;
        let reader = ImageReader::open(&path).unwrap();
        (dir, reader)
    }

    fn vma(start: u64, pages: u64, prot: u32) -> Vma {
        let (backing, flags) = (Backing::Anonymous, VmaFlags::default());
        Vma { start, end: start + pages * PAGE, prot, backing, flags, name: None, protection_key: 0, policy: None }
    }

    fn map(vmas: &[Vma], reader: &ImageReader) -> Layout<'static> {
        // A few of them are no loss: nor is what they describe ever unmapped.
        let vmas: &'static [Vma] = Vec::leak(vmas.to_vec());
        Layout::map(vmas, &Sources { files: &[], shared: &[], objects: &[] }, |start, end| has_pages(reader, 1, start, end))
            .unwrap()
    }

    /// Addresses that nothing uses.
    fn free(len: u64) -> u64 {
        own_memory().unwrap().find(len, 0x5000).unwrap()
    }

    fn at(address: u64) -> &'static [u8] {
        // SAFETY: called with addresses that have just been mapped readable, and stay so.
        unsafe { std::slice::from_raw_parts(address as *const u8, PAGE as usize) }
    }

    #[test]
    fn memory_is_filled_where_it_will_be_when_that_is_free() {
        let start = free(8 * PAGE);
        let pages: Vec<u8> = (0..3 * PAGE).map(|i| (i / 7) as u8).collect();
        // The second and third page of one mapping and the first of the next, in one run.
        let (_dir, reader) = image(&[(start + PAGE, &pages)]);
        let layout = map(&[vma(start, 3, READ_WRITE), vma(start + 3 * PAGE, 2, nr::PROT_READ)], &reader);
        assert!(layout.placed.iter().all(|placed| placed.at == placed.start));
        let filled = AtomicU64::new(0);
        layout.fill(&reader, 1, 2, &filled).unwrap();
        assert_eq!(filled.into_inner(), 3 * PAGE);
        layout.write(start + 3 * PAGE + 8, b"changed").unwrap();
        assert_eq!(layout.read(start + 3 * PAGE + 8, 7).unwrap(), b"changed");
        layout.finish().unwrap();
        assert_eq!(at(start), [0; PAGE as usize]);
        assert_eq!(at(start + PAGE), &pages[..PAGE as usize]);
        assert_eq!(at(start + 2 * PAGE), &pages[PAGE as usize..2 * PAGE as usize]);
        assert_eq!(at(start + 3 * PAGE)[..8], pages[2 * PAGE as usize..][..8]);
        // Reading into memory that cannot be written fails with EFAULT.
        let file = File::open("/dev/zero").unwrap();
        // SAFETY: the kernel checks whether it may write there; it may not.
        let read = unsafe { syscall!(nr::__NR_read, file.as_raw_fd(), start + 3 * PAGE, 1) };
        assert_eq!(read, Err(Errno(libc::EFAULT)));
    }

    #[test]
    fn memory_whose_place_is_taken_waits_elsewhere() {
        let start = free(4 * PAGE);
        // The restart's own memory is in the way of all three.
        mmap(start, 4 * PAGE, READ_WRITE, nr::MAP_PRIVATE | nr::MAP_ANONYMOUS, None).unwrap();
        let (_dir, reader) = image(&[(start + PAGE, &[5; PAGE as usize])]);
        let vmas = [vma(start, 1, READ_WRITE), vma(start + PAGE, 1, READ_WRITE), vma(start + 2 * PAGE, 1 << 30, 0)];
        let layout = map(&vmas, &reader);
        let [placed] = layout.placed[..] else { panic!("{:?}", layout.placed) };
        assert_eq!((placed.start, placed.at % TABLE), (start + PAGE, (start + PAGE) % TABLE));
        assert!(placed.at + PAGE <= start || placed.at >= start + (2 + (1 << 30)) * PAGE);
        layout.fill(&reader, 1, 1, &AtomicU64::new(0)).unwrap();
        assert_eq!(at(placed.at), [5; PAGE as usize]);
        let deferred: Vec<u64> = layout.deferred.iter().map(|vma| vma.start).collect();
        assert_eq!(deferred, [start, start + 2 * PAGE]);
    }

    #[test]
    fn pages_without_memory_are_refused() {
        let start = free(4 * PAGE);
        let (_dir, reader) = image(&[(start + PAGE, &[5; 2 * PAGE as usize])]);
        let layout = map(&[vma(start, 2, READ_WRITE)], &reader);
        let result = layout.fill(&reader, 1, 1, &AtomicU64::new(0));
        assert!(matches!(result, Err(MemoryError::Stray(address)) if address == start + 2 * PAGE), "{result:?}");
        assert!(matches!(layout.write(start + 8 * PAGE, b"x"), Err(MemoryError::Stray(_))));
        assert!(matches!(layout.write(start + 2 * PAGE - 1, b"xy"), Err(MemoryError::Stray(_))));
    }

    #[test]
    fn a_file_that_is_gone_is_replaced_by_the_pages_that_the_image_holds() {
        let start = free(4 * PAGE);
        let (_dir, reader) = image(&[(start, &[9; PAGE as usize])]);
        let mut vma = vma(start, 1, nr::PROT_READ);
        vma.backing = Backing::PrivateFile { file: 0, offset: 0, stored: true };
        vma.name = Some(FilePath(b"a name".to_vec()));
        let layout = map(&[vma], &reader);
        layout.fill(&reader, 1, 1, &AtomicU64::new(0)).unwrap();
        layout.finish().unwrap();
        assert_eq!(at(start), [9; PAGE as usize]);
    }

    #[test]
    fn an_object_is_filled_at_its_offsets() {
        let (_dir, reader) = image(&[(PAGE, &[3; PAGE as usize])]);
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, PAGE + 10).unwrap();
        fill_object(&reader, 1, fd.as_fd(), PAGE + 10, 2, &AtomicU64::new(0)).unwrap();
        let mut bytes = [0; 20];
        assert_eq!(rustix::io::pread(&fd, &mut bytes, PAGE - 2).unwrap(), 12);
        assert_eq!(bytes[..12], [0, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn a_mapped_file_is_not_made_longer_by_its_last_page() {
        let (dir, reader) = image(&[(0, &[4; PAGE as usize])]);
        let path = dir.path().join("file");
        std::fs::write(&path, [1; 100]).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        write_back(&reader, 1, &file, &path, 100).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [4; 100]);
    }
}
