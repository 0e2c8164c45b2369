//! Taking files as they are at the freeze.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::{fmt, io};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, StatxTimestamp, copy_file_range, ioctl_ficlone, statx};
use rustix::io::Errno;
use xxhash_rust::xxh3::Xxh3;

use super::{Contents, FileKind, FileState};
use crate::SpaceId;
use crate::descriptor::SeenDescriptor;
use crate::file::{self, data_ranges};
use crate::touched;

/// Files that hold as much are cloned by themselves, where their file system can; smaller ones are copied as fast.
const CLONE_FROM: u64 = 4 << 20;
/// Contents of an image begin where pages do.
const PAGE: u64 = 4096;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// How the file at a path is, itself if it is a symbolic link; nothing where nothing is there. Its contents are unknown.
///
/// # Errors
///
/// When that cannot be seen.
pub fn look(path: &Path) -> io::Result<Option<FileState>> {
    let stat = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let kind = match u32::from(stat.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular { size: stat.stx_size, contents: Contents::Unknown },
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFLNK => match std::fs::read_link(path) {
            Ok(target) => FileKind::Link { target: target.into() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        },
        _ => FileKind::Device,
    };
    Ok(Some(state(&stat, kind)))
}

fn state(stat: &Statx, kind: FileKind) -> FileState {
    FileState {
        identity: touched::identity(stat).into(),
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime_ns: nanoseconds(stat.stx_mtime),
        ctime_ns: nanoseconds(stat.stx_ctime),
        kind,
    }
}

fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}

/// Opens a regular file for reading, so that nobody sees when it was read where that is possible. Never waits, as for the writer of a
/// named pipe that has taken its place.
///
/// # Errors
///
/// As open(2).
pub fn open_to_read(path: &Path) -> io::Result<File> {
    let open = |more: i32| {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | more;
        File::options().read(true).custom_flags(flags).open(path)
    };
    // Only its owner may do so.
    open(libc::O_NOATIME).or_else(|_| open(0))
}

/// The hash of a file's beginning, which goes on where it was when the file has grown.
#[derive(Clone)]
pub struct Hashed {
    len: u64,
    hasher: Xxh3,
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashed").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Default for Hashed {
    fn default() -> Self {
        Self { len: 0, hasher: Xxh3::new() }
    }
}

impl Hashed {
    /// Bytes that it is the hash of.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been read yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads on up to `size` bytes of the file, and gives the hash of all of them.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is shorter.
    pub fn extend(&mut self, file: &File, size: u64) -> io::Result<u128> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(size.saturating_sub(self.len)).unwrap_or(PIECE))];
        while self.len < size {
            let len = usize::try_from((size - self.len).min(buffer.len() as u64)).unwrap_or(buffer.len());
            file.read_exact_at(&mut buffer[..len], self.len)?;
            self.hasher.update(&buffer[..len]);
            self.len += len as u64;
        }
        Ok(self.hasher.digest128())
    }
}

/// Part of a staged file's contents, and where it is until it is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedPart {
    /// The file's space.
    pub space: SpaceId,
    /// Byte offset in the file, a multiple of the page size.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Which of the files without a name has it.
    source: usize,
    /// Byte offset in that.
    at: u64,
}

/// Contents of files as they were at the freeze, in files without a name.
#[derive(Debug, Default)]
pub struct Staged {
    /// The parts of all files.
    pub parts: Vec<StagedPart>,
    /// Clones, and one with the copies.
    sources: Vec<File>,
}

impl Staged {
    /// Reads contents, from byte `skip` of a part on.
    ///
    /// # Errors
    ///
    /// When they cannot be read back.
    pub fn read(&self, part: &StagedPart, skip: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.sources[part.source].read_exact_at(buffer, part.at + skip)
    }
}

/// Takes contents while the job stands still: by a clone, where the file system can make one, else by a copy.
#[derive(Debug)]
pub struct Stager<'a> {
    staged: Staged,
    beside: &'a Path,
    /// Which source has the copies, and where the next one goes.
    copies: Option<(usize, u64)>,
}

/// Why contents are not staged.
#[derive(Debug)]
pub enum StageError {
    /// They cannot be read.
    Read(io::Error),
    /// They cannot be written.
    Write(io::Error),
}

impl<'a> Stager<'a> {
    /// One that keeps copies in a file without a name in the directory `beside`.
    #[must_use]
    pub fn new(beside: &'a Path) -> Self {
        Self { staged: Staged::default(), beside, copies: None }
    }

    /// Where copies are kept.
    #[must_use]
    pub fn beside(&self) -> &Path {
        self.beside
    }

    /// Takes the first `size` bytes of a file, as the contents of a space.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or not be kept.
    pub fn add(&mut self, file: &File, path: &Path, size: u64, space: SpaceId) -> Result<(), StageError> {
        let ranges = data_ranges(file, size).map_err(StageError::Read)?;
        let bytes: u64 = ranges.iter().map(|(start, end)| end - start).sum();
        let clone = if bytes >= CLONE_FROM { clone_of(file, path) } else { None };
        match clone {
            Some(clone) => {
                let source = self.staged.sources.len();
                self.staged.sources.push(clone);
                let part = |(start, end)| StagedPart { space, offset: start, len: end - start, source, at: start };
                self.staged.parts.extend(ranges.into_iter().map(part));
            }
            None => {
                for (start, end) in ranges {
                    self.copy(file, space, start, end)?;
                }
            }
        }
        Ok(())
    }

    /// What has been taken.
    #[must_use]
    pub fn finish(self) -> Staged {
        self.staged
    }

    fn copy(&mut self, file: &File, space: SpaceId, start: u64, end: u64) -> Result<(), StageError> {
        let (source, at) = match self.copies {
            Some(copies) => copies,
            None => {
                let copies = file::unnamed_in(self.beside).map_err(|errno| StageError::Write(errno.into()))?;
                self.staged.sources.push(copies.into());
                (self.staged.sources.len() - 1, 0)
            }
        };
        let copies = &self.staged.sources[source];
        let (mut from, mut to) = (start, at);
        // In the kernel, which may share blocks instead, where both file systems allow it.
        while from < end {
            let len = usize::try_from(end - from).unwrap_or(usize::MAX);
            match copy_file_range(file, Some(&mut from), copies, Some(&mut to), len) {
                Ok(1..) => (),
                Ok(0) | Err(_) => break,
            }
        }
        let mut buffer = vec![0; PIECE.min(usize::try_from(end - from).unwrap_or(PIECE))];
        while from < end {
            let len = usize::try_from((end - from).min(buffer.len() as u64)).unwrap_or(buffer.len());
            file.read_exact_at(&mut buffer[..len], from).map_err(StageError::Read)?;
            copies.write_all_at(&buffer[..len], to).map_err(StageError::Write)?;
            from += len as u64;
            to += len as u64;
        }
        self.staged.parts.push(StagedPart { space, offset: start, len: end - start, source, at });
        self.copies = Some((source, to.next_multiple_of(PAGE)));
        Ok(())
    }
}

/// A file without a name that shares all blocks of `file`, where the file system can make one.
fn clone_of(file: &File, path: &Path) -> Option<File> {
    let clone: File = file::unnamed_in(path.parent()?).ok()?.into();
    ioctl_ficlone(&clone, file).ok()?;
    Some(clone)
}

/// The inode numbers of what an inotify instance tells being opened and read: of files, and of directories with such files. To
/// read them would be noticed.
#[must_use]
pub fn are_watched(instance: &SeenDescriptor) -> Vec<u64> {
    /// `IN_ACCESS`, `IN_CLOSE_NOWRITE` and `IN_OPEN` (inotify(7)).
    const TOLD: u32 = 0x31;
    let text = String::from_utf8_lossy(&instance.info);
    let hexadecimal =
        |line: &str, key: &str| u64::from_str_radix(line.split_whitespace().find_map(|word| word.strip_prefix(key))?, 16).ok();
    text.lines()
        .filter(|line| line.starts_with("inotify "))
        .filter(|line| hexadecimal(line, "mask:").is_some_and(|mask| mask & u64::from(TOLD) != 0))
        .filter_map(|line| hexadecimal(line, "ino:"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn contents_are_those_of_the_moment() {
        let dir = tempfile::tempdir().unwrap();
        let small: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let large = small.repeat(150);
        let at = |name: &str| dir.path().join(name);
        fs::write(at("1-small"), &small).unwrap();
        fs::write(at("2-large"), &large).unwrap();
        let holes = File::create(at("3-holes")).unwrap();
        holes.set_len(40 << 20).unwrap();
        holes.write_all_at(&small, 20 << 20).unwrap();
        fs::write(at("4-empty"), "").unwrap();
        let names = ["1-small", "2-large", "3-holes", "4-empty"];
        let mut stager = Stager::new(dir.path());
        for (space, name) in (9..).map(SpaceId).zip(names) {
            let size = look(&at(name)).unwrap().unwrap().size();
            stager.add(&open_to_read(&at(name)).unwrap(), &at(name), size, space).unwrap();
        }
        let staged = stager.finish();
        for name in &names[..3] {
            fs::write(at(name), "changed").unwrap();
        }
        for (space, expected) in [(9, &small), (10, &large), (11, &small), (12, &Vec::new())] {
            let mut bytes = Vec::new();
            for part in staged.parts.iter().filter(|part| part.space == SpaceId(space)) {
                let mut piece = vec![0; part.len as usize];
                staged.read(part, 0, &mut piece).unwrap();
                bytes.extend(piece);
            }
            bytes.truncate(expected.len());
            assert!(bytes == *expected, "the contents of space {space}");
        }
        let held: u64 = staged.parts.iter().map(|part| part.len).sum();
        assert!(held < 8 << 20, "{held} bytes: holes were read");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "something was left");
    }

    #[test]
    fn a_hash_goes_on_where_the_file_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "begin").unwrap();
        let mut hashed = Hashed::default();
        let first = hashed.extend(&File::open(&path).unwrap(), 5).unwrap();
        fs::write(&path, "begin and go on").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(Hashed::default().extend(&file, 5).unwrap(), first);
        assert_eq!(hashed.extend(&file, 15).unwrap(), Hashed::default().extend(&file, 15).unwrap());
        assert!(Hashed::default().extend(&file, 16).is_err());
    }

    #[test]
    fn a_file_is_known_again_whatever_its_name_is() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::write(&old, "contents").unwrap();
        let before = look(&old).unwrap().unwrap();
        fs::rename(&old, &new).unwrap();
        fs::write(&old, "another").unwrap();
        assert!(!look(&old).unwrap().unwrap().identity.is(&before.identity));
        assert!(look(&new).unwrap().unwrap().identity.is(&before.identity));
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let link = look(&dir.path().join("link")).unwrap().unwrap();
        assert_eq!(link.kind, FileKind::Link { target: PathBuf::from("nowhere").into() });
        assert_eq!(look(&dir.path().join("old/below")).unwrap(), None);
    }
}
