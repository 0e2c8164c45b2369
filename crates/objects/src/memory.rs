//! An address space: its mappings (vmas) and the fields of its `mm`.
//!
//! The pages' contents are not here. The image keeps them by *space*, a number that this state gives, and address.

use serde::{Deserialize, Serialize};

use crate::{FilePath, SpaceId};

mod observe;

/// `PROT_READ` (mmap(2)).
pub const PROT_READ: u32 = 1;

pub use observe::{Mapping, guards, lock_future, mappings, mm_fields, protection_keys};

/// The memory of one process, but for the contents of its pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddressSpace {
    /// Under which number the image keeps this address space's pages; the page's address is its virtual address.
    pub space: SpaceId,
    /// Its mappings, by ascending address.
    pub vmas: Vec<Vma>,
    /// Guard pages within mappings (`MADV_GUARD_INSTALL`): first address, and first after them. Whoever touches one gets SIGSEGV.
    pub guards: Vec<(u64, u64)>,
    /// The kernel's notes of where things are.
    pub fields: MmFields,
    /// `MCL_FUTURE` and `MCL_ONFAULT`, as mlockall(2) was given them.
    pub lock_future: u32,
    /// Protection keys that are allocated (pkeys(7)), bit by bit.
    pub protection_keys: u32,
    /// The key that the kernel has taken for memory that may only be executed; 0: none.
    pub execute_only_key: u32,
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// What it shows.
    pub backing: Backing,
    /// How the kernel treats it.
    pub flags: VmaFlags,
    /// The name that `PR_SET_VMA_ANON_NAME` gave it.
    pub name: Option<FilePath>,
    /// Its protection key (pkeys(7)); 0: the one that all memory has.
    pub protection_key: u32,
    /// On which memory nodes its pages are to lie (mbind(2)), where that is not left to its threads.
    pub policy: Option<MemoryPolicy>,
}

impl Vma {
    /// Bytes it spans.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// A mapping is never empty; this is here because `len` is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// On which memory nodes pages are to lie (set_mempolicy(2), mbind(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its flags; 0: the default.
    pub mode: u32,
    /// The nodes as a bit mask, lowest word first, without zero words at its end.
    pub nodes: Vec<u64>,
}

impl MemoryPolicy {
    /// A policy as get_mempolicy(2) tells it.
    #[must_use]
    pub fn new(mode: u32, nodes: &[u64]) -> Self {
        let len = nodes.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        Self { mode, nodes: nodes[..len].to_vec() }
    }
}

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Private anonymous memory, heap and stacks included. Pages that the image does not hold are zero.
    Anonymous,
    /// A private mapping of a file. Pages that the image holds differ from the file's.
    PrivateFile {
        /// Index into `JobState::mapped_files`.
        file: u32,
        /// Byte offset of `start` in the file.
        offset: u64,
        /// The image holds all its pages: where the file has changed or is gone, anonymous memory serves as well.
        stored: bool,
    },
    /// A shared mapping of a file whose contents are the file's own (the job cannot write through it).
    SharedFile {
        /// Index into `JobState::mapped_files`.
        file: u32,
        /// Byte offset of `start` in the file.
        offset: u64,
    },
    /// A shared mapping of an object whose contents the image holds.
    SharedMemory {
        /// Index into `JobState::shared_memory`.
        object: u32,
        /// Byte offset of `start` in the object.
        offset: u64,
    },
    /// The kernel's data pages for the vDSO (`[vvar]`, `[vvar_vclock]`).
    Vvar,
    /// The vDSO itself.
    Vdso,
}

/// How the kernel treats a mapping: the `VmFlags` of proc_pid_smaps(5) that a program can set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmaFlags(pub u32);

impl VmaFlags {
    /// `gd`: a stack that grows down.
    pub const GROWS_DOWN: Self = Self(1);
    /// `nr`: `MAP_NORESERVE`.
    pub const NO_RESERVE: Self = Self(1 << 1);
    /// `dc`: `MADV_DONTFORK`.
    pub const DONT_FORK: Self = Self(1 << 2);
    /// `wf`: `MADV_WIPEONFORK`.
    pub const WIPE_ON_FORK: Self = Self(1 << 3);
    /// `dd`: `MADV_DONTDUMP`.
    pub const DONT_DUMP: Self = Self(1 << 4);
    /// `lo`: locked in memory.
    pub const LOCKED: Self = Self(1 << 5);
    /// `hg`: `MADV_HUGEPAGE`.
    pub const HUGE_PAGE: Self = Self(1 << 6);
    /// `nh`: `MADV_NOHUGEPAGE`.
    pub const NO_HUGE_PAGE: Self = Self(1 << 7);
    /// `mg`: `MADV_MERGEABLE`.
    pub const MERGEABLE: Self = Self(1 << 8);
    /// `sr`: `MADV_SEQUENTIAL`.
    pub const SEQUENTIAL: Self = Self(1 << 9);
    /// `rr`: `MADV_RANDOM`.
    pub const RANDOM: Self = Self(1 << 10);
    /// `ht`: hugetlb pages.
    pub const HUGETLB: Self = Self(1 << 11);
    /// `dp`: `MAP_DROPPABLE`.
    pub const DROPPABLE: Self = Self(1 << 12);
    /// `sl`: sealed by mseal(2).
    pub const SEALED: Self = Self(1 << 13);
    /// `lf`: locked as it is touched (`MLOCK_ONFAULT`).
    pub const LOCKED_ON_FAULT: Self = Self(1 << 14);
    /// `ss`: a shadow stack.
    pub const SHADOW_STACK: Self = Self(1 << 15);

    /// System V shared memory that was attached with `SHM_RDONLY`: it can never be made writable. It has no mnemonic.
    pub const READ_ONLY: Self = Self(1 << 30);

    /// The mnemonics of proc_pid_smaps(5) and the flags they stand for.
    pub const MNEMONICS: &[(&str, Self)] = &[
        ("gd", Self::GROWS_DOWN),
        ("nr", Self::NO_RESERVE),
        ("dc", Self::DONT_FORK),
        ("wf", Self::WIPE_ON_FORK),
        ("dd", Self::DONT_DUMP),
        ("lo", Self::LOCKED),
        ("hg", Self::HUGE_PAGE),
        ("nh", Self::NO_HUGE_PAGE),
        ("mg", Self::MERGEABLE),
        ("sr", Self::SEQUENTIAL),
        ("rr", Self::RANDOM),
        ("ht", Self::HUGETLB),
        ("dp", Self::DROPPABLE),
        ("sl", Self::SEALED),
        ("lf", Self::LOCKED_ON_FAULT),
        ("ss", Self::SHADOW_STACK),
    ];

    /// These flags but those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all flags of `other` are set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the flags of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Where things are in an address space: `struct prctl_mm_map` (prctl(2), `PR_SET_MM_MAP`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmFields {
    /// Bounds of the program's code.
    pub start_code: u64,
    /// See `start_code`.
    pub end_code: u64,
    /// Bounds of the program's data.
    pub start_data: u64,
    /// See `start_data`.
    pub end_data: u64,
    /// Start of the heap.
    pub start_brk: u64,
    /// End of the heap.
    pub brk: u64,
    /// The stack as it was at the start of the program.
    pub start_stack: u64,
    /// Bounds of the arguments.
    pub arg_start: u64,
    /// See `arg_start`.
    pub arg_end: u64,
    /// Bounds of the environment.
    pub env_start: u64,
    /// See `env_start`.
    pub env_end: u64,
    /// The auxiliary vector, as in `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
    /// The program (`/proc/PID/exe`): index into `JobState::mapped_files`.
    pub exe: u32,
    /// The program, where it has no name: index into `JobState::programs`.
    pub unnamed_exe: Option<u32>,
}
