//! What launcher and restart both need to know of a job's files: what lies beside its images, what is never one of its files, how much of
//! their contents an image holds, and how a segment of the list of touched paths begins.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ckpt_image::ImageName;
use ckpt_objects::job_file::{Contents, FileKind, JobFile, Role};
use ckpt_objects::touched::TouchedDir;
use ckpt_wire::touched::{Identity, Knowledge, path_key};

use crate::job::{JobInfo, Settings, realtime_ns};
use crate::{environment, library};

/// Unless the user says otherwise, an image holds so much of files at most, and never more than a tenth of the free space.
const BUDGET: u64 = 1 << 30;
/// However little space is free.
const LEAST_BUDGET: u64 = 16 << 20;

/// Where the job's list of touched paths is.
#[must_use]
pub fn list_of(info: &JobInfo) -> TouchedDir {
    list_in(info.settings.dir.as_path(), info)
}

/// Where it is when its images are in this directory.
#[must_use]
pub fn list_in(dir: &Path, info: &JobInfo) -> TouchedDir {
    TouchedDir::at(beside(dir, info, ImageName::list_name))
}

/// Where a restart puts what it takes away.
#[must_use]
pub fn aside_of(info: &JobInfo) -> PathBuf {
    aside_in(info.settings.dir.as_path(), info)
}

/// Where a restart puts what others wrote to the job's output: it stays when the job has ended well.
#[must_use]
pub fn output_of(info: &JobInfo) -> PathBuf {
    output_in(info.settings.dir.as_path(), info)
}

/// Where that is when the job's images are in this directory.
#[must_use]
pub fn output_in(dir: &Path, info: &JobInfo) -> PathBuf {
    beside(dir, info, ImageName::output_name)
}

/// Where a restart puts what it takes away, when the job's images are in this directory.
#[must_use]
pub fn aside_in(dir: &Path, info: &JobInfo) -> PathBuf {
    beside(dir, info, ImageName::aside_name)
}

/// What has this name beside the images of a job. No id that a job can have leads out of the directory.
fn beside(dir: &Path, info: &JobInfo, name: fn(&ImageName) -> String) -> PathBuf {
    ImageName::new(&info.name, &info.id, 1).map_or_else(|_| dir.join("ckpt_without_id"), |image| dir.join(name(&image)))
}

/// Bytes of files' contents that an image in the job's directory may hold.
#[must_use]
pub fn budget(settings: &Settings) -> u64 {
    settings.file_budget.unwrap_or_else(|| {
        let free = rustix::fs::statvfs(settings.dir.as_path()).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        (free / 10).clamp(LEAST_BUDGET, BUDGET)
    })
}

/// Begins a segment of the list in which nothing but these files is known.
///
/// # Errors
///
/// When the list cannot be written.
pub fn begin_segment(list: &TouchedDir, segment: u64, files: &[JobFile], largest: u64) -> io::Result<()> {
    list.make()?;
    list.begin(segment, begun_ns(), largest, &keys(files))
}

/// When a segment begins, in nanoseconds since the epoch. By the fine clock: the times of files may be ahead of the coarse one (multigrain timestamps, Linux 6.13). What is
/// made in the next tick is taken for older, and noted once more than it need be.
#[must_use]
pub fn begun_ns() -> i64 {
    realtime_ns().cast_signed()
}

/// What agents need not note: how these files are is known. Contents that no image holds are to be kept before they are changed.
#[must_use]
pub fn keys(files: &[JobFile]) -> Vec<u64> {
    let mut keys = Vec::new();
    for file in files.iter().filter(|file| file.role != Role::Read) {
        let Some(state) = &file.state else { continue };
        let identity = Identity::from(state.identity);
        keys.extend([path_key(&file.path.0), identity.key(Knowledge::Noted)]);
        let is_in_file = matches!(state.kind, FileKind::Regular { size: 1.., contents: Contents::Hashed(_) | Contents::Unknown });
        if !is_in_file {
            keys.push(identity.key(Knowledge::Kept));
        }
    }
    keys
}

/// Tells what is never one of the job's files: its images, the list itself, what restarts have set aside, the launcher's own input and output, and
/// what is made anew for each run.
pub fn left_out(info: &JobInfo) -> impl Fn(&Path) -> bool + use<> {
    let (variables, copy, aside) = (environment::place(info), library::copy_of(&info.id), aside_of(info));
    let (output, list, id) = (output_of(info), list_of(info), info.id.clone());
    move |path| {
        let image = || ImageName::parse(path).or_else(|| ImageName::parse_temporary(path));
        path == variables
            || path == copy
            || path.starts_with(&aside)
            || path.starts_with(&output)
            || path.starts_with(list.path())
            || image().is_some_and(|image| image.job() == id)
    }
}

/// Whether a path leads to the kernel's own files, but for shared memory.
#[must_use]
pub fn is_of_the_kernel(path: &Path) -> bool {
    let is_device = path.starts_with("/dev") && !path.starts_with("/dev/shm");
    is_device || path.starts_with("/proc") || path.starts_with("/sys")
}

/// The device and inode numbers of this process's own input and output, where they are files.
#[must_use]
pub fn own_streams() -> HashSet<(u64, u64)> {
    let own = (0..3).map(|fd| std::fs::metadata(format!("/proc/self/fd/{fd}")));
    own.flatten().filter(Metadata::is_file).map(|meta| (meta.dev(), meta.ino())).collect()
}
