//! Observing an address space: `/proc/PID/smaps` for the mappings, `/proc/PID/stat` and `auxv` for the fields of its `mm`.
//!
//! Parsed by hand: the job stands still meanwhile, a process may have 65530 mappings, and the procfs crate knows neither names that are not
//! UTF-8 nor all flags.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use ckpt_sys::pagemap::{Query, Region, scan};
use ckpt_sys::raw::Errno;

use crate::memory::{MmFields, VmaFlags};
use crate::observe::{ObserveError, parse_error, proc_path, read_proc};
use crate::older::KernelFeature;
use crate::{FilePath, HostPid};

/// include/uapi/linux/fs.h, Linux 6.15.
const PAGE_IS_GUARD: u32 = 1 << 8;

/// `PROT_READ`, `PROT_WRITE`, `PROT_EXEC`.
const PROTECTION: [(usize, u8, u32); 3] = [(0, b'r', 1), (1, b'w', 2), (2, b'x', 4)];

/// A mapping as `/proc/PID/smaps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Byte offset in its file.
    pub offset: u64,
    /// Its file's inode number; 0: none.
    pub inode: u64,
    /// Its file's device, as `(major, minor)`.
    pub device: (u32, u32),
    /// Its file, or the kernel's name for what it is; empty for plain anonymous memory.
    pub name: FilePath,
    /// How the kernel treats it.
    pub flags: VmaFlags,
    /// Mnemonics of flags that no program can set but that say what it is: `io` and `pf` for device memory, `mw` for a shared
    /// mapping that may be made writable.
    pub device_memory: bool,
    /// See `device_memory`.
    pub may_write: bool,
    /// Its protection key.
    pub protection_key: u32,
    /// Bytes that are in memory or swapped out.
    pub resident: u64,
    /// Bytes of those that are swapped out.
    pub swapped: u64,
    /// Bytes of those that are the process's own: anonymous memory, or pages of a private file mapping that were written.
    pub own: u64,
}

/// The mappings of a process, by ascending address. `[vsyscall]`, which is the kernel's and always there, is left out.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn mappings(pid: HostPid) -> Result<Vec<Mapping>, ObserveError> {
    parse_smaps(&read_proc(pid, "smaps")?).map_err(|line| parse_error(pid, "smaps", &line))
}

fn parse_smaps(text: &[u8]) -> Result<Vec<Mapping>, Vec<u8>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        // A mapping's line begins with an address in lower case, those about it with a capital.
        if line.first().is_some_and(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()) {
            mappings.push(parse_mapping(line).ok_or_else(|| line.to_vec())?);
        } else if let Some(mapping) = mappings.last_mut() {
            if let Some(flags) = line.strip_prefix(b"VmFlags:") {
                apply_flags(mapping, flags);
            } else if let Some(key) = line.strip_prefix(b"ProtectionKey:") {
                mapping.protection_key = decimal(key).unwrap_or(0);
            } else if let Some(size) = line.strip_prefix(b"Rss:") {
                mapping.resident += kilobytes(size);
            } else if let Some(size) = line.strip_prefix(b"Anonymous:") {
                mapping.own += kilobytes(size);
            } else if let Some(size) = line.strip_prefix(b"Swap:") {
                mapping.resident += kilobytes(size);
                mapping.own += kilobytes(size);
                mapping.swapped += kilobytes(size);
            }
        }
    }
    mappings.retain(|mapping| mapping.name.0 != b"[vsyscall]");
    Ok(mappings)
}

/// `start-end perms offset major:minor inode   name`.
fn parse_mapping(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let range = fields.next()?;
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let perms = fields.next()?;
    let offset = hexadecimal(fields.next()?)?;
    let device = fields.next()?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let inode = decimal(fields.next()?)?;
    let name = fields.next().unwrap_or(b"").trim_ascii_start();
    Some(Mapping {
        start: hexadecimal(range.get(..dash)?)?,
        end: hexadecimal(range.get(dash + 1..)?)?,
        prot: PROTECTION.iter().filter(|(at, letter, _)| perms.get(*at) == Some(letter)).map(|(.., bit)| bit).sum(),
        shared: perms.get(3) == Some(&b's'),
        offset,
        inode,
        device: (
            u32::try_from(hexadecimal(device.get(..colon)?)?).ok()?,
            u32::try_from(hexadecimal(device.get(colon + 1..)?)?).ok()?,
        ),
        name: FilePath(unescape(name)),
        flags: VmaFlags::default(),
        device_memory: false,
        may_write: false,
        protection_key: 0,
        resident: 0,
        swapped: 0,
        own: 0,
    })
}

fn apply_flags(mapping: &mut Mapping, text: &[u8]) {
    for mnemonic in text.split(|&byte| byte == b' ') {
        match mnemonic {
            b"io" | b"pf" => mapping.device_memory = true,
            b"mw" => mapping.may_write = true,
            // Older kernels have no name for it: of what they have none for, it alone goes with a lock.
            b"??" if mapping.flags.contains(VmaFlags::LOCKED) => mapping.flags.insert(VmaFlags::LOCKED_ON_FAULT),
            _ => {
                if let Some((_, flag)) = VmaFlags::MNEMONICS.iter().find(|(name, _)| name.as_bytes() == mnemonic) {
                    mapping.flags.insert(*flag);
                }
            }
        }
    }
}

/// The kernel writes a newline in a name as `\012` (fs/proc/task_mmu.c).
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(br"\012") {
            plain.push(b'\n');
            rest = after;
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

/// `   12 kB`, in bytes.
fn kilobytes(text: &[u8]) -> u64 {
    decimal::<u64>(text.strip_suffix(b"kB").unwrap_or(text)).unwrap_or(0) * 1024
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The protection keys that a process has allocated, and the one that the kernel has taken for memory that may only be executed: from those
/// that the process may use, and those that nobody can allocate any more. Without the processor's support the kernel has none to allocate.
#[must_use]
pub fn protection_keys(usable: u32, taken: u32) -> (u32, u32) {
    if !ckpt_sys::cpu::has_protection_keys() {
        return (0, 0);
    }
    let kernels = taken & !usable & !1;
    (usable & !1, if kernels == 0 { 0 } else { kernels.trailing_zeros() })
}

/// What mlockall(2) says of mappings to come, as one that was just made shows it: `MCL_FUTURE`, `MCL_ONFAULT`.
#[must_use]
pub fn lock_future(fresh: VmaFlags) -> u32 {
    const MCL_FUTURE: u32 = libc::MCL_FUTURE as u32;
    const MCL_ONFAULT: u32 = libc::MCL_ONFAULT as u32;
    match (fresh.contains(VmaFlags::LOCKED), fresh.contains(VmaFlags::LOCKED_ON_FAULT)) {
        (false, _) => 0,
        (true, false) => MCL_FUTURE,
        (true, true) => MCL_FUTURE | MCL_ONFAULT,
    }
}

/// The fields of a process's `mm`, but for `brk`, which only the process itself can tell, and `exe`, which is the caller's.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn mm_fields(pid: HostPid) -> Result<MmFields, ObserveError> {
    let stat = read_proc(pid, "stat")?;
    // The name, in parentheses, may hold any character: fields are counted from behind it. The state is field 3.
    let end = stat.iter().rposition(|&byte| byte == b')').ok_or_else(|| parse_error(pid, "stat", &stat))?;
    let fields: Vec<&[u8]> = stat[end + 1..].trim_ascii().split(|&byte| byte == b' ').collect();
    let field = |number: usize| -> Result<u64, ObserveError> {
        fields.get(number - 3).and_then(|text| decimal(text)).ok_or_else(|| parse_error(pid, "stat", &stat))
    };
    Ok(MmFields {
        start_code: field(26)?,
        end_code: field(27)?,
        start_stack: field(28)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        brk: field(47)?,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        auxv: read_proc(pid, "auxv")?,
        exe: 0,
        unnamed_exe: None,
    })
}

/// The guard pages of a process, by ascending address. Linux 6.15 and later tell; on 6.13 and 6.14, which have them, they cannot be seen.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn guards(pid: HostPid) -> Result<Vec<(u64, u64)>, ObserveError> {
    /// The end of what x86-64 programs can have, with four levels of page tables.
    const END: u64 = 0x7fff_ffff_f000;
    let mut guards = Vec::new();
    if KernelFeature::PagemapScan.is_off() {
        return Ok(guards);
    }
    let path = proc_path(pid, "pagemap");
    let pagemap = File::open(&path).map_err(|source| ObserveError::Read { pid, path: path.clone(), source })?;
    const GUARDS: Query = Query { all: PAGE_IS_GUARD, told: PAGE_IS_GUARD, inverted: 0, any: 0 };
    let mut found = [Region::default(); 256];
    let mut at = 0;
    while at < END {
        match scan(pagemap.as_raw_fd(), at, END, GUARDS, &mut found) {
            Ok((count, next)) => {
                guards.extend(found.iter().take(count).map(|pages| (pages.start, pages.end)));
                if next <= at {
                    break;
                }
                at = next;
            }
            Err(Errno(libc::EINVAL | libc::ENOTTY)) => break,
            Err(Errno(errno)) => {
                return Err(ObserveError::Read { pid, path, source: io::Error::from_raw_os_error(errno) });
            }
        }
    }
    Ok(guards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_mapping_with_its_flags_and_a_name_with_blanks() {
        let text = b"7f10a000-7f10b000 rw-s 00001000 fe:00 131076    /tmp/a b\\012c (deleted)\nSize: 4 kB\n\
                     ProtectionKey:         3\nVmFlags: rd wr sh mr mw me ms gd dd\nffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        let mappings = parse_smaps(text).unwrap();
        assert_eq!(mappings.len(), 1);
        let mapping = &mappings[0];
        assert_eq!((mapping.start, mapping.end, mapping.prot), (0x7f10_a000, 0x7f10_b000, 3));
        assert!(mapping.shared && mapping.may_write && !mapping.device_memory);
        assert_eq!((mapping.offset, mapping.inode, mapping.device), (0x1000, 131_076, (0xfe, 0)));
        assert_eq!(mapping.name.0, b"/tmp/a b\nc (deleted)");
        assert!(mapping.flags.contains(VmaFlags::GROWS_DOWN) && mapping.flags.contains(VmaFlags::DONT_DUMP));
        assert_eq!(mapping.protection_key, 3);
    }

    #[test]
    fn sees_its_own_stack_and_heap_bounds() {
        let pid = HostPid(std::process::id() as i32);
        let fields = mm_fields(pid).unwrap();
        let stack = mappings(pid).unwrap().into_iter().find(|mapping| mapping.name.0 == b"[stack]").unwrap();
        assert!((stack.start..stack.end).contains(&fields.start_stack));
        assert!(stack.flags.contains(VmaFlags::GROWS_DOWN));
        assert!(fields.start_code < fields.end_code && !fields.auxv.is_empty());
    }
}
