//! Files that the image holds (`--save-files`): what is missing is made before anything looks for it, and goes again when the
//! restart fails; what has changed is brought back in place by the last step, [`crate::commit`]. Of directories that the job has
//! made and works in, what is missing is made.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ckpt_image::{ImageReader, PAGE_SIZE};
use ckpt_objects::file;
use ckpt_objects::job::JobInfo;
use ckpt_objects::saved_file::{self, SavedFile, SavedKind};
use ckpt_objects::{FilePath, JobState};
use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, StatxFlags, fallocate, statx};

use crate::error::RestoreError;
use crate::memory::write_back;
use crate::paths::PathMap;

/// How many files one line names.
const NAMED: usize = 3;
/// Bytes compared at once.
const PIECE: usize = 1 << 20;

/// The saved files of a job, while it is being brought back. Dropped before [`Saved::keep`], it leaves none that it has made.
pub struct Saved<'a> {
    job: &'a JobState,
    reader: &'a ImageReader,
    /// Each with where it is now.
    files: Vec<(&'a SavedFile, PathBuf)>,
    /// By the paths that they had.
    paths: HashSet<&'a FilePath>,
    /// What has been made, directories before what is in them.
    made: Vec<PathBuf>,
    /// What has been made of the job's own directories.
    own: Vec<String>,
}

impl<'a> Saved<'a> {
    /// Makes those that are missing, with the directories that they are in.
    ///
    /// # Errors
    ///
    /// When one cannot be made, or something else has its path. What had been made is gone then.
    pub fn make_missing(job: &'a JobState, reader: &'a ImageReader, paths: &PathMap) -> Result<Self, RestoreError> {
        let files: Vec<_> = job.saved_files.iter().map(|saved| (saved, paths.resolve(&saved.path))).collect();
        let names = job.saved_files.iter().map(|saved| &saved.path).collect();
        let mut all = Self { job, reader, files, paths: names, made: Vec::new(), own: Vec::new() };
        let mut made = Vec::new();
        for (saved, path) in all.files.clone() {
            match path.symlink_metadata() {
                Ok(meta) if saved.kind.is_that_of(meta.file_type()) => (),
                Ok(_) => return Err(RestoreError::OtherKind { path, was: saved.kind.name() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let failed = |source| {
                        let place = path.ancestors().take_while(|ancestor| !ancestor.exists()).last().unwrap_or(&path);
                        let old = paths.old_of(saved.path.as_path(), place);
                        RestoreError::Remake { path: path.clone(), old, source }
                    };
                    all.make(saved, &path).map_err(failed)?;
                    made.push((saved, path));
                }
                Err(source) => return Err(RestoreError::Commit { what: "examine", path, source }),
            }
        }
        for saved in &job.own_files {
            let path = paths.resolve(&saved.path);
            if is_gone(&path) && all.make_own(saved, &path) {
                made.push((saved, path));
            }
        }
        // Directories last: what is made in one changes its time, and its permissions may forbid it.
        for (saved, path) in made.into_iter().rev() {
            saved_file::rebuild_owner_mode_and_time(saved, &path).map_err(failed("set the permissions of", &path))?;
        }
        Ok(all)
    }

    fn make(&mut self, saved: &SavedFile, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| parent.symlink_metadata().is_err()).collect();
        for parent in missing.into_iter().rev() {
            saved_file::rebuild_directory(parent)?;
            self.made.push(parent.to_owned());
        }
        let file = saved_file::rebuild_file(saved, path)?;
        self.made.push(path.to_owned());
        if let (Some(file), SavedKind::Regular { size, space }) = (file, &saved.kind) {
            file.set_len(*size)?;
            write_back(self.reader, *space, &file, path, *size).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Makes what is missing in a directory of the job's own, or that itself. Whether it could be made: the checks tell who needs
    /// it.
    fn make_own(&mut self, saved: &SavedFile, path: &Path) -> bool {
        let before = self.made.len();
        let is_made = self.make(saved, path).is_ok();
        if is_made {
            self.own.push(path.display().to_string());
        } else {
            remove_made(&self.made.split_off(before));
        }
        is_made
    }

    /// Whether the image holds the file that had this path, so that it need not be what it was.
    #[must_use]
    pub fn holds(&self, path: &FilePath) -> bool {
        self.paths.contains(path)
    }

    /// Brings back those that were there, in place, and sets aside what the job has made since: `info` says where it is now.
    /// Gives lines for the user.
    ///
    /// # Errors
    ///
    /// When one cannot be changed.
    pub fn roll_back(&self, info: &JobInfo) -> Result<Vec<String>, RestoreError> {
        let made: HashSet<&Path> = self.made.iter().map(PathBuf::as_path).collect();
        // What is in a directory first: as above.
        for (saved, path) in self.files.iter().rev().filter(|(_, path)| !made.contains(path.as_path())) {
            self.roll_back_one(saved, path)?;
        }
        let mut notes = self.set_aside_newer(info)?;
        if !self.own.is_empty() {
            notes.push(format!("made again from the image what the job had made, and is gone: {}", listed(&self.own)));
        }
        Ok(notes)
    }

    fn roll_back_one(&self, saved: &SavedFile, path: &Path) -> Result<(), RestoreError> {
        match &saved.kind {
            SavedKind::Regular { size, space } => {
                roll_back_contents(path, self.reader, *space, *size)?;
            }
            SavedKind::Link { target } => {
                if std::fs::read_link(path).map_err(failed("read", path))? != target.as_path() {
                    std::fs::remove_file(path).map_err(failed("remove", path))?;
                    saved_file::rebuild_file(saved, path).map_err(failed("make", path))?;
                }
            }
            SavedKind::Directory | SavedKind::Fifo => (),
        }
        saved_file::rebuild_owner_mode_and_time(saved, path).map_err(failed("set the permissions of", path))
    }

    /// What the job made after the checkpoint would be in its way when it makes it again.
    fn set_aside_newer(&self, info: &JobInfo) -> Result<Vec<String>, RestoreError> {
        let settings = &info.settings;
        if settings.save_files.is_empty() {
            return Ok(Vec::new());
        }
        let left_out = ckpt_coordinator::saved::left_out(info);
        let found = match saved_file::find(&settings.save_files, info.launch_dir.as_path(), &left_out) {
            Ok(found) => found,
            Err(error) => return Ok(vec![format!("what the job made after the checkpoint cannot be found: {error}")]),
        };
        let known: HashSet<&Path> = self.files.iter().map(|(_, path)| path.as_path()).collect();
        let mut aside: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for path in found.into_keys().filter(|path| !known.contains(path.as_path())) {
            // With its directory, perhaps.
            if path.ancestors().any(|ancestor| aside.contains_key(ancestor)) || !is_newer(&path, info.taken_at_ns) {
                continue;
            }
            let name = saved_file::set_aside(&path, self.job.info.generation).map_err(failed("set aside", &path))?;
            aside.insert(path, name);
        }
        if aside.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = aside.iter().map(|(old, new)| format!("{} as {}", old.display(), name_of(new))).collect();
        Ok(vec![format!("set aside what --save-files names and was made after the checkpoint: {}", listed(&names))])
    }

    /// The job is back: what was made stays.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        remove_made(&self.made);
    }
}

/// Removes what a restart has made, which failed: `made` has directories before what is in them.
pub fn remove_made(made: &[PathBuf]) {
    for path in made.iter().rev() {
        // Somebody else may have put something into a directory meanwhile: then it stays.
        let _ = match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir(path),
            _ => std::fs::remove_file(path),
        };
    }
}

/// Whether nothing is at a path, in a directory that is there.
fn is_gone(path: &Path) -> bool {
    let is_missing = matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound);
    is_missing && path.parent().is_some_and(Path::is_dir)
}

/// The first few of these, and how many more there are.
pub fn listed(names: &[String]) -> String {
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

/// Gives a regular file the contents of a space, in place, and its size. Whether anything had to be changed.
///
/// # Errors
///
/// When it cannot be read or written.
pub fn roll_back_contents(path: &Path, reader: &ImageReader, space: u32, size: u64) -> Result<bool, RestoreError> {
    Contents { path, writer: None, differs: false, only_compared: false }.roll_back(reader, space, size)
}

/// Whether a regular file begins with the `size` bytes of a space.
///
/// # Errors
///
/// When the image cannot be read.
pub fn begins_with(path: &Path, reader: &ImageReader, space: u32, size: u64) -> Result<bool, RestoreError> {
    let Ok(file) = File::open(path) else { return Ok(false) };
    let long_enough = file.metadata().is_ok_and(|meta| meta.size() >= size);
    Ok(long_enough
        && !Contents { path, writer: None, differs: false, only_compared: true }.compare(&file, reader, space, size)?)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file was made after a moment, in nanoseconds since the epoch. One whose file system does not tell was not.
fn is_newer(path: &Path, than_ns: u64) -> bool {
    let Ok(stat) = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME) else { return false };
    let born = i128::from(stat.stx_btime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_btime.tv_nsec);
    StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) && born > i128::from(than_ns)
}

/// A regular file whose contents are compared, and written only where they differ: it may be mapped, and somebody may watch it.
struct Contents<'a> {
    path: &'a Path,
    writer: Option<File>,
    differs: bool,
    /// Nothing is written at all.
    only_compared: bool,
}

impl Contents<'_> {
    fn roll_back(mut self, reader: &ImageReader, space: u32, size: u64) -> Result<bool, RestoreError> {
        let path = self.path;
        let file = open(path, OFlags::RDONLY).map_err(failed("open", path))?;
        if file.metadata().map_err(failed("examine", path))?.size() != size {
            self.change("give its size back to", |writer| writer.set_len(size))?;
        }
        self.compare(&file, reader, space, size)
    }

    /// Whether anything differs, or did.
    fn compare(mut self, file: &File, reader: &ImageReader, space: u32, size: u64) -> Result<bool, RestoreError> {
        let path = self.path;
        let mut buffer = Vec::new();
        let mut loaded = None;
        let mut now = vec![0; PIECE];
        let mut end = 0;
        for placed in reader.extents_of(space) {
            let extent = placed.extent;
            self.empty(file, end, extent.address.min(size))?;
            end = extent.address.saturating_add(extent.len.into());
            if loaded != Some(placed.chunk) {
                reader.read_chunk(placed.chunk, &mut buffer)?;
                loaded = Some(placed.chunk);
            }
            let len = u64::from(extent.len).min(size.saturating_sub(extent.address)) as usize;
            let bytes = buffer.get(extent.offset as usize..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            now.resize(now.len().max(len), 0);
            file.read_exact_at(&mut now[..bytes.len()], extent.address).map_err(failed("read", path))?;
            if now[..bytes.len()] != *bytes {
                self.change("write", |writer| writer.write_all_at(bytes, extent.address))?;
            }
            if self.differs && self.only_compared {
                return Ok(true);
            }
        }
        self.empty(file, end, size)?;
        Ok(self.differs)
    }

    /// Makes a hole where there was one.
    fn empty(&mut self, file: &File, start: u64, end: u64) -> Result<(), RestoreError> {
        if start >= end {
            return Ok(());
        }
        let ranges = ckpt_objects::file::data_ranges(file, end).map_err(failed("read", self.path))?;
        let mut now = vec![0; PIECE];
        for (from, to) in ranges {
            let mut at = from.max(start);
            while at < to {
                let len = (to - at).min(PIECE as u64) as usize;
                file.read_exact_at(&mut now[..len], at).map_err(failed("read", self.path))?;
                if now[..len].iter().any(|&byte| byte != 0) {
                    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    self.change("empty", |writer| {
                        fallocate(&*writer, hole, at, len.next_multiple_of(PAGE_SIZE) as u64)
                            .or_else(|_| writer.write_all_at(&vec![0; len], at))
                    })?;
                }
                at += len as u64;
            }
        }
        Ok(())
    }

    fn change(&mut self, what: &'static str, act: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), RestoreError> {
        self.differs = true;
        if self.only_compared {
            return Ok(());
        }
        let path = self.path;
        act(self.writer()?).map_err(failed(what, path))
    }

    fn writer(&mut self) -> Result<&mut File, RestoreError> {
        match self.writer {
            Some(ref mut writer) => Ok(writer),
            None => {
                let file = open(self.path, OFlags::WRONLY).map_err(failed("open for writing", self.path))?;
                Ok(self.writer.insert(file))
            }
        }
    }
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    Ok(file::open_although(path, flags | OFlags::CLOEXEC)?.into())
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    move |source| RestoreError::Commit { what, path: path.to_owned(), source }
}
