//! The job's own list of the paths that it touches, as files that the agents write and the coordinator reads.
//!
//! They lie in one directory of each job, [`ENV_TOUCHED`], beside the images:
//!
//! ```text
//! known              a hash table: what need not be noted again          written anew by the coordinator at each checkpoint
//! touched.SEGMENT    the log: one record for each path, in order         appended to by every process of the job
//! undo.SEGMENT.*     contents as they were before the job changed them   made by the agents, read by a restart
//! ```
//!
//! A segment begins when the job starts, at each checkpoint while the job stands still, and at each restart. A record says how a path
//! was **before** the call that touches it, so it is written before that call. A process that is killed between the two has noted
//! too much, never too little. Only the first touch in a segment is of interest: a restart from the checkpoint that began
//! segment S looks at the first record of each path in the segments from S − 1 on (a thread that was frozen inside a call may
//! write to the segment that has just ended).
//!
//! Nothing here takes a lock. A record is one `write` to a file opened with `O_APPEND`, so records never mix. The hash table may
//! lose an entry to a race; then something is noted twice.
//!
//! A process that makes something where nothing was neither asks the table nor tells it: [`RecordKind::Absent`] may come more than once,
//! and after other records of its path. A file that was made in this segment may therefore be unknown to the table. Where such a file
//! has contents, it is noted like an old one when a process first touches it that did not make it: somebody outside the job may have
//! made it. Where the job did, its own record of the path comes first, and counts. Removing a file that was made in this segment needs
//! no record.

use bytemuck::{Pod, Zeroable};

/// Environment variable that holds the directory; without it nothing is noted.
pub const ENV_TOUCHED: &str = "CKPT_TOUCHED";

/// Room for that variable with its value and the zero byte that ends it.
pub const VARIABLE_SIZE: usize = 4096;

/// The name of the hash table.
pub const KNOWN: &str = "known";

/// How the names of logs begin; the segment follows, in decimal.
pub const LOG_PREFIX: &str = "touched.";

/// How the names of kept contents begin; the segment follows, in decimal, then a dot and whatever makes the name unique.
pub const UNDO_PREFIX: &str = "undo.";

/// How the hash table begins. [`KnownHeader::buckets`] [`Bucket`]s follow.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KnownHeader {
    /// [`KNOWN_MAGIC`].
    pub magic: u64,
    /// The segment that goes on now.
    pub segment: u64,
    /// When it began, nanoseconds since the epoch by `CLOCK_REALTIME`: a file that was born later has been made in this segment.
    pub begun_ns: i64,
    /// Most bytes of a file whose contents an agent keeps, by a copy or by a second name.
    pub largest: u64,
    /// A power of two.
    pub buckets: u64,
    /// Zeroes.
    pub reserved: [u64; 3],
}

/// [`KnownHeader::magic`]: `ckptknw1`.
pub const KNOWN_MAGIC: u64 = u64::from_le_bytes(*b"ckptknw1");

/// Most buckets of a table: 16 MiB of them.
pub const MOST_BUCKETS: u64 = 1 << 18;

impl KnownHeader {
    /// Whether this begins a table. The job can write it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.magic == KNOWN_MAGIC && self.buckets.is_power_of_two() && self.buckets <= MOST_BUCKETS
    }
}

/// Eight keys, zeroes where there are fewer. A key's bucket is its value modulo [`KnownHeader::buckets`]. Where a bucket is full,
/// further keys are not known.
pub type Bucket = [u64; 8];

/// Byte offset of the bucket that a key belongs to, in a table of at most [`MOST_BUCKETS`].
#[must_use]
pub fn bucket_offset(key: u64, buckets: u64) -> u64 {
    size_of::<KnownHeader>() as u64 + (key & buckets.wrapping_sub(1) & (MOST_BUCKETS - 1)) * size_of::<Bucket>() as u64
}

/// Tells one file from another: device and inode number, and the time of its birth, since inode numbers are used again.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Identity {
    /// `st_dev`, as `makedev` makes it of statx(2)'s two parts.
    pub device: u64,
    /// `stx_ino`.
    pub inode: u64,
    /// `stx_btime`, nanoseconds since the epoch; 0 where the file system does not tell.
    pub born_ns: i64,
}

/// What a key in the hash table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Knowledge {
    /// How this file was is noted: appending to it needs no record.
    Noted = 0x9e37_79b9_7f4a_7c15,
    /// Its contents are kept, or need not be: it may be changed in any way.
    Kept = 0xc2b2_ae3d_27d4_eb4f,
    /// How this path was is noted.
    Path = 0x1656_67b1_9e37_79f9,
}

impl Identity {
    /// The key of what is known of this file. Never 0.
    #[must_use]
    pub fn key(&self, knowledge: Knowledge) -> u64 {
        let words = [self.device, self.inode, self.born_ns.cast_unsigned()];
        words.into_iter().fold(knowledge as u64, mix).max(1)
    }
}

/// The key of [`Knowledge::Path`] for an absolute path. Never 0.
#[must_use]
pub fn path_key(path: &[u8]) -> u64 {
    let mut hash = Knowledge::Path as u64;
    for part in path.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        hash = mix(hash, u64::from_le_bytes(word));
    }
    mix(hash, path.len() as u64).max(1)
}

/// Takes one word into a hash: the finisher of splitmix64.
fn mix(hash: u64, word: u64) -> u64 {
    let mut value = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How a record of the log begins. `path_len` bytes of the path follow, `other_len` bytes of the other text, and zeroes up to the
/// next multiple of 8.
#[derive(Pod, Zeroable, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// [`RECORD_MAGIC`].
    pub magic: u32,
    /// [`RecordKind`].
    pub kind: u32,
    /// Bytes of the path: absolute, as it is seen from outside of any `chroot`, without symbolic links in its directories where
    /// that could be told.
    pub path_len: u32,
    /// Bytes of the other text.
    pub other_len: u32,
    /// [`record_check`] of the two texts: it is wrong where the record is half-written.
    pub check: u64,
    /// The file that was there; zeroes for [`RecordKind::Absent`].
    pub identity: Identity,
    /// `stx_size`.
    pub size: u64,
    /// `stx_mtime`, nanoseconds since the epoch.
    pub modified_ns: i64,
    /// `stx_mode`, with the kind of file.
    pub mode: u32,
    /// `stx_uid`.
    pub uid: u32,
    /// `stx_gid`.
    pub gid: u32,
    /// `stx_nlink`.
    pub links: u32,
}

/// Most bytes of a path or another text in a record. Linux's own limit is shorter; a `chroot` may add to it.
pub const LONGEST_TEXT: usize = 3 * 4096;

impl Record {
    /// The lengths of the record's texts; nothing where this begins no record. The job can write it.
    #[must_use]
    pub fn text_lens(&self) -> Option<(usize, usize)> {
        let (path_len, other_len) = (self.path_len as usize, self.other_len as usize);
        (self.magic == RECORD_MAGIC && path_len.max(other_len) <= LONGEST_TEXT).then_some((path_len, other_len))
    }
}

/// [`Record::magic`].
pub const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"tchd");

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// Nothing was at the path. Also for an empty file, a directory and others without contents that a process made in this segment without
    /// noting it.
    Absent = 1,
    /// It was there, and is only appended to: its contents up to its size stay.
    Appended = 2,
    /// It was there, and is about to be changed or removed. The other text is the name of the file in this directory that has its
    /// contents, or the text of a symbolic link. Directories, empty files and other files without contents have no other text.
    Kept = 3,
    /// As `Kept`, but the contents are not kept: too large, unreadable, or no room. Of files that were made in this segment only small ones
    /// are kept.
    Lost = 4,
    /// A directory that was at the path has been renamed: it is at the other text's path now. Written **after** the call.
    Moved = 5,
    /// Only its mode, owner or times are about to be changed.
    Attributes = 6,
}

impl RecordKind {
    /// The kind of a record.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        Some(match record.kind {
            1 => Self::Absent,
            2 => Self::Appended,
            3 => Self::Kept,
            4 => Self::Lost,
            5 => Self::Moved,
            6 => Self::Attributes,
            _ => return None,
        })
    }
}

/// Bytes that a record takes in the log, with its texts.
#[must_use]
pub fn record_len(path_len: usize, other_len: usize) -> usize {
    (size_of::<Record>() + path_len + other_len).next_multiple_of(8)
}

/// [`Record::check`] of these texts.
#[must_use]
pub fn record_check(path: &[u8], other: &[u8]) -> u64 {
    mix(path_key(path), path_key(other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_and_paths_have_keys_of_their_own() {
        let file = Identity { device: 1, inode: 2, born_ns: 3 };
        let keys = [
            file.key(Knowledge::Noted),
            file.key(Knowledge::Kept),
            Identity { born_ns: 4, ..file }.key(Knowledge::Kept),
            path_key(b"/a"),
            path_key(b"/a\0"),
            path_key(b"/b"),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(*key != 0 && !keys[..i].contains(key));
        }
    }

    #[test]
    fn a_record_takes_a_multiple_of_8_bytes() {
        assert_eq!(record_len(0, 0), size_of::<Record>());
        assert_eq!(record_len(1, 0), record_len(4, 4));
        assert_eq!(record_len(8, 1) % 8, 0);
        assert_ne!(record_check(b"/a", b"b"), record_check(b"/ab", b""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked(head: [[u8; 8]; 8], record: [[u8; 8]; 10], key: u64) {
            let header: KnownHeader = bytemuck::cast(head);
            let _ = header.is_valid();
            let offset = bucket_offset(key, header.buckets);
            prop_assert!(offset <= (MOST_BUCKETS as usize * size_of::<Bucket>()) as u64);
            let record: Record = bytemuck::cast(record);
            let _ = RecordKind::of(&record);
            if let Some((path, other)) = record.text_lens() {
                prop_assert!(record_len(path, other) < 3 * LONGEST_TEXT);
            }
        }
    }
}
