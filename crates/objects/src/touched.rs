//! The list of the paths that a job touches, as its agents write it: the directory that holds it, its logs, and the table of what need
//! not be noted again. The formats are drawn in [`ckpt_wire::touched`].
//!
//! What the logs say comes from the job: it is checked here, and nothing in it is trusted beyond that.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use ckpt_wire::touched::{
    Bucket, Identity, KNOWN, KNOWN_MAGIC, KnownHeader, LOG_PREFIX, MOST_BUCKETS, Record, RecordKind, UNDO_PREFIX, bucket_offset,
    record_check, record_len,
};

use crate::FilePath;

/// Buckets of the smallest table.
const FEWEST_BUCKETS: u64 = 256;

/// How a path was before the job touched it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The segment whose log says so.
    pub segment: u64,
    /// What the job did.
    pub kind: RecordKind,
    /// The path.
    pub path: FilePath,
    /// See [`RecordKind`].
    pub other: FilePath,
    /// The file that was there.
    pub record: Record,
}

/// The directory of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedDir {
    path: PathBuf,
}

impl TouchedDir {
    /// The directory at `path`, which need not be there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there, and belongs to the user of this process.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == own)
    }

    /// Makes it, readable by its owner only.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or is somebody else's.
    pub fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_own() => Ok(()),
            other => other,
        }
    }

    /// Begins a segment: from now on agents note what is not in `keys`. `largest` is the size in bytes of the largest file whose
    /// contents they keep, `begun_ns` the present time by the clock of file systems.
    ///
    /// # Errors
    ///
    /// When the table cannot be written. The segment before goes on then.
    pub fn begin(&self, segment: u64, begun_ns: i64, largest: u64, keys: &[u64]) -> io::Result<()> {
        // Half full at most, with room for what the job touches next.
        let wanted = (keys.len() as u64 / 4 + 1).next_power_of_two();
        let buckets = wanted.clamp(FEWEST_BUCKETS, MOST_BUCKETS);
        let mut table = vec![Bucket::zeroed(); buckets as usize];
        for &key in keys {
            let at = (bucket_offset(key, buckets) as usize - size_of::<KnownHeader>()) / size_of::<Bucket>();
            if !table[at].contains(&key)
                && let Some(free) = table[at].iter_mut().find(|slot| **slot == 0)
            {
                *free = key;
            }
        }
        let header = KnownHeader { magic: KNOWN_MAGIC, segment, begun_ns, largest, buckets, reserved: [0; 3] };
        let temporary = self.path.join(".known.tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytemuck::bytes_of(&header))?;
        file.write_all(bytemuck::cast_slice(&table))?;
        fs::rename(temporary, self.path.join(KNOWN))
    }

    /// Adds to what agents need not note in this segment. What there is no room for they note.
    pub fn add(&self, keys: &[u64]) {
        let Ok(mut file) = OpenOptions::new().read(true).write(true).open(self.path.join(KNOWN)) else { return };
        let mut table = Vec::new();
        let head = size_of::<KnownHeader>();
        // The job may have made it longer.
        let largest = bucket_offset(u64::MAX, MOST_BUCKETS) + size_of::<Bucket>() as u64;
        if Read::by_ref(&mut file).take(largest).read_to_end(&mut table).is_err() || table.len() < head {
            return;
        }
        let header: KnownHeader = bytemuck::pod_read_unaligned(&table[..head]);
        if !header.is_valid() {
            return;
        }
        for &key in keys {
            let at = bucket_offset(key, header.buckets) as usize;
            let Some(bucket) = table.get(at..at + size_of::<Bucket>()) else { return };
            let mut slots = bucket.chunks(size_of::<u64>()).enumerate();
            let free = slots.find(|(_, slot)| **slot == [0; 8] || **slot == key.to_ne_bytes());
            // Agents add to it too: what one of them loses is noted again.
            if let Some((free, slot)) = free.filter(|(_, slot)| **slot == [0; 8]) {
                let place = at + free * slot.len();
                let _ = file.write_all_at(&key.to_ne_bytes(), place as u64);
                table[place..place + size_of::<u64>()].copy_from_slice(&key.to_ne_bytes());
            }
        }
    }

    /// The segment that goes on; nothing where the table cannot be read.
    #[must_use]
    pub fn segment(&self) -> Option<u64> {
        let mut header = KnownHeader::zeroed();
        File::open(self.path.join(KNOWN)).ok()?.read_exact(bytemuck::bytes_of_mut(&mut header)).ok()?;
        (header.magic == KNOWN_MAGIC).then_some(header.segment)
    }

    /// The segments that have logs, in ascending order.
    #[must_use]
    pub fn segments(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.names().filter_map(|name| name.strip_prefix(LOG_PREFIX)?.parse().ok()).collect();
        all.sort_unstable();
        all
    }

    fn names(&self) -> impl Iterator<Item = String> + use<> {
        fs::read_dir(&self.path).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
    }

    /// Reads the log of a segment from a byte offset on. Gives what it says, and where it ends. What is half-written, or no record,
    /// ends it.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub fn read(&self, segment: u64, from: u64) -> io::Result<(Vec<Touch>, u64)> {
        let mut file = match File::open(self.path.join(format!("{LOG_PREFIX}{segment}"))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
            Err(error) => return Err(error),
        };
        let mut end = file.seek(SeekFrom::Start(from))?;
        let mut file = BufReader::new(file);
        let mut touches = Vec::new();
        while let Some((touch, len)) = decode(&mut file, segment)? {
            touches.push(touch);
            end += len;
        }
        Ok((touches, end))
    }

    /// Where the contents are that a record names; nothing where the name is none that an agent gives.
    #[must_use]
    pub fn undo(&self, name: &FilePath) -> Option<PathBuf> {
        let name = name.as_os_str().to_str()?;
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        (name.starts_with(UNDO_PREFIX) && is_plain).then(|| self.path.join(name))
    }

    /// Removes the segments before `oldest`, with the contents that they kept.
    pub fn prune(&self, oldest: u64) {
        for name in self.names() {
            let segment = name.strip_prefix(LOG_PREFIX).or_else(|| name.strip_prefix(UNDO_PREFIX)?.split('.').next());
            if segment.and_then(|segment| segment.parse::<u64>().ok()).is_some_and(|segment| segment < oldest) {
                let _ = fs::remove_file(self.path.join(name));
            }
        }
    }

    /// Removes all of it.
    pub fn remove(&self) {
        if self.is_own() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Reads the next record of a log, and gives the bytes that it takes; nothing at the end of the log, or where something else stands there.
fn decode(log: &mut impl Read, segment: u64) -> io::Result<Option<(Touch, u64)>> {
    let mut record = Record::zeroed();
    if !is_whole(log.read_exact(bytemuck::bytes_of_mut(&mut record)))? {
        return Ok(None);
    }
    let Some((path_len, other_len)) = record.text_lens() else { return Ok(None) };
    let len = record_len(path_len, other_len);
    let mut texts = vec![0; len - size_of::<Record>()];
    if !is_whole(log.read_exact(&mut texts))? {
        return Ok(None);
    }
    let (path, rest) = texts.split_at(path_len);
    let other = &rest[..other_len];
    let Some(kind) = RecordKind::of(&record) else { return Ok(None) };
    if record_check(path, other) != record.check || !path.starts_with(b"/") {
        return Ok(None);
    }
    let touch = Touch { segment, kind, path: FilePath(path.to_vec()), other: FilePath(other.to_vec()), record };
    Ok(Some((touch, len as u64)))
}

/// Whether something was read as a whole, and not cut off by the end of the file.
fn is_whole(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

/// The path below `to` that a path below `from` becomes when the directory is renamed; nothing for any other path.
#[must_use]
pub fn moved(path: &FilePath, from: &FilePath, to: &FilePath) -> Option<FilePath> {
    let rest = path.as_path().strip_prefix(from.as_path()).ok()?;
    let to = to.as_path();
    Some(if rest.as_os_str().is_empty() { to.into() } else { to.join(rest).into() })
}

/// An [`Identity`] by statx(2).
#[must_use]
pub fn identity(stat: &rustix::fs::Statx) -> Identity {
    use rustix::fs::StatxFlags;
    let is_born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Identity {
        device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        born_ns: if is_born { stat.stx_btime.tv_sec * 1_000_000_000 + i64::from(stat.stx_btime.tv_nsec) } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckpt_wire::touched::Knowledge;
    use proptest::prelude::*;

    fn encoded(kind: RecordKind, path: &[u8], other: &[u8]) -> Vec<u8> {
        let record = Record {
            magic: ckpt_wire::touched::RECORD_MAGIC,
            kind: kind as u32,
            path_len: path.len() as u32,
            other_len: other.len() as u32,
            check: record_check(path, other),
            ..Record::default()
        };
        let mut bytes = [bytemuck::bytes_of(&record), path, other].concat();
        bytes.resize(record_len(path.len(), other.len()), 0);
        bytes
    }

    #[test]
    fn a_log_is_read_as_far_as_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let list = TouchedDir::at(dir.path().join("list"));
        list.make().unwrap();
        let mut log = encoded(RecordKind::Absent, b"/a\nb\xff", b"");
        log.extend(encoded(RecordKind::Kept, b"/c", b"undo.3.1"));
        let whole = log.len();
        log.extend(&encoded(RecordKind::Absent, b"/cut", b"")[..70]);
        fs::write(list.path().join("touched.3"), &log).unwrap();
        let (touches, end) = list.read(3, 0).unwrap();
        assert_eq!((touches.len(), end), (2, whole as u64));
        assert_eq!((&touches[0].path.0[..], touches[1].kind), (&b"/a\nb\xff"[..], RecordKind::Kept));
        assert_eq!(list.undo(&touches[1].other), Some(list.path().join("undo.3.1")));
        assert_eq!(list.undo(&FilePath(b"undo.3/../../x".to_vec())), None);
        // What had been half-written is whole now.
        log.truncate(whole);
        log.extend(encoded(RecordKind::Absent, b"/cut", b""));
        fs::write(list.path().join("touched.3"), &log).unwrap();
        assert_eq!(list.read(3, end).unwrap().0[0].path.0, b"/cut");
        assert_eq!(list.read(4, 0).unwrap().0, []);
    }

    #[test]
    fn damaged_records_are_none() {
        let good = encoded(RecordKind::Absent, b"/path", b"");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x55;
            if let Some((touch, len)) = decode(&mut bad.as_slice(), 1).unwrap() {
                assert!(touch.path.0 == b"/path" && len <= bad.len() as u64, "byte {at}");
            }
        }
        for len in 0..good.len() {
            assert!(decode(&mut &good[..len], 1).unwrap().is_none());
        }
    }

    #[test]
    fn a_table_that_the_job_has_damaged_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let list = TouchedDir::at(dir.path().into());
        for buckets in [0, 3, 1 << 63, u64::MAX] {
            let header = KnownHeader { magic: KNOWN_MAGIC, buckets, ..KnownHeader::zeroed() };
            fs::write(dir.path().join(KNOWN), bytemuck::bytes_of(&header)).unwrap();
            list.add(&[u64::MAX, 1]);
            assert_eq!(fs::metadata(dir.path().join(KNOWN)).unwrap().len(), size_of::<KnownHeader>() as u64);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_log(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), lens: [u32; 2], is_marked: bool) {
            if is_marked && bytes.len() >= 16 {
                bytes[..4].copy_from_slice(b"tchd");
                bytes[8..16].copy_from_slice(bytemuck::bytes_of(&lens));
            }
            prop_assert!(decode(&mut bytes.as_slice(), 1).unwrap().is_none());
        }
    }

    #[test]
    fn segments_begin_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let list = TouchedDir::at(dir.path().join("list"));
        assert_eq!(list.segment(), None);
        list.make().unwrap();
        list.make().unwrap();
        let key = Identity { device: 1, inode: 2, born_ns: 3 }.key(Knowledge::Kept);
        let keys: Vec<u64> = (0..5000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).chain([key]).collect();
        list.begin(7, 5, 6, &keys).unwrap();
        assert_eq!(list.segment(), Some(7));
        let table = fs::read(list.path().join(KNOWN)).unwrap();
        let header: KnownHeader = bytemuck::pod_read_unaligned(&table[..size_of::<KnownHeader>()]);
        let at = bucket_offset(key, header.buckets) as usize;
        assert!(table[at..at + 64].chunks(8).any(|slot| slot == key.to_ne_bytes()));
        let later = key ^ 0xff;
        list.add(&[later]);
        let table = fs::read(list.path().join(KNOWN)).unwrap();
        let at = bucket_offset(later, header.buckets) as usize;
        assert!(table[at..at + 64].chunks(8).any(|slot| slot == later.to_ne_bytes()));
        for name in ["touched.5", "touched.6", "touched.10", "undo.5.a.b", "undo.6.a.b"] {
            fs::write(list.path().join(name), "").unwrap();
        }
        assert_eq!(list.segments(), [5, 6, 10]);
        list.prune(6);
        assert_eq!(list.segments(), [6, 10]);
        assert!(!list.path().join("undo.5.a.b").exists() && list.path().join("undo.6.a.b").exists());
        list.remove();
        assert!(!list.path().exists());
    }

    #[test]
    fn paths_move_with_their_directory() {
        let at = |text: &str| FilePath::from(Path::new(text));
        assert_eq!(moved(&at("/a/b/c"), &at("/a/b"), &at("/x")), Some(at("/x/c")));
        assert_eq!(moved(&at("/a/b"), &at("/a/b"), &at("/x")), Some(at("/x")));
        assert_eq!(moved(&at("/a/bc"), &at("/a/b"), &at("/x")), None);
    }
}
