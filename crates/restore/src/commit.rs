//! The last step, when every process of the job is complete and waits. Shared file mappings get their contents, and this restart's own
//! output continues the job's.

use std::fs::File;
use std::path::Path;

use ckpt_image::ImageReader;
use ckpt_objects::file;
use ckpt_objects::shared_memory::SharedMemoryKind;
use ckpt_session::JobState;
use rustix::fs::{FallocateFlags, OFlags};

use crate::aside::Aside;
use crate::error::RestoreError;
use crate::memory;
use crate::own_output::OwnOutput;
use crate::paths::PathMap;

/// Writes back files that the job has mapped shared, and cuts off what was written to the restart's own output after the checkpoint.
///
/// Gives lines for the user. What others have written to its output goes `aside`.
pub fn commit(job: &JobState, reader: &ImageReader, paths: &PathMap, aside: &Aside) -> Result<Vec<String>, RestoreError> {
    let mut output = OwnOutput::find(job, aside);
    output.keep_tails()?;
    let notes = output.cut()?;
    for object in &job.shared_memory {
        if let SharedMemoryKind::Named { path, in_memory, .. } = &object.kind {
            let path = paths.resolve(path);
            let file = writable(&path)?;
            // The job may have made it longer after the checkpoint; it cannot be shorter, except in memory.
            file.set_len(object.size).map_err(failed("give its size back to", &path))?;
            if *in_memory && object.size > 0 {
                // The image holds all of it: what it does not hold was a hole.
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, hole, 0, object.size).map_err(|error| failed("empty", &path)(error.into()))?;
            }
            memory::write_back(reader, object.space.0, &file, &path, object.size)?;
        }
    }
    Ok(notes)
}

fn writable(path: &Path) -> Result<File, RestoreError> {
    let file = file::open_although(path, OFlags::WRONLY | OFlags::CLOEXEC);
    file.map(File::from).map_err(|errno| failed("open for writing", path)(errno.into()))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    move |source| RestoreError::Commit { what, path: path.to_owned(), source }
}
