//! Finding files by what the kernel says of an inotify watch: inode, device and file handle.
//!
//! 1. By the file handle, where that is allowed: only to root in the first user namespace.
//! 2. Among the files that the job has open.
//! 3. Among the paths that the job knows: working directories, programs, arguments, environment, mount points, and what is above them.
//! 4. Below those, breadth first, up to a bound.
//!
//! A path is right when a watch of our own on it reads the same in fdinfo.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use ckpt_sys::descriptor::with_file_handle;
use rustix::fs::{Mode, OFlags, inotify};

use super::Watched;
use crate::HostPid;
use crate::descriptor::SeenDescriptor;
use crate::file::split_deleted;
use crate::observe::{proc_path, read_proc};

/// How many directory entries are looked at below the paths that a job knows: some tenths of a second.
const MOST_ENTRIES: usize = 100_000;

/// A file as a line of an inotify instance's fdinfo identifies it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// Inode number.
    pub inode: u64,
    /// The kernel's own device number: 20 bits of minor number.
    pub device: u64,
    /// Type and bytes of its file handle; nothing on file systems that have none.
    pub handle: Option<(i32, Vec<u8>)>,
}

/// A line of an inotify instance's fdinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub wd: i32,
    pub mask: u32,
    pub identity: Identity,
}

impl Line {
    /// `inotify wd:X ino:X sdev:X mask:X ignored_mask:X fhandle-bytes:X fhandle-type:X f_handle:X`, all hexadecimal.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.strip_prefix("inotify ")?;
        let text = |key: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key));
        let number = |key: &str| u64::from_str_radix(text(key)?, 16).ok();
        let byte = |at: usize| u8::from_str_radix(text("f_handle:")?.get(at..at + 2)?, 16).ok();
        let handle = number("fhandle-bytes:").and_then(|len| {
            let bytes: Option<Vec<u8>> = (0..usize::try_from(len).ok()?).map(|i| byte(2 * i)).collect();
            Some((i32::try_from(number("fhandle-type:")?).ok()?, bytes?))
        });
        Some(Self {
            wd: i32::try_from(number("wd:")?).ok()?,
            mask: u32::try_from(number("mask:")?).ok()?,
            identity: Identity { inode: number("ino:")?, device: number("sdev:")?, handle },
        })
    }
}

/// A search for files that a job watches; what it has found it remembers.
pub struct Search<'a> {
    processes: Vec<HostPid>,
    descriptions: &'a [SeenDescriptor],
    found: HashMap<Identity, Watched>,
    /// The paths that the job knows, when they have been needed.
    known: Option<Vec<PathBuf>>,
}

impl<'a> Search<'a> {
    /// For a job of these processes, with these open file descriptions, in the order of `JobState::open_files`.
    #[must_use]
    pub fn new(processes: Vec<HostPid>, descriptions: &'a [SeenDescriptor]) -> Self {
        Self { processes, descriptions, found: HashMap::new(), known: None }
    }

    /// Looks for all of these files; gives those that were found.
    pub(super) fn find(&mut self, wanted: impl Iterator<Item = Identity>) -> &HashMap<Identity, Watched> {
        let mut wanted: HashSet<Identity> = wanted.filter(|one| !self.found.contains_key(one)).collect();
        if let (false, Some(probe)) = (wanted.is_empty(), Probe::new()) {
            self.by_handle(&probe, &mut wanted);
            self.among_open_files(&probe, &mut wanted);
            if !wanted.is_empty() {
                let known = self.known.take().unwrap_or_else(|| known_paths(&self.processes));
                self.among(&probe, &known, &mut wanted);
                self.below(&probe, &known, &mut wanted);
                self.known = Some(known);
            }
        }
        &self.found
    }

    /// Takes a path if it is wanted.
    fn try_path(&mut self, probe: &Probe, path: &Path, wanted: &mut HashSet<Identity>) {
        if let Some(identity) = probe.identity(path).filter(|identity| wanted.contains(identity))
            && let Ok(path) = fs::canonicalize(path)
        {
            wanted.remove(&identity);
            self.found.insert(identity, Watched::Path(path.into()));
        }
    }

    fn by_handle(&mut self, probe: &Probe, wanted: &mut HashSet<Identity>) {
        let mounts: Vec<(u64, OwnedFd)> = mounts()
            .into_iter()
            .filter(|(device, _)| wanted.iter().any(|one| one.device == *device && one.handle.is_some()))
            .filter_map(|(device, point)| {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                Some((device, rustix::fs::open(&point, flags, Mode::empty()).ok()?))
            })
            .collect();
        for one in wanted.clone() {
            let Some((handle_type, handle)) = &one.handle else { continue };
            for (_, mount) in mounts.iter().filter(|(device, _)| *device == one.device) {
                let path =
                    with_file_handle(mount.as_raw_fd(), *handle_type, handle, |fd| fs::read_link(format!("/proc/self/fd/{fd}")));
                if let Ok(Ok(path)) = path {
                    self.try_path(probe, &path, wanted);
                }
            }
        }
    }

    fn among_open_files(&mut self, probe: &Probe, wanted: &mut HashSet<Identity>) {
        for (index, descriptor) in self.descriptions.iter().enumerate() {
            if wanted.is_empty() {
                return;
            }
            if !matches!(descriptor.mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
                continue;
            }
            let (path, deleted) = split_deleted(&descriptor.link);
            if !deleted {
                self.try_path(probe, path.as_path(), wanted);
                continue;
            }
            let open = proc_path(descriptor.pid, &format!("fd/{}", descriptor.fd));
            if let Some(identity) = probe.identity(&open).filter(|identity| wanted.contains(identity)) {
                wanted.remove(&identity);
                self.found.insert(identity, Watched::File(index.into()));
            }
        }
    }

    fn among(&mut self, probe: &Probe, known: &[PathBuf], wanted: &mut HashSet<Identity>) {
        for path in known {
            if wanted.is_empty() {
                return;
            }
            self.try_path(probe, path, wanted);
        }
    }

    fn below(&mut self, probe: &Probe, known: &[PathBuf], wanted: &mut HashSet<Identity>) {
        let mut visited = HashSet::new();
        let mut queue: VecDeque<PathBuf> = known.iter().cloned().collect();
        let mut left = MOST_ENTRIES;
        while let Some(directory) = queue.pop_front() {
            // Nothing in these can be watched with success, and they have no end.
            if directory.starts_with("/proc") || directory.starts_with("/sys") || !visited.insert(directory.clone()) {
                continue;
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if left == 0 || wanted.is_empty() {
                    return;
                }
                left -= 1;
                if wanted.iter().any(|one| one.inode == entry.ino()) {
                    self.try_path(probe, &entry.path(), wanted);
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    queue.push_back(entry.path());
                }
            }
        }
    }
}

/// An inotify instance of our own, to ask the kernel how it identifies a path.
struct Probe(OwnedFd);

impl Probe {
    fn new() -> Option<Self> {
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok().map(Self)
    }

    fn identity(&self, path: &Path) -> Option<Identity> {
        let wd = inotify::add_watch(&self.0, path, inotify::WatchFlags::ATTRIB).ok()?;
        let info = fs::read(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()));
        // Nobody reads what that reports: the queue is bounded.
        let _ = inotify::remove_watch(&self.0, wd);
        info.ok()?.split(|&byte| byte == b'\n').find_map(Line::parse).map(|line| line.identity)
    }
}

/// Mount points with the kernel's numbers of their devices.
fn mounts() -> Vec<(u64, PathBuf)> {
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    let mounts = mounts.map(|mounts| mounts.0).unwrap_or_default();
    let device = |numbers: &str| {
        let (major, minor) = numbers.split_once(':')?;
        Some(major.parse::<u64>().ok()? << 20 | minor.parse::<u64>().ok()?)
    };
    mounts.into_iter().filter_map(|mount| Some((device(&mount.majmin)?, mount.mount_point))).collect()
}

/// The paths that processes can be seen to know, those nearest to them first.
fn known_paths(processes: &[HostPid]) -> Vec<PathBuf> {
    let mut known = Vec::new();
    let mut of_environment = Vec::new();
    for &pid in processes {
        let link = |name: &str| fs::read_link(proc_path(pid, name)).ok();
        let cwd = link("cwd").unwrap_or_default();
        let words = |file: &str, separators: &[u8]| -> Vec<PathBuf> {
            let text = read_proc(pid, file).unwrap_or_default();
            let words = text.split(|byte| *byte == 0 || separators.contains(byte)).filter(|word| !word.is_empty());
            words.map(|word| PathBuf::from(OsStr::from_bytes(word))).collect()
        };
        // A word that is absolute is not changed by being joined.
        known.extend(words("cmdline", b"=").iter().map(|word| cwd.join(word)).filter(|path| path.exists()));
        known.extend([Some(cwd), link("exe"), link("root")].into_iter().flatten());
        of_environment.extend(words("environ", b"=:").into_iter().filter(|word| word.is_absolute()));
    }
    known.extend(of_environment);
    known.extend(mounts().into_iter().map(|(_, point)| point));
    let above: Vec<PathBuf> = known.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
    known.extend(above);
    let mut seen = HashSet::new();
    known.retain(|path| path.is_absolute() && seen.insert(path.clone()));
    known
}

impl From<&Identity> for crate::event::EventError {
    fn from(identity: &Identity) -> Self {
        Self::Watch { inode: identity.inode, device: identity.device }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kernels_show() {
        let line = b"inotify wd:1f ino:3c4a7 sdev:fe00000 mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a7c40300000000ff";
        let identity = Identity { inode: 0x3c4a7, device: 0xfe00000, handle: Some((1, vec![0xa7, 0xc4, 3, 0, 0, 0, 0, 0xff])) };
        assert_eq!(Line::parse(line), Some(Line { wd: 31, mask: 256, identity: identity.clone() }));
        let without = Line::parse(b"inotify wd:1 ino:3c4a7 sdev:fe00000 mask:fff ignored_mask:0 ").unwrap();
        assert_eq!(without.identity, Identity { handle: None, ..identity });
        assert_eq!(Line::parse(b"inotify wd:1 ino: sdev:fe00000 mask:fff"), None);
        assert_eq!(Line::parse(b"pos:\t0"), None);
    }

    /// Makes a directory `NAME` with `deep/er` in it, of which nobody has heard, and a search for the innermost.
    fn hidden(name: &str) -> (PathBuf, PathBuf) {
        let top = std::env::temp_dir().join(format!("ckpt-search-{name}-{}", std::process::id()));
        let deep = top.join("deep/er");
        fs::create_dir_all(&deep).unwrap();
        (top.canonicalize().unwrap(), deep.canonicalize().unwrap())
    }

    #[test]
    fn a_file_is_found_below_a_path_that_is_known() {
        let (top, deep) = hidden("below");
        let probe = Probe::new().unwrap();
        let identity = probe.identity(&deep).unwrap();
        let mut search = Search::new(Vec::new(), &[]);
        let mut wanted = HashSet::from([identity.clone()]);
        search.below(&probe, &[PathBuf::from("/nowhere"), top.clone()], &mut wanted);
        assert!(wanted.is_empty());
        assert_eq!(search.found[&identity], Watched::Path(deep.into()));
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_file_is_found_by_its_handle_where_that_is_allowed() {
        let (top, deep) = hidden("handle");
        let probe = Probe::new().unwrap();
        let identity = probe.identity(&deep).unwrap();
        let mut search = Search::new(Vec::new(), &[]);
        let mut wanted = HashSet::from([identity.clone()]);
        search.by_handle(&probe, &mut wanted);
        // An ordinary user's search finds nothing here, and goes on in other ways.
        if wanted.is_empty() {
            assert_eq!(search.found[&identity], Watched::Path(deep.into()));
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn paths_that_a_process_knows_begin_with_its_own() {
        let known = known_paths(&[HostPid(std::process::id().cast_signed())]);
        let cwd = std::env::current_dir().unwrap();
        assert!(known.contains(&cwd) && known.contains(&PathBuf::from("/")));
        assert!(known.iter().position(|path| *path == cwd) < known.iter().position(|path| path == Path::new("/")));
    }
}
