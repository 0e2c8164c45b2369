//! Observing shared memory: which mappings and descriptors, in whatever process, are of one object, and which parts of it no process maps.

use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{SharedMemory, SharedMemoryKind};
use crate::descriptor::SeenDescriptor;
use crate::file::{self, Piece, name_of};
use crate::memory::Mapping;
use crate::numbered::Numbered;
use crate::observe::ObserveError;
use crate::subject::Subject;
use crate::sysv::{self, Row};
use crate::{FilePath, HostPid, SpaceId, Spaces};

/// Where POSIX shared memory and named semaphores are (shm_overview(7)).
const POSIX_MEMORY: &[u8] = b"/dev/shm/";

/// Why shared memory cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum SharedMemoryError {
    /// Huge pages.
    #[error("huge pages of hugetlbfs")]
    HugePages,
    /// An error of this program.
    #[error(transparent)]
    Internal(#[from] ObserveError),
}

/// How a file is in memory.
#[derive(Debug)]
pub enum MemoryFile {
    /// Without a name: the number of its object.
    Object(u32),
    /// By its name.
    Named(FilePath),
}

/// The shared memory of a job.
#[derive(Debug, Default)]
pub struct Observer(Numbered<Key, Object>);

/// What tells objects apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// An inode number; device numbers in `maps` and of stat(2) differ on some file systems.
    Inode(u64),
    /// The id of System V shared memory.
    SystemV(i32),
}

#[derive(Debug)]
struct Object {
    state: SharedMemory,
    /// Byte ranges of it that some process hands over.
    shown: Vec<(u64, u64)>,
    /// How many mappings show it, of System V shared memory.
    attached: u64,
    /// By which path it can be read as a whole.
    file: Option<PathBuf>,
}

impl Object {
    fn new(spaces: &mut Spaces, kind: SharedMemoryKind) -> Self {
        let size = match &kind {
            SharedMemoryKind::Named { path, .. } => fs::metadata(path.as_path()).map_or(0, |meta| meta.len()),
            _ => 0,
        };
        Self { state: SharedMemory { space: spaces.take(), size, kind }, shown: Vec::new(), attached: 0, file: None }
    }

    fn is_shown_as_a_whole(&self) -> bool {
        subtract((0, self.state.size), &self.shown).is_empty()
    }
}

impl Observer {
    fn object(&mut self, inode: u64, kind: SharedMemoryKind, spaces: &mut Spaces) -> Result<(u32, &mut Object), ObserveError> {
        let number = self.0.number(Key::Inode(inode), || Ok::<_, ObserveError>(Object::new(spaces, kind)))?;
        Ok((number, self.0.at_mut(number)?))
    }

    /// The number of the object that a shared mapping shows; nothing for one of a file that the job cannot write by it.
    ///
    /// # Errors
    ///
    /// None but internal ones.
    pub fn see_mapping(&mut self, mapping: &Mapping, spaces: &mut Spaces) -> Result<Option<u32>, ObserveError> {
        let (mut path, mut deleted) = name_of(&mapping.name, mapping.inode);
        if deleted && let Some(name) = posix_name(&path, mapping.inode) {
            (path, deleted) = (name, false);
        }
        let kind = if mapping.name.0 == b"/dev/zero (deleted)" || mapping.name.0.starts_with(b"[anon_shmem:") {
            SharedMemoryKind::Anonymous
        } else if let Some(name) = path.0.strip_prefix(b"/memfd:") {
            SharedMemoryKind::Memfd { name: FilePath(name.to_vec()), seals: 0, mode: 0 }
        } else if deleted {
            SharedMemoryKind::Unlinked { path, attributes: None }
        } else if mapping.may_write {
            named_kind(path)
        } else {
            return Ok(None);
        };
        let (number, object) = self.object(mapping.inode, kind, spaces)?;
        if !matches!(object.state.kind, SharedMemoryKind::Named { .. }) {
            object.state.size = object.state.size.max(mapping.offset + (mapping.end - mapping.start));
        }
        Ok(Some(number))
    }

    /// What a descriptor of a regular file is open on, if that is shared memory, or a named file in memory, whose contents are kept
    /// unlike those of files that a restart finds again. `path` and `deleted` are its name ([`name_of`]).
    ///
    /// # Errors
    ///
    /// When it holds huge pages.
    pub fn see_file(
        &mut self,
        descriptor: &SeenDescriptor,
        path: &FilePath,
        deleted: bool,
        spaces: &mut Spaces,
    ) -> Result<Option<MemoryFile>, SharedMemoryError> {
        let SeenDescriptor { inode, size, .. } = *descriptor;
        let through = descriptor.through();
        if let Some(name) = path.0.strip_prefix(b"/memfd:") {
            if rustix::fs::statfs(&through).is_ok_and(|stat| stat.f_type == libc::HUGETLBFS_MAGIC) {
                return Err(SharedMemoryError::HugePages);
            }
            let kind =
                SharedMemoryKind::Memfd { name: FilePath(name.to_vec()), seals: seals(&through), mode: descriptor.mode & 0o7777 };
            let (object, known) = self.object(inode, kind.clone(), spaces)?;
            (known.state.size, known.state.kind, known.file) = (size, kind, Some(through));
            return Ok(Some(MemoryFile::Object(object)));
        }
        let name = if deleted { posix_name(path, inode) } else { Some(path.clone()) };
        if let Some(path) = name.filter(|path| descriptor.links > 0 && path.0.starts_with(POSIX_MEMORY))
            && let kind @ SharedMemoryKind::Named { in_memory: true, .. } = named_kind(path.clone())
        {
            let (_, known) = self.object(inode, kind, spaces)?;
            known.state.size = size;
            return Ok(Some(MemoryFile::Named(path)));
        }
        let has_name = !deleted && descriptor.links > 0;
        let Some(object) = self.0.known(&Key::Inode(inode)).filter(|_| !has_name) else { return Ok(None) };
        let known = self.0.at_mut(object)?;
        if let SharedMemoryKind::Unlinked { attributes, .. } = &mut known.state.kind {
            *attributes = Some(descriptor.attributes());
        }
        (known.state.size, known.file) = (size, Some(through));
        Ok(Some(MemoryFile::Object(object)))
    }

    /// The number of System V shared memory that a mapping shows.
    ///
    /// # Errors
    ///
    /// None but internal ones.
    pub fn attach(&mut self, row: &Row, spaces: &mut Spaces) -> Result<u32, ObserveError> {
        let number = self.segment(row, spaces)?;
        self.0.at_mut(number)?.attached += 1;
        Ok(number)
    }

    fn segment(&mut self, row: &Row, spaces: &mut Spaces) -> Result<u32, ObserveError> {
        self.0.number(Key::SystemV(row.identity.id), || {
            let identity = sysv::Identity { mode: row.identity.mode & 0o777, ..row.identity.clone() };
            let kind = SharedMemoryKind::SystemV { identity, removed: row.is_removed(), locked: row.is_locked() };
            let mut object = Object::new(spaces, kind);
            object.state.size = row.size;
            Ok(object)
        })
    }

    /// The object with this number.
    ///
    /// # Errors
    ///
    /// When none has it.
    pub fn at(&self, number: u32) -> Result<&SharedMemory, ObserveError> {
        self.0.at(number).map(|object| &object.state)
    }

    /// Notes that a process hands over a byte range of an object. Gives the parts of it that none did before.
    ///
    /// # Errors
    ///
    /// When no object has this number.
    pub fn show(&mut self, number: u32, range: (u64, u64)) -> Result<Vec<(u64, u64)>, ObserveError> {
        let shown = &mut self.0.at_mut(number)?.shown;
        let fresh = subtract(range, shown);
        shown.extend(&fresh);
        Ok(fresh)
    }

    /// Objects that have inode numbers, by these.
    pub fn by_inode(&self) -> impl Iterator<Item = (u64, &SharedMemory)> {
        self.0.by_key().filter_map(|(key, object)| match key {
            Key::Inode(inode) => Some((*inode, &object.state)),
            Key::SystemV(_) => None,
        })
    }

    /// Reads as a whole what a descriptor is open on, since a mapping may show only a part, and named files in memory that no process
    /// maps as a whole. These need not be handed over.
    ///
    /// # Errors
    ///
    /// When an object cannot be read.
    pub fn read_files(&mut self, reaper: HostPid) -> Result<Vec<(SpaceId, Vec<Piece>)>, ObserveError> {
        let mut contents = Vec::new();
        for object in self.0.all_mut() {
            if let SharedMemoryKind::Named { path, in_memory: true, .. } = &object.state.kind
                && !object.is_shown_as_a_whole()
            {
                object.file = Some(path.as_path().to_owned());
            }
            let SharedMemory { space, size, .. } = object.state;
            let Some(path) = &object.file else { continue };
            let pieces =
                file::contents(path, size).map_err(|source| ObserveError::Read { pid: reaper, path: path.clone(), source })?;
            contents.push((space, pieces));
        }
        Ok(contents)
    }

    /// Reads System V shared memory that no process of the job maps as a whole. It need not be handed over.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or a process outside of the job has it attached too.
    pub fn read_system_v<S: Subject>(
        &mut self,
        ipc: &sysv::Observer<'_, S>,
        spaces: &mut Spaces,
    ) -> Result<Vec<(SpaceId, Vec<Piece>)>, ObserveError> {
        let mut contents = Vec::new();
        for row in ipc.all_memory() {
            let known = self.0.known(&Key::SystemV(row.identity.id)).map(|number| self.0.at(number)).transpose()?;
            let attached = known.map_or(0, |object| object.attached);
            if attached == 0 && row.attached > 0 {
                // Another job's, whose maker has ended.
                continue;
            }
            if row.attached > attached {
                return Err(ipc.is_shared_with_others(row));
            }
            if attached > 0 && known.is_some_and(Object::is_shown_as_a_whole) {
                continue;
            }
            let Some(pieces) = ipc.contents(row)? else { continue };
            let number = self.segment(row, spaces)?;
            contents.push((self.at(number)?.space, pieces));
        }
        Ok(contents)
    }

    /// All objects, by number.
    #[must_use]
    pub fn into_states(self) -> Vec<SharedMemory> {
        self.0.into_all().into_iter().map(|object| object.state).collect()
    }
}

/// The name of a file in memory that was made under another one, which is gone: the C library makes semaphores like that.
fn posix_name(old: &FilePath, inode: u64) -> Option<FilePath> {
    if !old.0.starts_with(POSIX_MEMORY) {
        return None;
    }
    let mut files = fs::read_dir(old.as_path().parent()?).ok()?.flatten();
    files.find(|file| file.ino() == inode).map(|file| FilePath::from(file.path().as_path()))
}

fn named_kind(path: FilePath) -> SharedMemoryKind {
    let meta = fs::metadata(path.as_path());
    let mode = meta.as_ref().map_or(0o600, |meta| meta.permissions().mode() & 0o7777);
    let owner = meta.map_or((0, 0), |meta| (meta.uid(), meta.gid()));
    let in_memory = rustix::fs::statfs(path.as_path()).is_ok_and(|stat| stat.f_type == libc::TMPFS_MAGIC);
    SharedMemoryKind::Named { path, mode, owner, in_memory }
}

fn seals(path: &Path) -> u32 {
    fs::File::open(path).ok().and_then(|file| rustix::fs::fcntl_get_seals(file).ok()).map_or(0, |seals| seals.bits())
}

/// The parts of a range that are in none of `ranges`.
fn subtract(range: (u64, u64), ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = vec![range];
    for &(from, to) in ranges {
        left = left
            .into_iter()
            .flat_map(|(start, end)| [(start, end.min(from)), (start.max(to), end)])
            .filter(|(start, end)| start < end)
            .collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_range_is_handed_over_once() {
        assert_eq!(subtract((0, 10), &[]), [(0, 10)]);
        assert_eq!(subtract((0, 10), &[(2, 4), (8, 12)]), [(0, 2), (4, 8)]);
        assert!(subtract((3, 5), &[(0, 10)]).is_empty());
    }
}
