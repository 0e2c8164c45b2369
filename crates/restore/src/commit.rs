//! The last step, when every process of the job is complete and waits: files are brought back to the state of the checkpoint.
//!
//! Until here no file has been touched, so that a restart that fails leaves everything as it was.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ckpt_image::ImageReader;
use ckpt_objects::JobState;
use ckpt_objects::file::{self, OpenFile, OpenFileKind, RegularFile};
use ckpt_objects::job::JobInfo;
use ckpt_objects::shared_memory::SharedMemoryKind;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};

use crate::error::RestoreError;
use crate::kept::Kept;
use crate::memory;
use crate::paths::PathMap;
use crate::saved::Saved;

/// Cuts off what the job wrote after the checkpoint, so that its output is neither doubled nor lost, and writes back files that
/// it has mapped shared.
///
/// Gives lines for the user. `info` says where the job is now.
pub fn commit(
    job: &JobState,
    reader: &ImageReader,
    paths: &PathMap,
    saved: &Saved<'_>,
    kept: &Kept<'_>,
    info: &JobInfo,
) -> Result<Vec<String>, RestoreError> {
    // Before the rest: it may make a file as long as it was.
    let mut notes = saved.roll_back(info)?;
    kept.roll_back()?;
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
            memory::write_back(reader, object.space, &file, &path, object.size)?;
        }
    }
    for description in &job.open_files {
        let OpenFileKind::Regular(regular) = &description.kind else { continue };
        match description.inherited {
            Some(number) => cut_own_output(number, description, regular),
            None if regular.written => cut(&paths.resolve(&regular.path), regular.size)?,
            None => (),
        }
    }
    notes.extend(kept.name()?);
    Ok(notes)
}

fn cut(path: &Path, size: u64) -> Result<(), RestoreError> {
    let len = path.metadata().map_err(failed("examine", path))?.size();
    if len > size {
        writable(path)?.set_len(size).map_err(failed("cut off what was written after the checkpoint from", path))?;
    }
    Ok(())
}

/// The restart's own output, where it is the same file as the launcher's was: it goes on where the checkpoint left it.
fn cut_own_output(number: u8, description: &OpenFile, regular: &RegularFile) {
    if OFlags::from_bits_retain(description.flags) & OFlags::RWMODE == OFlags::RDONLY {
        return;
    }
    // SAFETY: borrowed for as long as it takes; a call on one that is not open fails.
    let own = unsafe { BorrowedFd::borrow_raw(RawFd::from(number)) };
    let Ok(stat) = rustix::fs::fstat(own) else { return };
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    // A file that was emptied for this restart stays so.
    if (stat.st_dev, stat.st_ino) != (regular.device, regular.inode) || len < regular.size {
        return;
    }
    let appends = rustix::fs::fcntl_getfl(own.as_fd()).is_ok_and(|flags| flags.contains(OFlags::APPEND));
    // A file that cannot be cut is still an output.
    let _ = rustix::fs::ftruncate(own, regular.size);
    if !appends {
        let _ = rustix::fs::seek(own, SeekFrom::Start(description.position));
    }
}

fn writable(path: &Path) -> Result<File, RestoreError> {
    let file = file::open_although(path, OFlags::WRONLY | OFlags::CLOEXEC);
    file.map(File::from).map_err(|errno| failed("open for writing", path)(errno.into()))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    move |source| RestoreError::Commit { what, path: path.to_owned(), source }
}
