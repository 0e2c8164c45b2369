//! Character and block devices. A restart opens a device again by its path. So only devices come back whose driver keeps no state for a descriptor.

/// Device numbers of the kernel (Documentation/admin-guide/devices.txt).
const MEMORY: u32 = 1;
const MISCELLANEOUS: u32 = 10;
const PROCESSOR_REGISTERS: u32 = 202;
const PROCESSOR_IDENTITY: u32 = 203;
/// `/dev/kmsg`: a reader has a place in the log.
const KMSG: u32 = 11;
/// `/dev/hwrng`.
const RANDOM_GENERATOR: u32 = 183;

/// Whether a character device is known to keep no state for its descriptors. Others keep a tunnel's interface, a GPU's memory, a connection to a
/// file system.
#[must_use]
pub fn is_stateless(rdev: u64, flags: u32) -> bool {
    let is_writer = flags & libc::O_ACCMODE.cast_unsigned() == libc::O_WRONLY.cast_unsigned();
    match (rustix::fs::major(rdev), rustix::fs::minor(rdev)) {
        (MEMORY, KMSG) => is_writer,
        (MEMORY | PROCESSOR_REGISTERS | PROCESSOR_IDENTITY, _) | (MISCELLANEOUS, RANDOM_GENERATOR) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn null_has_no_state_and_a_terminal_master_has() {
        let number = |path: &str| std::fs::metadata(path).unwrap().rdev();
        for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
            assert!(is_stateless(number(path), 0), "{path}");
        }
        assert!(!is_stateless(number("/dev/ptmx"), 0));
        assert!(!is_stateless(rustix::fs::makedev(10, 200), 2), "/dev/net/tun");
        assert!(!is_stateless(rustix::fs::makedev(MEMORY, KMSG), 0) && is_stateless(rustix::fs::makedev(MEMORY, KMSG), 1));
    }
}
