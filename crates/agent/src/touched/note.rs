//! Writing records: how a path was before it is touched. All signals are blocked meanwhile.

use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use ckpt_wire::touched::{Identity, Knowledge, RecordKind, path_key};
use linux_raw_sys::general as nr;

use super::path::{LONGEST, Path, Target};
use super::place::{ALL, Place, identity, kind, state};
use super::rule::{Touch, name_counts, needed, needs_nothing};
use super::table::{self, Head, Table, is_cached};
use super::undo;
use crate::call::change_mask;

/// Most bytes of a file that are kept where it was made in this segment, nearly always by the job.
pub const LARGEST_NEW: u64 = 1 << 20;

/// Makes known that a file without a time of birth was made by the job.
#[cold]
#[inline(never)]
pub fn learn_without_birth(identity: &Identity) {
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
pub unsafe fn absent(place: Place) {
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
/// As for [`absent`].
#[cold]
#[inline(never)]
pub unsafe fn existing(place: Place, touch: Touch, seen: &nr::statx) {
    let _quiet = Quiet::begin();
    let Some(table) = Table::open() else { return };
    let Some(need) = needed(touch, seen) else { return };
    let looked_at = identity(seen);
    let is_known = || !name_counts(touch, seen, &looked_at) && table.knows(looked_at.key(need));
    // Only now is the segment's beginning known to every process.
    if needs_nothing(touch, &looked_at) || is_known() {
        return;
    }
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
    let is_known = (name_counts || identity != looked_at) && table.knows(identity.key(need));
    if is_known && !name_counts || needs_nothing(touch, &identity) {
        return;
    }
    note_target(&table, touch, &target, &stat, need, is_known);
}

/// Notes a file that is open. `is_known`: with another name of it.
fn note_target(table: &Table, touch: Touch, target: &Target, stat: &nr::statx, need: Knowledge, is_known: bool) {
    let mut path = Path::new();
    if !path.of_target(target, stat) {
        return;
    }
    let identity = identity(stat);
    if path.is_excluded() {
        table::cache_file(&identity);
        return;
    }
    let key = path_key(path.text());
    if table::is_new(&identity) {
        match note_new(table, path.text(), key, &identity, stat) {
            New::Noted => return table::cache_file(&identity),
            New::AsOld => (),
        }
    } else if is_known && table.knows(key) {
        return;
    }
    // The contents of a file that is known by another name are with the other record.
    let plain = is_known || need == Knowledge::Noted;
    let written = if plain {
        let kind = if touch == Touch::Attributes { RecordKind::Attributes } else { RecordKind::Appended };
        table.head.write(kind, path.text(), b"", Some(stat))
    } else {
        write_kept(&table.head, &path, target, stat, touch)
    };
    if written {
        table.learn_file(&identity, need);
        table.learn(key);
    }
}

/// What remains to be done about a file that was made in this segment.
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
    let dir = table::open_directory()?;
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
    let mut says = [0u8; LONGEST];
    // SAFETY: an empty path, which is the descriptor itself; the buffer is writable for its length.
    let read = unsafe { syscall!(nr::__NR_readlinkat, target.fd(), c"".as_ptr(), says.as_mut_ptr(), says.len()) };
    let says = read.ok().and_then(|len| says.get(..len as usize)).unwrap_or(b"");
    head.write(RecordKind::Kept, path.text(), says, Some(stat))
}

/// Notes where a directory has gone.
///
/// # Safety
/// As for [`absent`].
#[inline(never)]
pub unsafe fn moved(from: &Path, new: Place, moves: bool, moves_back: bool) {
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

/// All signals are blocked while it lives: a handler that jumps away would leave descriptors open.
struct Quiet(SignalSet);

impl Quiet {
    fn begin() -> Self {
        Self(change_mask(nr::SIG_SETMASK, SignalSet::ALL))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        change_mask(nr::SIG_SETMASK, self.0);
    }
}
