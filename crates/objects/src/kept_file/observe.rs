//! Taking the files of a frozen job as they are.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, StatxTimestamp, statx};

use super::{FileNumber, KeptFile};
use crate::FilePath;
use crate::descriptor::SeenDescriptor;
use crate::file::{self, Piece};
use crate::saved_file::{SavedFile, SavedKind};

/// Bytes of the largest file whose contents are held, holes not counted.
const LARGEST: u64 = 16 << 20;
/// Most bytes that all of them may have: the job stands still while they are read.
const LIMIT: u64 = 64 << 20;
/// Most files whose contents are held.
const MOST_FILES: usize = 4096;

/// A file that may be kept.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where it is read: a link of `/proc`, or its path.
    pub through: PathBuf,
    /// Its path.
    pub path: FilePath,
    /// `st_ino`.
    pub inode: u64,
    /// The job may write to it.
    pub written: bool,
    /// To open it may be noticed: there is a lease of it, or somebody of the job watches who opens it.
    pub untouchable: bool,
}

/// What is kept, and the contents by their space.
pub type Held = (Vec<KeptFile>, Vec<(u32, Vec<Piece>)>);

/// Takes the files as they are now: what the job writes before what it only reads, small ones first, as far as the limits go.
/// What cannot be read is not held. Spaces are numbered from `space` on; the job was launched at `launched_at_ns`.
#[must_use]
pub fn capture(candidates: Vec<Candidate>, launched_at_ns: u64, mut space: u32) -> Held {
    let mut known = HashMap::new();
    let mut files: Vec<(KeptFile, Option<File>)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            look(candidate, |dir| *known.entry(dir.to_owned()).or_insert_with(|| own_directories(dir, launched_at_ns)))
        })
        .collect();
    files.sort_by_key(|(kept, _)| (!kept.written, size_of(kept)));
    let (mut room, mut contents) = (LIMIT, Vec::new());
    let mut spaces: HashMap<FileNumber, u32> = HashMap::new();
    for (kept, file) in &mut files {
        let (size, number) = (size_of(kept), kept.identity);
        // Another name of one that is held.
        if let Some(&held) = spaces.get(&number) {
            hold(kept, size, held);
            continue;
        }
        let Some(file) = file.take().filter(|_| contents.len() < MOST_FILES) else { continue };
        let data = |file: &File| Some(file::data_ranges(file, size).ok()?.iter().map(|(start, end)| end - start).sum::<u64>());
        let Some(left) = data(&file).filter(|bytes| *bytes <= LARGEST).and_then(|bytes| room.checked_sub(bytes)) else {
            continue;
        };
        let Ok(pieces) = file::contents_of(&file, size) else { continue };
        room = left;
        contents.push((space, pieces));
        spaces.insert(number, space);
        hold(kept, size, space);
        space += 1;
    }
    (files.into_iter().map(|(kept, _)| kept).collect(), contents)
}

fn size_of(kept: &KeptFile) -> u64 {
    match kept.file.kind {
        SavedKind::Regular { size, .. } => size,
        _ => 0,
    }
}

fn hold(kept: &mut KeptFile, size: u64, space: u32) {
    kept.held = true;
    kept.file.kind = SavedKind::Regular { size, space };
}

/// What a file is, and the file open for reading, if it can be; nothing where it is another one by now.
fn look(candidate: Candidate, own_directories: impl FnOnce(&Path) -> u32) -> Option<(KeptFile, Option<File>)> {
    let Candidate { through, path, inode, written, untouchable } = candidate;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = |more: i32| File::options().read(true).custom_flags(flags | more).open(&through);
    // Only its owner may read a file so that nobody sees when that was.
    let file = if untouchable { None } else { open(libc::O_NOATIME).or_else(|_| open(0)).ok() };
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = match &file {
        Some(file) => statx(file, c"", AtFlags::EMPTY_PATH, wanted),
        None => statx(CWD, &through, AtFlags::empty(), wanted),
    };
    let stat = stat.ok().filter(|stat| stat.stx_ino == inode && u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG)?;
    let saved = saved(path, &stat, SavedKind::Regular { size: stat.stx_size, space: u32::MAX });
    let own_directories = saved.path.as_path().parent().map_or(0, own_directories);
    Some((KeptFile { file: saved, identity: FileNumber::from_statx(&stat), written, own_directories, held: false }, file))
}

/// The named pipe at a path, if it is there.
#[must_use]
pub fn named_pipe(path: &FilePath, launched_at_ns: u64) -> Option<KeptFile> {
    let at = path.as_path();
    let stat = statx(CWD, at, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS | StatxFlags::BTIME).ok()?;
    (u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFIFO).then(|| KeptFile {
        file: saved(path.clone(), &stat, SavedKind::Fifo),
        identity: FileNumber::from_statx(&stat),
        written: true,
        own_directories: at.parent().map_or(0, |dir| own_directories(dir, launched_at_ns)),
        held: true,
    })
}

fn saved(path: FilePath, stat: &Statx, kind: SavedKind) -> SavedFile {
    let mode = u32::from(stat.stx_mode) & 0o7777;
    SavedFile { path, mode, uid: stat.stx_uid, gid: stat.stx_gid, mtime_ns: nanoseconds(stat.stx_mtime), kind }
}

/// How many of a directory and its ancestors, from itself on, have been made since the launch.
#[must_use]
pub fn own_directories(dir: &Path, launched_at_ns: u64) -> u32 {
    let is_own = |dir: &&Path| {
        statx(CWD, *dir, AtFlags::empty(), StatxFlags::BTIME)
            .is_ok_and(|stat| u64::try_from(FileNumber::from_statx(&stat).born_ns).is_ok_and(|born| born > launched_at_ns))
    };
    dir.ancestors().take_while(is_own).count() as u32
}

pub(super) fn nanoseconds(time: StatxTimestamp) -> i64 {
    time.tv_sec * 1_000_000_000 + i64::from(time.tv_nsec)
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
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn candidate(path: &Path, written: bool) -> Candidate {
        let inode = path.metadata().unwrap().ino();
        Candidate { through: path.to_owned(), path: path.into(), inode, written, untouchable: false }
    }

    #[test]
    fn small_files_are_held_and_those_that_are_written_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("small"), b"contents").unwrap();
        std::fs::hard_link(at("small"), at("other name")).unwrap();
        std::fs::write(at("large"), vec![1; LARGEST as usize + 1]).unwrap();
        let sparse = File::create(at("sparse")).unwrap();
        sparse.write_all_at(b"x", 1 << 40).unwrap();
        for i in 0..5 {
            std::fs::write(at(&format!("read {i}")), vec![2; LARGEST as usize]).unwrap();
        }
        let mut candidates: Vec<Candidate> = (0..5).map(|i| candidate(&at(&format!("read {i}")), false)).collect();
        candidates.extend(["small", "other name", "large", "sparse"].map(|name| candidate(&at(name), true)));
        let (kept, contents) = capture(candidates, 0, 7);
        let held: Vec<(String, bool)> = kept
            .iter()
            .map(|kept| (kept.file.path.as_path().file_name().unwrap().to_string_lossy().into_owned(), kept.held))
            .collect();
        let is_held = |name: &str| held.iter().any(|(other, held)| other == name && *held);
        assert!(is_held("small") && is_held("other name") && is_held("sparse") && !is_held("large"), "{held:?}");
        assert_eq!(held.iter().filter(|(name, held)| name.starts_with("read") && *held).count(), 3);
        assert_eq!(contents.iter().map(|(space, _)| *space).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
        assert_eq!(contents[0].1[0].bytes, b"contents");
    }

    #[test]
    fn another_file_and_one_that_may_not_be_touched_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"contents").unwrap();
        let mut leased = candidate(&path, true);
        leased.untouchable = true;
        let (kept, contents) = capture(vec![leased], 0, 0);
        assert!(kept.len() == 1 && !kept[0].held && contents.is_empty());
        let mut other = candidate(&path, true);
        other.inode += 1;
        assert!(capture(vec![other], 0, 0).0.is_empty());
    }

    #[test]
    fn directories_of_the_jobs_own_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let born = FileNumber::from_statx(&statx(CWD, dir.path(), AtFlags::empty(), StatxFlags::BTIME).unwrap()).born_ns;
        if born > 0 {
            assert!(own_directories(&deep, born as u64 - 1) >= 3);
            assert_eq!(own_directories(&deep, u64::MAX), 0);
        }
    }
}
