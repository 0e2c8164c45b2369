//! The files of `examples/`, which users copy and tests run as they stand.

use std::path::{Path, PathBuf};

use crate::Sandbox;

/// The path of an example.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).join(name)
}

/// Puts all files of a folder of examples into a sandbox.
///
/// # Panics
/// When they cannot be read.
pub fn copy(folder: &str, sandbox: &Sandbox) {
    let entries = std::fs::read_dir(path(folder)).unwrap_or_else(|error| panic!("cannot read examples/{folder}: {error}"));
    for entry in entries.flatten() {
        let contents =
            std::fs::read(entry.path()).unwrap_or_else(|error| panic!("cannot read {}: {error}", entry.path().display()));
        sandbox.write(&entry.file_name().to_string_lossy(), contents);
    }
}

/// What `my_script.sh` prints in so many rounds.
#[must_use]
pub fn output(rounds: u32) -> String {
    let mut sum = 0;
    (1..=rounds)
        .map(|round| {
            sum = (sum * 31 + round) % 1_000_003;
            format!("round {round}: {sum}\n")
        })
        .collect()
}
