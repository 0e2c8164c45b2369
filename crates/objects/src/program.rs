//! The file of a program that runs and has no name any more: it was removed, or replaced by another one, or never had any (memfd_create(2)).
//! `/proc/PID/exe` leads to it all the same, so that the image keeps it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, StatVfsMountFlags, statvfs};
use serde::{Deserialize, Serialize};

use crate::file::{Piece, contents, split_deleted, unnamed_in};
use crate::observe::{ObserveError, proc_path, read_proc_link};
use crate::rebuild::{RebuildError, own_fd_path};
use crate::{FilePath, HostPid, SpaceId};

/// How the link of a memfd begins.
const MEMFD: &[u8] = b"/memfd:";

/// The file of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnnamedProgram {
    /// The path that it had; of a memfd `/memfd:` and its name.
    pub path: FilePath,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Device and inode numbers: the same for all processes that run it.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// Under which number the image keeps its contents; a page's address is its byte offset.
    pub space: SpaceId,
}

/// The files without a name that the job's processes run.
#[derive(Debug, Default)]
pub struct Observer {
    programs: Vec<UnnamedProgram>,
    contents: Vec<(SpaceId, Vec<Piece>)>,
}

impl Observer {
    /// The number of a process's program among those without a name; nothing where its name leads to it. `space` gives one that is not in use.
    ///
    /// # Errors
    /// The process has ended, or its program cannot be read.
    pub fn see(&mut self, pid: HostPid, mut space: impl FnMut() -> SpaceId) -> Result<Option<u32>, ObserveError> {
        let (path, deleted) = split_deleted(&read_proc_link(pid, "exe")?);
        let through = proc_path(pid, "exe");
        let unreadable = |source: io::Error| ObserveError::Read { pid, path: through.clone(), source };
        let meta = through.metadata().map_err(unreadable)?;
        let id = (meta.dev(), meta.ino());
        let has_name = !deleted && path.as_path().metadata().is_ok_and(|named| (named.dev(), named.ino()) == id);
        if has_name {
            return Ok(None);
        }
        if let Some(known) = (0u32..).zip(&self.programs).find(|(_, known)| (known.device, known.inode) == id) {
            return Ok(Some(known.0));
        }
        let number = u32::try_from(self.programs.len()).unwrap_or(u32::MAX);
        let (space, size) = (space(), meta.size());
        self.contents.push((space, contents(&through, size).map_err(unreadable)?));
        self.programs.push(UnnamedProgram { path, size, mode: meta.mode() & 0o7777, device: id.0, inode: id.1, space });
        Ok(Some(number))
    }

    /// What was seen: the programs, and their contents by space.
    #[must_use]
    pub fn into_parts(self) -> (Vec<UnnamedProgram>, Vec<(SpaceId, Vec<Piece>)>) {
        (self.programs, self.contents)
    }
}

/// A program's file that is made, still with a name if `/proc/PID/exe` is to read as before.
pub struct Unfinished {
    file: OwnedFd,
    named: Option<PathBuf>,
}

/// Makes the file, of zero bytes, for reading and writing. `path` is where the one that it had is now: it takes that name for a moment where nobody has it.
///
/// # Errors
/// There is no memory for it.
pub fn begin(program: &UnnamedProgram, path: &Path) -> Result<Unfinished, RebuildError> {
    let made = make(program, path)?;
    rustix::fs::ftruncate(&made.file, program.size).map_err(RebuildError::file("give its size to", path))?;
    Ok(made)
}

fn make(program: &UnnamedProgram, path: &Path) -> Result<Unfinished, RebuildError> {
    let unnamed = |file| Unfinished { file, named: None };
    let name = program.path.0.strip_prefix(MEMFD);
    let dir = path.parent().filter(|_| name.is_none()).filter(|dir| may_execute(dir));
    if let Some(dir) = dir {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(path, flags, Mode::RWXU) {
            return Ok(Unfinished { file, named: Some(path.to_owned()) });
        }
        if let Ok(file) = unnamed_in(dir) {
            return Ok(unnamed(file));
        }
    }
    let failed = |error: io::Error| RebuildError::Memory { size: program.size, source: error };
    let name = name.unwrap_or_else(|| path.file_name().unwrap_or_default().as_bytes());
    let name = CString::new(name).map_err(io::Error::from).map_err(failed)?;
    let make = |flags| rustix::fs::memfd_create(&name, MemfdFlags::CLOEXEC | flags);
    // Kernels before Linux 6.3 do not know this flag, nor do they need it.
    make(MemfdFlags::EXEC).or_else(|_| make(MemfdFlags::empty())).map(unnamed).map_err(|error| failed(error.into()))
}

fn may_execute(dir: &Path) -> bool {
    statvfs(dir).is_ok_and(|stat| !stat.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

impl Unfinished {
    /// Where its contents go.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The file, for reading only: nobody may have one open for writing that a process runs.
    ///
    /// # Errors
    /// The file system refuses its mode, or it cannot be opened.
    pub fn finish(self, program: &UnnamedProgram) -> Result<OwnedFd, RebuildError> {
        let path = program.path.as_path();
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(program.mode)).map_err(RebuildError::file("set the mode of", path))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        // By its name: the link would show another one.
        let from = self.named.clone().unwrap_or_else(|| own_fd_path(self.file.as_fd()));
        rustix::fs::open(&from, flags, Mode::empty()).map_err(RebuildError::open(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            let _ = std::fs::remove_file(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    fn program(path: &Path) -> UnnamedProgram {
        UnnamedProgram { path: path.into(), size: 4, mode: 0o755, device: 1, inode: 2, space: SpaceId(0) }
    }

    fn rebuilt(path: &Path) -> (OwnedFd, String) {
        let made = begin(&program(path), path).unwrap();
        fs::File::from(made.file().try_clone_to_owned().unwrap()).write_all(b"text").unwrap();
        let fd = made.finish(&program(path)).unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        (fd, link.to_string_lossy().into_owned())
    }

    #[test]
    fn a_program_has_its_former_name_where_nobody_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let (fd, link) = rebuilt(&path);
        assert_eq!(link, format!("{} (deleted)", path.display()));
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_mode & 0o7777, 0o755);
        fs::write(&path, "another").unwrap();
        let (_fd, link) = rebuilt(&path);
        assert!(link.ends_with(" (deleted)"), "{link}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        let (_fd, link) = rebuilt(Path::new("/memfd:made"));
        assert_eq!(link, "/memfd:made (deleted)");
    }
}
