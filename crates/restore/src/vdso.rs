//! The vDSO: the kernel's own code in every process, at an address that programs keep.
//!
//! The same kernel maps it again where it was. Another kernel's vDSO has its functions elsewhere: then the old image is put back
//! as ordinary memory, and each of its functions is made to jump to its namesake in the new one, which is mapped somewhere else.
#![allow(unsafe_code, reason = "the vDSO is read where it is mapped")]

use std::collections::BTreeMap;

use goblin::elf::Elf;
use linux_raw_sys::general as nr;

/// The vDSO of this process.
#[derive(Clone, Debug)]
pub struct Vdso {
    /// Where it is.
    pub start: u64,
    /// Where the kernel's data before it begin.
    pub vvar: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Vdso {
    /// That of this process; nothing where the kernel gives none.
    #[must_use]
    pub fn own() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/maps").ok()?;
        let range = |line: &str| {
            let (start, rest) = line.split_once('-')?;
            let (end, _) = rest.split_once(' ')?;
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        };
        let (start, end) = text.lines().find(|line| line.ends_with("[vdso]")).and_then(range)?;
        let vvar = text.lines().filter(|line| line.contains("[vvar")).filter_map(range).map(|(start, _)| start).min();
        // SAFETY: the range has just been seen mapped; the vDSO is readable and never changes.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, (end - start) as usize) }.to_vec();
        Some(Self { start, vvar: vvar.unwrap_or(start), bytes })
    }
}

/// Bytes of `mov r11, address; jmp r11`: no argument is in r11.
const JUMP_LEN: usize = 13;

/// System calls that do what a function of the vDSO does, with the same first arguments.
const SYSTEM_CALLS: [(&str, u32); 6] = [
    ("clock_gettime", nr::__NR_clock_gettime),
    ("gettimeofday", nr::__NR_gettimeofday),
    ("time", nr::__NR_time),
    ("getcpu", nr::__NR_getcpu),
    ("clock_getres", nr::__NR_clock_getres),
    ("getrandom", nr::__NR_getrandom),
];

/// The bytes of the `old` vDSO with every function leading into the `new` one, which is mapped at `new_start`.
pub fn bridge(old: &[u8], new: &[u8], new_start: u64) -> Result<Vec<u8>, String> {
    let (old_functions, new_functions) = (functions(old)?, functions(new)?);
    let mut bytes = old.to_vec();
    let mut last: Option<(usize, &str)> = None;
    for (&offset, name) in &old_functions {
        let plain = name.strip_prefix("__vdso_").unwrap_or(name);
        let system_call = SYSTEM_CALLS.iter().find(|(call, _)| *call == plain).map(|(_, number)| *number);
        let there = new_functions.iter().find(|(_, new)| *new == name).map(|(&offset, _)| offset);
        let code = match (there, system_call) {
            // The memory that getrandom keeps between calls is laid out as its kernel likes: only the system call is sure.
            (_, Some(number)) if plain == "getrandom" => system_call_code(number),
            (Some(offset), _) => jump_code(new_start + offset as u64),
            (None, Some(number)) => system_call_code(number),
            // A function that no C library calls (`__vdso_sgx_enter_enclave`): whoever has its address would have it in vain.
            (None, None) => vec![0x0f, 0x0b],
        };
        if let Some((end, previous)) = last
            && end > offset
        {
            return Err(format!("its functions {previous} and {name} are too close together"));
        }
        let target = bytes.get_mut(offset..offset + code.len()).ok_or_else(|| format!("its function {name} lies outside"))?;
        target.copy_from_slice(&code);
        last = Some((offset + code.len(), name));
    }
    Ok(bytes)
}

/// The exported functions of a vDSO by their offset: of several names for one, the first that begins with `__vdso_`.
fn functions(image: &[u8]) -> Result<BTreeMap<usize, String>, String> {
    let elf = Elf::parse(image).map_err(|error| format!("its image is not understood ({error})"))?;
    let mut functions = BTreeMap::new();
    for symbol in elf.dynsyms.iter().filter(|symbol| symbol.is_function() && symbol.st_value != 0) {
        let Some(name) = elf.dynstrtab.get_at(symbol.st_name) else { continue };
        let entry = functions.entry(symbol.st_value as usize).or_insert_with(|| name.to_owned());
        if name.starts_with("__vdso_") && !entry.starts_with("__vdso_") {
            *entry = name.to_owned();
        }
    }
    if functions.is_empty() { Err("it has no functions".to_owned()) } else { Ok(functions) }
}

fn jump_code(to: u64) -> Vec<u8> {
    let mut code = vec![0x49, 0xbb];
    code.extend(to.to_le_bytes());
    code.extend([0x41, 0xff, 0xe3]);
    debug_assert_eq!(code.len(), JUMP_LEN);
    code
}

fn system_call_code(number: u32) -> Vec<u8> {
    // mov eax, number; syscall; ret
    let mut code = vec![0xb8];
    code.extend(number.to_le_bytes());
    code.extend([0x0f, 0x05, 0xc3]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_sys::syscall;

    #[test]
    fn functions_of_an_old_vdso_lead_into_the_present_one() {
        let own = Vdso::own().unwrap();
        let bytes = bridge(&own.bytes, &own.bytes, own.start).unwrap();
        let len = bytes.len();
        // SAFETY: fresh memory, filled before it is made executable; the functions are those of clock_gettime(2) and getcpu(2).
        unsafe {
            let flags = nr::MAP_PRIVATE | nr::MAP_ANONYMOUS;
            let at = syscall!(nr::__NR_mmap, 0, len, nr::PROT_READ | nr::PROT_WRITE, flags, u64::MAX, 0).unwrap();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, len);
            syscall!(nr::__NR_mprotect, at, len, nr::PROT_READ | nr::PROT_EXEC).unwrap();
            let functions = functions(&own.bytes).unwrap();
            let find = |wanted: &str| at + *functions.iter().find(|(_, name)| *name == wanted).unwrap().0 as u64;
            let clock_gettime: extern "C" fn(i32, *mut libc::timespec) -> i32 =
                std::mem::transmute(find("__vdso_clock_gettime") as *const ());
            let mut before: libc::timespec = std::mem::zeroed();
            let mut after: libc::timespec = std::mem::zeroed();
            libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut before);
            assert_eq!(clock_gettime(libc::CLOCK_MONOTONIC, &raw mut after), 0);
            assert!((before.tv_sec, before.tv_nsec) <= (after.tv_sec, after.tv_nsec));
            let getcpu: extern "C" fn(*mut u32, *mut u32, u64) -> i32 = std::mem::transmute(find("__vdso_getcpu") as *const ());
            let (mut cpu, mut node) = (u32::MAX, u32::MAX);
            assert_eq!(getcpu(&raw mut cpu, &raw mut node, 0), 0);
            assert!(cpu != u32::MAX && node != u32::MAX);
        }
    }

    #[test]
    fn what_is_no_vdso_is_refused() {
        assert!(bridge(b"nothing", b"nothing", 0).is_err());
    }
}
