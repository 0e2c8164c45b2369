//! Reading an image. Every field is checked before it is used: a damaged or hostile file leads to an error, never to a panic,
//! and never to an allocation that the file's size does not justify.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::OFlags;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::PAGE_SIZE;
use crate::codec::{Encoding, at_least, decode};
use crate::format::{
    ChunkEntry, FOOTER_LEN, Footer, FooterFault, HEADER_LEN, HEADER_MAGIC, Header, HeaderFault, Index, PlacedExtent, SourceFile,
    VERSION,
};
use crate::owner::is_own_in;

/// The part of a file that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first 128 bytes.
    Header,
    /// The table of chunks and extents.
    Index,
    /// The last 48 bytes.
    Footer,
    /// A chunk of pages or metadata, by its number.
    Chunk(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("its header"),
            Self::Index => f.write_str("its index"),
            Self::Footer => f.write_str("its footer"),
            Self::Chunk(number) => write!(f, "chunk {number}"),
        }
    }
}

/// Why an image, or a part of it, could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system refused.
    #[error("failed to read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device or a pipe.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// It belongs to another user, whose files are not trusted.
    #[error("{} belongs to user {owner}, so it is not used; give --trust-owner if you trust that user", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// There is nothing in it.
    #[error("{} is empty: it was not completed; use an earlier generation", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It begins like an image but does not end like one.
    #[error("{} was not completed or has been cut off; use an earlier generation", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// It is another kind of file.
    #[error("{} is not a checkpoint image", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
    },
    /// It is from a later release than this.
    #[error(
        "{} is of a newer release (format {version}, features {flags:#x}; this one reads format {VERSION}); use that release",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// Its features.
        flags: u32,
    },
    /// It is from an earlier release than this.
    #[error("{} is of an older release (format {version}; this one reads format {VERSION}); use that release", path.display())]
    OlderVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It has changed since it was written.
    #[error("{} is damaged: the checksum of {part} is wrong; use an earlier generation or another copy", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Where.
        part: Part,
    },
    /// Its checksums are right, but its fields contradict one another.
    #[error("{} contradicts itself: {detail}; use an earlier generation or another copy", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        detail: String,
    },
    /// It needs an earlier file.
    #[error("{} needs chunks of {file}, and this release does not read images in several files; use a newer release", path.display())]
    OtherSource {
        /// The file.
        path: PathBuf,
        /// The file that it needs.
        file: String,
    },
    /// The caller asked for a chunk that does not exist, or passed a buffer of another size.
    #[error("{} has no chunk {chunk} of {len} bytes; this is a fault of the program", path.display())]
    NoSuchChunk {
        /// The file.
        path: PathBuf,
        /// The chunk.
        chunk: u32,
        /// Bytes to decompress into.
        len: usize,
    },
}

/// The result of checking every byte of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Chunks, those of metadata included.
    pub chunks: u64,
    /// Pages of 4096 bytes.
    pub pages: u64,
    /// Bytes of all chunks before compression.
    pub raw_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// A complete image. Its header, index and metadata are checked; its pages are checked when they are read.
#[derive(Debug)]
pub struct ImageReader {
    file: ImageFile,
    header: Header,
    index: Index,
    metadata: Vec<u8>,
}

impl ImageReader {
    /// Opens an image and checks everything but its pages.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not a complete image, is of another release, or is damaged.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = ImageFile::open(path)?;
        let (header, header_checksum) = file.header()?;
        let index = file.index(header_checksum)?;
        let mut reader = Self { file, header, index, metadata: Vec::new() };
        reader.metadata = reader.read_metadata()?;
        Ok(reader)
    }

    /// The file that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The user and group that the file belongs to.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        self.file.owner
    }

    /// Whether it belongs to this user, as far as its file system shows.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.file.is_own()
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file.size
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The metadata that the writer passed to [`ImageWriter::commit`](crate::ImageWriter::commit).
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// The files with chunks; the first stands for this file itself.
    #[must_use]
    pub fn sources(&self) -> &[SourceFile] {
        &self.index.sources
    }

    /// Every chunk, by its number. The last ones hold metadata; extents do not refer to them.
    #[must_use]
    pub fn chunks(&self) -> &[ChunkEntry] {
        &self.index.chunks
    }

    /// The chunks that hold pages: all but the last ones.
    #[must_use]
    pub fn page_chunks(&self) -> &[ChunkEntry] {
        &self.index.chunks[..self.index.first_metadata as usize]
    }

    /// Every run of pages, by space and address.
    #[must_use]
    pub fn extents(&self) -> &[PlacedExtent] {
        &self.index.extents
    }

    /// The runs of pages of one space, by address, without overlaps. Pages between them are not in the image.
    #[must_use]
    pub fn extents_of(&self, space: u32) -> &[PlacedExtent] {
        let extents = self.extents();
        let start = extents.partition_point(|placed| placed.extent.space < space);
        let len = extents[start..].partition_point(|placed| placed.extent.space == space);
        &extents[start..start + len]
    }

    /// The spaces with pages in the image, in ascending order.
    pub fn spaces(&self) -> impl Iterator<Item = u32> {
        self.extents().chunk_by(|a, b| a.extent.space == b.extent.space).map(|extents| extents[0].extent.space)
    }

    /// Reads a chunk into `out`, which is resized to the length of the chunk.
    ///
    /// # Errors
    ///
    /// As [`ImageReader::read_chunk_into`].
    pub fn read_chunk(&self, chunk: u32, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let len = self.chunks().get(chunk as usize).map_or(0, |entry| entry.raw_len as usize);
        out.resize(len, 0);
        self.read_chunk_into(chunk, out)
    }

    /// Reads a chunk into `out`, which must be as long as its [`ChunkEntry::raw_len`]. Many threads may do so at once.
    ///
    /// # Errors
    ///
    /// If the chunk cannot be read, or is damaged; the contents of `out` are unspecified then.
    pub fn read_chunk_into(&self, chunk: u32, out: &mut [u8]) -> Result<(), ReadError> {
        let entry = self.own_chunk(chunk, out.len())?;
        if entry.encoding == Encoding::Raw {
            self.file.read_at(out, entry.offset)?;
            return self.check(chunk, entry, out);
        }
        self.with_stored(chunk, entry, |stored| {
            if decode(entry.encoding, stored, out) {
                return Ok(());
            }
            Err(self.file.inconsistent(format!("chunk {chunk} does not decompress to {} bytes", out.len())))
        })
    }

    /// Verifies the checksum of every chunk without decompressing any, on all processors. Together with
    /// [`ImageReader::open`] this covers every byte of the file.
    ///
    /// # Errors
    ///
    /// When some chunk cannot be read, or is damaged.
    pub fn check_chunks(&self) -> Result<(), ReadError> {
        self.for_each_chunk(|chunk, entry| {
            self.own_chunk(chunk, entry.raw_len as usize)?;
            self.with_stored(chunk, entry, |_| Ok(()))
        })
    }

    /// Verifies every byte of the file, and that every chunk decompresses, on all processors.
    ///
    /// # Errors
    ///
    /// When some chunk cannot be read, or is damaged.
    pub fn verify(&self) -> Result<Verified, ReadError> {
        self.for_each_chunk(|chunk, _| {
            thread_local! {
                static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
            }
            RAW.with_borrow_mut(|raw| self.read_chunk(chunk, raw))
        })?;
        Ok(Verified {
            chunks: self.chunks().len() as u64,
            pages: self.extents().iter().map(|placed| u64::from(placed.extent.len)).sum::<u64>() / PAGE_SIZE as u64,
            raw_bytes: self.chunks().iter().map(|entry| u64::from(entry.raw_len)).sum(),
            file_bytes: self.file.size,
        })
    }

    fn read_metadata(&self) -> Result<Vec<u8>, ReadError> {
        let (mut metadata, mut part) = (Vec::new(), Vec::new());
        for chunk in self.index.first_metadata..self.chunks().len() as u32 {
            self.read_chunk(chunk, &mut part)?;
            metadata.extend_from_slice(&part);
        }
        Ok(metadata)
    }

    /// The entry of a chunk that is in this file and has `len` bytes.
    fn own_chunk(&self, chunk: u32, len: usize) -> Result<&ChunkEntry, ReadError> {
        let entry = self.chunks().get(chunk as usize).filter(|entry| entry.raw_len as usize == len);
        let entry = entry.ok_or_else(|| ReadError::NoSuchChunk { path: self.file.path.clone(), chunk, len })?;
        if entry.source != 0 {
            let file = self.sources()[entry.source as usize].file.clone();
            return Err(ReadError::OtherSource { path: self.file.path.clone(), file });
        }
        Ok(entry)
    }

    /// Verifies a chunk's stored bytes, then calls `use_it` with them.
    fn with_stored(
        &self,
        chunk: u32,
        entry: &ChunkEntry,
        use_it: impl FnOnce(&[u8]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        thread_local! {
            static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        STORED.with_borrow_mut(|buffer| {
            let stored = at_least(buffer, entry.stored_len as usize);
            self.file.read_at(stored, entry.offset)?;
            self.check(chunk, entry, stored)?;
            use_it(stored)
        })
    }

    fn check(&self, chunk: u32, entry: &ChunkEntry, stored: &[u8]) -> Result<(), ReadError> {
        if xxh3_64(stored) == entry.checksum { Ok(()) } else { Err(self.file.damaged(Part::Chunk(chunk))) }
    }

    /// Calls `act` for every chunk, on all processors. Returns the error of the first chunk that has one.
    fn for_each_chunk(&self, act: impl Fn(u32, &ChunkEntry) -> Result<(), ReadError> + Sync) -> Result<(), ReadError> {
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(u32, ReadError)>> = Mutex::new(None);
        let work = || {
            // Chunks are taken in order. So when one fails, all before it have been taken and will be finished.
            while failed.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = self.chunks().get(number) else { return };
                if let Err(error) = act(number as u32, entry) {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(first, _)| (number as u32) < *first) {
                        *failed = Some((number as u32, error));
                    }
                }
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(self.chunks().len());
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
            work();
            // The end of a scope does not wait until its threads have exited, and the caller may fork.
            for helper in helpers {
                let _ = helper.join();
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// A file that may be an image.
#[derive(Debug)]
pub(crate) struct ImageFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// User and group.
    pub(crate) owner: (u32, u32),
}

impl ImageFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let fail = |source| ReadError::Io { path: path.to_owned(), source };
        // A pattern may match any file: opening a named pipe must not wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(ReadError::NotAFile { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file, size: metadata.len(), owner: (metadata.uid(), metadata.gid()) })
    }

    /// Whether it belongs to this user.
    pub(crate) fn is_own(&self) -> bool {
        is_own_in(self.owner.0, &self.path)
    }

    /// The header and its checksum, even of an incomplete file.
    pub(crate) fn header(&self) -> Result<(Header, u64), ReadError> {
        let mut bytes = [0; HEADER_LEN];
        let len = HEADER_LEN.min(usize::try_from(self.size).unwrap_or(HEADER_LEN));
        self.read_at(&mut bytes[..len], 0)?;
        if len == 0 {
            return Err(ReadError::Empty { path: self.path.clone() });
        }
        if bytes[..len].iter().zip(HEADER_MAGIC).any(|(have, want)| *have != want) {
            return Err(ReadError::NotAnImage { path: self.path.clone() });
        }
        if len < HEADER_LEN {
            return Err(self.truncated());
        }
        let header = Header::parse(&bytes).map_err(|fault| match fault {
            HeaderFault::Checksum => self.damaged(Part::Header),
            HeaderFault::Field(detail) => self.inconsistent(detail.to_owned()),
        })?;
        if header.version > VERSION || header.flags != 0 {
            let Header { version, flags, .. } = header;
            return Err(ReadError::NewerVersion { path: self.path.clone(), version, flags });
        }
        if header.version < VERSION {
            return Err(ReadError::OlderVersion { path: self.path.clone(), version: header.version });
        }
        Ok((header, xxh3_64(&bytes)))
    }

    fn index(&self, header_checksum: u64) -> Result<Index, ReadError> {
        let footer_offset = self.size.checked_sub(FOOTER_LEN as u64).filter(|&offset| offset >= HEADER_LEN as u64);
        let footer_offset = footer_offset.ok_or_else(|| self.truncated())?;
        let mut bytes = [0; FOOTER_LEN];
        self.read_at(&mut bytes, footer_offset)?;
        let footer = Footer::parse(&bytes).map_err(|fault| match fault {
            FooterFault::Magic => self.truncated(),
            FooterFault::Checksum => self.damaged(Part::Footer),
        })?;
        if footer.header_checksum != header_checksum {
            return Err(self.inconsistent("its footer belongs to another header".to_owned()));
        }
        if footer.index_offset.checked_add(footer.index_len) != Some(footer_offset) {
            return Err(self.inconsistent("its index does not lie before its footer".to_owned()));
        }
        let bytes = self.read_vec(footer.index_len, footer.index_offset)?;
        if xxh3_64(&bytes) != footer.index_checksum {
            return Err(self.damaged(Part::Index));
        }
        Index::parse(&bytes, footer.index_offset).map_err(|detail| self.inconsistent(detail))
    }

    /// Reads bytes of the file. A sparse file can have any size, so the allocation may fail.
    fn read_vec(&self, len: u64, offset: u64) -> Result<Vec<u8>, ReadError> {
        let no_memory = || ReadError::Io { path: self.path.clone(), source: io::ErrorKind::OutOfMemory.into() };
        let len = usize::try_from(len).map_err(|_| no_memory())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| no_memory())?;
        bytes.resize(len, 0);
        self.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.file.read_exact_at(out, offset).map_err(|source| match source.kind() {
            // It has been truncated since it was opened.
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => ReadError::Io { path: self.path.clone(), source },
        })
    }

    fn truncated(&self) -> ReadError {
        ReadError::Truncated { path: self.path.clone() }
    }

    fn damaged(&self, part: Part) -> ReadError {
        ReadError::Checksum { path: self.path.clone(), part }
    }

    fn inconsistent(&self, detail: String) -> ReadError {
        ReadError::Inconsistent { path: self.path.clone(), detail }
    }
}

#[cfg(test)]
mod tests {
    //! Files with right checksums and an arbitrary index: damage cannot produce them, an attacker can.

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Codec, encode};
    use crate::format::Extent;
    use crate::{CHUNK_SIZE, ImageName};

    /// A header, these bytes as chunks, this index, and a footer that vouches for all of it.
    fn seal(chunks: &[u8], index: &Index, flags: u32, version: u32) -> Vec<u8> {
        let name = ImageName::new("hostile", "0123456789abcdef", 1).expect("valid");
        let header = Header { version, flags, ..Header::new(&name, 0) }.to_bytes();
        let index = postcard::to_stdvec(index).expect("serializes");
        let footer = Footer {
            index_offset: (HEADER_LEN + chunks.len()) as u64,
            index_len: index.len() as u64,
            index_checksum: xxh3_64(&index),
            header_checksum: xxh3_64(&header),
        };
        [&header[..], chunks, &index, &footer.to_bytes()].concat()
    }

    fn open(bytes: &[u8]) -> Result<ImageReader, ReadError> {
        let mut file = tempfile::NamedTempFile::new().expect("tempfile");
        file.write_all(bytes).expect("write");
        ImageReader::open(file.path())
    }

    /// Two chunks of two pages, and one of metadata.
    fn sound() -> (Vec<u8>, Index) {
        let (mut bytes, mut chunks) = (Vec::new(), Vec::new());
        for (codec, fill) in [(Codec::None, 1), (Codec::Zstd(1), 2), (Codec::Lz4, 3)] {
            let raw = [fill; 2 * PAGE_SIZE];
            let chunk = encode(codec, &raw);
            chunks.push(ChunkEntry {
                source: 0,
                offset: (HEADER_LEN + bytes.len()) as u64,
                stored_len: chunk.stored_len() as u32,
                raw_len: raw.len() as u32,
                encoding: chunk.encoding,
                checksum: chunk.checksum,
            });
            bytes.extend_from_slice(&chunk.stored);
        }
        let extent = Extent { space: 1, address: 0x1000, len: 0x2000, offset: 0 };
        let extents = vec![
            PlacedExtent { extent, chunk: 0 },
            PlacedExtent { extent: Extent { address: 0x3000, len: 0x1000, offset: 0x1000, ..extent }, chunk: 1 },
            PlacedExtent { extent: Extent { space: 2, ..extent }, chunk: 1 },
        ];
        let sources = vec![SourceFile { file: "this".to_owned(), footer_checksum: 0 }];
        (bytes, Index { sources, chunks, first_metadata: 2, extents })
    }

    #[test]
    fn an_index_that_contradicts_itself_is_refused() {
        let (bytes, index) = sound();
        open(&seal(&bytes, &index, 0, VERSION)).expect("sound").verify().expect("sound");

        type Lie = (&'static str, fn(&mut Index));
        let lies: [Lie; 22] = [
            ("no source", |index| index.sources.clear()),
            ("unknown source", |index| index.chunks[0].source = 1),
            ("metadata past the end", |index| index.first_metadata = 4),
            ("pages in metadata", |index| index.first_metadata = 1),
            ("gap", |index| index.chunks[1].offset += 1),
            ("overlap", |index| index.chunks[1].offset -= 1),
            ("offset overflow", |index| index.chunks[0].offset = u64::MAX),
            ("nothing stored", |index| index.chunks[0].stored_len = 0),
            ("larger than raw", |index| index.chunks[0].stored_len += 1),
            ("huge", |index| index.chunks[1].raw_len = u32::MAX),
            ("larger than a chunk", |index| index.chunks[1].raw_len = CHUNK_SIZE as u32 + 1),
            ("raw of two lengths", |index| index.chunks[0].raw_len += 4096),
            ("too few chunks", |index| index.chunks.truncate(2)),
            ("chunk twice", |index| index.chunks.push(index.chunks[2])),
            ("unknown chunk", |index| index.extents[0].chunk = 9),
            ("extent past its chunk", |index| index.extents[1].extent.offset = 0x2000),
            ("offset of an extent overflows", |index| index.extents[1].extent.offset = u32::MAX - 0xfff),
            ("address overflows", |index| index.extents[2].extent.address = u64::MAX - 0xfff),
            ("empty extent", |index| index.extents[0].extent.len = 0),
            ("part of a page", |index| index.extents[1].extent.address += 8),
            ("pages twice", |index| index.extents[1].extent.address = 0x2000),
            ("spaces out of order", |index| index.extents.swap(1, 2)),
        ];
        for (lie, tell) in lies {
            let (bytes, mut index) = sound();
            tell(&mut index);
            let error = open(&seal(&bytes, &index, 0, VERSION)).expect_err(lie);
            assert!(matches!(error, ReadError::Inconsistent { .. }), "{lie}: {error}");
        }
    }

    #[test]
    fn metadata_does_not_expand_without_bounds() {
        let raw = vec![0; CHUNK_SIZE];
        let bomb = encode(Codec::Zstd(19), &raw);
        let entry = ChunkEntry {
            source: 0,
            offset: HEADER_LEN as u64,
            stored_len: bomb.stored_len() as u32,
            raw_len: raw.len() as u32,
            encoding: bomb.encoding,
            checksum: bomb.checksum,
        };
        let (_, sound) = sound();
        let index = Index { sources: sound.sources, chunks: vec![entry], ..Index::default() };
        assert!(matches!(open(&seal(&bomb.stored, &index, 0, VERSION)), Err(ReadError::Inconsistent { .. })));
    }

    #[test]
    fn a_chunk_that_decompresses_to_another_length_is_refused() {
        for (chunk, raw_len) in [(1, 0x1000), (1, 0x3000), (2, 0x1000), (2, 0x3000)] {
            let (bytes, mut index) = sound();
            index.chunks[chunk].raw_len = raw_len;
            index.extents.clear();
            let error = open(&seal(&bytes, &index, 0, VERSION)).and_then(|image| image.verify()).expect_err("another length");
            assert!(matches!(error, ReadError::Inconsistent { .. }), "{error}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let (bytes, index) = sound();
        for (flags, version) in [(0, VERSION + 1), (1, VERSION), (u32::MAX, u32::MAX)] {
            let error = open(&seal(&bytes, &index, flags, version)).expect_err("newer");
            assert!(matches!(error, ReadError::NewerVersion { .. }), "{error}");
        }
        let error = open(&seal(&bytes, &index, 0, VERSION - 1)).expect_err("older");
        assert!(matches!(error, ReadError::OlderVersion { .. }), "{error}");
    }

    #[test]
    fn a_chunk_of_another_file_is_asked_for_by_name() {
        let (bytes, mut index) = sound();
        index.sources.push(SourceFile { file: "earlier.img".to_owned(), footer_checksum: 7 });
        index.chunks.insert(0, ChunkEntry { source: 1, offset: 1 << 40, ..index.chunks[0] });
        index.first_metadata += 1;
        let image = open(&seal(&bytes, &index, 0, VERSION)).expect("sound");
        let error = image.read_chunk(0, &mut Vec::new()).expect_err("in another file");
        assert!(matches!(&error, ReadError::OtherSource { file, .. } if file == "earlier.img"), "{error}");
        image.read_chunk(1, &mut Vec::new()).expect("in this file");
    }

    #[test]
    fn what_no_memory_can_hold_is_refused() {
        // A sparse file can have almost any size.
        let file = ImageFile::open(tempfile::NamedTempFile::new().expect("tempfile").path()).expect("open");
        for len in [1 << 50, 1 << 62, u64::MAX] {
            let error = file.read_vec(len, 0).expect_err("no memory");
            assert!(matches!(&error, ReadError::Io { source, .. } if source.kind() == io::ErrorKind::OutOfMemory), "{error}");
        }
    }

    fn any_chunk() -> impl Strategy<Value = ChunkEntry> {
        let encoding = prop::sample::select(vec![Encoding::Raw, Encoding::Lz4, Encoding::Zstd]);
        (0_u32..2, 0_u64..5000, 0_u32..5000, 0_u32..20_000, encoding, any::<u64>()).prop_map(
            |(source, offset, stored_len, raw_len, encoding, checksum)| ChunkEntry {
                source,
                offset,
                stored_len,
                raw_len,
                encoding,
                checksum,
            },
        )
    }

    fn any_extent() -> impl Strategy<Value = PlacedExtent> {
        (0_u32..3, 0_u64..9, 0_u32..5, 0_u32..5, 0_u32..4).prop_map(|(space, page, len, offset, chunk)| PlacedExtent {
            extent: Extent { space, address: page * 4096, len: len * 4096, offset: offset * 4096 },
            chunk,
        })
    }

    proptest! {
        #[test]
        fn any_index_is_refused_or_can_be_worked_with(
            bytes in prop::collection::vec(any::<u8>(), 0..6000),
            mut chunks in prop::collection::vec(any_chunk(), 0..4),
            mut extents in prop::collection::vec(any_extent(), 0..4),
            first_metadata in 0_u32..5,
            tidy in any::<bool>(),
        ) {
            if tidy {
                // Near enough to a sound index that the later checks are reached too.
                let mut offset = HEADER_LEN as u64;
                for chunk in &mut chunks {
                    chunk.offset = offset;
                    chunk.raw_len = chunk.raw_len.max(chunk.stored_len);
                    offset += u64::from(chunk.stored_len);
                }
                extents.sort();
            }
            let sources = vec![SourceFile { file: String::new(), footer_checksum: 0 }; 2];
            let stored = if tidy { chunks.iter().map(|chunk| chunk.stored_len as usize).sum() } else { bytes.len() };
            let bytes: Vec<u8> = bytes.iter().copied().chain(std::iter::repeat(0)).take(stored).collect();
            if let Ok(image) = open(&seal(&bytes, &Index { sources, chunks, first_metadata, extents }, 0, VERSION)) {
                let _ = image.verify();
                for placed in image.extents() {
                    let len = image.chunks()[placed.chunk as usize].raw_len;
                    prop_assert!(placed.extent.offset + placed.extent.len <= len);
                }
            }
        }

        #[test]
        fn any_bytes_for_an_index_are_refused_or_parsed(bytes in prop::collection::vec(any::<u8>(), 0..400), offset: u64) {
            let _ = Index::parse(&bytes, offset);
        }

        #[test]
        fn any_bytes_for_header_and_footer_are_refused_or_parsed(header: [[u8; 32]; 4], footer: [[u8; 16]; 3]) {
            let mut header: [u8; HEADER_LEN] = header.concat().try_into().expect("128 bytes");
            prop_assert!(Header::parse(&header).is_err());
            // With the right checksum the fields are looked at.
            let checksum = xxh3_64(&header[..120]);
            header[120..].copy_from_slice(&checksum.to_le_bytes());
            let _ = Header::parse(&header);
            let _ = Footer::parse(&footer.concat().try_into().expect("48 bytes"));
        }
    }
}
