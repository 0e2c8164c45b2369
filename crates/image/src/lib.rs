//! The image: one file that holds a whole job at one instant.
//!
//! This crate knows the file, not its contents: it stores chunks of bytes that belong to pages of numbered *spaces*, and one
//! block of metadata that only its callers understand. It knows no process, and decides neither when to write nor which image
//! to use beyond "the newest complete one".
//!
//! ```text
//!        0  ┌─────────────────────────────────────────────┐
//!           │ header   128 bytes: magic, version, flags,  │
//!           │          job, generation, time, name, XXH3  │
//!      128  ├─────────────────────────────────────────────┤
//!           │ chunk 0  a zstd frame, an LZ4 block, or raw │  in the order in which they were appended,
//!           │ chunk 1                                     │  without gaps
//!           │   …                                         │
//!           │ chunk m  the first that holds metadata      │
//!           │   …                                         │
//!           ├─────────────────────────────────────────────┤
//!           │ index    source files, chunks (where, how   │
//!           │          long, XXH3), extents (which pages) │
//! size - 48 ├─────────────────────────────────────────────┤
//!           │ footer   48 bytes: magic, where the index   │  written last
//!           │          is, XXH3 of index, header, footer  │
//!     size  └─────────────────────────────────────────────┘
//! ```
//!
//! Exactly one checksum covers each byte, and the footer's covers all others: `docs/image-format.md` has the details. A file
//! without a footer was not completed. An image has a hidden name while it is being written. A rename gives it its own name after
//! everything is durable, so a file that `ckpt_*.img` matches is complete unless it was damaged later.

#![forbid(unsafe_code)]

mod codec;
mod format;
pub mod generations;
mod name;
mod owner;
mod reader;
mod writer;

pub use codec::{Codec, EncodedChunk, Encoding, ParseCodecError, encode};
pub use format::{CHUNK_SIZE, ChunkEntry, Extent, Header, PAGE_SIZE, PlacedExtent, SourceFile, VERSION};
pub use name::{ImageName, NameError};
pub use reader::{ImageReader, Part, ReadError, Verified};
pub use writer::{Committed, ImageWriter, WriteError};
