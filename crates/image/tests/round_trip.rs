//! A reader gets what the writer wrote: pages, metadata and places, with every codec and number of threads.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use ckpt_image::{CHUNK_SIZE, Codec, Extent, ImageReader, ImageWriter, PAGE_SIZE, VERSION, WriteError, encode};
use common::{JOB, name, page, write_sample, write_space};
use proptest::prelude::*;

fn check_all_pages(image: &ImageReader) {
    let mut chunk = Vec::new();
    for space in image.spaces() {
        for placed in image.extents_of(space) {
            image.read_chunk(placed.chunk, &mut chunk).expect("read_chunk");
            let extent = placed.extent;
            let bytes = &chunk[extent.offset as usize..][..extent.len as usize];
            assert!(bytes == page(extent.space, extent.address), "space {space} at {:#x}", extent.address);
        }
    }
}

#[test]
fn an_image_gives_back_what_was_written() {
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(19)] {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = write_sample(dir.path(), 3, codec);
        let image = ImageReader::open(&path).expect("open");
        assert_eq!(image.metadata(), b"metadata of the sample");
        assert_eq!(image.spaces().collect::<Vec<_>>(), [1, 7]);
        assert_eq!((image.extents_of(1).len(), image.extents_of(7).len(), image.extents_of(2).len()), (12, 6, 0));
        check_all_pages(&image);

        let header = image.header();
        assert_eq!((header.version, header.flags, header.generation), (VERSION, 0, 3));
        assert_eq!((header.job.as_str(), header.name.as_str()), (JOB, "sample"));

        let verified = image.verify().expect("verify");
        assert_eq!((verified.chunks, verified.pages), (6, 18));
        assert_eq!(verified.raw_bytes, 18 * PAGE_SIZE as u64 + 22);
        assert_eq!(verified.file_bytes, path.metadata().expect("metadata").len());
        image.check_chunks().expect("check_chunks");
    }
}

#[test]
fn only_its_owner_can_read_an_image() {
    let dir = tempfile::tempdir().expect("tempdir");
    let writer = ImageWriter::create(dir.path(), &name(1)).expect("create");
    let mode = |file: String| dir.path().join(file).metadata().expect("metadata").permissions().mode() & 0o7777;
    assert_eq!(mode(name(1).temp_file_name()), 0o600);
    writer.commit(&[]).expect("commit");
    assert_eq!(mode(name(1).file_name()), 0o600);
}

#[test]
fn an_image_may_hold_nothing() {
    let dir = tempfile::tempdir().expect("tempdir");
    let committed = ImageWriter::create(dir.path(), &name(1)).expect("create").commit(&[]).expect("commit");
    let image = ImageReader::open(&committed.path).expect("open");
    assert_eq!((committed.raw_bytes, committed.file_bytes), (0, image.file_bytes()));
    assert!(image.metadata().is_empty() && image.chunks().is_empty() && image.spaces().next().is_none());
    image.verify().expect("verify");
}

#[test]
fn metadata_of_many_chunks_is_one_piece() {
    let dir = tempfile::tempdir().expect("tempdir");
    let zeroes = vec![0; 3 * CHUNK_SIZE + 1];
    let mixed: Vec<u8> = (0..CHUNK_SIZE as u32 / 2).flat_map(u32::to_le_bytes).collect();
    for (generation, metadata) in [(1, zeroes), (2, mixed)] {
        let writer = ImageWriter::create(dir.path(), &name(generation)).expect("create");
        write_space(&writer, Codec::Lz4, 4, 0..1, 1);
        let path = writer.commit(&metadata).expect("commit").path;
        assert!(ImageReader::open(&path).expect("open").metadata() == metadata);
    }
}

#[test]
fn several_threads_append_at_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let writer = ImageWriter::create(dir.path(), &name(1)).expect("create");
    thread::scope(|scope| {
        for space in 0..4 {
            let writer = &writer;
            scope.spawn(move || write_space(writer, Codec::Zstd(1), space, 0..20, 8));
        }
    });
    let committed = writer.commit(b"m").expect("commit");
    assert_eq!(committed.raw_bytes, 4 * 20 * 8 * PAGE_SIZE as u64);
    let image = ImageReader::open(&committed.path).expect("open");
    assert!((0..4).all(|space| image.extents_of(space).len() == 160));
    check_all_pages(&image);
}

#[test]
fn a_chunk_is_read_into_the_callers_memory() {
    let dir = tempfile::tempdir().expect("tempdir");
    let image = ImageReader::open(&write_sample(dir.path(), 1, Codec::Zstd(1))).expect("open");
    let mut memory = vec![0; image.chunks()[0].raw_len as usize];
    image.read_chunk_into(0, &mut memory).expect("read_chunk_into");
    assert!(memory.starts_with(&page(1, 0)));
    assert!(image.read_chunk_into(0, &mut memory[1..]).is_err());
    assert!(image.read_chunk(u32::MAX, &mut memory).is_err());
}

#[test]
fn pages_that_the_format_has_no_place_for_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let writer = ImageWriter::create(dir.path(), &name(1)).expect("create");
    let raw = vec![1; 2 * PAGE_SIZE];
    let good = Extent { space: 1, address: 0x1000, len: 0x2000, offset: 0 };
    for bad in [
        Extent { len: 0, ..good },
        Extent { len: 0x1800, ..good },
        Extent { len: 0x3000, ..good },
        Extent { offset: 0x1000, ..good },
        Extent { address: 0x1001, ..good },
        Extent { address: u64::MAX - 0xfff, ..good },
        Extent { offset: 0xffff_f000, ..good },
    ] {
        assert!(matches!(writer.append(&encode(Codec::None, &raw), &[bad]), Err(WriteError::Chunk { .. })), "{bad:?}");
    }
    for size in [0, CHUNK_SIZE + 1] {
        assert!(matches!(writer.append(&encode(Codec::Zstd(1), &vec![0; size]), &[]), Err(WriteError::Chunk { .. })), "{size}");
    }
    writer.append(&encode(Codec::None, &raw), &[good]).expect("append");
    writer.append(&encode(Codec::None, &raw), &[Extent { address: 0x2000, ..good }]).expect("append");
    assert!(matches!(writer.commit(&[]), Err(WriteError::Overlap { space: 1, address: 0x2000 })));
    assert_eq!(common::listing(dir.path()), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_pages_in_any_order_come_back(
        pages in prop::collection::btree_map((0_u32..4, 0_u64..1 << 36), any::<u8>(), 0..60),
        per_chunk in 1_usize..9,
        codec in prop::sample::select(vec![Codec::None, Codec::Lz4, Codec::Zstd(1)]),
        metadata in prop::collection::vec(any::<u8>(), 0..200),
        order in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().expect("tempdir");
        let writer = ImageWriter::create(dir.path(), &name(1)).expect("create");
        let mut all: Vec<_> = pages.iter().collect();
        if !all.is_empty() {
            let middle = order.index(all.len());
            all.rotate_left(middle);
        }
        for chunk in all.chunks(per_chunk) {
            let raw: Vec<u8> = chunk.iter().flat_map(|(_, fill)| [**fill; PAGE_SIZE]).collect();
            let extents: Vec<_> = chunk.iter().enumerate().map(|(n, ((space, number), _))| Extent {
                space: *space,
                address: number * PAGE_SIZE as u64,
                len: PAGE_SIZE as u32,
                offset: (n * PAGE_SIZE) as u32,
            }).collect();
            writer.append(&encode(codec, &raw), &extents).expect("append");
        }
        let path = writer.commit(&metadata).expect("commit").path;

        let image = ImageReader::open(&path).expect("open");
        prop_assert_eq!(image.metadata(), &metadata[..]);
        let mut found = BTreeMap::new();
        let mut chunk = Vec::new();
        for placed in image.extents() {
            image.read_chunk(placed.chunk, &mut chunk).expect("read_chunk");
            let bytes = &chunk[placed.extent.offset as usize..][..PAGE_SIZE];
            prop_assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            found.insert((placed.extent.space, placed.extent.address / PAGE_SIZE as u64), bytes[0]);
        }
        prop_assert_eq!(found, pages);
    }
}
