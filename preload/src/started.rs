//! `/proc/PID/stat` of a process that a restart has made: it is given with the time at which the process started whose place that takes, as
//! psutil, Java and others know a process by its number and that time. Who makes the call by itself (Go) sees the kernel's.

use core::ffi::{CStr, c_char, c_int, c_void};

use ckpt_sys::raw::Errno;
use ckpt_sys::{blocked, syscall};
use ckpt_wire::{ENV_FILE, STARTED};
use linux_raw_sys::general as nr;

use crate::kept::kept_value;
use crate::next;

/// The longest text of a file: 52 numbers and a name.
const TEXT: usize = 1280;
/// The longest path of the table.
const PATH: usize = 1024;
/// How far two times of the same process may lie apart: see `ckpt_objects::start`.
const ROUNDING: u64 = 1;
/// Which of the fields after the name is the time: the third of the file comes first, and this is the 22nd (proc_pid_stat(5)).
const FIELD: usize = 22 - 3;

/// Whether a path is `/proc/…/stat`.
///
/// # Safety
/// `path` must be null or a C string.
#[inline]
pub unsafe fn is_asked(path: *const c_char) -> bool {
    // SAFETY: the caller's promise; each byte is looked at only if those before it are not the last.
    unsafe {
        let begins = |text: &[u8]| text.iter().enumerate().all(|(at, &byte)| *path.add(at) as u8 == byte);
        !path.is_null() && begins(b"/proc/") && CStr::from_ptr(path).to_bytes().ends_with(b"/stat")
    }
}

/// Puts another file in the place of one that was opened for reading, if that is of a process that a restart has made.
pub fn replace(fd: c_int) {
    let _ = try_to_replace(fd);
}

/// The same for a stream.
///
/// # Safety
/// The stream must have been opened just now, or be null.
pub unsafe fn replace_of_stream(stream: *mut c_void) {
    type Fileno = unsafe extern "C" fn(*mut c_void) -> c_int;
    if !stream.is_null()
        && let Some(fileno) = next!(c"fileno" as Fileno)
    {
        // SAFETY: the caller's promise.
        replace(unsafe { fileno(stream) });
    }
}

fn try_to_replace(fd: c_int) -> Option<()> {
    let (mut path, mut text) = ([0; PATH], [0; TEXT]);
    let table = open_table(&mut path)?;
    let replaced = read_at(fd, &mut text, 0).and_then(|text| {
        let (before, time, after) = split(text)?;
        let pid = blocked::number(text, 10)?.0;
        let former = find(table, pid, time)?;
        let file = made_of(before, former, after)?;
        let close_on_exec = (descriptor_flags(fd).unwrap_or(0) & u64::from(nr::FD_CLOEXEC)) as u32 * nr::O_CLOEXEC;
        // SAFETY: the number keeps its meaning: what the program was about to be given.
        let done = unsafe { syscall!(nr::__NR_dup3, file, fd, close_on_exec) };
        close(file);
        done.ok().map(drop)
    });
    close(table);
    replaced
}

/// The text before the time, the time, and the text after it.
fn split(text: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    // The name may hold anything.
    let name_end = text.iter().rposition(|&byte| byte == b')')?;
    let mut at = name_end + 1;
    for _ in 0..FIELD {
        at += text.get(at..)?.iter().skip(1).position(|&byte| byte == b' ')? + 1;
    }
    let (time, rest) = blocked::number(text.get(at + 1..)?, 10)?;
    Some((text.get(..=at)?, time, rest))
}

/// The table's path is that of the variables for the job, with another ending.
fn open_table(path: &mut [u8; PATH]) -> Option<c_int> {
    let variables = kept_value(ENV_FILE)?;
    let name = variables.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let end = variables.iter().rposition(|&byte| byte == b'.').filter(|&at| at > name).unwrap_or(variables.len());
    let mut len = 0;
    for part in [variables.get(..end)?, STARTED.as_bytes(), b"\0"] {
        path.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    // SAFETY: the path ends with a zero byte.
    let opened = unsafe { syscall!(nr::__NR_openat, nr::AT_FDCWD, path.as_ptr(), nr::O_RDONLY | nr::O_CLOEXEC, 0) };
    opened.ok().map(|fd| fd as c_int)
}

/// The former time of a process, if a restart has made it.
fn find(table: c_int, pid: u64, time: u64) -> Option<u64> {
    let mut buffer = [0; TEXT];
    let mut offset = 0;
    loop {
        let text = read_at(table, &mut buffer, offset)?;
        // Whole lines only.
        let end = text.iter().rposition(|&byte| byte == b'\n')? + 1;
        for line in text.get(..end)?.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let (first, rest) = blocked::number(line, 10)?;
            if first == pid {
                let (now, rest) = blocked::number(blocked::skip_blanks(rest), 10)?;
                let former = blocked::number(blocked::skip_blanks(rest), 10)?.0;
                return (now.abs_diff(time) <= ROUNDING).then_some(former);
            }
        }
        offset += end;
    }
}

/// A file with the text of the kernel's, but for the time.
fn made_of(before: &[u8], time: u64, after: &[u8]) -> Option<c_int> {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    let mut left = time;
    while first == digits.len() || left > 0 {
        first -= 1;
        *digits.get_mut(first)? = b'0' + (left % 10) as u8;
        left /= 10;
    }
    // SAFETY: the name is a C string.
    let file = unsafe { syscall!(nr::__NR_memfd_create, c"stat".as_ptr(), nr::MFD_CLOEXEC) }.ok()? as c_int;
    for part in [before, digits.get(first..)?, after] {
        // SAFETY: the text is readable for its length.
        let written = unsafe { syscall!(nr::__NR_write, file, part.as_ptr(), part.len()) };
        if written != Ok(part.len() as u64) {
            close(file);
            return None;
        }
    }
    // SAFETY: takes numbers only.
    let _ = unsafe { syscall!(nr::__NR_lseek, file, 0, nr::SEEK_SET) };
    Some(file)
}

fn read_at(fd: c_int, buffer: &mut [u8; TEXT], offset: usize) -> Option<&[u8]> {
    // SAFETY: the buffer is writable for its length.
    let len = unsafe { syscall!(nr::__NR_pread64, fd, buffer.as_mut_ptr(), TEXT, offset) }.ok()?;
    buffer.get(..len as usize).filter(|text| !text.is_empty())
}

fn descriptor_flags(fd: c_int) -> Result<u64, Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall!(nr::__NR_fcntl, fd, nr::F_GETFD) }
}

fn close(fd: c_int) {
    // SAFETY: the descriptor is this module's own.
    let _ = unsafe { syscall!(nr::__NR_close, fd) };
}
