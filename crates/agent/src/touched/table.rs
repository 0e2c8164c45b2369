//! The paths noted already, in this process's cache and the job's hash table; and the log.

use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use ckpt_wire::touched::{
    Bucket, Identity, Knowledge, KnownHeader, LOG_PREFIX, RECORD_MAGIC, Record, RecordKind, VARIABLE_SIZE, bucket_offset,
    record_check, record_len,
};
use linux_raw_sys::errno::{EMFILE, ENFILE, ENOENT};
use linux_raw_sys::general as nr;

use super::place::{after_failed_write, again, identity, nanoseconds, open_at};
use super::variable::{LIST, directory, is_set};
use crate::call::Fd;
use crate::procfs;

/// Rises with each checkpoint. What was learnt in another epoch does not count, even where a thread writes it down late.
static EPOCH: AtomicU64 = AtomicU64::new(1);

const CACHED: usize = 1024;

/// Keys that are known, each changed by the epoch, at the place that its low bits say.
static CACHE: [AtomicU64; CACHED] = [const { AtomicU64::new(0) }; CACHED];

/// The head of the job's hash table, in the epoch that `read_in` says.
struct KeptHead {
    segment: AtomicU64,
    begun_ns: AtomicI64,
    largest: AtomicU64,
    buckets: AtomicU64,
    read_in: AtomicU64,
    failed_in: AtomicU64,
}

static HEAD: KeptHead = KeptHead {
    segment: AtomicU64::new(0),
    begun_ns: AtomicI64::new(0),
    largest: AtomicU64::new(0),
    buckets: AtomicU64::new(0),
    read_in: AtomicU64::new(0),
    failed_in: AtomicU64::new(0),
};

/// A checkpoint begins a new epoch: nothing is known any more.
pub fn forget() {
    EPOCH.fetch_add(1, Release);
}

/// The epoch that goes on.
pub fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// Whether anything is noted: there is a list, and its hash table could be read in this epoch.
pub fn is_on() -> bool {
    is_set() && HEAD.failed_in.load(Relaxed) != EPOCH.load(Relaxed)
}

fn slot(key: u64) -> &'static AtomicU64 {
    &CACHE[key as usize % CACHED]
}

fn in_epoch(key: u64, epoch: u64) -> u64 {
    key ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether this process knows a key.
pub fn is_cached(key: u64) -> bool {
    slot(key).load(Relaxed) == in_epoch(key, EPOCH.load(Relaxed))
}

fn cache(key: u64, epoch: u64) {
    slot(key).store(in_epoch(key, epoch), Relaxed);
}

/// This process knows a key that does not depend on the segment.
pub fn cache_now(key: u64) {
    cache(key, EPOCH.load(Relaxed));
}

/// Whether a file was made in this segment. False where the hash table has not been read yet.
pub fn is_new(identity: &Identity) -> bool {
    HEAD.read_in.load(Acquire) == EPOCH.load(Relaxed) && identity.born_ns > HEAD.begun_ns.load(Relaxed)
}

/// This process knows of a file that it may be changed in any way.
pub fn cache_file(identity: &Identity) {
    let epoch = EPOCH.load(Relaxed);
    cache(identity.key(Knowledge::Kept), epoch);
    cache(identity.key(Knowledge::Noted), epoch);
}

/// The head of the job's hash table, as it was read in an epoch.
#[derive(Clone, Copy)]
pub struct Head {
    /// The segment that goes on.
    pub segment: u64,
    /// Most bytes of a file whose contents are kept.
    pub largest: u64,
    buckets: u64,
    epoch: u64,
}

impl Head {
    /// The head, which is read once in each epoch. `None` where that cannot be done.
    pub fn get() -> Option<Self> {
        let epoch = EPOCH.load(Acquire);
        // Where the list is known by a descriptor only, it must be seen to be the list before anything is made there.
        if HEAD.read_in.load(Acquire) == epoch && LIST.get().is_none() {
            return Some(kept_head(epoch));
        }
        Table::open().map(|table| table.head)
    }

    /// Makes a key known to this process only.
    pub fn cache(&self, key: u64) {
        cache(key, self.epoch);
    }

    /// Writes a record; false where that failed.
    pub fn write(&self, kind: RecordKind, path: &[u8], other: &[u8], stat: Option<&nr::statx>) -> bool {
        let mut record = Record {
            magic: RECORD_MAGIC,
            kind: kind as u32,
            path_len: path.len() as u32,
            other_len: other.len() as u32,
            check: record_check(path, other),
            ..Record::default()
        };
        if let Some(stat) = stat {
            record.identity = identity(stat);
            record.size = stat.stx_size;
            record.modified_ns = nanoseconds(&stat.stx_mtime);
            record.mode = u32::from(stat.stx_mode);
            (record.uid, record.gid, record.links) = (stat.stx_uid, stat.stx_gid, stat.stx_nlink);
        }
        let total = record_len(path.len(), other.len());
        let padding = [0u64; 1];
        let used = size_of::<Record>() + path.len() + other.len();
        let part = |base: *const u8, len: usize| [base as u64, len as u64];
        // struct iovec, four times.
        let parts = [
            part((&raw const record).cast(), size_of::<Record>()),
            part(path.as_ptr(), path.len()),
            part(other.as_ptr(), other.len()),
            part(padding.as_ptr().cast(), total - used),
        ];
        let Some(log) = self.log() else { return false };
        // SAFETY: all parts are readable for their lengths.
        let written = again(|| unsafe { syscall!(nr::__NR_writev, log.0, parts.as_ptr(), parts.len()) });
        if let Err(errno) = written {
            after_failed_write(errno);
        }
        written == Ok(total as u64)
    }

    fn log(&self) -> Option<Fd> {
        let name = procfs::Path::new().text(LOG_PREFIX.as_bytes()).number(self.segment);
        let flags = nr::O_WRONLY | nr::O_APPEND;
        with_path(name.as_bytes(), |dir, name| {
            // SAFETY: the name is a C string.
            unsafe {
                match open_at(dir, name, flags) {
                    Err(Errno(errno)) if errno == ENOENT as i32 => {
                        let log = open_at(dir, name, flags | nr::O_CREAT).ok()?;
                        // Whatever the program's umask.
                        let _ = syscall!(nr::__NR_fchmod, log.0, 0o600);
                        Some(log)
                    }
                    log => log.ok(),
                }
            }
        })?
    }
}

/// Calls `f` with the path of a file in the job's list, and what it is relative to. The name ends with a zero byte.
fn with_path<R>(name: &[u8], f: impl FnOnce(c_int, *const c_char) -> R) -> Option<R> {
    if let Some(list) = LIST.get() {
        return Some(f(list, name.as_ptr().cast()));
    }
    let mut path = [0u8; VARIABLE_SIZE + 64];
    let directory = directory()?.to_bytes();
    path.get_mut(..directory.len())?.copy_from_slice(directory);
    *path.get_mut(directory.len())? = b'/';
    path.get_mut(directory.len() + 1..)?.get_mut(..name.len())?.copy_from_slice(name);
    Some(f(nr::AT_FDCWD, path.as_ptr().cast()))
}

/// The job's list, where kept contents lie.
pub fn open_directory() -> Option<Fd> {
    let (dir, path) = match LIST.get() {
        Some(list) => (list, c"."),
        None => (nr::AT_FDCWD, directory()?),
    };
    // SAFETY: the path is a C string.
    unsafe { open_at(dir, path.as_ptr(), nr::O_PATH | nr::O_DIRECTORY) }.ok()
}

/// The job's hash table, opened.
pub struct Table {
    known: Fd,
    /// How it begins.
    pub head: Head,
}

impl Table {
    /// Opens it; `None` where that cannot be done. That is remembered, unless it may be otherwise the next time.
    pub fn open() -> Option<Self> {
        let epoch = EPOCH.load(Acquire);
        let known = HEAD.read_in.load(Acquire) == epoch;
        match Self::open_in(epoch, known) {
            Ok(table) => Some(table),
            Err(Errno(errno)) => {
                // A process that has read it once has another root now, or is a child of vfork that has.
                if !known && errno != EMFILE as i32 && errno != ENFILE as i32 {
                    HEAD.failed_in.store(epoch, Relaxed);
                }
                None
            }
        }
    }

    fn open_in(epoch: u64, known: bool) -> Result<Self, Errno> {
        // SAFETY: the path is a C string.
        let file = with_path(b"known\0", |dir, path| unsafe { open_at(dir, path, nr::O_RDWR) });
        let file = file.ok_or(Errno(ENOENT as i32))??;
        let head = if known && LIST.get().is_none() { kept_head(epoch) } else { read_head(&file, epoch)? };
        Ok(Self { known: file, head })
    }

    /// Whether a key is known to this process or to the job.
    pub fn knows(&self, key: u64) -> bool {
        if is_cached(key) {
            return true;
        }
        let known = self.bucket(key).contains(&key);
        if known {
            self.head.cache(key);
        }
        known
    }

    fn bucket(&self, key: u64) -> Bucket {
        let mut bucket: Bucket = [0; 8];
        let offset = bucket_offset(key, self.head.buckets);
        // SAFETY: the bucket is writable for its size.
        let _ = again(|| unsafe { syscall!(nr::__NR_pread64, self.known.0, bucket.as_mut_ptr(), size_of::<Bucket>(), offset) });
        bucket
    }

    /// Makes a key known to this process and the job.
    pub fn learn(&self, key: u64) {
        self.head.cache(key);
        let bucket = self.bucket(key);
        if bucket.contains(&key) {
            return;
        }
        let Some(free) = bucket.iter().position(|&other| other == 0) else { return };
        let offset = bucket_offset(key, self.head.buckets) + (free * size_of::<u64>()) as u64;
        // SAFETY: the key lives over the call.
        let written = again(|| unsafe { syscall!(nr::__NR_pwrite64, self.known.0, &raw const key, size_of::<u64>(), offset) });
        if let Err(errno) = written {
            after_failed_write(errno);
        }
    }

    /// Makes known what is known of a file. One whose contents are kept is noted too.
    pub fn learn_file(&self, identity: &Identity, knowledge: Knowledge) {
        self.learn(identity.key(Knowledge::Noted));
        if knowledge == Knowledge::Kept {
            self.learn(identity.key(Knowledge::Kept));
        }
    }
}

fn kept_head(epoch: u64) -> Head {
    Head { segment: HEAD.segment.load(Relaxed), largest: HEAD.largest.load(Relaxed), buckets: HEAD.buckets.load(Relaxed), epoch }
}

fn read_head(file: &Fd, epoch: u64) -> Result<Head, Errno> {
    let mut header = KnownHeader::default();
    // SAFETY: any bytes make a header, which is writable for its size.
    let read = again(|| unsafe { syscall!(nr::__NR_pread64, file.0, &raw mut header, size_of::<KnownHeader>(), 0) })?;
    if read != size_of::<KnownHeader>() as u64 || !header.is_valid() {
        return Err(Errno(ENOENT as i32));
    }
    HEAD.segment.store(header.segment, Relaxed);
    HEAD.begun_ns.store(header.begun_ns, Relaxed);
    HEAD.largest.store(header.largest, Relaxed);
    HEAD.buckets.store(header.buckets, Relaxed);
    HEAD.read_in.store(epoch, Release);
    Ok(kept_head(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cached_for_one_epoch() {
        let (key, epoch) = (0x1234_5678, 7);
        assert_ne!(in_epoch(key, epoch), in_epoch(key, epoch + 1));
        cache(key, epoch);
        assert_eq!(slot(key).load(Relaxed), in_epoch(key, epoch));
        assert!(core::ptr::eq(slot(key), slot(key + CACHED as u64)));
    }
}
