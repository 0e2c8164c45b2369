//! Observing files: the identity of a mapped file, and the contents of files without a name.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use goblin::elf::program_header::PT_NOTE;
use goblin::elf::{Elf, ProgramHeader};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::FileIdentity;
use crate::FilePath;
use crate::descriptor::SeenDescriptor;
use crate::numbered::Numbered;
use crate::observe::ObserveError;

/// How the kernel marks a path whose file has no name any more.
const DELETED: &[u8] = b" (deleted)";
/// `NT_GNU_BUILD_ID`.
const NT_GNU_BUILD_ID: u32 = 3;
/// What an image keeps is whole pages.
const PAGE: u64 = 4096;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// A part of a file that is not a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Byte offset.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The files that a job maps or executes. Until [`MappedFiles::identify`] each is known by its path and inode number.
#[derive(Debug, Default)]
pub struct MappedFiles(Numbered<(FilePath, u64), (FileIdentity, u64)>);

impl MappedFiles {
    /// The number of the file that a link of `/proc` names, and that has this inode number; 0: not known.
    pub fn see(&mut self, link: &FilePath, inode: u64) -> u32 {
        let look = || {
            let (path, deleted) = name_of(link, inode);
            let is_replaced = inode != 0 && fs::metadata(path.as_path()).is_ok_and(|meta| meta.ino() != inode);
            let deleted = deleted || is_replaced;
            Ok::<_, Infallible>((FileIdentity { path, size: 0, mtime_ns: 0, build_id: Vec::new(), deleted }, inode))
        };
        let Ok(number) = self.0.number((link.clone(), inode), look);
        number
    }

    /// What is known of the file with this number.
    ///
    /// # Errors
    ///
    /// When none has it.
    pub fn at(&self, number: u32) -> Result<&FileIdentity, ObserveError> {
        self.0.at(number).map(|(file, _)| file)
    }

    /// Finds out who the files are, by number. Reads each.
    #[must_use]
    pub fn identify(&self) -> Vec<FileIdentity> {
        let identify = |(file, inode): &(FileIdentity, u64)| {
            let now = identify(&file.path, *inode);
            FileIdentity { deleted: now.deleted || file.deleted, ..now }
        };
        self.0.all().iter().map(identify).collect()
    }
}

/// The path of a link of `/proc`, and whether the file it had has no name any more.
#[must_use]
pub fn split_deleted(link: &FilePath) -> (FilePath, bool) {
    match link.0.strip_suffix(DELETED) {
        Some(path) => (FilePath(path.to_vec()), true),
        None => (link.clone(), false),
    }
}

/// The path of a link of `/proc` to the file with this inode number, and whether that has no name any more: a file may be called as the
/// kernel calls those.
#[must_use]
pub fn name_of(link: &FilePath, inode: u64) -> (FilePath, bool) {
    match split_deleted(link) {
        (_, true) if fs::symlink_metadata(link.as_path()).is_ok_and(|meta| meta.ino() == inode) => (link.clone(), false),
        other => other,
    }
}

/// Another name of a file whose name is gone, or has been taken by another file: one by which it is open too, or one in the directory where it was.
#[must_use]
pub fn other_name(descriptor: &SeenDescriptor, former: &FilePath, open: &[SeenDescriptor]) -> Option<FilePath> {
    /// How many entries of the directory are looked at, while the job stands still.
    const LOOKED_AT: usize = 10_000;
    if descriptor.links == 0 {
        return None;
    }
    let is_it = |path: &Path| {
        let meta = path.symlink_metadata();
        meta.is_ok_and(|meta| meta.dev() == descriptor.device && meta.ino() == descriptor.inode)
    };
    let open = open.iter().filter(|other| other.id() == descriptor.id()).map(|other| name_of(&other.link, other.inode));
    let mut open = open.filter(|(path, deleted)| !deleted && is_it(path.as_path())).map(|(path, _)| path);
    open.next().or_else(|| {
        let entries = fs::read_dir(former.as_path().parent()?).ok()?.take(LOOKED_AT).flatten();
        // The number that the directory tells spares the look at each file.
        let mut same = entries.filter(|entry| entry.ino() == descriptor.inode).map(|entry| entry.path());
        same.find(|path| is_it(path)).map(FilePath::from)
    })
}

/// Who a mapped or executed file is. When another file has taken its path meanwhile, it counts as deleted.
#[must_use]
pub fn identify(link: &FilePath, inode: u64) -> FileIdentity {
    let (path, deleted) = name_of(link, inode);
    let mut identity = FileIdentity { path, size: 0, mtime_ns: 0, build_id: Vec::new(), deleted };
    match fs::metadata(identity.path.as_path()) {
        Ok(meta) if !deleted && (inode == 0 || meta.ino() == inode) => {
            identity.size = meta.size();
            identity.mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            if meta.is_file() {
                identity.build_id = build_id(&identity.path).unwrap_or_default();
            }
        }
        _ => identity.deleted = true,
    }
    identity
}

/// The ELF note `NT_GNU_BUILD_ID` of a file; `None` where there is none. Reads no more than the headers and the notes.
#[must_use]
pub fn build_id(path: &FilePath) -> Option<Vec<u8>> {
    let file = File::open(path.as_path()).ok()?;
    let mut head = vec![0; 4096];
    let read = file.read_at(&mut head, 0).ok()?;
    head.truncate(read);
    let header = Elf::parse_header(&head).ok()?;
    let context = goblin::container::Ctx::new(header.container().ok()?, header.endianness().ok()?);
    let headers =
        ProgramHeader::parse(&head, usize::try_from(header.e_phoff).ok()?, usize::from(header.e_phnum), context).ok()?;
    headers.iter().filter(|header| header.p_type == PT_NOTE && header.p_filesz < 65536).find_map(|header| {
        let mut notes = vec![0; usize::try_from(header.p_filesz).ok()?];
        file.read_exact_at(&mut notes, header.p_offset).ok()?;
        find_build_id(&notes)
    })
}

/// Notes follow each other: sizes of name and contents, type, name, contents, each padded to four bytes (elf(5)).
fn find_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    let word = |notes: &[u8], at: usize| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
    loop {
        let name_len = (word(notes, 0)? as usize).checked_next_multiple_of(4)?;
        let len = word(notes, 4)? as usize;
        let start = 12usize.checked_add(name_len)?;
        let contents = notes.get(start..start.checked_add(len)?)?;
        if word(notes, 8)? == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return Some(contents.to_vec());
        }
        notes = notes.get(start.checked_add(len.checked_next_multiple_of(4)?)?..)?;
    }
}

/// The ranges of a file that are no holes, as far as `size`: in whole pages but at the end, in ascending order, none overlapping.
///
/// # Errors
///
/// When the file cannot be searched.
pub fn data_ranges(file: impl AsFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data up to the end.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(&file, SeekFrom::Hole(start)).unwrap_or(size).clamp(start + 1, size.max(start + 1));
        at = end;
        let (start, end) = (start & !(PAGE - 1), end.next_multiple_of(PAGE).min(size));
        // Blocks of a file system may be smaller than pages.
        match ranges.last_mut() {
            Some(last) if last.1 >= start => last.1 = last.1.max(end),
            _ if start < end => ranges.push((start, end)),
            _ => (),
        }
    }
    Ok(ranges)
}

/// The contents of a file that is open in a frozen process, without its holes. `path` names it through `/proc/PID/fd`.
///
/// # Errors
/// The file cannot be opened or read.
pub fn contents(path: &std::path::Path, size: u64) -> io::Result<Vec<Piece>> {
    // Only its owner may read it without that being noted.
    let quietly = OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(path);
    contents_of(&quietly.or_else(|_| File::open(path))?, size)
}

/// The contents of a file, without its holes.
///
/// # Errors
/// The file cannot be read.
pub fn contents_of(file: &File, size: u64) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (start, end) in data_ranges(file, size)? {
        let mut at = start;
        while at < end {
            let want = usize::try_from((end - at).min(PIECE as u64)).unwrap_or(PIECE);
            let mut bytes = vec![0; want];
            file.read_exact_at(&mut bytes, at)?;
            pieces.push(Piece { offset: at, bytes });
            at += want as u64;
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_no_data() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 << 20).unwrap();
        assert_eq!(data_ranges(&file, 10 << 20).unwrap(), []);
        file.write_all_at(&[1; 100], (4 << 20) + 10).unwrap();
        file.write_all_at(b"end", (10 << 20) - 3).unwrap();
        let ranges = data_ranges(&file, 10 << 20).unwrap();
        assert!(ranges.iter().all(|(start, end)| start % PAGE == 0 && end % PAGE == 0 && start < end), "{ranges:?}");
        assert!(ranges.iter().any(|&(start, end)| start <= 4 << 20 && end >= (4 << 20) + PAGE));
        assert_eq!(ranges.last().map(|range| range.1), Some(10 << 20));
        file.set_len(5).unwrap();
        assert!(data_ranges(&file, 5).unwrap().iter().all(|&(_, end)| end <= 5));
    }

    #[test]
    fn finds_a_build_id_among_notes() {
        let mut notes = Vec::new();
        for (kind, name, contents) in [(1u32, b"GNU\0", &[1u8, 2, 3][..]), (NT_GNU_BUILD_ID, b"GNU\0", &[9; 20])] {
            notes.extend(4u32.to_le_bytes());
            notes.extend((contents.len() as u32).to_le_bytes());
            notes.extend(kind.to_le_bytes());
            notes.extend(name);
            notes.extend(contents);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(find_build_id(&notes), Some(vec![9; 20]));
        assert_eq!(find_build_id(&notes[..30]), None);
        assert_eq!(find_build_id(&[0xff; 64]), None);
    }

    #[test]
    fn the_program_of_this_test_is_itself() {
        let exe = FilePath::from(fs::read_link("/proc/self/exe").unwrap());
        let inode = fs::metadata("/proc/self/exe").unwrap().ino();
        let identity = identify(&exe, inode);
        assert!(!identity.deleted && identity.size > 0 && identity.build_id.len() == 20);
        assert!(identify(&exe, inode + 1).deleted);
    }
}
