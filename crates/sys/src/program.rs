//! Whether `LD_PRELOAD` has any effect in a program, by its file.

use core::ffi::CStr;

use linux_raw_sys::general as nr;

use crate::syscall;

/// Bytes at the start of a file that are looked at: its header, and the program headers where linkers put them.
const HEAD: usize = 1024;
/// Bytes of a path (`PATH_MAX`).
const LONGEST: usize = 4096;
/// Interpreters of interpreters that the kernel follows (`do_execveat_common`, fs/exec.c).
const INTERPRETERS: u32 = 4;
/// Of `e_machine`.
const EM_X86_64: u64 = 62;
/// Of `p_type`.
const PT_INTERP: u64 = 3;

/// Whether a program that is executed at `path`, relative to the directory `dir` (or is the file `dir` itself where `path` is empty), is run by a
/// dynamic linker that heeds `LD_PRELOAD`: 64 bit, dynamically linked, and given no rights by its file. A script is what its interpreter is.
/// False where it cannot be told.
///
/// Touches no memory but its own stack.
#[must_use]
pub fn heeds_preload(dir: i32, path: &CStr) -> bool {
    let mut head = [0u8; HEAD];
    let mut name: [u8; 256];
    let (mut dir, mut path) = (dir, path);
    for _ in 0..INTERPRETERS {
        let Some(read) = read_head(dir, path, &mut head) else { return false };
        let Some(line) = read.strip_prefix(b"#!") else { return is_dynamic(read) };
        let Some(interpreter) = line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty()) else { return false };
        name = [0; 256];
        match name.get_mut(..interpreter.len()) {
            Some(room) if interpreter.len() < 255 => room.copy_from_slice(interpreter),
            _ => return false,
        }
        let Ok(next) = CStr::from_bytes_until_nul(&name) else { return false };
        (dir, path) = (nr::AT_FDCWD, next);
    }
    false
}

/// The same for a program that is searched for: its name without a slash in the directories of `list`, as in `PATH`.
#[must_use]
pub fn found_heeds_preload(name: &CStr, list: &[u8]) -> bool {
    if name.to_bytes().contains(&b'/') {
        return heeds_preload(nr::AT_FDCWD, name);
    }
    for dir in list.split(|&byte| byte == b':') {
        let mut path = [0u8; LONGEST];
        // An empty entry is the working directory.
        let dir = if dir.is_empty() { b"." } else { dir };
        let mut len = 0;
        for part in [dir, b"/", name.to_bytes()] {
            if let Some(room) = path.get_mut(len..len + part.len()) {
                room.copy_from_slice(part);
            }
            len += part.len();
        }
        let Some(Ok(path)) = path.get(..=len).map(CStr::from_bytes_with_nul) else { continue };
        // SAFETY: the path is a C string.
        if unsafe { syscall!(nr::__NR_access, path.as_ptr(), nr::X_OK) }.is_ok() {
            return heeds_preload(nr::AT_FDCWD, path);
        }
    }
    false
}

/// The start of a file that gives no rights to its caller.
fn read_head<'a>(dir: i32, path: &CStr, head: &'a mut [u8; HEAD]) -> Option<&'a [u8]> {
    let flags = nr::O_RDONLY | nr::O_CLOEXEC | nr::O_NONBLOCK;
    let opened = if path.is_empty() {
        None
    } else {
        // SAFETY: the path is a C string.
        Some(unsafe { syscall!(nr::__NR_openat, dir, path.as_ptr(), flags, 0) }.ok()? as i32)
    };
    let fd = opened.unwrap_or(dir);
    // SAFETY: `stat` has the size of a struct stat (144 bytes), `head` its own.
    let read = unsafe {
        let mut stat = [0u64; 18];
        let is_plain = syscall!(nr::__NR_fstat, fd, stat.as_mut_ptr()).is_ok() && gives_no_rights(fd, stat[3] as u32);
        if is_plain { syscall!(nr::__NR_pread64, fd, head.as_mut_ptr(), HEAD, 0).ok() } else { None }
    };
    if let Some(fd) = opened {
        // SAFETY: it was opened here.
        let _ = unsafe { syscall!(nr::__NR_close, fd) };
    }
    head.get(..read? as usize)
}

/// Whether a file of this mode is a regular one that is neither set-user-id, set-group-id, nor has capabilities.
fn gives_no_rights(fd: i32, mode: u32) -> bool {
    let set_id = mode & nr::S_ISUID != 0 || mode & (nr::S_ISGID | nr::S_IXGRP) == nr::S_ISGID | nr::S_IXGRP;
    // SAFETY: the name is a C string; with a size of 0 nothing is written.
    let capable = || unsafe { syscall!(nr::__NR_fgetxattr, fd, c"security.capability".as_ptr(), 0, 0) }.is_ok();
    mode & nr::S_IFMT == nr::S_IFREG && !set_id && !capable()
}

/// Whether a file that begins so is an ELF program for this processor that names a dynamic linker (elf(5)).
fn is_dynamic(head: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        head.get(at..at + len).map(|bytes| bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    // ELFCLASS64, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") || number(18, 2) != Some(EM_X86_64) {
        return false;
    }
    let (Some(offset), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return false };
    (0..count).any(|i| {
        usize::try_from(offset.saturating_add(i * size)).ok().filter(|at| *at < HEAD).and_then(|at| number(at, 4))
            == Some(PT_INTERP)
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn heeds(path: &str) -> bool {
        let path = std::ffi::CString::new(path).expect("a path");
        heeds_preload(nr::AT_FDCWD, &path)
    }

    #[test]
    fn tells_programs_apart() {
        assert!(heeds("/proc/self/exe") && heeds("/bin/sh"));
        assert!(!heeds("/bin") && !heeds("/etc/passwd") && !heeds("/dev/null") && !heeds("/nowhere"));
    }

    #[test]
    fn searches_as_execvp_does() {
        assert!(found_heeds_preload(c"sh", b"/nowhere::/etc:/bin") && found_heeds_preload(c"/bin/sh", b""));
        assert!(!found_heeds_preload(c"passwd", b"/etc") && !found_heeds_preload(c"nothing-such", b"/bin:/usr/bin"));
    }

    #[test]
    fn a_script_is_what_its_interpreter_is() {
        let file = std::env::temp_dir().join(std::format!("heeds-{}", std::process::id()));
        for (text, expected) in [("#! /bin/sh -e\n", true), ("#!/etc/passwd\n", false), ("#!\n", false), ("echo\n", false)] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(heeds(file.to_str().expect("a name")), expected, "{text:?}");
        }
        // One that is its own interpreter.
        std::fs::write(&file, std::format!("#!{}\n", file.display())).expect("written");
        assert!(!heeds(file.to_str().expect("a name")));
        std::fs::remove_file(&file).expect("removed");
    }
}
