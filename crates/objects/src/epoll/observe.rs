//! Observing an epoll instance.

use std::collections::HashMap;

use ckpt_sys::process::{EpollSlot, kcmp_epoll};

use super::{EpollState, Registration};
use crate::FileIndex;
use crate::descriptor::SeenDescriptor;
use crate::event::{self, EventError};

/// The epoll instance that a descriptor of a frozen process is open on. `descriptions` are all open file descriptions of the job, in
/// the order of `JobState::open_files`.
///
/// # Errors
/// fdinfo cannot be read, or a file that is waited for is none of the job's.
pub fn observe(descriptor: &SeenDescriptor, descriptions: &[SeenDescriptor]) -> Result<EpollState, EventError> {
    let mut numbers: HashMap<i32, u32> = HashMap::new();
    let mut registrations = Vec::new();
    for line in descriptor.info.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"tfd:")) {
        let Some((fd, events, data)) = parse(line) else { return Err(event::not_understood("an epoll instance", line)) };
        // Several may have had the same number, one after the other; kcmp counts them in this order.
        let offset = numbers.entry(fd).or_default();
        let file = find(descriptor, fd, *offset, descriptions).ok_or(EventError::Registration(fd))?;
        *offset += 1;
        registrations.push(Registration { fd, file, events, data });
    }
    Ok(EpollState { registrations })
}

/// `tfd: N events: HEX data: HEX`; Linux 4.14 and later add more.
fn parse(line: &[u8]) -> Option<(i32, u32, u64)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let mut value = |key| (words.next()? == key).then(|| words.next())?;
    Some((
        value("tfd:")?.parse().ok()?,
        u32::from_str_radix(value("events:")?, 16).ok()?,
        u64::from_str_radix(value("data:")?, 16).ok()?,
    ))
}

/// Which description a registration means: in most cases the one that still has the number, in the same process.
fn find(epoll: &SeenDescriptor, fd: i32, offset: u32, descriptions: &[SeenDescriptor]) -> Option<FileIndex> {
    let slot = EpollSlot { epoll: epoll.fd.cast_unsigned(), target: fd.cast_unsigned(), offset };
    let is_meant = |one: &SeenDescriptor| kcmp_epoll(one.pid.0, one.fd, epoll.pid.0, slot) == Ok(0);
    let likeliness = |one: &SeenDescriptor| u8::from(one.fd == fd) + u8::from(one.fd == fd && one.pid == epoll.pid);
    let found =
        [2, 1, 0].into_iter().find_map(|likely| descriptions.iter().position(|one| likeliness(one) == likely && is_meant(one)));
    found.map(FileIndex::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kernels_show() {
        let new = b"tfd:        3 events: c0000019 data: ffffffff00000003  pos:0 ino:40f sdev:10";
        assert_eq!(parse(new), Some((3, 0xc000_0019, 0xffff_ffff_0000_0003)));
        assert_eq!(parse(b"tfd: 12 events: 40000000 data: 0"), Some((12, 0x4000_0000, 0)));
        assert_eq!(parse(b"tfd: 12 events: data: 0"), None);
    }
}
