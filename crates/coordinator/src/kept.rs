//! Which regular files of a frozen job are kept, so that a restart finds them again ([`ckpt_objects::kept_file`]).

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ckpt_objects::FilePath;
use ckpt_objects::descriptor::SeenDescriptor;
use ckpt_objects::file::{OpenFile, OpenFileKind};
use ckpt_objects::kept_file::{Candidate, are_watched};
use ckpt_objects::observe::proc_path;
use ckpt_objects::shared_memory::{SharedMemory, SharedMemoryKind};

/// Where what is only read belongs to the system, or to no disk.
const OF_THE_SYSTEM: [&str; 10] = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/boot", "/sys", "/proc", "/dev"];

/// The regular files of a job: its open files, with what was seen of each, and its shared memory with inode numbers. Only what its user may
/// change may be gone by a restart.
pub fn candidates<'a>(
    seen: &[SeenDescriptor],
    files: &[OpenFile],
    objects: impl Iterator<Item = (u64, &'a SharedMemory)>,
    uid: u32,
) -> Vec<Candidate> {
    let (mut mapped, mut in_memory) = (Vec::new(), HashSet::new());
    for (inode, object) in objects {
        match &object.kind {
            SharedMemoryKind::Named { path, in_memory: false, .. } => mapped.push((inode, path)),
            // All of it is in the image anyway.
            SharedMemoryKind::Named { path, in_memory: true, .. } => {
                in_memory.insert(path);
            }
            _ => (),
        }
    }
    // What a restart replaces by its own.
    let own: HashSet<(u64, u64)> =
        seen.iter().zip(files).filter(|(_, file)| file.inherited.is_some()).map(|(seen, _)| key(seen)).collect();
    let leased: HashSet<(u64, u64)> =
        seen.iter().filter(|seen| seen.info.windows(5).any(|word| word == b"LEASE")).map(key).collect();
    let watched: HashSet<u64> = seen.iter().filter(|seen| seen.link.0 == b"anon_inode:inotify").flat_map(are_watched).collect();
    let is_watched = |inode: u64, path: &FilePath| {
        let directory = || path.as_path().parent().and_then(|parent| parent.metadata().ok()).map(|parent| parent.ino());
        !watched.is_empty() && (watched.contains(&inode) || directory().is_some_and(|inode| watched.contains(&inode)))
    };
    let mut known = HashSet::new();
    let mut candidates = Vec::new();
    for (seen, file) in seen.iter().zip(files) {
        let OpenFileKind::Regular(regular) = &file.kind else { continue };
        let written = regular.written || mapped.iter().any(|(inode, path)| *inode == seen.inode && **path == regular.path);
        let may_change = written || ((uid == 0 || seen.uid == uid) && !is_of_the_system(regular.path.as_path()));
        if !may_change
            || own.contains(&key(seen))
            || in_memory.contains(&regular.path)
            || !known.insert((seen.inode, &regular.path))
        {
            continue;
        }
        candidates.push(Candidate {
            through: proc_path(seen.pid, &format!("fd/{}", seen.fd)),
            path: regular.path.clone(),
            inode: seen.inode,
            written,
            untouchable: leased.contains(&key(seen)) || is_watched(seen.inode, &regular.path),
        });
    }
    for (inode, path) in mapped.into_iter().filter(|(inode, path)| !known.contains(&(*inode, path))) {
        let (through, untouchable) = (path.as_path().to_owned(), is_watched(inode, path));
        candidates.push(Candidate { through, path: path.clone(), inode, written: true, untouchable });
    }
    candidates
}

fn key(seen: &SeenDescriptor) -> (u64, u64) {
    (seen.device, seen.inode)
}

fn is_of_the_system(path: &Path) -> bool {
    OF_THE_SYSTEM.iter().any(|directory| path.starts_with(directory))
}
