//! Images to test with.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use ckpt_image::{CHUNK_SIZE, Codec, Extent, ImageName, ImageWriter, PAGE_SIZE, encode};

pub const JOB: &str = "0123456789abcdef";

pub fn name(generation: u64) -> ImageName {
    ImageName::new("sample", JOB, generation).expect("a valid job id")
}

/// Pages that neither codec can guess from their neighbours, and that tell where they are from.
pub fn page(space: u32, address: u64) -> Vec<u8> {
    let mut state = (u64::from(space) << 48 ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let compressible = address.is_multiple_of(2 * PAGE_SIZE as u64);
    (0..PAGE_SIZE)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if compressible { (i / 64) as u8 ^ space as u8 } else { (state >> 56) as u8 }
        })
        .collect()
}

/// Chunks of `pages` pages each, every third page of the space left out.
pub fn write_space(writer: &ImageWriter, codec: Codec, space: u32, chunks: std::ops::Range<u64>, pages: u64) {
    for chunk in chunks {
        let (mut raw, mut extents) = (Vec::new(), Vec::new());
        for n in chunk * pages..(chunk + 1) * pages {
            let address = (n + n / 2) * PAGE_SIZE as u64;
            extents.push(Extent { space, address, len: PAGE_SIZE as u32, offset: raw.len() as u32 });
            raw.extend(page(space, address));
        }
        assert!(raw.len() <= CHUNK_SIZE);
        writer.append(&encode(codec, &raw), &extents).expect("append");
    }
}

/// A small image of two spaces.
pub fn write_sample(dir: &Path, generation: u64, codec: Codec) -> PathBuf {
    let writer = ImageWriter::create(dir, &name(generation)).expect("create");
    write_space(&writer, codec, 1, 0..3, 4);
    write_space(&writer, codec, 7, 0..2, 3);
    writer.commit(b"metadata of the sample").expect("commit").path
}

/// The names in a directory.
pub fn listing(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("read_dir");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}
