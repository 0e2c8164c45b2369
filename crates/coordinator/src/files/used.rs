//! The regular files that a frozen job has open or mapped, and the use of each: whether it may change while the job runs on, and whether
//! anybody would notice a read.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ckpt_objects::FilePath;
use ckpt_objects::descriptor::SeenDescriptor;
use ckpt_objects::job_file::are_watched;
use ckpt_objects::open_file::OpenFile;
use ckpt_objects::shared_memory::{SharedMemory, SharedMemoryKind};

/// Where what is only read belongs to the system, or to no disk.
const OF_THE_SYSTEM: [&str; 10] = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/boot", "/sys", "/proc", "/dev"];

/// How a job uses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It only reads it.
    Read,
    /// It only appends to it: what is there stays.
    Append,
    /// It may write anywhere in it, at any time.
    Write,
}

/// A regular file that a job uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedFile {
    /// Its path.
    pub path: FilePath,
    /// `st_ino`.
    pub inode: u64,
    /// How it is used, by all who use it.
    pub use_: Use,
    /// It is mapped so that it can be written: its time of modification does not tell when that was.
    pub mapped: bool,
    /// To open it may be noticed: there is a lease of it, or somebody of the job watches who opens it.
    pub untouchable: bool,
}

/// The regular files that a job uses: its open files, with what was seen of each, and its shared memory with inode numbers. Not the
/// launcher's own input and output, which a restart replaces, nor files in memory, which are held as memory.
pub fn used<'a>(
    seen: &[SeenDescriptor],
    files: &[OpenFile],
    objects: impl Iterator<Item = (u64, &'a SharedMemory)>,
    uid: u32,
) -> Vec<UsedFile> {
    let mut in_memory = HashSet::new();
    let own: HashSet<(u64, u64)> =
        seen.iter().zip(files).filter(|(_, file)| file.inherited.is_some()).map(|(seen, _)| key(seen)).collect();
    let leased: HashSet<(u64, u64)> =
        seen.iter().filter(|seen| seen.info.windows(5).any(|word| word == b"LEASE")).map(key).collect();
    let watched: HashSet<u64> = seen.iter().filter(|seen| seen.link.0 == b"anon_inode:inotify").flat_map(are_watched).collect();
    let is_watched = |inode: u64, path: &FilePath| {
        let directory = || path.as_path().parent().and_then(|parent| parent.metadata().ok()).map(|parent| parent.ino());
        !watched.is_empty() && (watched.contains(&inode) || directory().is_some_and(|inode| watched.contains(&inode)))
    };
    let mut used: Vec<UsedFile> = Vec::new();
    for (inode, object) in objects {
        match &object.kind {
            SharedMemoryKind::Named { path, in_memory: false, .. } => used.push(UsedFile {
                path: path.clone(),
                inode,
                use_: Use::Write,
                mapped: true,
                untouchable: is_watched(inode, path),
            }),
            SharedMemoryKind::Named { path, in_memory: true, .. } => {
                in_memory.insert(path);
            }
            _ => (),
        }
    }
    let mut index: HashMap<(u64, FilePath), usize> =
        used.iter().enumerate().map(|(at, file)| ((file.inode, file.path.clone()), at)).collect();
    for (seen, file) in seen.iter().zip(files) {
        let Some(regular) = file.regular() else { continue };
        let use_ = use_of(file.flags);
        let may_change = use_ > Use::Read || ((uid == 0 || seen.owner.0 == uid) && !is_of_the_system(regular.path.as_path()));
        if !may_change || own.contains(&key(seen)) || in_memory.contains(&regular.path) {
            continue;
        }
        let untouchable = leased.contains(&key(seen)) || is_watched(seen.inode, &regular.path);
        match index.entry((seen.inode, regular.path.clone())) {
            Entry::Occupied(known) => {
                let known = &mut used[*known.get()];
                known.use_ = known.use_.max(use_);
                known.untouchable |= untouchable;
            }
            Entry::Vacant(new) => {
                new.insert(used.len());
                used.push(UsedFile { path: regular.path.clone(), inode: seen.inode, use_, mapped: false, untouchable });
            }
        }
    }
    used
}

fn use_of(flags: u32) -> Use {
    if flags & libc::O_ACCMODE as u32 == libc::O_RDONLY as u32 {
        Use::Read
    } else if flags & libc::O_APPEND as u32 != 0 {
        Use::Append
    } else {
        Use::Write
    }
}

fn key(seen: &SeenDescriptor) -> (u64, u64) {
    (seen.device, seen.inode)
}

fn is_of_the_system(path: &Path) -> bool {
    OF_THE_SYSTEM.iter().any(|directory| path.starts_with(directory))
}
