//! Finding saved files, and keeping their contents as they are at the freeze.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use rustix::fs::{copy_file_range, ioctl_ficlone};
use walkdir::WalkDir;

use super::{SavedFile, SavedKind, was_set_aside};
use crate::file;
use crate::file::data_ranges;

/// Most bytes that all saved files of a checkpoint may hold, holes not counted: the job stands still while they are copied.
pub const LIMIT: u64 = 1 << 30;
/// Most files that may be saved.
pub const MOST_FILES: usize = 100_000;
/// Most bytes that a directory may hold that is kept without being asked for: in every checkpoint, while the job stands still.
const LITTLE: u64 = 8 << 20;
/// Most files that may be in it.
const FEW_FILES: usize = 256;
/// Files that hold as much are cloned by themselves, where their file system can; smaller ones are copied as fast.
const CLONE_FROM: u64 = 4 << 20;
/// Contents of an image begin where pages do.
const PAGE: u64 = 4096;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// As a shell understands them, but that what begins with a dot must be named.
const SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Why files that are to be saved are not. There is no checkpoint then: one that lacks what it was to hold would be found out too
/// late.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The pattern cannot be understood.
    #[error("--save-files {pattern}: {why}; write it as for a shell")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read.
    #[error("{}, which --save-files names, cannot be {action}: {source}; make that possible, or leave it out of --save-files", path.display())]
    Read {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not a file whose contents are its own.
    #[error("{}, which --save-files names, is a device; leave it out of --save-files", path.display())]
    Device {
        /// The device.
        path: PathBuf,
    },
    /// They are too large.
    #[error(
        "with {} the files that --save-files names come to more than {} MiB; name fewer, or keep them where every machine has them",
        path.display(),
        LIMIT >> 20
    )]
    TooMuch {
        /// The file with which they come to more.
        path: PathBuf,
    },
    /// They are too many.
    #[error("--save-files names more than {MOST_FILES} files, {} among them; name fewer", path.display())]
    TooMany {
        /// One of them.
        path: PathBuf,
    },
    /// They cannot be kept beside the image until they are in it.
    #[error("cannot keep the files that --save-files names in {} while the image is written: {source}; give another directory with --dir", dir.display())]
    Stage {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SaveError {
    fn read(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { action, path: path.to_owned(), source }
    }
}

/// A pattern as the file system is searched by it: one that is relative begins in `launch_dir`.
///
/// # Errors
///
/// When it is no pattern, or cannot be one with that directory.
pub fn full_pattern(pattern: &str, launch_dir: &Path) -> Result<String, SaveError> {
    let wrong = |why: String| SaveError::Pattern { pattern: pattern.to_owned(), why };
    let mut words = pattern;
    while let Some(rest) = words.strip_prefix("./") {
        words = rest.trim_start_matches('/');
    }
    let words = if words.len() > 1 { words.trim_end_matches('/') } else { words };
    let full = if words.starts_with('/') {
        words.to_owned()
    } else {
        let dir = launch_dir.to_str().ok_or_else(|| wrong(format!("{} is not UTF-8", launch_dir.display())))?;
        match words {
            "." | "" => Pattern::escape(dir),
            words => format!("{}/{words}", Pattern::escape(dir.trim_end_matches('/'))),
        }
    };
    Pattern::new(&full).map_err(|error| wrong(error.msg.to_owned()))?;
    Ok(full)
}

/// Everything that the patterns name, with what is in directories; parents come first. Paths have no symbolic links in their
/// directories. Neither `is_left_out`, nor sockets, nor what an earlier restart has set aside, are among it.
///
/// # Errors
///
/// When something that is named cannot be examined.
pub fn find(
    patterns: &[String],
    launch_dir: &Path,
    is_left_out: &dyn Fn(&Path, &Metadata) -> bool,
) -> Result<BTreeMap<PathBuf, Metadata>, SaveError> {
    let mut found = BTreeMap::new();
    let mut parents: HashMap<PathBuf, PathBuf> = HashMap::new();
    for pattern in patterns {
        let full = full_pattern(pattern, launch_dir)?;
        let matches = glob::glob_with(&full, SHELL)
            .map_err(|error| SaveError::Pattern { pattern: pattern.clone(), why: error.msg.to_owned() })?;
        // What cannot even be listed on the way is not the job's, which runs as the same user.
        for path in matches.flatten() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                add_tree(&path, is_left_out, MOST_FILES, &mut found)?;
                continue;
            };
            let real = match parents.get(parent) {
                Some(real) => real.clone(),
                None => {
                    let Ok(real) = parent.canonicalize() else { continue };
                    parents.insert(parent.to_owned(), real.clone());
                    real
                }
            };
            add_tree(&real.join(name), is_left_out, MOST_FILES, &mut found)?;
        }
    }
    Ok(found)
}

/// A directory and all that is in it, as [`find`] would find it; nothing where that is much, or cannot be examined.
#[must_use]
pub fn find_in(root: &Path, is_left_out: &dyn Fn(&Path, &Metadata) -> bool) -> Option<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    add_tree(root, is_left_out, FEW_FILES, &mut found).ok()?;
    let bytes: u64 = found.values().filter(|metadata| metadata.is_file()).map(|metadata| metadata.blocks() * 512).sum();
    (bytes <= LITTLE).then_some(found)
}

fn add_tree(
    root: &Path,
    is_left_out: &dyn Fn(&Path, &Metadata) -> bool,
    most: usize,
    found: &mut BTreeMap<PathBuf, Metadata>,
) -> Result<(), SaveError> {
    if found.contains_key(root) {
        return Ok(());
    }
    let mut entries = WalkDir::new(root).follow_links(false).follow_root_links(false).into_iter();
    while let Some(entry) = entries.next() {
        let metadata = entry.and_then(|entry| Ok((entry.metadata()?, entry.into_path())));
        let (metadata, path) = match metadata {
            Ok(both) => both,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                match io::Error::from(error) {
                    // Somebody else removed it meanwhile.
                    gone if gone.kind() == io::ErrorKind::NotFound => continue,
                    source => return Err(SaveError::Read { action: "examined", path, source }),
                }
            }
        };
        if is_left_out(&path, &metadata) || metadata.file_type().is_socket() || was_set_aside(&path) {
            if metadata.is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        if found.len() >= most {
            return Err(SaveError::TooMany { path });
        }
        found.insert(path, metadata);
    }
    Ok(())
}

/// Part of a saved file's contents, and where it is kept until it is in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The file's space.
    pub space: u32,
    /// Byte offset in the file, a multiple of the page size.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Which of the [`Captured`] files has it.
    source: usize,
    /// Byte offset in that.
    at: u64,
}

/// Saved files at the freeze.
#[derive(Debug)]
pub struct Captured {
    /// What they are.
    pub files: Vec<SavedFile>,
    /// Their contents.
    pub contents: Vec<Kept>,
    /// From here on no space is in use.
    pub next_space: u32,
    /// Files without names: clones, and one with the copies.
    sources: Vec<File>,
}

impl Captured {
    /// No file at all; spaces are numbered from `space` on.
    #[must_use]
    pub fn none(space: u32) -> Self {
        Self { files: Vec::new(), contents: Vec::new(), next_space: space, sources: Vec::new() }
    }

    /// Takes over what another has, whose spaces are others.
    pub fn append(&mut self, other: Self) {
        let first = self.sources.len();
        self.files.extend(other.files);
        self.contents.extend(other.contents.into_iter().map(|kept| Kept { source: first + kept.source, ..kept }));
        self.next_space = other.next_space;
        self.sources.extend(other.sources);
    }

    /// Reads contents, from byte `skip` of them on.
    ///
    /// # Errors
    ///
    /// When they cannot be read back.
    pub fn read(&self, kept: &Kept, skip: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.sources[kept.source].read_exact_at(buffer, kept.at + skip)
    }
}

/// Takes what was found as it is now. Copies are kept in a file without a name in the directory `beside`; spaces are numbered
/// from `space` on.
///
/// # Errors
///
/// When anything of it cannot be read or kept.
pub fn capture(found: BTreeMap<PathBuf, Metadata>, beside: &Path, space: u32) -> Result<Captured, SaveError> {
    Capture { captured: Captured::none(space), beside, copies: None, room: LIMIT }.all(found)
}

struct Capture<'a> {
    captured: Captured,
    beside: &'a Path,
    /// Which source has the copies, and where the next one goes.
    copies: Option<(usize, u64)>,
    /// Bytes that there may still be.
    room: u64,
}

impl Capture<'_> {
    fn all(mut self, found: BTreeMap<PathBuf, Metadata>) -> Result<Captured, SaveError> {
        for (path, metadata) in found {
            self.add(path, metadata)?;
        }
        Ok(self.captured)
    }

    fn add(&mut self, path: PathBuf, metadata: Metadata) -> Result<(), SaveError> {
        let kind = metadata.file_type();
        let (kind, metadata) = if kind.is_file() {
            match self.regular(&path)? {
                Some(both) => both,
                None => return Ok(()),
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(SaveError::read("read", &path))?.into();
            (SavedKind::Link { target }, metadata)
        } else if kind.is_dir() {
            (SavedKind::Directory, metadata)
        } else if kind.is_fifo() {
            (SavedKind::Fifo, metadata)
        } else {
            return Err(SaveError::Device { path });
        };
        self.captured.files.push(SavedFile {
            path: path.into(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            kind,
        });
        Ok(())
    }

    /// A regular file with its contents; nothing where somebody else has removed it.
    fn regular(&mut self, path: &Path) -> Result<Option<(SavedKind, Metadata)>, SaveError> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SaveError::Read { action: "read", path: path.to_owned(), source }),
        };
        let metadata = file.metadata().map_err(SaveError::read("examined", path))?;
        let (size, space) = (metadata.size(), self.captured.next_space);
        let ranges = data_ranges(&file, size).map_err(SaveError::read("read", path))?;
        let bytes: u64 = ranges.iter().map(|(start, end)| end - start).sum();
        self.room = self.room.checked_sub(bytes).ok_or_else(|| SaveError::TooMuch { path: path.to_owned() })?;
        self.captured.next_space += 1;
        let clone = if bytes >= CLONE_FROM { clone_of(&file, path) } else { None };
        match clone {
            Some(clone) => {
                let source = self.captured.sources.len();
                self.captured.sources.push(clone);
                let kept = |(start, end)| Kept { space, offset: start, len: end - start, source, at: start };
                self.captured.contents.extend(ranges.into_iter().map(kept));
            }
            None => {
                for (start, end) in ranges {
                    self.copy(&file, path, space, start, end)?;
                }
            }
        }
        Ok(Some((SavedKind::Regular { size, space }, metadata)))
    }

    fn copy(&mut self, file: &File, path: &Path, space: u32, start: u64, end: u64) -> Result<(), SaveError> {
        let stage = |source: io::Error| SaveError::Stage { dir: self.beside.to_owned(), source };
        let (source, at) = match self.copies {
            Some(copies) => copies,
            None => {
                let copies = file::unnamed_in(self.beside).map_err(|errno| stage(errno.into()))?;
                self.captured.sources.push(copies.into());
                (self.captured.sources.len() - 1, 0)
            }
        };
        let copies = &self.captured.sources[source];
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
            file.read_exact_at(&mut buffer[..len], from).map_err(SaveError::read("read", path))?;
            copies.write_all_at(&buffer[..len], to).map_err(stage)?;
            from += len as u64;
            to += len as u64;
        }
        self.captured.contents.push(Kept { space, offset: start, len: end - start, source, at });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &BTreeMap<PathBuf, Metadata>, dir: &Path) -> Vec<String> {
        found.keys().map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string()).collect()
    }

    fn all(patterns: &[&str], dir: &Path) -> BTreeMap<PathBuf, Metadata> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        find(&patterns, dir, &|path, _| path.ends_with("not-this")).unwrap()
    }

    #[test]
    fn patterns_are_a_shells_and_directories_are_taken_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a [strange] dir");
        fs::create_dir_all(dir.join("sub/deep/empty")).unwrap();
        for name in ["a.dat", "b.dat", ".c.dat", "sub/d.dat", "sub/.e", "sub/deep/f", "not-this"] {
            fs::write(dir.join(name), name).unwrap();
        }
        fs::write(dir.join(".x.after-checkpoint-7"), "").unwrap();
        std::os::unix::fs::symlink("sub", dir.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        assert_eq!(names(&all(&["*.dat", "./*.dat"], &dir), &dir), ["a.dat", "b.dat"]);
        let sub = ["sub", "sub/.e", "sub/d.dat", "sub/deep", "sub/deep/empty", "sub/deep/f"];
        assert_eq!(names(&all(&["sub/"], &dir), &dir), sub);
        assert_eq!(names(&all(&["**/*.dat"], &dir), &dir), ["a.dat", "b.dat", "sub/d.dat"]);
        assert_eq!(names(&all(&["link"], &dir), &dir), ["link"]);
        assert_eq!(names(&all(&["link/*.dat"], &dir), &dir), ["sub/d.dat"]);
        assert_eq!(all(&["."], &dir).len(), 1 + 3 + 1 + 6);
        let absolute = format!("{}/?.dat", Pattern::escape(dir.to_str().unwrap()));
        assert_eq!(names(&all(&[&absolute], Path::new("/")), &dir), ["a.dat", "b.dat"]);
        assert!(all(&["nothing/*"], &dir).is_empty());
        assert!(matches!(full_pattern("a***", &dir), Err(SaveError::Pattern { .. })));
    }

    #[test]
    fn contents_are_those_of_the_moment() {
        let dir = tempfile::tempdir().unwrap();
        let small: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let large = small.repeat(150);
        fs::write(dir.path().join("1-small"), &small).unwrap();
        fs::write(dir.path().join("2-large"), &large).unwrap();
        let holes = File::create(dir.path().join("3-holes")).unwrap();
        holes.set_len(40 << 20).unwrap();
        holes.write_all_at(&small, 20 << 20).unwrap();
        fs::write(dir.path().join("4-empty"), "").unwrap();
        let captured = capture(all(&["?-*"], dir.path()), dir.path(), 9).unwrap();
        for name in ["1-small", "2-large", "3-holes"] {
            fs::write(dir.path().join(name), "changed").unwrap();
        }
        let sizes: Vec<u64> =
            captured.files.iter().map(|file| if let SavedKind::Regular { size, .. } = file.kind { size } else { 0 }).collect();
        assert_eq!(sizes, [small.len() as u64, large.len() as u64, 40 << 20, 0]);
        for (space, expected) in [(9, &small), (10, &large), (11, &small), (12, &Vec::new())] {
            let mut bytes = Vec::new();
            for kept in captured.contents.iter().filter(|kept| kept.space == space) {
                let mut piece = vec![0; kept.len as usize];
                captured.read(kept, 0, &mut piece).unwrap();
                bytes.extend(piece);
            }
            bytes.truncate(expected.len());
            assert!(bytes == *expected, "the contents of space {space}");
        }
        let held: u64 = captured.contents.iter().map(|kept| kept.len).sum();
        assert!(held < 8 << 20, "{held} bytes: holes were read");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "something was left");
    }

    #[test]
    fn devices_and_too_much_are_refused_by_name() {
        let found = |path: &str| BTreeMap::from([(PathBuf::from(path), fs::symlink_metadata(path).unwrap())]);
        let error = capture(found("/dev/null"), Path::new("/tmp"), 0).unwrap_err().to_string();
        assert!(error.contains("/dev/null") && error.contains("device"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("much");
        File::create(&path).unwrap().write_all_at(b"x", 2 * LIMIT).unwrap();
        let captured = capture(found(path.to_str().unwrap()), dir.path(), 0).unwrap();
        assert!(captured.contents.iter().map(|kept| kept.len).sum::<u64>() <= PAGE, "a hole was counted");
        fs::write(&path, vec![1; 20_000]).unwrap();
        let small = Capture { captured: Captured::none(0), beside: dir.path(), copies: None, room: 19_999 };
        let error = small.all(found(path.to_str().unwrap())).unwrap_err().to_string();
        assert!(error.contains("much") && error.contains("1024 MiB"), "{error}");
    }
}
