//! Choosing the newest image that is whole among whatever files a pattern matched, and removing old ones.

mod common;

use std::fs;
use std::path::PathBuf;

use ckpt_image::generations::{Check, SelectError, Trust, list, newest, next_generation, open_newest, prune};
use ckpt_image::{Codec, ImageName, ImageWriter, ReadError};
use common::{JOB, listing, write_sample};

fn generations(count: u64) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().expect("tempdir");
    let paths = (1..=count).map(|generation| write_sample(dir.path(), generation, Codec::Zstd(1))).collect();
    (dir, paths)
}

#[test]
fn the_newest_generation_is_chosen_whatever_the_order() {
    let (_dir, paths) = generations(11);
    let found = newest([&paths[3], &paths[10], &paths[0], &paths[10]], Trust::Own).expect("newest");
    let order: Vec<_> = found.newest_first.iter().map(|candidate| candidate.header.generation).collect();
    assert_eq!(order, [11, 4, 1]);
    let selected = open_newest(&paths, Check::EveryByte, Trust::Own).expect("open_newest");
    assert_eq!((selected.image.header().generation, selected.skipped.len()), (11, 0));
}

#[test]
fn a_damaged_newest_generation_falls_back_to_the_one_before() {
    let (dir, paths) = generations(4);
    let mut bytes = fs::read(&paths[3]).expect("read");
    bytes.truncate(3000);
    fs::write(&paths[3], &bytes).expect("write");
    let mut bytes = fs::read(&paths[2]).expect("read");
    bytes[150] ^= 1;
    fs::write(&paths[2], &bytes).expect("write");
    let readme = dir.path().join("README");
    fs::write(&readme, "not an image").expect("write");

    let files = paths.iter().chain([&readme]);
    let selected = open_newest(files.clone(), Check::EveryByte, Trust::Own).expect("open_newest");
    assert_eq!(selected.image.path(), paths[1]);
    let skipped: Vec<_> = selected.skipped.iter().map(|skipped| &skipped.path).collect();
    assert_eq!(skipped, [&readme, &paths[3], &paths[2]]);
    assert!(matches!(selected.skipped[0].reason, ReadError::NotAnImage { .. }));
    assert!(matches!(selected.skipped[1].reason, ReadError::Truncated { .. }));
    assert!(matches!(selected.skipped[2].reason, ReadError::Checksum { .. }));

    // Pages are not looked at when they are going to be checked anyway.
    let selected = open_newest(files, Check::Structure, Trust::Own).expect("open_newest");
    assert_eq!(selected.image.path(), paths[2]);
}

#[test]
fn images_of_two_jobs_are_an_error_that_lists_them() {
    let (dir, mut paths) = generations(2);
    let other = ImageName::new("other", "fedcba9876543210", 9).expect("valid");
    paths.push(ImageWriter::create(dir.path(), &other).expect("create").commit(b"").expect("commit").path);
    for damaged in [false, true] {
        if damaged {
            fs::write(&paths[2], "").expect("write");
        }
        let error = open_newest(&paths, Check::EveryByte, Trust::Own).expect_err("two jobs");
        assert!(matches!(error, SelectError::SeveralJobs { .. }));
        let text = error.to_string();
        assert!(text.contains("2 jobs") && text.contains(JOB) && text.contains("fedcba9876543210 (/"), "{text}");
    }
}

#[test]
fn without_a_whole_image_every_file_is_named_with_its_reason() {
    let (dir, paths) = generations(1);
    fs::write(&paths[0], "").expect("write");
    let absent = dir.path().join("ckpt_*.img");
    let text = open_newest([&paths[0], &absent], Check::Structure, Trust::Own).expect_err("none").to_string();
    assert!(text.contains("000001.img is empty") && text.contains("failed to read") && text.contains("ckpt_*.img"), "{text}");
    let none: [PathBuf; 0] = [];
    assert!(matches!(open_newest(none, Check::Structure, Trust::Own), Err(SelectError::NoImage { .. })));
}

#[test]
fn an_image_that_was_renamed_is_known_by_its_header() {
    let (dir, paths) = generations(3);
    let renamed = dir.path().join("saved");
    fs::rename(&paths[2], &renamed).expect("rename");
    let selected = open_newest([&paths[0], &renamed, &paths[1]], Check::Structure, Trust::Own).expect("open_newest");
    assert_eq!(selected.image.path(), renamed);
}

#[test]
fn pruning_keeps_the_newest_complete_ones() {
    let (dir, paths) = generations(6);
    let foreign = dir.path().join("ckpt_sample_fedcba9876543210_000001.img");
    fs::copy(&paths[0], &foreign).expect("copy");
    // A damaged one does not count as one of those to keep, and is left for its owner to look at.
    fs::write(&paths[4], "damaged").expect("write");
    let gone = prune(dir.path(), JOB, 2).expect("prune");
    assert_eq!(gone, [paths[2].clone(), paths[1].clone(), paths[0].clone()]);
    let left: Vec<_> = list(dir.path(), JOB).expect("list").into_iter().map(|(name, _)| name.generation()).collect();
    assert_eq!(left, [6, 5, 4]);
    assert!(foreign.exists());
    assert!(prune(dir.path(), JOB, 2).expect("prune").is_empty());
    prune(dir.path(), JOB, 0).expect("prune");
    assert!(paths[5].exists() && !paths[3].exists());
}

#[test]
fn generations_go_on_from_the_highest_there_is() {
    let (dir, paths) = generations(3);
    assert_eq!(next_generation(dir.path(), JOB).expect("next_generation"), 4);
    fs::remove_file(&paths[0]).expect("remove");
    assert_eq!(next_generation(dir.path(), JOB).expect("next_generation"), 4);
    assert_eq!(next_generation(dir.path(), "fedcba9876543210").expect("next_generation"), 1);
    assert!(next_generation(&dir.path().join("absent"), JOB).is_err());
    assert_eq!(listing(dir.path()).len(), 2);
}
