//! The memory of each process: its mappings, joined by the objects and files that they show, and the plan by which it hands over pages.

use ckpt_objects::file::{MappedFiles, split_deleted};
use ckpt_objects::memory::{self, AddressSpace, Backing, Mapping, Vma, VmaFlags, guards, mappings, mm_fields};
use ckpt_objects::observe::{ObserveError, read_proc_link};
use ckpt_objects::shared_memory::{self, SharedMemory, SharedMemoryKind};
use ckpt_objects::subject::Subject;
use ckpt_objects::{FilePath, SpaceId, Spaces, event, program, sysv};
use ckpt_wire::{PlanEntry, PlanFlag, ProcessRecord};

use crate::frozen::FrozenProcess;

/// The space of plan entries of which nothing is handed over.
const NO_SPACE: u32 = u32::MAX;

/// What the memory of all processes shows.
pub struct Memory<'a> {
    pub ipc: &'a sysv::Observer<'a, FrozenProcess>,
    pub shared: shared_memory::Observer,
    pub mapped: MappedFiles,
    pub programs: program::Observer,
    /// Images hold all pages of files.
    pub self_contained: bool,
    /// The path of the agent's library.
    pub agent: &'a FilePath,
}

impl Memory<'_> {
    /// The memory of a process, and what it is to hand over.
    pub fn observe(
        &mut self,
        process: &FrozenProcess,
        record: &ProcessRecord,
        space: SpaceId,
        spaces: &mut Spaces,
    ) -> Result<(AddressSpace, Vec<PlanEntry>), ObserveError> {
        let (mut vmas, mut plan) = (Vec::new(), Vec::new());
        let policies = process.memory.policies().map_err(|error| process.damaged(error))?;
        let mut lock_future = 0;
        for mapping in mappings(process.live)? {
            if mapping.start >= record.control_start && mapping.end <= record.control_end {
                // The agent has mapped it just now: as it is, so will be what is mapped next.
                lock_future = memory::lock_future(mapping.flags);
                continue;
            }
            refuse_mapping(process, &mapping)?;
            let backing = self.backing(process, &mapping, spaces)?;
            self.plan(&mapping, &backing, space, &mut plan)?;
            vmas.push(Vma {
                start: mapping.start,
                end: mapping.end,
                prot: mapping.prot,
                name: anonymous_name(&mapping, &backing),
                backing,
                flags: flags_of(&mapping),
                protection_key: mapping.protection_key,
                policy: policies.get(&mapping.start).cloned(),
            });
        }
        let mut fields = mm_fields(process.live)?;
        (fields.brk, fields.exe) = (record.brk, self.program(process, &vmas)?);
        fields.unnamed_exe = self.programs.see(process.live, || spaces.take())?;
        let (protection_keys, execute_only_key) = memory::protection_keys(record.protection_keys, record.taken_keys);
        let guards = guards(process.live)?;
        Ok((AddressSpace { space, vmas, guards, fields, lock_future, protection_keys, execute_only_key }, plan))
    }

    /// The number of a process's program among the mapped files. It is mapped, unless it is gone from its own address space.
    fn program(&mut self, process: &FrozenProcess, vmas: &[Vma]) -> Result<u32, ObserveError> {
        let exe = read_proc_link(process.live, "exe")?;
        let path = split_deleted(&exe).0;
        for vma in vmas {
            if let Backing::PrivateFile { file, .. } = vma.backing
                && self.mapped.at(file)?.path == path
            {
                return Ok(file);
            }
        }
        Ok(self.mapped.see(&exe, 0))
    }

    fn backing(&mut self, process: &FrozenProcess, mapping: &Mapping, spaces: &mut Spaces) -> Result<Backing, ObserveError> {
        let name = mapping.name.0.as_slice();
        let offset = mapping.offset;
        if !mapping.shared {
            return Ok(match name {
                b"[vdso]" => Backing::Vdso,
                name if name.starts_with(b"[vvar") => Backing::Vvar,
                _ if mapping.inode == 0 => Backing::Anonymous,
                _ => {
                    let file = self.mapped.see(&mapping.name, mapping.inode);
                    Backing::PrivateFile { file, offset, stored: self.is_stored(file)? }
                }
            });
        }
        if name.starts_with(b"/SYSV") {
            let row = self.ipc.memory(process, mapping.inode)?;
            return Ok(Backing::SharedMemory { object: self.shared.attach(row, spaces)?, offset });
        }
        Ok(match self.shared.see_mapping(mapping, spaces)? {
            Some(object) => Backing::SharedMemory { object, offset },
            None => Backing::SharedFile { file: self.mapped.see(&mapping.name, mapping.inode), offset },
        })
    }

    /// Whether all pages of a mapped file are kept, not only those that were changed.
    fn is_stored(&self, file: u32) -> Result<bool, ObserveError> {
        let file = self.mapped.at(file)?;
        Ok(file.deleted || self.self_contained || file.path == *self.agent)
    }

    /// Adds to a process's plan what it must hand over of a mapping.
    fn plan(
        &mut self,
        mapping: &Mapping,
        backing: &Backing,
        space: SpaceId,
        plan: &mut Vec<PlanEntry>,
    ) -> Result<(), ObserveError> {
        if mapping.flags.contains(VmaFlags::DROPPABLE) {
            return Ok(());
        }
        let mut flags = 0;
        if mapping.prot & memory::PROT_READ == 0 || mapping.protection_key != 0 {
            flags |= PlanFlag::UNREADABLE;
        }
        if mapping.flags.contains(VmaFlags::DONT_FORK) || mapping.flags.contains(VmaFlags::WIPE_ON_FORK) {
            flags |= PlanFlag::COPY_FIRST;
        }
        match backing {
            Backing::PrivateFile { stored: true, .. } => {
                flags = flags & !PlanFlag::COPY_FIRST | PlanFlag::ALL | PlanFlag::KEEP_ZERO;
            }
            Backing::Anonymous | Backing::PrivateFile { .. } if mapping.own == 0 => return Ok(()),
            Backing::Anonymous => (),
            Backing::PrivateFile { .. } => flags |= PlanFlag::KEEP_ZERO,
            Backing::SharedMemory { object, offset } => return self.plan_shared(*object, *offset, mapping, flags, plan),
            Backing::SharedFile { .. } | Backing::Vvar | Backing::Vdso => return Ok(()),
        }
        let (start, len) = (mapping.start, mapping.end - mapping.start);
        plan.push(PlanEntry { start, len, source: 0, address: start, space: space.0, flags });
        Ok(())
    }

    /// Plans the part of a shared object that this mapping shows and no earlier one did.
    fn plan_shared(
        &mut self,
        object: u32,
        offset: u64,
        mapping: &Mapping,
        flags: u32,
        plan: &mut Vec<PlanEntry>,
    ) -> Result<(), ObserveError> {
        let SharedMemory { space, ref kind, .. } = *self.shared.at(object)?;
        let (start, len) = (mapping.start, mapping.end - mapping.start);
        if matches!(kind, SharedMemoryKind::SystemV { .. }) && !mapping.flags.contains(VmaFlags::DONT_FORK) {
            plan.push(PlanEntry { start, len, flags: PlanFlag::NOT_IN_TWIN, space: NO_SPACE, ..PlanEntry::default() });
        }
        let keep_zero = if matches!(kind, SharedMemoryKind::Named { .. }) { PlanFlag::KEEP_ZERO } else { 0 };
        // Of a file on disk, what is not in memory now may be changed before a restart too. What is swapped out does not show
        // either. Both are read by a call, which fails where the file ends or its disk does.
        let on_disk = matches!(kind, SharedMemoryKind::Named { in_memory: false, .. });
        let every = if on_disk || mapping.swapped > 0 { PlanFlag::ALL | PlanFlag::UNREADABLE } else { 0 };
        for (from, to) in self.shared.show(object, (offset, offset + len))? {
            plan.push(PlanEntry {
                start: start + (from - offset),
                len: to - from,
                source: 0,
                address: from,
                space: space.0,
                flags: flags | keep_zero | every | PlanFlag::COPY_FIRST | PlanFlag::SHARED,
            });
        }
        Ok(())
    }
}

/// Refuses mappings that no restart can make again.
fn refuse_mapping(process: &FrozenProcess, mapping: &Mapping) -> Result<(), ObserveError> {
    let name = mapping.name.0.as_slice();
    let (what, remedy) = if mapping.device_memory && !name.starts_with(b"[vvar") {
        (format!("maps memory of the device {}", mapping.name), "end that use before a checkpoint, or run it without the device")
    } else if mapping.flags.contains(VmaFlags::SHADOW_STACK) {
        ("has a shadow stack".to_owned(), "run it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off")
    } else if name.starts_with(b"/secretmem") {
        ("has secret memory of memfd_secret(2)".to_owned(), "end that use before a checkpoint")
    } else if mapping.flags.contains(VmaFlags::HUGETLB) {
        ("has huge pages of hugetlbfs".to_owned(), "use transparent huge pages instead")
    } else if let Some(kind) = event::kind(&mapping.name) {
        (format!("maps memory of {}", event::describe(kind)), "end that use before a checkpoint, or have it do without")
    } else if name.starts_with(b"/[aio]") {
        (
            "maps the ring of an asynchronous I/O context (io_setup), whose requests cannot be seen".to_owned(),
            "have it do without native asynchronous I/O",
        )
    } else if name.starts_with(b"socket:") {
        // Rings of packet sockets.
        (format!("maps {}", mapping.name), "end that use before a checkpoint")
    } else {
        return Ok(());
    };
    Err(process.refuse(what, remedy))
}

/// The flags of a mapping; with the one that only System V shared memory has.
fn flags_of(mapping: &Mapping) -> VmaFlags {
    let mut flags = mapping.flags;
    if mapping.shared && mapping.name.0.starts_with(b"/SYSV") && !mapping.may_write {
        flags.insert(VmaFlags::READ_ONLY);
    }
    flags
}

/// The name that a program gave its anonymous memory: `[anon:NAME]`.
fn anonymous_name(mapping: &Mapping, backing: &Backing) -> Option<FilePath> {
    if *backing != Backing::Anonymous {
        return None;
    }
    mapping.name.0.strip_prefix(b"[anon:").and_then(|name| name.strip_suffix(b"]")).map(|name| FilePath(name.to_vec()))
}
