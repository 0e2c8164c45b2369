//! Reading `/proc/self` without allocation: small files, numbers, the list of threads.

use crate::call::{self, Fd};
use ckpt_sys::blocked;
use ckpt_sys::raw::Errno;
use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

/// A path put together on the stack, ending with a zero byte.
pub struct Path {
    bytes: [u8; 64],
    len: usize,
}

impl Path {
    /// An empty path.
    pub fn new() -> Self {
        Self { bytes: [0; 64], len: 0 }
    }

    /// Appends text; what does not fit is cut, which makes the path name nothing.
    pub fn text(mut self, text: &[u8]) -> Self {
        for &byte in text {
            if self.len + 1 < self.bytes.len() {
                self.bytes[self.len] = byte;
                self.len += 1;
            }
        }
        self
    }

    /// Appends a number.
    pub fn number(self, number: u64) -> Self {
        let mut digits = [0u8; 20];
        let text = decimal(number, &mut digits);
        self.text(text)
    }

    /// The path with its zero byte.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..=self.len]
    }
}

/// The link in `/proc` that leads to what a descriptor is open on.
pub fn descriptor_link(fd: i32) -> Path {
    Path::new().text(b"/proc/self/fd/").number(fd as u64)
}

/// Writes a number in decimal; gives the digits.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

/// Reads a file of `/proc/self/task/TID`; gives as much as fits.
pub fn read_task<'a>(tid: i32, file: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let path = Path::new().text(b"/proc/self/task/").number(tid as u64).text(file);
    let fd = call::open(path.as_bytes()).ok()?;
    let n = call::read(&fd, buffer).ok()?;
    buffer.get(..n)
}

/// A set of signals that a thread's status shows, by its name there.
pub fn signal_set(tid: i32, key: &[u8]) -> SignalSet {
    let mut buffer = [0u8; 2048];
    let status = read_task(tid, b"/status", &mut buffer);
    status.map_or(SignalSet::EMPTY, |status| SignalSet::from_bits(find_set(status, key).unwrap_or(0)))
}

/// The number in base 16 that follows a name.
fn find_set(status: &[u8], key: &[u8]) -> Option<u64> {
    let (bits, _) = blocked::number(blocked::skip_blanks(blocked::after(status, key)?), 16)?;
    Some(bits)
}

/// Calls `each` with every thread of this process.
pub fn for_each_thread(mut each: impl FnMut(i32)) -> Result<(), Errno> {
    let dir = call::open_with(b"/proc/self/task\0", nr::O_RDONLY | nr::O_DIRECTORY)?;
    let mut buffer = [0u8; 2048];
    loop {
        let n = getdents(&dir, &mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        // struct linux_dirent64: d_ino (8), d_off (8), d_reclen (2), d_type (1), d_name.
        let mut entries = buffer.get(..n).unwrap_or(&[]);
        while entries.len() > 19 {
            let reclen = usize::from(u16::from_le_bytes([entries[16], entries[17]]));
            if let Some((tid, _)) = entries.get(19..).and_then(|name| blocked::number(name, 10)) {
                each(tid as i32);
            }
            entries = entries.get(reclen.max(19)..).unwrap_or(&[]);
        }
    }
}

/// Calls `each` with the first address of every mapping of this process, and the first after it.
pub fn for_each_mapping(mut each: impl FnMut(u64, u64)) -> Result<(), Errno> {
    let file = call::open(b"/proc/self/maps\0")?;
    let mut buffer = [0u8; 4096];
    // `START-END ` begins each line; which of the two, or the rest of the line, is being read.
    let (mut field, mut range) = (0, [0u64; 2]);
    loop {
        let n = call::read(&file, &mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        for &byte in buffer.get(..n).unwrap_or(&[]) {
            match (field, byte) {
                (_, b'\n') => (field, range) = (0, [0; 2]),
                (0, b'-') => field = 1,
                (1, b' ') => {
                    field = 2;
                    each(range[0], range[1]);
                }
                (0 | 1, _) => {
                    if let (Some(address), Some((digit, _))) = (range.get_mut(field), blocked::number(&[byte], 16)) {
                        *address = *address << 4 | digit;
                    }
                }
                _ => (),
            }
        }
    }
}

fn getdents(dir: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is writable for its length.
    let n = unsafe { syscall!(nr::__NR_getdents64, dir.0, buffer.as_mut_ptr(), buffer.len()) }?;
    Ok(n as usize)
}
