//! Writing an image, so that after any `kill -9`, full disk or power cut either the whole image exists or none of it.
//!
//! 1. The file is created under a hidden name, with mode 0600, and locked while it is written.
//! 2. Chunks are appended, by several threads at once.
//! 3. The index follows the last chunk, the footer the index.
//! 4. `fsync`; rename to the name of a complete image, never over another; `fsync` of the directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Codec, EncodedChunk, encode};
use crate::format::{
    ChunkEntry, Extent, FOOTER_LEN, Footer, HEADER_LEN, Header, Index, MAX_METADATA_RATIO, PlacedExtent, SourceFile,
};
use crate::owner::is_own;
use crate::{CHUNK_SIZE, ImageName};

/// Why an image could not be written. Nothing of it remains, unless only the sync of its directory failed.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The directory, or a file in it, refused.
    #[error("failed to {action} {}: {source}; {}", path.display(), advice(source))]
    Io {
        /// The action that failed.
        action: &'static str,
        /// Its object.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process is writing the same generation of the same job.
    #[error(
        "{} is being written by another process: the job runs twice, so give one of the two another directory with --dir",
        path.display()
    )]
    Busy {
        /// The temporary file.
        path: PathBuf,
    },
    /// The image exists already.
    #[error("{} exists already and is not replaced: the job may run twice, so use another directory with --dir", path.display())]
    Exists {
        /// The image.
        path: PathBuf,
    },
    /// The temporary file was removed or replaced.
    #[error("{} was removed or replaced while it was being written; leave hidden files there alone", path.display())]
    Replaced {
        /// The temporary file.
        path: PathBuf,
    },
    /// An earlier append failed, so the image cannot be completed.
    #[error("{} is not complete, because writing to it failed before", path.display())]
    Failed {
        /// The temporary file.
        path: PathBuf,
    },
    /// The caller appended a chunk that the format does not allow.
    #[error("a chunk of {raw_len} bytes with {extents} extents does not fit the image format; this is a fault of the program")]
    Chunk {
        /// Bytes before compression.
        raw_len: usize,
        /// Runs of pages in it.
        extents: usize,
    },
    /// The caller appended the same pages twice.
    #[error("the pages of space {space} at {address:#x} were written twice; this is a fault of the program")]
    Overlap {
        /// The space.
        space: u32,
        /// The address in it.
        address: u64,
    },
}

/// The user's remedy for an error.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space there or use another directory with --dir",
        io::ErrorKind::ReadOnlyFilesystem => "it is on a read-only file system, so use another directory with --dir",
        io::ErrorKind::PermissionDenied => "make the directory writable or use another with --dir",
        io::ErrorKind::NotFound => "create the directory or use another with --dir",
        io::ErrorKind::NotADirectory => "name a directory with --dir",
        io::ErrorKind::FileTooLarge => "raise the limit on file sizes (ulimit -f) or use another directory with --dir",
        _ => "check the file system or use another directory with --dir",
    }
}

/// A complete image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its path.
    pub path: PathBuf,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of all its pages before compression.
    pub raw_bytes: u64,
    /// Why its name may not be durable.
    pub not_synced: Option<String>,
}

/// An image that is being written. If it is dropped before it is committed, it leaves nothing behind.
#[derive(Debug)]
pub struct ImageWriter {
    dir: PathBuf,
    name: ImageName,
    temporary: Temporary,
    header: [u8; HEADER_LEN],
    contents: Mutex<Contents>,
}

/// The chunks appended so far.
#[derive(Debug)]
struct Contents {
    /// Where the next chunk goes.
    end: u64,
    chunks: Vec<ChunkEntry>,
    extents: Vec<PlacedExtent>,
    raw_bytes: u64,
    /// There may be a hole in the file.
    failed: bool,
}

impl ImageWriter {
    /// Begins the image `name` in the directory `dir`. First removes a temporary file of that name whose writer has died.
    ///
    /// # Errors
    ///
    /// If the directory or its file system does not allow it, if the image exists, or if another process is writing it.
    pub fn create(dir: &Path, name: &ImageName) -> Result<Self, WriteError> {
        let path = dir.join(name.file_name());
        if fs::symlink_metadata(&path).is_ok() {
            return Err(WriteError::Exists { path });
        }
        let temporary = Temporary::create(free_temporary(dir, name))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header::new(name, u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)).to_bytes();
        temporary.write(&header, 0)?;
        let contents = Contents { end: HEADER_LEN as u64, chunks: Vec::new(), extents: Vec::new(), raw_bytes: 0, failed: false };
        Ok(Self { dir: dir.to_owned(), name: name.clone(), temporary, header, contents: Mutex::new(contents) })
    }

    /// Appends a chunk with the pages of `extents`. Many threads may do so at once: only the choice of the offset is serial.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. Then the image cannot be committed.
    pub fn append(&self, chunk: &EncodedChunk<'_>, extents: &[Extent]) -> Result<(), WriteError> {
        let reserved = self.contents().reserve(chunk, extents);
        let offset = reserved.ok_or(WriteError::Chunk { raw_len: chunk.raw_len, extents: extents.len() })?;
        self.write(&chunk.stored, offset)
    }

    /// Completes the image. On return it is durable under its own name.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, made durable or renamed, or if an image of its name exists by now.
    pub fn commit(mut self, metadata: &[u8]) -> Result<Committed, WriteError> {
        let first_metadata = self.contents().chunks.len();
        for part in metadata.chunks(CHUNK_SIZE) {
            let mut chunk = encode(Codec::Zstd(1), part);
            if chunk.raw_len > chunk.stored_len() * MAX_METADATA_RATIO {
                chunk = encode(Codec::None, part);
            }
            self.append(&chunk, &[])?;
        }
        let (file_bytes, raw_bytes) = self.finish(first_metadata, metadata.len())?;
        let path = self.dir.join(self.name.file_name());
        self.temporary.rename(&path)?;
        // The image is durable, and has its name. It counts, and older ones go, as ever: where this never succeeds they would pile up.
        let not_synced = sync_dir(&self.dir).err().map(|error| {
            let dir = self.dir.display();
            format!("the name of the image may not survive a crash of the machine: failed to make {dir} durable: {error}")
        });
        Ok(Committed { path, file_bytes, raw_bytes, not_synced })
    }

    /// Writes the index and the footer. Returns the size of the file, and that of its pages before compression.
    fn finish(&self, first_metadata: usize, metadata_len: usize) -> Result<(u64, u64), WriteError> {
        let mut contents = self.contents();
        if contents.failed {
            return Err(WriteError::Failed { path: self.temporary.path.clone() });
        }
        contents.extents.sort_unstable_by_key(|placed| (placed.extent.space, placed.extent.address));
        let index = Index {
            sources: vec![SourceFile { file: self.name.file_name(), footer_checksum: 0 }],
            chunks: std::mem::take(&mut contents.chunks),
            // Chunks are numbered in 32 bits when they are appended.
            first_metadata: first_metadata as u32,
            extents: std::mem::take(&mut contents.extents),
        };
        if let Some(Extent { space, address, .. }) = index.misplaced_extent() {
            return Err(WriteError::Overlap { space, address });
        }
        let bytes = postcard::to_stdvec(&index).map_err(|error| self.temporary.error("write", io::Error::other(error)))?;
        let footer = Footer {
            index_offset: contents.end,
            index_len: bytes.len() as u64,
            index_checksum: xxh3_64(&bytes),
            header_checksum: xxh3_64(&self.header),
        };
        let footer_offset = footer.index_offset + footer.index_len;
        self.temporary.write(&bytes, footer.index_offset)?;
        self.temporary.write(&footer.to_bytes(), footer_offset)?;
        self.temporary.sync()?;
        Ok((footer_offset + FOOTER_LEN as u64, contents.raw_bytes - metadata_len as u64))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        self.temporary.write(bytes, offset).inspect_err(|_| self.contents().failed = true)
    }
}

impl Contents {
    /// Reserves the place of a chunk and returns its offset; nothing if the format does not allow the chunk.
    fn reserve(&mut self, chunk: &EncodedChunk<'_>, extents: &[Extent]) -> Option<u64> {
        let number = u32::try_from(self.chunks.len()).ok()?;
        let raw_len = u32::try_from(chunk.raw_len).ok().filter(|&len| 0 < len && len as usize <= CHUNK_SIZE)?;
        let stored_len = u32::try_from(chunk.stored_len()).ok()?;
        if !extents.iter().all(|extent| extent.is_valid_in(raw_len)) {
            return None;
        }
        let offset = self.end;
        self.end += u64::from(stored_len);
        self.raw_bytes += u64::from(raw_len);
        let (encoding, checksum) = (chunk.encoding, chunk.checksum);
        self.chunks.push(ChunkEntry { source: 0, offset, stored_len, raw_len, encoding, checksum });
        self.extents.extend(extents.iter().map(|&extent| PlacedExtent { extent, chunk: number }));
        Some(offset)
    }
}

/// The name for a file while it is written. In a shared directory another user's file may have the first name.
fn free_temporary(dir: &Path, name: &ImageName) -> PathBuf {
    let first = dir.join(name.temp_file_name());
    let mut random = [0; 4];
    if fs::symlink_metadata(&first).is_ok() && !is_own(&first) && getrandom(&mut random, GetRandomFlags::empty()).is_ok() {
        return dir.join(name.other_temp_file_name(u32::from_ne_bytes(random)));
    }
    first
}

/// The file while it is being written. It is locked, so that another writer can tell it from one that was left behind.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    fn create(path: PathBuf) -> Result<Self, WriteError> {
        let fail = |action, source| WriteError::Io { action, path: path.clone(), source };
        // Another writer may come and go between the steps, but not for ever.
        for _ in 0..16 {
            match remove_if_stale(&path) {
                Ok(Stale::Removed | Stale::Absent) => {}
                Ok(Stale::InUse) => break,
                Err(source) => return Err(fail("remove", source)),
            }
            let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(fail("create", error)),
            };
            // A writer that takes the lock first takes the file for an abandoned one, and removes it.
            if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && names(&path, &file) {
                return Ok(Self { path, file, renamed: false });
            }
        }
        Err(WriteError::Busy { path })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.error("write", source))
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.file.sync_all().map_err(|source| self.error("make durable", source))
    }

    fn rename(&mut self, path: &Path) -> Result<(), WriteError> {
        // Without locks (some network file systems) another writer may have taken this file for an abandoned one.
        if !names(&self.path, &self.file) {
            return Err(WriteError::Replaced { path: self.path.clone() });
        }
        match rename_onto_nothing(&self.path, path) {
            Ok(()) => self.renamed = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(WriteError::Exists { path: path.to_owned() });
            }
            Err(error) => return Err(self.error("rename", error)),
        }
        Ok(())
    }

    fn error(&self, action: &'static str, source: io::Error) -> WriteError {
        WriteError::Io { action, path: self.path.clone(), source }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed && names(&self.path, &self.file) {
            // After an error the next checkpoint removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The state of a temporary file that may be abandoned.
pub(crate) enum Stale {
    /// It was abandoned, and has been removed.
    Removed,
    /// It does not exist.
    Absent,
    /// Another process is writing it.
    InUse,
}

/// Removes the temporary file `path` unless a living writer holds its lock.
pub(crate) fn remove_if_stale(path: &Path) -> io::Result<Stale> {
    // Over NFS an exclusive lock needs a file that is open for writing.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stale::Absent),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Stale::InUse),
        // On a file system without locks the job's id in the name must suffice.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    if names(path, &file) {
        fs::remove_file(path)?;
    }
    Ok(Stale::Removed)
}

/// Whether `path` is still a name of `file`.
fn names(path: &Path, file: &File) -> bool {
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

/// Renames a file to an unused name.
fn rename_onto_nothing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // NFS and many FUSE file systems support no flags.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_onto_nothing(from, to),
        result => Ok(result?),
    }
}

/// The same by a hard link, which cannot replace anything either.
fn link_onto_nothing(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Some file systems lack hard links as well. Then the lock keeps other writers out.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // The file system cannot sync directories.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_refusal_comes_with_advice() {
        for (errno, advised) in [
            (Errno::NOSPC, "free space"),
            (Errno::DQUOT, "free space"),
            (Errno::ROFS, "read-only"),
            (Errno::ACCESS, "writable"),
            (Errno::NOENT, "create the directory"),
            (Errno::NOTDIR, "name a directory"),
            (Errno::FBIG, "ulimit -f"),
            (Errno::IO, "check the file system"),
        ] {
            let error = WriteError::Io { action: "write", path: "/scratch/x".into(), source: errno.into() }.to_string();
            assert!(error.starts_with("failed to write /scratch/x: ") && error.contains(advised), "{error}");
            assert!(error.contains("--dir"), "{error}");
        }
    }

    #[test]
    fn no_way_of_renaming_replaces_a_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        for rename in [rename_onto_nothing, link_onto_nothing] {
            fs::write(&from, "new").expect("write");
            fs::write(&to, "old").expect("write");
            assert_eq!(rename(&from, &to).expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&to).expect("read"), b"old");
            fs::remove_file(&to).expect("remove");
            rename(&from, &to).expect("free");
            assert_eq!(fs::read(&to).expect("read"), b"new");
            assert!(!from.exists());
        }
    }
}
