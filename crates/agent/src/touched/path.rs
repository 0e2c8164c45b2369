//! Canonical paths, as they are seen from outside of any `chroot`.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};

use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::touched::{Knowledge, path_key};
use linux_raw_sys::general as nr;

use super::place::{Place, WHO, identity, open_at, state};
use super::table::{cache_now, is_cached, is_on, open_directory};
use super::variable::{LIST, directory};
use crate::call::{self, Fd, PROC};
use crate::procfs::descriptor_link;

/// Bytes of a path (`PATH_MAX`).
pub const LONGEST: usize = 4096;
/// Bytes of a name, with its zero byte (`NAME_MAX`).
const NAME: usize = 256;
/// Symbolic links that are followed one after the other.
const MOST_LINKS: usize = 16;

/// A file that is about to be touched. Its descriptor opens nothing (`O_PATH`), so closing it lets go of no lock.
pub enum Target {
    /// Found by its path.
    Found(Fd),
    /// The program's own descriptor.
    Own(c_int),
}

impl Target {
    /// The file at a place.
    ///
    /// # Safety
    /// The path must be null, or what the kernel has read already.
    pub unsafe fn open(place: Place) -> Option<Self> {
        // SAFETY: the caller's promise.
        if place.path.is_null() || place.flags & nr::AT_EMPTY_PATH != 0 && unsafe { *place.path } == 0 {
            return (place.dir >= 0).then_some(Self::Own(place.dir));
        }
        let itself = if place.follows() { 0 } else { nr::O_NOFOLLOW };
        // SAFETY: the caller's promise.
        unsafe { open_at(place.dir, place.path, nr::O_PATH | itself) }.ok().map(Self::Found)
    }

    /// Its descriptor.
    pub fn fd(&self) -> c_int {
        match self {
            Self::Found(fd) => fd.0,
            Self::Own(fd) => *fd,
        }
    }
}

/// A path that is put together on the stack.
pub struct Path {
    bytes: [u8; LONGEST],
    /// Bytes of the root's path, which comes first.
    root: usize,
    len: usize,
}

impl Path {
    /// An empty path.
    pub fn new() -> Self {
        Self { bytes: [0; LONGEST], root: 0, len: 0 }
    }

    /// The whole path.
    pub fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(b"")
    }

    /// The path as the process sees it.
    fn inside(&self) -> &[u8] {
        self.bytes.get(self.root..self.len).unwrap_or(b"")
    }

    /// Whether this path is never noted: the job's list itself, and the kernel's own file systems.
    pub fn is_excluded(&self) -> bool {
        let path = self.inside();
        let below = |dir: &[u8]| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        let list = directory().map_or(&b""[..], CStr::to_bytes);
        let list = list.strip_suffix(b"/").unwrap_or(list);
        !list.is_empty() && below(list) || below(b"/proc") || below(b"/sys") || below(b"/dev") && !below(b"/dev/shm")
    }

    /// Starts with the root's path.
    fn begin(&mut self) -> bool {
        let len = ROOT_LEN.load(Acquire);
        if len == UNKNOWN {
            return false;
        }
        // SAFETY: the bytes below the length were written before it was set, and are not written again.
        let root = unsafe { &*ROOT.0.get() };
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..len), root.get(..len)) {
            to.copy_from_slice(from);
        }
        (self.root, self.len) = (len, len);
        true
    }

    /// Accepts the path that a call has written behind the root's; false where it did not fit or is no path.
    fn take(&mut self, written: Result<u64, Errno>) -> bool {
        let Ok(written) = written else { return false };
        self.len = self.root + written as usize;
        self.len < self.bytes.len() && self.inside().first() == Some(&b'/')
    }

    /// The path of what a descriptor is open on.
    pub fn of_descriptor(&mut self, fd: c_int) -> bool {
        if !self.begin() {
            return false;
        }
        let link = descriptor_link(fd);
        let (proc, link) = call::at_proc(link.as_bytes());
        let room = self.bytes.get_mut(self.root..).unwrap_or(&mut []);
        // SAFETY: the path ends with a zero byte; the buffer is writable for its length.
        let read = unsafe { syscall!(nr::__NR_readlinkat, proc, link.as_ptr(), room.as_mut_ptr(), room.len()) };
        self.take(read)
    }

    /// The path of a file that is there.
    pub fn of_target(&mut self, target: &Target, stat: &nr::statx) -> bool {
        if !self.of_descriptor(target.fd()) {
            return false;
        }
        // A file that has other names may be open by one that is gone.
        !self.inside().ends_with(b" (deleted)") || self.is_path_of(stat)
    }

    fn is_path_of(&mut self, stat: &nr::statx) -> bool {
        if !self.end() {
            return false;
        }
        let path = self.inside().as_ptr().cast();
        // SAFETY: the path ends with a zero byte.
        let found = unsafe { state(Place::itself(nr::AT_FDCWD, path), nr::AT_STATX_SYNC_AS_STAT, WHO) };
        found.is_ok_and(|found| identity(&found) == identity(stat))
    }

    /// The working directory.
    fn of_working_directory(&mut self) -> bool {
        let room = self.bytes.get_mut(self.root..).unwrap_or(&mut []);
        // SAFETY: the buffer is writable for its length.
        let read = unsafe { syscall!(nr::__NR_getcwd, room.as_mut_ptr(), room.len()) };
        // The zero byte is counted.
        self.take(read.map(|len| len.saturating_sub(1)))
    }

    /// The path of something that is about to be made: its directory's, and its name. A place whose links are not followed
    /// has none there.
    ///
    /// # Safety
    /// The kernel must have read the path.
    pub unsafe fn of_absent(&mut self, place: Place) -> bool {
        if place.path.is_null() || !self.begin() {
            return false;
        }
        // SAFETY: the caller's promise.
        let given = unsafe { CStr::from_ptr(place.path) }.to_bytes();
        // A slash at the end lets the kernel follow a link whatever the flags say.
        if place.follows() || given.ends_with(b"/") {
            return self.of_followed(place, given);
        }
        let slash = given.iter().rposition(|&byte| byte == b'/');
        let name = given.get(slash.map_or(0, |at| at + 1)..).unwrap_or(b"");
        let known = is_name(name)
            && match slash {
                None => self.of_directory(place.dir),
                Some(at) => self.of_parent(place.dir, given.get(..at.max(1)).unwrap_or(b"/")),
            };
        known && self.push_name(name)
    }

    /// The path of a directory that other paths are relative to.
    fn of_directory(&mut self, dir: c_int) -> bool {
        if dir == nr::AT_FDCWD { self.of_working_directory() } else { self.of_descriptor(dir) }
    }

    /// The path of a directory that is named relative to another one. That a name is canonical is remembered with the directory that had
    /// it, so that the next time it is enough to see that the name stands for that directory still. Should a symbolic link lead there by
    /// then, this is how the directory was called before it was renamed, which serves a restart as well.
    fn of_parent(&mut self, dir: c_int, parent: &[u8]) -> bool {
        let is_absolute = parent.starts_with(b"/");
        let inner = if is_absolute { parent } else { parent.strip_prefix(b"./").unwrap_or(parent) };
        let is_spelt = if is_absolute {
            self.push(inner)
        } else if inner == b"." {
            return self.of_directory(dir);
        } else {
            dir == nr::AT_FDCWD && self.of_working_directory() && self.push_name(inner)
        };
        if inner == b"/" {
            return is_spelt;
        }
        let spelt = if is_spelt { self.directory_key() } else { None };
        if spelt.is_some_and(is_cached) {
            return true;
        }
        let before = path_key(self.text());
        if !self.begin() || !self.push(parent) || !self.end() {
            return false;
        }
        // SAFETY: the path ends with a zero byte.
        let opened = unsafe { open_at(dir, self.inside().as_ptr().cast(), nr::O_PATH | nr::O_DIRECTORY) };
        let known = opened.is_ok_and(|parent| self.of_descriptor(parent.0));
        if let Some(spelt) = spelt
            && known
            && path_key(self.text()) == before
        {
            cache_now(spelt);
        }
        known
    }

    /// The key of: this is the canonical path of the directory that is there.
    fn directory_key(&mut self) -> Option<u64> {
        if !self.end() {
            return None;
        }
        let path = self.inside().as_ptr().cast();
        // SAFETY: the path ends with a zero byte.
        let stat = unsafe { state(Place::followed(nr::AT_FDCWD, path), nr::AT_STATX_DONT_SYNC, WHO) }.ok()?;
        Some((path_key(self.text()).rotate_left(32) ^ identity(&stat).key(Knowledge::Path)).max(1))
    }

    /// As [`Path::of_absent`], where there may be a link.
    #[cold]
    #[inline(never)]
    fn of_followed(&mut self, place: Place, given: &[u8]) -> bool {
        let room = self.bytes.get_mut(self.root..).unwrap_or(&mut []);
        let Some(to) = room.get_mut(..given.len()) else { return false };
        to.copy_from_slice(given);
        let mut len = given.len();
        let mut name = [0u8; NAME];
        let mut parent: Option<Fd> = None;
        for _ in 0..MOST_LINKS {
            let dir = parent.as_ref().map_or(place.dir, |fd| fd.0);
            let Some((above, name_len)) = split(room, len, &mut name, dir) else { return false };
            parent = above.or(parent);
            let dir = parent.as_ref().map_or(place.dir, |fd| fd.0);
            // SAFETY: the name ends with a zero byte; the buffer is writable for its length.
            let read = unsafe { syscall!(nr::__NR_readlinkat, dir, name.as_ptr(), room.as_mut_ptr(), room.len()) };
            match read {
                Ok(read) if place.follows() => len = read as usize,
                // A call that does not follow it fails, since there is something.
                Ok(_) => return false,
                Err(_) => return self.of_directory(dir) && self.push_name(name.get(..name_len).unwrap_or(b"")),
            }
        }
        false
    }

    fn push_name(&mut self, name: &[u8]) -> bool {
        let slash: &[u8] = if self.inside() == b"/" { b"" } else { b"/" };
        self.push(slash) && self.push(name)
    }

    fn push(&mut self, text: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.len..self.len + text.len()) else { return false };
        room.copy_from_slice(text);
        self.len += text.len();
        true
    }

    /// Puts a zero byte behind it.
    fn end(&mut self) -> bool {
        self.bytes.get_mut(self.len).map(|end| *end = 0).is_some()
    }
}

/// Whether something can be made by this name.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() < NAME && name != b"." && name != b".."
}

/// Opens the directory part of a path (`None` where it has none), and copies the last name, with a zero byte; gives its length. The path is
/// changed.
fn split(path: &mut [u8], mut len: usize, name: &mut [u8; NAME], dir: c_int) -> Option<(Option<Fd>, usize)> {
    while len > 1 && path.get(len - 1) == Some(&b'/') {
        len -= 1;
    }
    let text = path.get(..len)?;
    let slash = text.iter().rposition(|&byte| byte == b'/');
    let last = text.get(slash.map_or(0, |at| at + 1)..)?;
    if !is_name(last) {
        return None;
    }
    name.get_mut(..last.len())?.copy_from_slice(last);
    let name_len = last.len();
    *name.get_mut(name_len)? = 0;
    let Some(slash) = slash else { return Some((None, name_len)) };
    *path.get_mut(slash.max(1))? = 0;
    // SAFETY: the path ends with a zero byte now.
    let above = unsafe { open_at(dir, path.as_ptr().cast::<c_char>(), nr::O_PATH | nr::O_DIRECTORY) }.ok()?;
    Some((Some(above), name_len))
}

/// The root directory, as it is seen from outside.
struct Root(UnsafeCell<[u8; LONGEST]>);

// SAFETY: written once, by the thread that changes the root, before the length says so.
unsafe impl Sync for Root {}

static ROOT: Root = Root(UnsafeCell::new([0; LONGEST]));

/// Bytes of the root's path; [`UNKNOWN`] where it cannot be told.
static ROOT_LEN: AtomicUsize = AtomicUsize::new(0);

const UNKNOWN: usize = usize::MAX;

/// chroot(2): later paths are noted with the path of the new root before them. A second chroot, whose path cannot be told, ends the noting.
///
/// # Safety
/// As for `before` of the module above; `call` makes the call.
pub unsafe fn chroot(path: *const c_char, call: impl FnOnce() -> c_int) -> c_int {
    let mut root = Path::new();
    let place = Place::followed(nr::AT_FDCWD, path);
    // SAFETY: the caller's promise; a path that the kernel cannot read is refused by it.
    let known = is_on() && unsafe { Target::open(place) }.is_some_and(|target| root.of_descriptor(target.fd()));
    let outside = [(&LIST, open_directory()), (&PROC, call::open_with(b"/proc\0", nr::O_PATH | nr::O_DIRECTORY).ok())];
    let result = call();
    // A child of vfork has a root of its own, but its parent's memory.
    if result == 0 && !(known && root.inside() == b"/") && !call::shares_memory_with(call::getppid()) {
        enter(known.then_some(&root));
        for (kept, directory) in outside {
            directory.iter().for_each(|directory| kept.keep(directory));
        }
    }
    result
}

fn enter(root: Option<&Path>) {
    match root {
        Some(root) if root.root == 0 => {
            // SAFETY: nothing reads it before its length is set.
            if let Some(to) = unsafe { &mut *ROOT.0.get() }.get_mut(..root.len) {
                to.copy_from_slice(root.text());
            }
            ROOT_LEN.store(root.len, Release);
        }
        _ => ROOT_LEN.store(UNKNOWN, Release),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::ffi::CString;
    use std::path::{Path as StdPath, PathBuf};
    use std::string::String;
    use std::{env, format, fs, process};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = env::temp_dir().join(format!("ckpt-{name}-{}", process::id()));
        fs::create_dir_all(dir.join("real")).unwrap();
        fs::canonicalize(dir).unwrap()
    }

    fn text(path: &Path) -> String {
        String::from_utf8(path.text().to_vec()).unwrap()
    }

    fn absent(path: &StdPath, follow: bool) -> Option<String> {
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let place =
            if follow { Place::followed(nr::AT_FDCWD, name.as_ptr()) } else { Place::itself(nr::AT_FDCWD, name.as_ptr()) };
        let mut path = Path::new();
        // SAFETY: the name is a C string.
        unsafe { path.of_absent(place) }.then(|| text(&path))
    }

    #[test]
    fn a_new_path_has_no_symbolic_link_in_its_directories() {
        let dir = scratch("canonical");
        std::os::unix::fs::symlink("real", dir.join("alias")).unwrap();
        let expected = dir.join("real/new").to_str().map(String::from);
        assert_eq!(absent(&dir.join("alias/new"), false), expected);
        assert_eq!(absent(&dir.join("real/../alias/./new/"), true), expected);
        assert_eq!(absent(&dir.join("none/new"), false), None);
        assert_eq!(absent(&dir.join("real/.."), false), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_directory_that_is_known_may_be_replaced() {
        let dir = scratch("replaced");
        let path = dir.join("real/new");
        for _ in 0..2 {
            assert_eq!(absent(&path, false), path.to_str().map(String::from));
        }
        fs::rename(dir.join("real"), dir.join("moved")).unwrap();
        assert_eq!(absent(&path, false), None);
        fs::create_dir(dir.join("other")).unwrap();
        std::os::unix::fs::symlink("other", dir.join("real")).unwrap();
        for _ in 0..2 {
            assert_eq!(absent(&path, false), dir.join("other/new").to_str().map(String::from));
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_with_a_slash_behind_it_is_no_place_for_something_new() {
        let dir = scratch("slash");
        std::os::unix::fs::symlink("nowhere", dir.join("link")).unwrap();
        assert_eq!(absent(&dir.join("link/"), false), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_dangling_link_is_followed_where_a_file_will_be_made_through_it() {
        let dir = scratch("dangling");
        std::os::unix::fs::symlink("real/link", dir.join("first")).unwrap();
        std::os::unix::fs::symlink("../target", dir.join("real/link")).unwrap();
        std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
        assert_eq!(absent(&dir.join("first"), true), dir.join("target").to_str().map(String::from));
        assert_eq!(absent(&dir.join("first"), false), dir.join("first").to_str().map(String::from));
        assert_eq!(absent(&dir.join("loop"), true), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_path_without_a_slash_is_in_the_working_directory() {
        let expected = env::current_dir().unwrap().join("no-such-file");
        assert_eq!(absent(StdPath::new("no-such-file"), true), expected.to_str().map(String::from));
    }

    #[test]
    fn what_the_kernel_makes_is_not_noted() {
        let excluded = |text: &str| {
            let mut path = Path::new();
            path.bytes[..text.len()].copy_from_slice(text.as_bytes());
            path.len = text.len();
            path.is_excluded()
        };
        for path in ["/proc", "/proc/self/comm", "/sys/x", "/dev/pts/0"] {
            assert!(excluded(path), "{path}");
        }
        for path in ["/process", "/dev/shm/x", "/home/x", "/device"] {
            assert!(!excluded(path), "{path}");
        }
    }
}
