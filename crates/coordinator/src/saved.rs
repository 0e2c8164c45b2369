//! Files of `--save-files` on their way into the image: found and kept while the job stands still, appended when it runs again.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ckpt_image::{Codec, ImageName, ImageWriter};
use ckpt_objects::job::JobInfo;
use ckpt_objects::saved_file::{self, Captured, SaveError};

use crate::dump::{DumpError, Packer};
use crate::environment;

/// Tells what patterns may name and is never saved: images, and what every restart replaces by its own: the input and output of this process, and the
/// file of the batch job's variables.
pub fn left_out(info: &JobInfo) -> impl Fn(&Path, &Metadata) -> bool + use<> {
    let variables = environment::place(info);
    let own = (0..3).map(|fd| std::fs::metadata(format!("/proc/self/fd/{fd}")));
    let own: Vec<(u64, u64)> = own.flatten().filter(Metadata::is_file).map(|meta| (meta.dev(), meta.ino())).collect();
    move |path, meta| {
        let is_image = || ImageName::parse(path).is_some() || ImageName::parse_temporary(path).is_some();
        meta.is_file() && (own.contains(&(meta.dev(), meta.ino())) || path == variables || is_image())
    }
}

/// Takes all files that the job's settings name as they are now. Their spaces are numbered from `space` on.
pub fn capture(info: &JobInfo, space: u32) -> Result<Captured, SaveError> {
    if info.settings.save_files.is_empty() {
        return Ok(Captured::none(space));
    }
    let found = saved_file::find(&info.settings.save_files, info.launch_dir.as_path(), &left_out(info))?;
    saved_file::capture(found, info.settings.dir.as_path(), space)
}

/// Appends their contents.
pub fn append(writer: &ImageWriter, codec: Codec, captured: &Captured) -> Result<(), DumpError> {
    let mut packer = Packer::new(writer, codec);
    for kept in &captured.contents {
        packer.add(kept.space, kept.offset, kept.len, |from, part| captured.read(kept, from, part).map_err(DumpError::Saved))?;
    }
    Ok(packer.flush()?)
}
