//! Compression of chunks: pure functions from bytes to bytes, meant to run on many threads at once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// The levels of zstd.
const ZSTD_LEVELS: RangeInclusive<i32> = 1..=22;

/// The compression of chunks, as on the command line: `none`, `lz4` or `zstd[:LEVEL]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// LZ4 blocks.
    Lz4,
    /// Zstandard frames at this level, 1 to 22.
    Zstd(i32),
}

impl Default for Codec {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

/// Why a word names no codec.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseCodecError {
    /// No such codec.
    #[error("unknown compression {0:?}: use none, lz4, zstd or zstd:LEVEL")]
    Unknown(String),
    /// No such level of zstd.
    #[error("compression level {0:?} does not exist: zstd has levels 1 to 22")]
    Level(String),
}

impl FromStr for Codec {
    type Err = ParseCodecError;

    fn from_str(text: &str) -> Result<Self, ParseCodecError> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::default()),
            _ => {
                let level = text.strip_prefix("zstd:").ok_or_else(|| ParseCodecError::Unknown(text.to_owned()))?;
                match level.parse() {
                    Ok(number) if ZSTD_LEVELS.contains(&number) => Ok(Self::Zstd(number)),
                    _ => Err(ParseCodecError::Level(level.to_owned())),
                }
            }
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// The encoding of one chunk's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// An LZ4 block, without a frame.
    Lz4,
    /// A Zstandard frame.
    Zstd,
}

/// A chunk as stored in the file, with its fields for the index.
#[derive(Clone, Debug)]
pub struct EncodedChunk<'a> {
    pub(crate) encoding: Encoding,
    /// The chunk itself if compression does not shrink it.
    pub(crate) stored: Cow<'a, [u8]>,
    pub(crate) raw_len: usize,
    /// XXH3-64 of `stored`.
    pub(crate) checksum: u64,
}

impl EncodedChunk<'_> {
    /// Its bytes in the file.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.stored.len()
    }

    /// Its bytes before compression.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.raw_len
    }
}

/// Buffers that each thread keeps between chunks: a zstd context alone takes more than a megabyte.
#[derive(Default)]
struct Workspace {
    compressor: Option<(i32, zstd::bulk::Compressor<'static>)>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    output: Vec<u8>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Compresses a chunk of 1 to [`CHUNK_SIZE`](crate::CHUNK_SIZE) bytes. It stays raw if compression does not shrink it.
#[must_use]
pub fn encode(codec: Codec, raw: &[u8]) -> EncodedChunk<'_> {
    let compressed = WORKSPACE.with_borrow_mut(|workspace| match codec {
        Codec::None => None,
        Codec::Lz4 => workspace.lz4(raw).map(|stored| (Encoding::Lz4, stored)),
        Codec::Zstd(level) => workspace.zstd(level, raw).map(|stored| (Encoding::Zstd, stored)),
    });
    let (encoding, stored) = match compressed {
        Some((encoding, stored)) => (encoding, Cow::Owned(stored)),
        None => (Encoding::Raw, Cow::Borrowed(raw)),
    };
    EncodedChunk { encoding, raw_len: raw.len(), checksum: xxh3_64(&stored), stored }
}

impl Workspace {
    fn lz4(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        let bound = lz4_flex::block::get_maximum_output_size(raw.len());
        let output = at_least(&mut self.output, bound);
        let len = lz4_flex::block::compress_into(raw, output).ok()?;
        (len < raw.len()).then(|| output[..len].to_vec())
    }

    /// Nothing if compression does not shrink it: zstd gives up when the output buffer is full.
    fn zstd(&mut self, level: i32, raw: &[u8]) -> Option<Vec<u8>> {
        if self.compressor.as_ref().is_none_or(|(have, _)| *have != level) {
            self.compressor = Some((level, zstd::bulk::Compressor::new(level).ok()?));
        }
        let (_, compressor) = self.compressor.as_mut()?;
        let output = at_least(&mut self.output, raw.len());
        let len = compressor.compress_to_buffer(raw, &mut output[..raw.len().checked_sub(1)?]).ok()?;
        Some(output[..len].to_vec())
    }

    fn unzstd(&mut self, stored: &[u8], out: &mut [u8]) -> Option<usize> {
        if self.decompressor.is_none() {
            self.decompressor = Some(zstd::bulk::Decompressor::new().ok()?);
        }
        self.decompressor.as_mut()?.decompress_to_buffer(stored, out).ok()
    }
}

/// The first `len` bytes of a buffer that grows to hold them. Their contents are unspecified.
pub(crate) fn at_least(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Decompresses a chunk into `out`, whose length is the chunk's. Returns false if `stored` is not in this encoding or
/// decompresses to another length.
#[must_use]
pub(crate) fn decode(encoding: Encoding, stored: &[u8], out: &mut [u8]) -> bool {
    let len = match encoding {
        Encoding::Raw if stored.len() == out.len() => {
            out.copy_from_slice(stored);
            Some(out.len())
        }
        Encoding::Raw => None,
        Encoding::Lz4 => lz4_flex::block::decompress_into(stored, out).ok(),
        Encoding::Zstd => WORKSPACE.with_borrow_mut(|workspace| workspace.unzstd(stored, out)),
    };
    len == Some(out.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_codec_reads_as_it_is_written() {
        for text in ["none", "lz4", "zstd:1", "zstd:22"] {
            assert_eq!(text.parse::<Codec>().expect("valid").to_string(), text);
        }
        assert_eq!("zstd".parse(), Ok(Codec::Zstd(1)));
    }

    #[test]
    fn a_codec_that_does_not_exist_is_refused_by_name() {
        for text in ["", "gzip", "ZSTD", "lz4:1", "zstd1"] {
            assert_eq!(text.parse::<Codec>(), Err(ParseCodecError::Unknown(text.to_owned())));
        }
        for level in ["", "0", "23", "-1", "fast", "99999999999"] {
            assert_eq!(format!("zstd:{level}").parse::<Codec>(), Err(ParseCodecError::Level(level.to_owned())));
        }
    }

    #[test]
    fn what_does_not_shrink_stays_raw() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(1 << 16)
        .collect();
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(19)] {
            let chunk = encode(codec, &noise);
            assert_eq!(chunk.encoding, Encoding::Raw, "{codec}");
            assert_eq!(chunk.stored, noise, "{codec}");
        }
        assert!(encode(Codec::Lz4, &[0; 4096]).stored_len() < 100);
        assert!(encode(Codec::Zstd(1), &[0; 4096]).stored_len() < 100);
    }

    proptest! {
        #[test]
        fn every_codec_gives_back_what_it_got(
            runs in prop::collection::vec((any::<u8>(), 1_usize..2000), 1..40),
            codec in prop::sample::select(vec![Codec::None, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(7)]),
        ) {
            let raw: Vec<u8> = runs.iter().flat_map(|(byte, len)| std::iter::repeat_n(*byte, *len)).collect();
            let chunk = encode(codec, &raw);
            prop_assert!(chunk.stored_len() <= raw.len());
            let mut out = vec![0; raw.len()];
            prop_assert!(decode(chunk.encoding, &chunk.stored, &mut out));
            prop_assert_eq!(out, raw);
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_decoded_but_never_panic(
            stored in prop::collection::vec(any::<u8>(), 0..300),
            encoding in prop::sample::select(vec![Encoding::Raw, Encoding::Lz4, Encoding::Zstd]),
            len in 0_usize..5000,
        ) {
            let _ = decode(encoding, &stored, &mut vec![0; len]);
        }
    }
}
