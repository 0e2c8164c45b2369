//! The generations of a job: which images exist, which is the newest complete one, and which may be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::owner::is_own;
use crate::reader::ImageFile;
use crate::writer::{Stale, remove_if_stale, sync_dir};
use crate::{Header, ImageName, ImageReader, ReadError};

/// A file with a sound header; the rest of it has not been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub path: PathBuf,
    /// The user id of its owner.
    pub owner: u32,
    /// What it says of itself.
    pub header: Header,
}

/// A file that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why; the text names the file.
    pub reason: ReadError,
}

/// The images of one job among some files.
#[derive(Debug, Default)]
pub struct Candidates {
    /// The files to try, newest generation first; of several files of one generation, the last written first.
    pub newest_first: Vec<Candidate>,
    /// Files that are no images, or whose header is damaged.
    pub skipped: Vec<Skipped>,
}

/// How much of an image is checked before it is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Everything but the pages, which are checked when they are read.
    Structure,
    /// Every byte.
    EveryByte,
}

/// The users whose files may be images. The contents of a file prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only this user.
    Own,
    /// This user if there are such files, otherwise one other user, which root then becomes.
    OneUser,
    /// Any user.
    Any,
}

/// The newest image that is whole.
#[derive(Debug)]
pub struct Selected {
    /// The image.
    pub image: ImageReader,
    /// Newer files and files that are no images, with the reasons to pass them over.
    pub skipped: Vec<Skipped>,
}

/// Why no image could be chosen.
#[derive(Debug, Error)]
pub enum SelectError {
    /// The files belong to several jobs.
    #[error("these are images of {} jobs: {}; name those of one", jobs.len(), Jobs(jobs))]
    SeveralJobs {
        /// One file of each job, by job id.
        jobs: BTreeMap<String, PathBuf>,
    },
    /// The files belong to several other users.
    #[error("these files belong to users {}; name those of one", owners.iter().map(u32::to_string).collect::<Vec<_>>().join(" and "))]
    SeveralUsers {
        /// User ids.
        owners: BTreeSet<u32>,
    },
    /// None of the files is a complete image.
    #[error("no complete image among {} files{}", skipped.len(), Reasons(skipped))]
    NoImage {
        /// Each file, with the reason.
        skipped: Vec<Skipped>,
    },
}

struct Jobs<'a>(&'a BTreeMap<String, PathBuf>);

impl fmt::Display for Jobs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (job, path)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{job} ({})", path.display())?;
        }
        Ok(())
    }
}

struct Reasons<'a>(&'a [Skipped]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, skipped) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { ": " } else { ", " })?;
            skipped.reason.fmt(f)?;
        }
        Ok(())
    }
}

/// Sorts files by generation. Files that are no images are set aside. A file whose header is unreadable still counts as
/// belonging to the job in its name.
///
/// # Errors
///
/// When the files belong to several jobs, or to several users whom `trust` does not allow together.
pub fn newest<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, trust: Trust) -> Result<Candidates, SelectError> {
    let mut found = Candidates::default();
    let mut jobs = BTreeMap::new();
    for (path, file) in trusted(paths, trust)? {
        let path = &path;
        if found.newest_first.iter().any(|candidate| candidate.path == *path) {
            continue;
        }
        let job = match file.and_then(|file| Ok((file.owner.0, file.header()?.0))) {
            Ok((owner, header)) => {
                let job = header.job.clone();
                found.newest_first.push(Candidate { path: path.to_owned(), owner, header });
                Some(job)
            }
            Err(reason) => {
                let is_foreign = matches!(reason, ReadError::Foreign { .. });
                found.skipped.push(Skipped { path: path.to_owned(), reason });
                ImageName::parse(path).filter(|_| !is_foreign).map(|name| name.job().to_owned())
            }
        };
        if let Some(job) = job {
            jobs.entry(job).or_insert_with(|| path.to_owned());
        }
    }
    if jobs.len() > 1 {
        return Err(SelectError::SeveralJobs { jobs });
    }
    found.newest_first.sort_by_key(|candidate| {
        let Header { generation, created_at_ns, .. } = candidate.header;
        std::cmp::Reverse((generation, created_at_ns))
    });
    Ok(found)
}

/// Opens the newest complete image, and passes over incomplete ones.
///
/// # Errors
///
/// When the files belong to several jobs, or none of them is a complete image.
pub fn open_newest<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    check: Check,
    trust: Trust,
) -> Result<Selected, SelectError> {
    let Candidates { newest_first, mut skipped } = newest(paths, trust)?;
    for Candidate { path, owner, .. } in newest_first {
        let opened = ImageReader::open(&path).and_then(|image| match check {
            // The file has been replaced meanwhile.
            _ if image.owner().0 != owner => Err(ReadError::Foreign { path: path.clone(), owner: image.owner().0 }),
            Check::Structure => Ok(image),
            Check::EveryByte => image.check_chunks().map(|()| image),
        });
        match opened {
            Ok(image) => return Ok(Selected { image, skipped }),
            Err(reason) => skipped.push(Skipped { path, reason }),
        }
    }
    Err(SelectError::NoImage { skipped })
}

/// A file, opened, or the reason to pass it over.
type Opened = (PathBuf, Result<ImageFile, ReadError>);

/// Opens the files that may be images. Each of the others yields an error in its place.
fn trusted<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, trust: Trust) -> Result<Vec<Opened>, SelectError> {
    let mut files: Vec<_> = paths.into_iter().map(|path| (path.as_ref().to_owned(), ImageFile::open(path.as_ref()))).collect();
    let own = |file: &Result<ImageFile, ReadError>| file.as_ref().is_ok_and(ImageFile::is_own);
    if trust == Trust::Any || trust == Trust::OneUser && !files.iter().any(|(_, file)| own(file)) {
        let owners: BTreeSet<u32> = files.iter().filter_map(|(_, file)| Some(file.as_ref().ok()?.owner.0)).collect();
        if trust == Trust::OneUser && owners.len() > 1 {
            return Err(SelectError::SeveralUsers { owners });
        }
        return Ok(files);
    }
    for (path, file) in &mut files {
        let foreign = match file {
            Ok(open) if open.is_own() => None,
            Ok(open) => Some(open.owner.0),
            // A file that only its owner can read is not damaged.
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                fs::symlink_metadata(&*path).ok().map(|meta| meta.uid()).filter(|_| !is_own(path))
            }
            Err(_) => None,
        };
        if let Some(owner) = foreign {
            *file = Err(ReadError::Foreign { path: path.clone(), owner });
        }
    }
    Ok(files)
}

/// Why old files could not be removed. What was written before is not affected.
#[derive(Debug, Error)]
#[error("failed to {action} {}: {source}; remove old images by hand", path.display())]
pub struct PruneError {
    /// The action that failed.
    pub action: &'static str,
    /// Its object.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// The images of `job` in `dir` by their names, the newest first; this user's own only, as everywhere below.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn list(dir: &Path, job: &str) -> io::Result<Vec<(ImageName, PathBuf)>> {
    let mut images = names_in(dir, job, ImageName::parse)?;
    images.retain(|(_, path)| is_own(path));
    images.sort_by_key(|(name, _)| std::cmp::Reverse(name.generation()));
    Ok(images)
}

/// The number for the next checkpoint of `job` in `dir`: one more than the highest there is, or 1; a higher one if another user's file
/// has that name.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn next_generation(dir: &Path, job: &str) -> io::Result<u64> {
    let (mut next, mut foreign) = (1, BTreeSet::new());
    for (name, path) in names_in(dir, job, ImageName::parse)? {
        if is_own(&path) {
            next = next.max(name.generation().saturating_add(1));
        } else {
            foreign.insert(name.generation());
        }
    }
    while foreign.contains(&next) {
        next += 1;
    }
    Ok(next)
}

/// Removes the complete images of `job` in `dir` that are older than its `keep` newest complete ones; at least one stays.
/// Damaged files neither count nor are removed. Returns the removed paths, newest first.
///
/// # Errors
///
/// When the directory cannot be read, or a file not removed.
pub fn prune(dir: &Path, job: &str, keep: u32) -> Result<Vec<PathBuf>, PruneError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| PruneError { action, path, source }
    };
    let images = list(dir, job).map_err(fail("list", dir))?;
    let complete = images.into_iter().map(|(_, path)| path).filter(|path| ImageReader::open(path).is_ok());
    let old: Vec<_> = complete.skip(keep.max(1) as usize).collect();
    for path in &old {
        fs::remove_file(path).map_err(fail("remove", path))?;
    }
    if !old.is_empty() {
        sync_dir(dir).map_err(fail("make durable", dir))?;
    }
    Ok(old)
}

/// Marks an image as in use: holds a shared lock until the file is dropped. Several processes may mark one image.
///
/// # Errors
///
/// When it cannot be opened, or the file system has no locks.
pub fn mark_in_use(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    file.try_lock_shared()?;
    Ok(file)
}

/// Marks an image as in use, unless another process has marked it: then nothing.
///
/// # Errors
///
/// When it cannot be opened, or the file system has no locks.
pub fn claim(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => file.lock_shared().map(|()| Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a process has [marked](mark_in_use) an image. Always false on a file system without locks.
#[must_use]
pub fn is_in_use(path: &Path) -> bool {
    // Over NFS an exclusive lock needs a file that is open for writing.
    let file = File::options().read(true).write(true).open(path);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes every image of `job` in `dir` that is not [in use](mark_in_use), since the job has ended. Returns the removed paths.
///
/// # Errors
///
/// When the directory cannot be read, or a file not removed.
pub fn remove_all(dir: &Path, job: &str) -> Result<Vec<PathBuf>, PruneError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| PruneError { action, path, source }
    };
    let mut gone = Vec::new();
    for (_, path) in list(dir, job).map_err(fail("list", dir))? {
        if !is_in_use(&path) {
            fs::remove_file(&path).map_err(fail("remove", &path))?;
            gone.push(path);
        }
    }
    if !gone.is_empty() {
        sync_dir(dir).map_err(fail("make durable", dir))?;
    }
    Ok(gone)
}

/// Removes temporary files of `job` in `dir` whose writers were killed, but not those of living writers. Returns their number.
///
/// # Errors
///
/// When the directory cannot be read, or a file not removed.
pub fn remove_stale_temporaries(dir: &Path, job: &str) -> Result<usize, PruneError> {
    let fail = |action, path: &Path| {
        let path = path.to_owned();
        move |source| PruneError { action, path, source }
    };
    let mut removed = 0;
    for (_, path) in names_in(dir, job, ImageName::parse_temporary).map_err(fail("list", dir))? {
        if is_own(&path) && matches!(remove_if_stale(&path).map_err(fail("remove", &path))?, Stale::Removed) {
            removed += 1;
        }
    }
    Ok(removed)
}

fn names_in(dir: &Path, job: &str, parse: fn(&Path) -> Option<ImageName>) -> io::Result<Vec<(ImageName, PathBuf)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some(name) = parse(&path).filter(|name| name.job() == job) {
            names.push((name, path));
        }
    }
    Ok(names)
}
