//! A damaged file is always refused, with an error that names the damage, and never with a panic.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use ckpt_image::{Codec, ImageReader, Part, ReadError, Verified};
use common::write_sample;
use proptest::prelude::*;

fn open_and_verify(path: &Path) -> Result<Verified, ReadError> {
    ImageReader::open(path)?.verify()
}

/// The error of a file with these bytes, if it has one.
fn verify_bytes(dir: &Path, bytes: &[u8]) -> Result<Verified, ReadError> {
    // A new file each time, and not by `fs::write`: what follows a truncation is written out at once by some file systems.
    let mut file = tempfile::NamedTempFile::new_in(dir).expect("tempfile");
    file.write_all(bytes).expect("write");
    open_and_verify(file.path())
}

/// The bytes of a sound image, written once for each codec, and a directory to put a changed one into.
fn sample(codec: Codec) -> (tempfile::TempDir, Vec<u8>) {
    static SAMPLES: [OnceLock<Vec<u8>>; 3] = [const { OnceLock::new() }; 3];
    let cached = match codec {
        Codec::None => &SAMPLES[0],
        Codec::Lz4 => &SAMPLES[1],
        Codec::Zstd(_) => &SAMPLES[2],
    };
    let dir = tempfile::tempdir().expect("tempdir");
    let bytes = cached.get_or_init(|| fs::read(write_sample(dir.path(), 1, codec)).expect("read"));
    (dir, bytes.clone())
}

#[test]
fn every_bit_of_header_index_and_footer_counts() {
    let (dir, bytes) = sample(Codec::Zstd(1));
    let index_offset = u64::from_le_bytes(bytes[bytes.len() - 40..][..8].try_into().expect("8 bytes")) as usize;
    for at in (0..128).chain(index_offset..bytes.len()) {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(verify_bytes(dir.path(), &changed).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_file_cut_at_any_place_was_not_completed() {
    let (dir, bytes) = sample(Codec::Zstd(1));
    for len in (0..200).chain((200..bytes.len()).step_by(97)).chain(bytes.len() - 100..bytes.len()) {
        let error = verify_bytes(dir.path(), &bytes[..len]).expect_err("a part of an image");
        match len {
            0 => assert!(matches!(error, ReadError::Empty { .. }), "{error}"),
            _ => assert!(matches!(error, ReadError::Truncated { .. }), "{len}: {error}"),
        }
    }
}

#[test]
fn damage_is_named_by_its_place() {
    let (dir, bytes) = sample(Codec::None);
    let footer = bytes.len() - 48;
    for (at, expected) in [
        (20, Part::Header),
        (128, Part::Chunk(0)),
        (128 + 4 * 4096, Part::Chunk(1)),
        (footer - 1, Part::Index),
        (footer + 10, Part::Footer),
    ] {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        match verify_bytes(dir.path(), &changed) {
            Err(ReadError::Checksum { part, .. }) => assert_eq!(part, expected, "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_page_does_not_hide_the_sound_ones() {
    let (dir, mut bytes) = sample(Codec::Lz4);
    bytes[130] ^= 1;
    let path = dir.path().join("changed");
    fs::write(&path, bytes).expect("write");
    let image = ImageReader::open(&path).expect("open");
    let mut chunk = Vec::new();
    assert!(matches!(image.read_chunk(0, &mut chunk), Err(ReadError::Checksum { part: Part::Chunk(0), .. })));
    image.read_chunk(1, &mut chunk).expect("read_chunk");
    assert!(matches!(image.check_chunks(), Err(ReadError::Checksum { part: Part::Chunk(0), .. })));
}

#[test]
fn something_else_is_not_an_image() {
    let dir = tempfile::tempdir().expect("tempdir");
    for foreign in [&b"#!/bin/sh\n"[..], b"\x7fELF", b"x", &[0; 4096], b"DMTCP_CHECKPOINT_IMAGE_v3.0\n"] {
        assert!(matches!(verify_bytes(dir.path(), foreign), Err(ReadError::NotAnImage { .. })));
    }
    assert!(matches!(open_and_verify(dir.path()), Err(ReadError::NotAFile { .. })));
    assert!(matches!(open_and_verify(Path::new("/dev/zero")), Err(ReadError::NotAFile { .. })));
    assert!(matches!(open_and_verify(&dir.path().join("absent")), Err(ReadError::Io { .. })));
}

#[test]
fn a_pipe_does_not_make_the_reader_wait() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("ckpt_x_0123456789abcdef_000001.img");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("mkfifo");
    assert!(matches!(open_and_verify(&path), Err(ReadError::NotAFile { .. })));
}

#[test]
fn bytes_after_the_footer_are_noticed() {
    let (dir, mut bytes) = sample(Codec::Zstd(1));
    bytes.push(0);
    assert!(matches!(verify_bytes(dir.path(), &bytes), Err(ReadError::Truncated { .. })));
}

proptest! {
    #[test]
    fn any_flipped_bits_are_noticed(
        places in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
        codec in prop::sample::select(vec![Codec::None, Codec::Lz4, Codec::Zstd(1)]),
    ) {
        let (dir, bytes) = sample(codec);
        let mut changed = bytes.clone();
        for (at, bit) in places {
            changed[at.index(bytes.len())] ^= 1 << bit;
        }
        prop_assert!(changed == bytes || verify_bytes(dir.path(), &changed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2000),
        header in any::<bool>(),
        footer in any::<bool>(),
    ) {
        let (dir, sample) = sample(Codec::Zstd(1));
        if header {
            bytes.splice(..0, sample[..128].iter().copied());
        }
        if footer {
            bytes.extend_from_slice(&sample[sample.len() - 48..]);
        }
        prop_assert!(verify_bytes(dir.path(), &bytes).is_err());
    }

    #[test]
    fn parts_that_are_swapped_or_repeated_are_noticed(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        len in 1_usize..5000,
    ) {
        let (dir, bytes) = sample(Codec::Zstd(1));
        let len = len.min(bytes.len());
        let (from, to) = (from.index(bytes.len() - len + 1), to.index(bytes.len() - len + 1));
        let mut changed = bytes.clone();
        changed.copy_within(from..from + len, to);
        prop_assert!(changed == bytes || verify_bytes(dir.path(), &changed).is_err());
    }
}
