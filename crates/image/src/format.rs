//! The header, the index and the footer as bytes. Trusted code writes them; the parser trusts nothing.
//!
//! Integers are little endian. Header and footer have fixed widths; the index is postcard, which the version pins.

use std::cmp::Ordering;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::Encoding;
use crate::name::{ImageName, JOB_DIGITS, MAX_NAME, is_job_id, is_plain_name};

/// The version of the format that this crate writes, and the only one that it reads.
pub const VERSION: u32 = 4;

/// Bytes of a page. Addresses and lengths of extents are multiples of it.
pub const PAGE_SIZE: usize = 4096;

/// The most bytes that a chunk holds before compression: 1 MiB.
pub const CHUNK_SIZE: usize = 1 << 20;

/// A byte that no text has, a name, and line ends that a transfer in text mode would change.
pub(crate) const HEADER_MAGIC: [u8; 8] = *b"\x89CKPT\r\n\x1a";
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"CKPTEND\n";

pub(crate) const HEADER_LEN: usize = 128;
pub(crate) const FOOTER_LEN: usize = 48;

/// A chunk of metadata never expands by more than this factor: the size of the file bounds a reader's allocations.
pub(crate) const MAX_METADATA_RATIO: usize = 256;

/// The first 128 bytes. Their layout is the same in all versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format's version.
    pub version: u32,
    /// Features of the file that a reader must know; none are defined so far.
    pub flags: u32,
    /// The job's id: 16 lower-case hexadecimal digits.
    pub job: String,
    /// The job's name.
    pub name: String,
    /// The checkpoint's number within the job.
    pub generation: u64,
    /// When the file was created: nanoseconds since the epoch.
    pub created_at_ns: u64,
}

/// Why bytes with the header's magic are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Checksum,
    Field(&'static str),
}

impl Header {
    pub(crate) fn new(name: &ImageName, created_at_ns: u64) -> Self {
        Self {
            version: VERSION,
            flags: 0,
            job: name.job().to_owned(),
            name: name.name().to_owned(),
            generation: name.generation(),
            created_at_ns,
        }
    }

    pub(crate) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..32].copy_from_slice(self.job.as_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.created_at_ns.to_le_bytes());
        bytes[48] = self.name.len() as u8;
        bytes[56..56 + self.name.len()].copy_from_slice(self.name.as_bytes());
        let checksum = xxh3_64(&bytes[..120]);
        bytes[120..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Parses bytes that begin with the magic.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, HeaderFault> {
        if u64_at(bytes, 120) != xxh3_64(&bytes[..120]) {
            return Err(HeaderFault::Checksum);
        }
        let job = str::from_utf8(&bytes[16..16 + JOB_DIGITS]).ok().filter(|job| is_job_id(job));
        let name_len = usize::from(bytes[48]);
        let name = bytes[56..56 + MAX_NAME].get(..name_len).and_then(|name| str::from_utf8(name).ok());
        Ok(Self {
            version: u32_at(bytes, 8),
            flags: u32_at(bytes, 12),
            job: job.ok_or(HeaderFault::Field("its job id is not 16 hexadecimal digits"))?.to_owned(),
            name: name.filter(|name| is_plain_name(name)).ok_or(HeaderFault::Field("its name is not plain"))?.to_owned(),
            generation: u64_at(bytes, 32),
            created_at_ns: u64_at(bytes, 40),
        })
    }
}

/// The last bytes of a complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub index_offset: u64,
    pub index_len: u64,
    pub index_checksum: u64,
    /// XXH3-64 of the 128 bytes of the header. It lets the footer's own checksum cover the whole file.
    pub header_checksum: u64,
}

/// Why bytes are not a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FooterFault {
    Magic,
    Checksum,
}

impl Footer {
    pub(crate) fn to_bytes(self) -> [u8; FOOTER_LEN] {
        let mut bytes = [0; FOOTER_LEN];
        bytes[0..8].copy_from_slice(&FOOTER_MAGIC);
        bytes[8..16].copy_from_slice(&self.index_offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index_len.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.index_checksum.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.header_checksum.to_le_bytes());
        let checksum = xxh3_64(&bytes[..40]);
        bytes[40..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; FOOTER_LEN]) -> Result<Self, FooterFault> {
        if bytes[..8] != FOOTER_MAGIC {
            return Err(FooterFault::Magic);
        }
        if u64_at(bytes, 40) != xxh3_64(&bytes[..40]) {
            return Err(FooterFault::Checksum);
        }
        Ok(Self {
            index_offset: u64_at(bytes, 8),
            index_len: u64_at(bytes, 16),
            index_checksum: u64_at(bytes, 24),
            header_checksum: u64_at(bytes, 32),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// A run of pages, adjacent both in memory and in a decompressed chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// The space that they belong to: an address space or a file, as the metadata numbers them.
    pub space: u32,
    /// The offset in the space, in bytes: a multiple of the page size.
    pub address: u64,
    /// Bytes: a multiple of the page size, and not 0.
    pub len: u32,
    /// The offset in the decompressed chunk, in bytes: a multiple of the page size.
    pub offset: u32,
}

impl Extent {
    /// The first address after it; nothing if that exceeds the largest address.
    pub(crate) fn end(&self) -> Option<u64> {
        self.address.checked_add(u64::from(self.len))
    }

    /// Whether it consists of whole pages within a space and within a chunk of `chunk_len` bytes.
    pub(crate) fn is_valid_in(&self, chunk_len: u32) -> bool {
        let whole = |n: u64| n.is_multiple_of(PAGE_SIZE as u64);
        self.len > 0
            && whole(self.address)
            && whole(self.len.into())
            && whole(self.offset.into())
            && self.end().is_some()
            && self.offset.checked_add(self.len).is_some_and(|end| end <= chunk_len)
    }
}

/// An extent, and the chunk that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlacedExtent {
    /// The pages, and their place in the chunk.
    pub extent: Extent,
    /// The number of the chunk.
    pub chunk: u32,
}

/// The place and the encoding of a chunk's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// The file that holds it: index into [`Index::sources`]. 0 is the file that contains this index.
    pub source: u32,
    /// Byte offset in that file.
    pub offset: u64,
    /// Bytes in that file.
    pub stored_len: u32,
    /// Bytes after decompression, at most [`CHUNK_SIZE`].
    pub raw_len: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// XXH3-64 of its stored bytes.
    #[serde(with = "postcard::fixint::le")]
    pub checksum: u64,
}

/// A file that holds chunks of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name, in the directory of the image that refers to it.
    pub file: String,
    /// The checksum at the end of its footer, which covers the whole file; 0 for the file that contains this index.
    #[serde(with = "postcard::fixint::le")]
    pub footer_checksum: u64,
}

/// The places of all chunks and pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// The files with chunks. The first is the file itself; others are earlier ones, for incremental images.
    pub sources: Vec<SourceFile>,
    /// Every chunk. Those of this file follow one another without gaps, from the header to the index.
    pub chunks: Vec<ChunkEntry>,
    /// The number of the first chunk with metadata. Metadata chunks are the last ones, and belong to no extent.
    pub first_metadata: u32,
    /// The pages of each chunk, sorted by space and address, without overlaps.
    pub extents: Vec<PlacedExtent>,
}

impl Index {
    /// Parses the index of a file with `index_offset` bytes before it, and checks every field. The error names the
    /// contradiction.
    pub(crate) fn parse(bytes: &[u8], index_offset: u64) -> Result<Self, String> {
        let (index, rest) =
            postcard::take_from_bytes::<Self>(bytes).map_err(|error| format!("the index does not parse ({error})"))?;
        if !rest.is_empty() {
            return Err(format!("the index has {} bytes too many", rest.len()));
        }
        index.check_chunks(index_offset)?;
        index.check_extents()?;
        Ok(index)
    }

    fn check_chunks(&self, index_offset: u64) -> Result<(), String> {
        if self.sources.is_empty() {
            return Err("the index names no source file, not even its own".to_owned());
        }
        if u32::try_from(self.chunks.len()).is_err() {
            return Err("the index has too many chunks".to_owned());
        }
        let metadata = self.metadata_chunks().ok_or("the index has no chunk where metadata begins")?;
        // Chunks that follow one another without gaps cannot overlap, so the file's size bounds their contents.
        let mut next = HEADER_LEN as u64;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let (stored, raw) = (chunk.stored_len as usize, chunk.raw_len as usize);
            let wrong = |what: &str| Err(format!("chunk {number} {what}"));
            if stored == 0 || raw == 0 || raw > CHUNK_SIZE || stored > raw {
                return wrong("has an impossible length");
            }
            if chunk.encoding == Encoding::Raw && stored != raw {
                return wrong("is raw but has two lengths");
            }
            if chunk.source as usize >= self.sources.len() {
                return wrong("is in a source file that the index does not name");
            }
            if metadata.contains(&number) && (chunk.source != 0 || raw > stored * MAX_METADATA_RATIO) {
                return wrong("cannot hold metadata");
            }
            let end = chunk.offset.checked_add(chunk.stored_len.into());
            match (chunk.source, end) {
                (_, None) => return wrong("lies past the end of every file"),
                (0, Some(end)) if chunk.offset == next => next = end,
                (0, _) => return wrong("does not begin where the chunk before it ends"),
                _ => {}
            }
        }
        if next != index_offset {
            return Err(format!("the chunks end at byte {next}, but the index begins at byte {index_offset}"));
        }
        Ok(())
    }

    fn check_extents(&self) -> Result<(), String> {
        for PlacedExtent { extent, chunk } in &self.extents {
            let page_chunk = self.chunks.get(*chunk as usize).filter(|_| *chunk < self.first_metadata);
            if !page_chunk.is_some_and(|page_chunk| extent.is_valid_in(page_chunk.raw_len)) {
                return Err(format!("the pages of space {} at {:#x} are not in chunk {chunk}", extent.space, extent.address));
            }
        }
        match self.misplaced_extent() {
            Some(extent) => Err(format!("the pages of space {} at {:#x} are out of order", extent.space, extent.address)),
            None => Ok(()),
        }
    }

    /// The first extent that does not lie after the previous one.
    pub(crate) fn misplaced_extent(&self) -> Option<Extent> {
        self.extents.iter().zip(self.extents.iter().skip(1)).find_map(|(before, after)| {
            let in_order = match before.extent.space.cmp(&after.extent.space) {
                Ordering::Less => true,
                Ordering::Equal => before.extent.end().is_some_and(|end| end <= after.extent.address),
                Ordering::Greater => false,
            };
            (!in_order).then_some(after.extent)
        })
    }

    /// The numbers of the chunks with metadata; nothing if `first_metadata` is out of range.
    pub(crate) fn metadata_chunks(&self) -> Option<Range<usize>> {
        let first = self.first_metadata as usize;
        (first <= self.chunks.len()).then_some(first..self.chunks.len())
    }
}
