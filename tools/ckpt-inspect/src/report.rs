//! What is known of one image: its sizes and the job in it, as data.

use std::collections::BTreeMap;
use std::path::Path;

use ckpt_image::{ChunkEntry, ImageReader};
use ckpt_session::JobState;
use serde::Serialize;

/// One image. As JSON it is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct ImageReport<'a> {
    /// The file.
    pub path: String,
    /// It opened, and when every byte was to be checked, every byte was right.
    pub valid: bool,
    /// Every byte was checked.
    pub verified: bool,
    /// The format's version.
    pub format: u32,
    /// When the file was created: nanoseconds since the epoch.
    pub created_at_ns: u64,
    /// How large everything is.
    pub sizes: Sizes,
    /// The job.
    pub state: &'a JobState,
}

/// How large an image and its parts are, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// The file.
    pub file: u64,
    /// All pages before compression.
    pub pages: u64,
    /// All pages in the file.
    pub stored: u64,
    /// The metadata before compression.
    pub metadata: u64,
    /// How many chunks hold pages.
    pub chunks: u64,
    /// The pages of each space before compression.
    pub spaces: BTreeMap<u32, u64>,
}

impl<'a> ImageReport<'a> {
    pub fn new(image: &ImageReader, state: &'a JobState, verified: bool) -> Self {
        let header = image.header();
        Self {
            path: image.path().display().to_string(),
            valid: true,
            verified,
            format: header.version,
            created_at_ns: header.created_at_ns,
            sizes: Sizes::of(image),
            state,
        }
    }

    /// One line.
    pub fn as_json(&self) -> String {
        // All keys are strings or numbers, so only a lack of memory could make this fail.
        serde_json::to_string(self).unwrap_or_else(|error| failure_as_json(Path::new(&self.path), &error.to_string()))
    }
}

impl Sizes {
    fn of(image: &ImageReader) -> Self {
        let sum = |len: fn(&ChunkEntry) -> u32| image.page_chunks().iter().map(|chunk| u64::from(len(chunk))).sum();
        let of_space = |space| image.extents_of(space).iter().map(|placed| u64::from(placed.extent.len)).sum();
        Self {
            file: image.file_bytes(),
            pages: sum(|chunk| chunk.raw_len),
            stored: sum(|chunk| chunk.stored_len),
            metadata: image.metadata().len() as u64,
            chunks: image.page_chunks().len() as u64,
            spaces: image.spaces().map(|space| (space, of_space(space))).collect(),
        }
    }
}

/// The line of `--json` for an image that is not valid.
pub fn failure_as_json(path: &Path, error: &str) -> String {
    serde_json::json!({ "path": path.display().to_string(), "valid": false, "error": error }).to_string()
}
