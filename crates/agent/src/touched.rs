//! Notes each path before the job touches it: see `ckpt_wire::touched` for what is written.
//!
//! The interposed functions call [`before`] with what they are about to do. Nearly always the answer is in a small cache of this
//! process, which costs one `statx`. On a miss the job's hash table is looked at, and a record is written where that does not have the
//! file either. Where nothing is yet, a record is written without the table: see [`note_absent`]. All signals are blocked meanwhile: a
//! handler that jumps away would leave descriptors open.
//!
//! The cache is a hint. It takes no lock, may be shared with a child of `vfork`, and is copied by `fork`. A checkpoint begins a new
//! epoch, and nothing that was learnt in another epoch counts.

mod path;
mod table;
mod undo;

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};

use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::touched::{ENV_TOUCHED, Identity, Knowledge, RecordKind, VARIABLE_SIZE, path_key};
use linux_raw_sys::errno::ENOENT;
use linux_raw_sys::general as nr;

use crate::call::{self, Fd, Outside};
use crate::procfs;
pub use path::chroot;
use path::{Path, Target};
use table::{Head, Table, epoch, forget_all, is_cached, is_hopeless};

/// `CKPT_TOUCHED=DIRECTORY`, as a C string. A restart writes here where the directory is now.
struct Variable(UnsafeCell<[u8; VARIABLE_SIZE]>);

// SAFETY: written by the constructor, while the process has one thread, and by a restart, before any thread runs.
unsafe impl Sync for Variable {}

static VARIABLE: Variable = Variable(UnsafeCell::new([0; VARIABLE_SIZE]));

/// Keeps the variable with this value. One that is too long is not kept.
///
/// # Safety
/// Only from the constructor.
pub unsafe fn keep_variable(value: &[u8]) {
    // SAFETY: the caller's promise: nobody else looks.
    let room = unsafe { &mut *VARIABLE.0.get() };
    let start = ENV_TOUCHED.len() + 1;
    // The zero byte behind it is there already.
    if value.is_empty() || start + value.len() >= room.len() {
        return;
    }
    let parts = [ENV_TOUCHED.as_bytes(), b"=", value];
    for (to, from) in room.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
}

/// The variable as it is now; `None` where there is none.
pub fn variable() -> Option<&'static CStr> {
    // SAFETY: see the Sync implementation: no one writes while the program runs.
    let bytes = unsafe { &*VARIABLE.0.get() };
    if bytes[0] == 0 {
        return None;
    }
    CStr::from_bytes_until_nul(bytes).ok()
}

/// Where the variable is.
pub fn variable_address() -> u64 {
    VARIABLE.0.get() as u64
}

/// The directory of the job's list.
fn directory() -> Option<&'static CStr> {
    let bytes = variable()?.to_bytes_with_nul().get(ENV_TOUCHED.len() + 1..)?;
    CStr::from_bytes_with_nul(bytes).ok()
}

/// Whether anything is noted.
pub fn is_on() -> bool {
    // SAFETY: as in `variable`.
    let first = unsafe { (*VARIABLE.0.get())[0] };
    first != 0 && !is_hopeless()
}

/// A checkpoint begins a new segment: nothing is known any more.
pub fn forget() {
    forget_all();
}

/// A file as the `*at` calls name it.
#[derive(Clone, Copy)]
pub struct Place {
    /// The directory that the path is relative to.
    pub dir: c_int,
    /// The path; null: the file that `dir` is open on.
    pub path: *const c_char,
    /// `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`.
    pub flags: u32,
}

impl Place {
    /// A path, its last symbolic link followed.
    pub fn followed(dir: c_int, path: *const c_char) -> Self {
        Self { dir, path, flags: 0 }
    }

    /// A path, its last symbolic link not followed.
    pub fn itself(dir: c_int, path: *const c_char) -> Self {
        Self { dir, path, flags: nr::AT_SYMLINK_NOFOLLOW }
    }

    /// What a descriptor is open on.
    pub fn descriptor(fd: c_int) -> Self {
        Self { dir: fd, path: core::ptr::null(), flags: nr::AT_EMPTY_PATH }
    }

    fn follows(&self) -> bool {
        self.flags & nr::AT_SYMLINK_NOFOLLOW == 0
    }
}

/// What is about to be done to a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    Nothing,
    /// Its contents only grow.
    Appends,
    /// Its contents may change.
    Rewrites,
    /// It gets this size.
    Resizes(u64),
    /// Its mode, owner or times change.
    Attributes,
    /// Its name goes, and perhaps the file.
    Removes,
    /// It gets another name.
    Renames,
}

/// What was found where something is about to be touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, though something will be made there.
    Absent,
    /// A directory.
    Directory,
    /// Something else, or it cannot be told.
    Other,
}

/// What tells one file from another. No times of changes: after a look at those, the kernel gives the next write a time of its own, and
/// writes the inode (multigrain timestamps, Linux 6.13), which takes longer than all the rest.
const WHO: u32 = nr::STATX_TYPE | nr::STATX_NLINK | nr::STATX_INO | nr::STATX_BTIME;
/// Most bytes of a file that are kept where it was made in this segment, nearly always by the job.
const LARGEST_NEW: u64 = 1 << 20;
/// What a record has.
const ALL: u32 = nr::STATX_BASIC_STATS | nr::STATX_BTIME;

/// Asks for the state of a file: `wanted` is of `STATX_*`, `sync` of `AT_STATX_SYNC_TYPE`.
///
/// # Safety
/// The path must be null, or what the program passed to a system call.
#[inline]
unsafe fn state(place: Place, sync: u32, wanted: u32) -> Result<nr::statx, Errno> {
    let path = if place.path.is_null() { c"".as_ptr() } else { place.path };
    let mut stat = core::mem::MaybeUninit::<nr::statx>::uninit();
    // SAFETY: the kernel checks the path, and fills in the whole structure if it succeeds.
    unsafe {
        syscall!(nr::__NR_statx, place.dir, path, place.flags | sync, wanted, stat.as_mut_ptr())?;
        Ok(stat.assume_init())
    }
}

/// Who a file is.
fn identity(stat: &nr::statx) -> Identity {
    let (major, minor) = (u64::from(stat.stx_dev_major), u64::from(stat.stx_dev_minor));
    // makedev(3).
    let device = (major & !0xfff) << 32 | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (minor & 0xff);
    let born_ns = if stat.stx_mask & nr::STATX_BTIME != 0 { nanoseconds(&stat.stx_btime) } else { 0 };
    Identity { device, inode: stat.stx_ino, born_ns }
}

fn nanoseconds(time: &nr::statx_timestamp) -> i64 {
    time.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(i64::from(time.tv_nsec))
}

/// The file type of a mode.
fn kind(stat: &nr::statx) -> u32 {
    u32::from(stat.stx_mode) & nr::S_IFMT
}

/// What must be known of a file before it is touched so; `None`: nothing.
fn needed(touch: Touch, stat: &nr::statx) -> Option<Knowledge> {
    let regular = kind(stat) == nr::S_IFREG;
    match touch {
        Touch::Nothing => None,
        Touch::Appends => regular.then_some(Knowledge::Noted),
        Touch::Rewrites => regular.then_some(Knowledge::Kept),
        // What only gets longer keeps its contents.
        Touch::Resizes(size) if size >= stat.stx_size => regular.then_some(Knowledge::Noted),
        Touch::Resizes(_) => regular.then_some(Knowledge::Kept),
        Touch::Attributes => (!matches!(kind(stat), nr::S_IFCHR | nr::S_IFBLK)).then_some(Knowledge::Noted),
        // Its contents go on under the new name.
        Touch::Renames if regular => Some(Knowledge::Noted),
        Touch::Renames | Touch::Removes => Some(Knowledge::Kept),
    }
}

/// Whether the name itself counts: one goes of a file that has others, or had.
fn name_counts(touch: Touch, stat: &nr::statx, identity: &Identity) -> bool {
    matches!(touch, Touch::Removes | Touch::Renames) && kind(stat) != nr::S_IFDIR && !table::is_new(identity)
}

/// Whether a file is removed that was made in this segment: there was none at the beginning, or another one, which is noted.
fn needs_nothing(touch: Touch, identity: &Identity) -> bool {
    touch == Touch::Removes && table::is_new(identity)
}

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

/// Notes something until no checkpoint was taken meanwhile, which makes what was noted before it count no more. One is taken where a signal
/// is let in: at the end of a system call.
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
                unsafe { note_existing(place, touch, &stat) };
            }
            found
        }
        Err(Errno(errno)) if creates && errno == ENOENT as i32 => {
            // SAFETY: as above.
            unsafe { note_absent(if by_link { place } else { itself }) };
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

/// Whether an open with these flags changes nothing of a file that is there, while what is done by the descriptor may. Such a file is opened
/// first, without `O_CREAT`, and noted by [`after_open`]: that is exact, and takes half the time of a look at the path.
#[inline]
pub fn opens_first(flags: u32) -> bool {
    const OTHERS: u32 = nr::O_TRUNC | nr::O_EXCL | nr::O_PATH | nr::O_DIRECTORY;
    flags & nr::O_ACCMODE != 0 && flags & OTHERS == 0 && is_on()
}

/// To be called with what a call of [`opens_first`] gave, before the program gets it. False: the call must be made with all flags, and its
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
        unsafe { note_existing(place, touch, &stat) };
    }
    // SAFETY: takes no argument.
    flags & nr::O_CREAT == 0 || unsafe { syscall!(nr::__NR_geteuid) } == Ok(u64::from(stat.stx_uid))
}

/// Closes what was opened first.
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
    // Who has a time of birth is known to be new to every process.
    if kind(&stat) == nr::S_IFREG && identity.born_ns == 0 {
        learn_without_birth(&identity);
    } else {
        table::cache_file(&identity);
    }
}

#[cold]
#[inline(never)]
fn learn_without_birth(identity: &Identity) {
    let _quiet = Quiet::begin();
    if let Some(table) = Table::open() {
        table.learn_file(identity, Knowledge::Kept);
    }
}

/// Notes that nothing is where something is about to be made. The job's hash table is not asked, nor told: should another process note the
/// same, the first record counts.
///
/// # Safety
/// As for [`before`]; the kernel must have read the path.
#[cold]
#[inline(never)]
unsafe fn note_absent(place: Place) {
    let _quiet = Quiet::begin();
    let mut path = Path::new();
    // SAFETY: the caller's promise.
    if !unsafe { path.of_absent(place) } || path.is_excluded() {
        return;
    }
    let key = path_key(path.text());
    if is_cached(key) {
        return;
    }
    let Some(head) = Head::get() else { return };
    if head.write(RecordKind::Absent, path.text(), b"", None) {
        head.cache(key);
    }
}

/// Notes how a file is that is there. `seen` is what a look at it showed.
///
/// # Safety
/// As for [`note_absent`].
#[cold]
#[inline(never)]
unsafe fn note_existing(place: Place, touch: Touch, seen: &nr::statx) {
    let _quiet = Quiet::begin();
    let Some(table) = Table::open() else { return };
    let seen = match needed(touch, seen) {
        Some(need) => {
            let identity = identity(seen);
            let is_known = || !name_counts(touch, seen, &identity) && table.knows(identity.key(need));
            // Only now is the segment's beginning known to every process.
            if needs_nothing(touch, &identity) || is_known() {
                return;
            }
            identity
        }
        None => return,
    };
    // SAFETY: the caller's promise.
    let Some(target) = (unsafe { Target::open(place) }) else { return };
    // SAFETY: an empty path, which is the descriptor itself.
    let Ok(stat) = (unsafe { state(Place::descriptor(target.fd()), nr::AT_STATX_SYNC_AS_STAT, ALL) }) else { return };
    let Some(need) = needed(touch, &stat) else { return };
    if stat.stx_nlink == 0 {
        return;
    }
    let identity = identity(&stat);
    let name_counts = name_counts(touch, &stat, &identity);
    let is_known = (name_counts || identity != seen) && table.knows(identity.key(need));
    if is_known && !name_counts || needs_nothing(touch, &identity) {
        return;
    }
    let mut path = Path::new();
    if !path.of_target(&target, &stat) {
        return;
    }
    if path.is_excluded() {
        table::cache_file(&identity);
        return;
    }
    let key = path_key(path.text());
    if table::is_new(&identity) {
        match note_new(&table, path.text(), key, &identity, &stat) {
            New::Noted => return table::cache_file(&identity),
            New::AsOld => (),
        }
    } else if is_known && table.knows(key) {
        return;
    }
    // Another name of a file that is noted: its contents are with the other record.
    let plain = is_known || need == Knowledge::Noted;
    let written = if plain {
        let kind = if touch == Touch::Attributes { RecordKind::Attributes } else { RecordKind::Appended };
        table.head.write(kind, path.text(), b"", Some(&stat))
    } else {
        write_kept(&table.head, &path, &target, &stat, touch)
    };
    if written {
        table.learn_file(&identity, need);
        table.learn(key);
    }
}

/// What is to be done about a file that was made in this segment.
enum New {
    /// Nothing more.
    Noted,
    /// It has contents that somebody outside the job may have written. They are noted as those of an old file; where a process of the job
    /// has made the file, its own record of the path came first, and counts.
    AsOld,
}

fn note_new(table: &Table, path: &[u8], key: u64, identity: &Identity, stat: &nr::statx) -> New {
    let path_known = table.knows(key);
    // Either both are known or the path only, which then has been noted without this file.
    if path_known && !table.knows(identity.key(Knowledge::Noted)) {
        return New::Noted;
    }
    if kind(stat) == nr::S_IFREG && stat.stx_size > 0 {
        return New::AsOld;
    }
    if path_known || table.head.write(RecordKind::Absent, path, b"", None) {
        table.learn_file(identity, Knowledge::Kept);
        table.learn(key);
    }
    New::Noted
}

/// Keeps what a file has, and writes the record.
fn write_kept(head: &Head, path: &Path, target: &Target, stat: &nr::statx, touch: Touch) -> bool {
    match kind(stat) {
        nr::S_IFREG if stat.stx_size > 0 => write_kept_contents(head, path, target, stat, touch)
            .unwrap_or_else(|| head.write(RecordKind::Lost, path.text(), b"", Some(stat))),
        nr::S_IFLNK => write_kept_link(head, path, target, stat),
        _ => head.write(RecordKind::Kept, path.text(), b"", Some(stat)),
    }
}

/// `None` where the contents cannot be kept.
fn write_kept_contents(head: &Head, path: &Path, target: &Target, stat: &nr::statx, touch: Touch) -> Option<bool> {
    let is_new = table::is_new(&identity(stat));
    let largest = if is_new { head.largest.min(LARGEST_NEW) } else { head.largest };
    let dir = undo::open_directory()?;
    let name = undo::Name::new(head.segment);
    if !undo::keep(&dir, largest, target, stat, touch == Touch::Removes, &name) {
        return None;
    }
    let written = head.write(RecordKind::Kept, path.text(), name.text(), Some(stat));
    if !written {
        undo::remove(&dir, &name);
    }
    Some(written)
}

/// Here, since it takes room for another path on the stack.
#[inline(never)]
fn write_kept_link(head: &Head, path: &Path, target: &Target, stat: &nr::statx) -> bool {
    let mut says = [0u8; path::LONGEST];
    // SAFETY: an empty path, which is the descriptor itself; the buffer is writable for its length.
    let read = unsafe { syscall!(nr::__NR_readlinkat, target.fd(), c"".as_ptr(), says.as_mut_ptr(), says.len()) };
    let says = read.ok().and_then(|len| says.get(..len as usize)).unwrap_or(b"");
    head.write(RecordKind::Kept, path.text(), says, Some(stat))
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
        unsafe { note_move(&from, new, moves, moves_back) };
    }
    result
}

/// # Safety
/// As for [`rename`].
#[inline(never)]
unsafe fn note_move(from: &Path, new: Place, moves: bool, moves_back: bool) {
    let _quiet = Quiet::begin();
    let mut to = Path::new();
    // SAFETY: the caller's promise.
    let Some(target) = (unsafe { Target::open(new) }) else { return };
    if !to.of_descriptor(target.fd()) || from.is_excluded() || to.is_excluded() {
        return;
    }
    let Some(head) = Head::get() else { return };
    if moves {
        head.write(RecordKind::Moved, from.text(), to.text(), None);
    }
    if moves_back {
        head.write(RecordKind::Moved, to.text(), from.text(), None);
    }
}

/// All signals are blocked while it lives.
struct Quiet(u64);

impl Quiet {
    fn begin() -> Self {
        let (all, mut before) = (u64::MAX, 0u64);
        // SAFETY: the sets live over the call.
        let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, nr::SIG_SETMASK, &raw const all, &raw mut before, 8) };
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: the set lives over the call.
        let _ = unsafe { syscall!(nr::__NR_rt_sigprocmask, nr::SIG_SETMASK, &raw const self.0, 0, 8) };
    }
}

/// A write has failed. One that went past `RLIMIT_FSIZE` has sent a signal, which was not meant for the program.
fn after_failed_write(errno: Errno) {
    if errno.0 == linux_raw_sys::errno::EFBIG as i32 {
        let set = 1u64 << (nr::SIGXFSZ - 1);
        let no_wait = nr::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time live over the call. The signal is blocked: see `Quiet`.
        let _ = unsafe { syscall!(nr::__NR_rt_sigtimedwait, &raw const set, 0, &raw const no_wait, 8) };
    }
}

/// Makes a call again as long as it is interrupted.
fn again(mut call: impl FnMut() -> Result<u64, Errno>) -> Result<u64, Errno> {
    loop {
        match call() {
            Err(Errno(call::nr_errno::EINTR)) => (),
            result => return result,
        }
    }
}

/// Opens a path relative to a directory.
///
/// # Safety
/// The path must be a C string, or what the kernel has read already.
unsafe fn open_at(dir: c_int, path: *const c_char, flags: u32) -> Result<Fd, Errno> {
    const OWNER_ONLY: u32 = 0o600;
    // SAFETY: the caller's promise.
    let fd = again(|| unsafe { syscall!(nr::__NR_openat, dir, path, flags | nr::O_CLOEXEC, OWNER_ONLY) })?;
    Ok(Fd(fd as i32))
}

/// What was kept of the root directory: see [`chroot`].
static ROOT_LEN: AtomicUsize = AtomicUsize::new(0);

/// The job's list in a process that has changed its root.
static LIST: Outside = Outside::new();

/// The link in `/proc` that leads to what a descriptor is open on.
fn descriptor_link(fd: c_int) -> procfs::Path {
    procfs::Path::new().text(b"/proc/self/fd/").number(fd as u64)
}

/// Bytes of the root's path; `None` where it cannot be told.
fn root_len() -> Option<usize> {
    Some(ROOT_LEN.load(Acquire)).filter(|&len| len != usize::MAX)
}

fn set_root_len(len: usize) {
    ROOT_LEN.store(len, Release);
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

    use ckpt_wire::touched::{KNOWN_MAGIC, KnownHeader, Record, record_len};

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
