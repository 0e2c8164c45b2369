//! Notes each path before the job touches it: see `ckpt_wire::touched` for what is written.
//!
//! The interposed functions call [`before`] with what they are about to do. Nearly always the answer is in a small cache of this
//! process, which costs one `statx`. On a miss the job's hash table is looked at, and a record is written where that does not have the
//! file either. Where nothing is yet, a record is written without the table: see `note::absent`.
//!
//! The cache is a hint. It takes no lock, may be shared with a child of `vfork`, and is copied by `fork`. A checkpoint begins a new
//! epoch, and nothing that was learnt in another epoch counts.
//!
//! - `variable`: where the job's list is.
//! - `place`: a file as a call names it, and the calls that look at it.
//! - `table`: the cache, the hash table and the log.
//! - `rule`: what must be known of a file before it is touched.
//! - `path`: canonical paths.
//! - `undo`: contents that are kept.
//! - `note`: the records.

mod note;
mod path;
mod place;
mod rule;
mod table;
mod undo;
mod variable;

use core::ffi::{c_char, c_int};

use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use linux_raw_sys::errno::ENOENT;
use linux_raw_sys::general as nr;

use crate::call::Fd;
pub use path::chroot;
use path::{Path, Target};
pub use place::Place;
use place::{WHO, identity, kind, state};
pub use rule::{Found, Touch};
use rule::{name_counts, needed, needs_nothing};
use table::{epoch, is_cached};
pub use table::{forget, is_on};
pub use variable::{keep_variable, variable, variable_address};

/// To be called before a file is touched; `creates`: something will be made where nothing is.
///
/// # Safety
/// The path must be what the program is about to pass to a system call.
pub unsafe fn before(place: Place, touch: Touch, creates: bool) -> Found {
    if !is_on() {
        return Found::Other;
    }
    // SAFETY: the caller's promise.
    in_one_epoch(|| unsafe { look(place, touch, creates) })
}

/// Notes something again until no checkpoint was taken meanwhile: after a checkpoint, what was noted before it does not count. A checkpoint is
/// taken where a signal is let in: at the end of a system call.
#[inline]
fn in_one_epoch<R>(mut note: impl FnMut() -> R) -> R {
    loop {
        let begun = epoch();
        let noted = note();
        if epoch() == begun {
            return noted;
        }
    }
}

/// # Safety
/// As for [`before`].
#[inline]
unsafe fn look(place: Place, touch: Touch, creates: bool) -> Found {
    let (sync, wanted) = match touch {
        Touch::Resizes(_) => (nr::AT_STATX_SYNC_AS_STAT, WHO | nr::STATX_SIZE),
        _ => (nr::AT_STATX_DONT_SYNC, WHO),
    };
    // Where something may be made, this shows as well whether there is a symbolic link that leads nowhere.
    let itself = Place { flags: place.flags | if creates { nr::AT_SYMLINK_NOFOLLOW } else { 0 }, ..place };
    // SAFETY: the caller's promise.
    let mut looked = unsafe { state(itself, sync, wanted) };
    let by_link = creates && place.follows() && looked.as_ref().is_ok_and(|stat| kind(stat) == nr::S_IFLNK);
    if by_link {
        // SAFETY: as above.
        looked = unsafe { state(place, sync, wanted) };
    }
    match looked {
        Ok(stat) => {
            let found = if kind(&stat) == nr::S_IFDIR { Found::Directory } else { Found::Other };
            let Some(need) = needed(touch, &stat) else { return found };
            let identity = identity(&stat);
            if needs_nothing(touch, &identity) {
                return found;
            }
            if !is_cached(identity.key(need)) || name_counts(touch, &stat, &identity) {
                // SAFETY: the caller's promise; the kernel has read the path.
                unsafe { note::existing(place, touch, &stat) };
            }
            found
        }
        Err(Errno(errno)) if creates && errno == ENOENT as i32 => {
            // SAFETY: as above.
            unsafe { note::absent(if by_link { place } else { itself }) };
            Found::Absent
        }
        Err(_) => Found::Other,
    }
}

/// To be called before an open with these flags.
///
/// # Safety
/// As for [`before`].
#[inline]
pub unsafe fn before_open(dir: c_int, path: *const c_char, flags: u32) -> Found {
    const CHANGES: u32 = nr::O_ACCMODE | nr::O_CREAT | nr::O_TRUNC;
    // O_TMPFILE has the bit of O_DIRECTORY.
    if flags & CHANGES == 0 || flags & (nr::O_PATH | nr::O_DIRECTORY) != 0 {
        return Found::Other;
    }
    // SAFETY: the caller's promise.
    unsafe { before_write(dir, path, flags) }
}

#[inline(never)]
unsafe fn before_write(dir: c_int, path: *const c_char, flags: u32) -> Found {
    let creates = flags & nr::O_CREAT != 0;
    let exclusive = creates && flags & nr::O_EXCL != 0;
    let touch = if exclusive || flags & (nr::O_ACCMODE | nr::O_TRUNC) == 0 {
        Touch::Nothing
    } else if flags & nr::O_APPEND != 0 && flags & nr::O_TRUNC == 0 {
        Touch::Appends
    } else {
        Touch::Rewrites
    };
    let itself = exclusive || flags & nr::O_NOFOLLOW != 0;
    let place = if itself { Place::itself(dir, path) } else { Place::followed(dir, path) };
    // SAFETY: the caller's promise.
    unsafe { before(place, touch, creates) }
}

/// Whether an open with these flags changes nothing of a file that is there, while calls on the descriptor may. Such a file is opened
/// first, without `O_CREAT`, and noted by [`after_open`]: that is exact, and takes half the time of a look at the path.
#[inline]
pub fn opens_first(flags: u32) -> bool {
    const OTHERS: u32 = nr::O_TRUNC | nr::O_EXCL | nr::O_PATH | nr::O_DIRECTORY;
    flags & nr::O_ACCMODE != 0 && flags & OTHERS == 0 && is_on()
}

/// To be called with the descriptor of a file that [`opens_first`], before the program gets it. False: the call must be made with all flags, and its
/// result taken, since another's file in a sticky directory may be refused then (`protected_regular`, proc_sys_fs(5)).
///
/// # Safety
/// The descriptor must be open.
pub unsafe fn after_open(fd: c_int, flags: u32) -> bool {
    let touch = if flags & nr::O_APPEND != 0 { Touch::Appends } else { Touch::Rewrites };
    let place = Place::descriptor(fd);
    // SAFETY: no path.
    let Ok(stat) = (unsafe { state(place, nr::AT_STATX_DONT_SYNC, WHO | nr::STATX_UID) }) else { return true };
    let Some(need) = needed(touch, &stat) else { return true };
    if !is_cached(identity(&stat).key(need)) {
        // SAFETY: as above.
        unsafe { note::existing(place, touch, &stat) };
    }
    // SAFETY: takes no argument.
    flags & nr::O_CREAT == 0 || unsafe { syscall!(nr::__NR_geteuid) } == Ok(u64::from(stat.stx_uid))
}

/// Closes a file that was opened first.
///
/// # Safety
/// The descriptor must be open, and not known to the program.
pub unsafe fn discard(fd: c_int) {
    undo::close(Fd(fd));
}

/// To be called after a file was made where [`before`] found nothing: it may be changed in any way.
///
/// # Safety
/// As for [`before`].
pub unsafe fn after_creation(place: Place) {
    // SAFETY: the caller's promise.
    let Ok(stat) = (unsafe { state(place, nr::AT_STATX_DONT_SYNC, WHO) }) else { return };
    let identity = identity(&stat);
    // A file with a time of birth is known to be new to every process.
    if kind(&stat) == nr::S_IFREG && identity.born_ns == 0 {
        note::learn_without_birth(&identity);
    } else {
        table::cache_file(&identity);
    }
}

/// A rename: notes both paths, makes the call, and notes where a directory has gone.
///
/// # Safety
/// As for [`before`]; `call` makes the call.
pub unsafe fn rename(old: Place, new: Place, flags: u32, call: impl FnOnce() -> c_int) -> c_int {
    if !is_on() {
        return call();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let touch = match flags {
            flags if flags & nr::RENAME_NOREPLACE != 0 => Touch::Nothing,
            flags if flags & nr::RENAME_EXCHANGE != 0 => Touch::Renames,
            _ => Touch::Removes,
        };
        let (source, target) = in_one_epoch(|| (before(old, Touch::Renames, false), before(new, touch, true)));
        let exchanged = touch == Touch::Renames && target == Found::Directory;
        if source == Found::Directory || exchanged {
            rename_directory(old, new, source == Found::Directory, exchanged, call)
        } else {
            call()
        }
    }
}

/// # Safety
/// As for [`rename`].
#[cold]
#[inline(never)]
unsafe fn rename_directory(old: Place, new: Place, moves: bool, moves_back: bool, call: impl FnOnce() -> c_int) -> c_int {
    let mut from = Path::new();
    // SAFETY: the caller's promise.
    let known = unsafe { Target::open(old) }.is_some_and(|target| from.of_descriptor(target.fd()));
    let result = call();
    if known && result == 0 {
        // SAFETY: as above.
        unsafe { note::moved(&from, new, moves, moves_back) };
    }
    result
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::ffi::CString;
    use std::path::Path as StdPath;
    use std::string::String;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    use std::vec::Vec;
    use std::{env, format, fs, process, thread, vec};

    use ckpt_wire::touched::{KNOWN_MAGIC, KnownHeader, Record, RecordKind, record_len};

    use super::note::LARGEST_NEW;
    use super::*;

    const BUCKETS: u64 = 64;

    /// Makes an empty hash table for a segment that begins now.
    fn begin(list: &StdPath, segment: u64, largest: u64) {
        // A file that is made in the same tick of the clock is not younger than the segment.
        thread::sleep(Duration::from_millis(20));
        let begun_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        let header = KnownHeader { magic: KNOWN_MAGIC, segment, begun_ns, largest, buckets: BUCKETS, reserved: [0; 3] };
        let words = [header.magic, segment, begun_ns.cast_unsigned(), largest, BUCKETS, 0, 0, 0];
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.resize(size_of::<KnownHeader>() + BUCKETS as usize * 64, 0);
        fs::write(list.join("known"), bytes).unwrap();
        thread::sleep(Duration::from_millis(20));
        forget();
    }

    /// The kinds and names of a log's records, and what else they say.
    fn log(list: &StdPath, segment: u64) -> Vec<(RecordKind, String, Vec<u8>)> {
        let bytes = fs::read(list.join(format!("touched.{segment}"))).unwrap_or_default();
        let (mut at, mut records) = (0, vec![]);
        while at < bytes.len() {
            // SAFETY: any bytes make a record.
            let record = unsafe { bytes[at..].as_ptr().cast::<Record>().read_unaligned() };
            let (path_len, other_len) = (record.path_len as usize, record.other_len as usize);
            let path = at + size_of::<Record>();
            let text = std::str::from_utf8(&bytes[path..path + path_len]).unwrap();
            let other = bytes[path + path_len..path + path_len + other_len].to_vec();
            records.push((RecordKind::of(&record).unwrap(), text.rsplit('/').next().unwrap().into(), other));
            at += record_len(path_len, other_len);
        }
        records
    }

    /// One test, since the variable is the process's.
    #[allow(clippy::too_many_lines, reason = "one story, told from its beginning to its end")]
    #[test]
    fn the_first_touch_of_each_kind_is_noted_and_no_other() {
        let dir = env::temp_dir().join(format!("ckpt-touched-{}", process::id()));
        let list = dir.join("list");
        fs::create_dir_all(&list).unwrap();
        for name in ["appended", "cut", "removed", "moved"] {
            fs::write(dir.join(name), name).unwrap();
        }
        fs::write(dir.join("large"), vec![1; 5000]).unwrap();
        begin(&list, 7, 4096);
        // SAFETY: nobody else looks at the variable.
        unsafe { keep_variable(list.to_str().unwrap().as_bytes()) };
        let path = |name: &str| CString::new(dir.join(name).to_str().unwrap()).unwrap();
        let open = |name: &str, flags: u32| {
            let name = path(name);
            // SAFETY: the name is a C string.
            unsafe { before_open(nr::AT_FDCWD, name.as_ptr(), flags) }
        };
        let touch = |name: &str, touch: Touch, creates: bool| {
            let name = path(name);
            // SAFETY: as above.
            unsafe { before(Place::itself(nr::AT_FDCWD, name.as_ptr()), touch, creates) }
        };
        for _ in 0..2 {
            open("appended", nr::O_WRONLY | nr::O_APPEND);
            open("cut", nr::O_WRONLY | nr::O_TRUNC);
            open("cut", nr::O_WRONLY | nr::O_APPEND);
            open("large", nr::O_RDWR);
            open("appended", nr::O_RDONLY);
            touch("removed", Touch::Removes, false);
            touch("moved", Touch::Renames, false);
            assert!(open("new", nr::O_WRONLY | nr::O_CREAT) == Found::Absent);
        }
        fs::write(dir.join("new"), "").unwrap();
        open("new", nr::O_WRONLY | nr::O_TRUNC);
        touch("new", Touch::Removes, false);
        // What was only appended to has to be kept after all.
        open("appended", nr::O_WRONLY | nr::O_TRUNC);

        let records = log(&list, 7);
        let kinds: Vec<_> = records.iter().map(|(kind, name, _)| (*kind, name.as_str())).collect();
        let expected = [
            (RecordKind::Appended, "appended"),
            (RecordKind::Kept, "cut"),
            (RecordKind::Lost, "large"),
            (RecordKind::Kept, "removed"),
            (RecordKind::Appended, "moved"),
            (RecordKind::Absent, "new"),
            (RecordKind::Kept, "appended"),
        ];
        assert_eq!(kinds, expected);
        for (_, name, other) in records.iter().filter(|(kind, ..)| *kind == RecordKind::Kept) {
            assert_eq!(fs::read_to_string(list.join(std::str::from_utf8(other).unwrap())).unwrap(), *name);
        }

        // A new segment: all is noted again.
        begin(&list, 8, 4096);
        open("appended", nr::O_WRONLY | nr::O_APPEND);
        open("new", nr::O_WRONLY | nr::O_TRUNC);
        let kinds: Vec<_> = log(&list, 8).into_iter().map(|(kind, name, _)| (kind, name)).collect();
        assert_eq!(kinds, [(RecordKind::Appended, "appended".into()), (RecordKind::Kept, "new".into())]);

        // Files that others make in the segment are theirs, but for empty ones.
        begin(&list, 9, u64::MAX);
        for (name, size) in [("theirs", 10), ("empty", 0), ("huge", LARGEST_NEW as usize + 1), ("passing", 10)] {
            fs::write(dir.join(name), vec![b'x'; size]).unwrap();
        }
        for _ in 0..2 {
            open("theirs", nr::O_WRONLY | nr::O_APPEND);
            touch("theirs", Touch::Renames, false);
            open("theirs", nr::O_WRONLY | nr::O_TRUNC);
            open("empty", nr::O_WRONLY | nr::O_APPEND);
            open("empty", nr::O_RDWR);
            open("huge", nr::O_RDWR);
            touch("passing", Touch::Removes, false);
        }
        let records = log(&list, 9);
        let kinds: Vec<_> = records.iter().map(|(kind, name, _)| (*kind, name.as_str())).collect();
        let expected = [
            (RecordKind::Appended, "theirs"),
            (RecordKind::Kept, "theirs"),
            (RecordKind::Absent, "empty"),
            (RecordKind::Lost, "huge"),
        ];
        assert_eq!(kinds, expected);

        // What one process has noted no other one notes; but that nothing was there each says for itself.
        open("made", nr::O_WRONLY | nr::O_CREAT);
        let noted = log(&list, 9).len();
        forget();
        open("theirs", nr::O_RDWR);
        open("empty", nr::O_RDWR);
        open("huge", nr::O_RDWR);
        assert_eq!(log(&list, 9).len(), noted);
        open("made", nr::O_WRONLY | nr::O_CREAT);
        assert_eq!(log(&list, 9).len(), noted + 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
