//! Rebuilds shared memory, still empty: its pages are filled in by the restart.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use super::{SharedMemory, SharedMemoryKind};
use crate::file;
use crate::rebuild::RebuildError;

/// Makes or opens the object, for reading and writing, with its size. `path` is where a named one is now.
///
/// A file with a name is opened as it is: its contents are written back only when nothing can fail any more. One on a memory file
/// system that is gone is made anew.
///
/// # Errors
/// There is no memory for it, or a named one cannot be opened.
pub fn rebuild(object: &SharedMemory, path: Option<&Path>) -> Result<OwnedFd, RebuildError> {
    match (&object.kind, path) {
        (SharedMemoryKind::Named { mode, owner, in_memory, .. }, Some(path)) => {
            named(path, *mode, in_memory.then_some(*owner), object.size)
        }
        (SharedMemoryKind::Unlinked { .. }, Some(path)) => file::rebuild_unnamed(path, object.size),
        (SharedMemoryKind::Memfd { name, mode, .. }, _) => memfd(&name.0, object.size, *mode),
        _ => memfd(b"anonymous", object.size, 0),
    }
}

/// Applies the seals it had. Only when everything that maps it has done so: `F_SEAL_WRITE` forbids new writable mappings.
///
/// # Errors
/// Somebody still has it mapped for writing.
pub fn seal(fd: &OwnedFd, seals: u32) -> Result<(), RebuildError> {
    rustix::fs::fcntl_add_seals(fd, SealFlags::from_bits_retain(seals))
        .map_err(RebuildError::file("seal", Path::new("shared memory")))
}

/// `owner` is whom it is given where it must be made anew, which is done in memory only.
fn named(path: &Path, mode: u32, owner: Option<(u32, u32)>, size: u64) -> Result<OwnedFd, RebuildError> {
    match (file::open_although(path, OFlags::RDWR | OFlags::CLOEXEC), owner) {
        (Err(Errno::NOENT), Some((uid, gid))) => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(RebuildError::open(path))?;
            // Only root can give it to another; whoever else restarts a job was its owner.
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            let _ = rustix::fs::fchown(&fd, Some(uid), Some(gid));
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777)).map_err(RebuildError::file("set the mode of", path))?;
            rustix::fs::ftruncate(&fd, size).map_err(RebuildError::file("give its size to", path))?;
            Ok(fd)
        }
        (other, _) => other.map_err(RebuildError::open(path)),
    }
}

/// Makes a memfd with this mode, or with that of a new one for 0. The mode comes before any seal: `F_SEAL_EXEC` on an executable one would forbid
/// writing too (mm/memfd.c).
fn memfd(name: &[u8], size: u64, mode: u32) -> Result<OwnedFd, RebuildError> {
    const EXECUTE: u32 = 0o111;
    let failed = |error: Errno| RebuildError::Memory { size, source: error.into() };
    let name = CString::new(name).map_err(|_| failed(Errno::INVAL))?;
    let make = |flags: MemfdFlags| rustix::fs::memfd_create(&name, flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    // With vm.memfd_noexec a memfd is executable only by this flag. Kernels before Linux 6.3 refuse it.
    let executable = (mode & EXECUTE != 0).then(|| make(MemfdFlags::EXEC).ok()).flatten();
    let fd = executable.map_or_else(|| make(MemfdFlags::empty()), Ok).map_err(failed)?;
    if mode != 0 {
        let failed = RebuildError::file("set the mode of", Path::new("a memfd"));
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed)?;
    }
    rustix::fs::ftruncate(&fd, size).map_err(failed)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FilePath;

    #[test]
    fn a_memfd_has_its_size_and_takes_its_seals() {
        let kind = SharedMemoryKind::Memfd { name: FilePath(b"ring".to_vec()), seals: 0, mode: 0o640 };
        let fd = rebuild(&SharedMemory { space: crate::SpaceId(1), size: 8192, kind }, None).unwrap();
        let stat = rustix::fs::fstat(&fd).unwrap();
        assert_eq!((stat.st_size, stat.st_mode & 0o7777), (8192, 0o640));
        seal(&fd, SealFlags::SHRINK.bits()).unwrap();
        assert_eq!(rustix::fs::ftruncate(&fd, 0), Err(Errno::PERM));
    }

    #[test]
    fn a_named_object_in_memory_is_made_anew_and_another_is_refused() {
        let path = std::env::temp_dir().join(format!("ckpt-shm-{}", std::process::id()));
        let kind =
            |in_memory| SharedMemoryKind::Named { path: FilePath::from(path.as_path()), mode: 0o600, owner: (0, 0), in_memory };
        let object = |in_memory| SharedMemory { space: crate::SpaceId(1), size: 4096, kind: kind(in_memory) };
        assert!(matches!(rebuild(&object(false), Some(&path)), Err(RebuildError::Open { .. })));
        let fd = rebuild(&object(true), Some(&path)).unwrap();
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_size, 4096);
        std::fs::remove_file(&path).unwrap();
    }
}
