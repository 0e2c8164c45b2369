//! Regular files that the job had open, or mapped shared: where they are by now, and what is done about those that are not there
//! any more. A named pipe is made again where nothing is at its path.
//!
//! ```text
//! at its path is      the job only reads it          the job writes to it
//! ------------------  -----------------------------  --------------------------------------------------------------
//! the same file       as it is; the old contents,    the contents of the checkpoint, in place; where they are not
//!                     unnamed, where it has others   held: cut to its size
//! nothing             made again from the contents that are held, with directories of the job's own; where
//!                     they are not held: found under another name in its directory
//! another file        the old contents, unnamed      its own again, which is found under another name or made from
//!                                                    what is held; the other one is set aside, but not in a directory
//!                                                    of the job's own, where it may be in the way (rmdir)
//! ```
//!
//! A file that begins with what the image holds is the same file: a copy, or what an earlier restart has made.
//!
//! What must be made is made before anything looks for it, beside the other one where there is one, and goes again when the
//! restart fails. Names change in the last step, [`crate::commit`].

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ckpt_image::ImageReader;
use ckpt_objects::file::OpenFileKind;
use ckpt_objects::inotify::Watched;
use ckpt_objects::kept_file::{FileNumber, KeptFile, Standing, named_in, place_beside};
use ckpt_objects::process::Life;
use ckpt_objects::saved_file::{self, SavedKind};
use ckpt_objects::{FilePath, JobState};

use crate::error::RestoreError;
use crate::memory::write_back;
use crate::paths::PathMap;
use crate::saved::{self, Saved, listed};
use crate::sockets::unix;

/// The files of a job, while it is being brought back. Dropped before [`Kept::keep`], it leaves none that it has made.
pub struct Kept<'a> {
    reader: &'a ImageReader,
    generation: u64,
    /// In the order of [`JobState::kept_files`], but for those that are served otherwise.
    files: Vec<Found<'a>>,
    /// What has been made, directories before what is in them.
    made: Vec<PathBuf>,
}

/// A file, and how the job has it again.
struct Found<'a> {
    kept: &'a KeptFile,
    /// Where the job expects it.
    path: PathBuf,
    now: Now,
}

/// How the job has a file again.
enum Now {
    /// It is there. Whatever else must be so of it, others see to.
    There,
    /// It is there, and gets its contents back.
    RolledBack,
    /// Made where it was.
    Made,
    /// It waits under this name until what has taken its own is set aside.
    Aside(PathBuf),
    /// It is open under this name, and keeps that.
    Elsewhere(PathBuf),
    /// Made under this name, which is taken away.
    Unnamed(PathBuf),
}

impl<'a> Kept<'a> {
    /// Finds all files of a job, and makes those that are missing. Where one has another name for now, `paths` lead to that. What
    /// can neither be found nor made is left to the checks.
    ///
    /// # Errors
    ///
    /// When one cannot be seen or made. What had been made is gone then.
    pub fn find(
        job: &'a JobState,
        reader: &'a ImageReader,
        paths: &mut PathMap,
        saved: &Saved<'_>,
    ) -> Result<Self, RestoreError> {
        let mut all = Self { reader, generation: job.info.generation, files: Vec::new(), made: Vec::new() };
        let places = Places::of(job, paths);
        let wanted = || job.kept_files.iter().filter(|kept| !saved.holds(&kept.file.path));
        // One that has lost one of its names still has the other.
        let is_there = |path: &PathBuf, kept: &KeptFile| matches!(kept.standing(path), Ok(Standing::Same { .. }));
        let mut names: HashMap<FileNumber, PathBuf> = wanted()
            .map(|kept| (kept, paths.resolve(&kept.file.path)))
            .filter(|(kept, path)| is_there(path, kept))
            .map(|(kept, path)| (kept.identity, path))
            .collect();
        for kept in wanted() {
            let path = paths.resolve(&kept.file.path);
            let now = all.now(kept, &path, &places, &names)?;
            match &now {
                Now::Aside(place) | Now::Unnamed(place) => paths.place(kept.file.path.as_path(), place.clone()),
                Now::Elsewhere(place) => paths.add(kept.file.path.as_path().to_owned(), place.clone()),
                _ => (),
            }
            if matches!(now, Now::RolledBack | Now::Made | Now::Aside(_)) {
                names.entry(kept.identity).or_insert_with(|| paths.resolve(&kept.file.path));
            }
            all.files.push(Found { kept, path, now });
        }
        for file in job.sockets.iter().filter_map(unix::name_that_is_used) {
            let path = paths.resolve(&file.path);
            if places.may_be_made(file.own_directories, &path) {
                // The check of sockets tells who needs it.
                let _ = all.make_directories(&path);
            }
        }
        Ok(all)
    }

    fn now(
        &mut self,
        kept: &KeptFile,
        path: &Path,
        places: &Places,
        names: &HashMap<FileNumber, PathBuf>,
    ) -> Result<Now, RestoreError> {
        let standing = match kept.standing(path) {
            Ok(standing) => standing,
            // The check of open files tells who needs it.
            Err(_) => return Ok(Now::There),
        };
        // One named pipe is as good as another; the check of open files tells what is none.
        if kept.file.kind == SavedKind::Fifo && standing != Standing::Gone {
            return Ok(Now::There);
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        Ok(match standing {
            Standing::Same { size } if !kept.written => match kept.held && self.is_rewritten(kept, path, size)? {
                true => Now::Unnamed(self.make_beside(kept, path, None)?),
                false => Now::There,
            },
            Standing::Same { .. } if kept.held => Now::RolledBack,
            Standing::Other { size: Some(size) } if kept.held && self.begins_alike(kept, path, size)? => {
                if kept.written {
                    Now::RolledBack
                } else {
                    Now::There
                }
            }
            Standing::Same { .. } | Standing::Other { .. } if !kept.held && !kept.written => Now::There,
            Standing::Same { .. } => Now::There,
            Standing::Other { .. } if !kept.written => Now::Unnamed(self.make_beside(kept, path, None)?),
            Standing::Other { .. } => match named_in(directory, &kept.identity) {
                Some(place) => Now::Aside(place),
                None if kept.held => Now::Aside(self.make_beside(kept, path, names.get(&kept.identity))?),
                None => Now::There,
            },
            Standing::Gone if kept.held && places.may_be_made(kept.own_directories, path) => {
                let before = self.made.len();
                match self.make(kept, path, names.get(&kept.identity)) {
                    Ok(()) => Now::Made,
                    // It was somebody else's to make.
                    Err(error) if is_forbidden(&error) => {
                        saved::remove_made(&self.made.split_off(before));
                        if kept.written { Now::There } else { Now::Unnamed(self.make_beside(kept, path, None)?) }
                    }
                    Err(error) => return Err(failed("make", path)(error)),
                }
            }
            Standing::Gone => match named_in(directory, &kept.identity) {
                Some(place) if kept.written => Now::Aside(place),
                Some(place) => Now::Elsewhere(place),
                None => Now::There,
            },
        })
    }

    /// Whether a file that is held has other contents now, not only more.
    fn is_rewritten(&self, kept: &KeptFile, path: &Path, size: u64) -> Result<bool, RestoreError> {
        let held = size_of(kept);
        if size < held {
            return Ok(true);
        }
        let meta = path.metadata().map_err(failed("examine", path))?;
        let is_touched = meta.mtime() * 1_000_000_000 + meta.mtime_nsec() != kept.file.mtime_ns;
        Ok(held > 0 && is_touched && !self.begins_alike(kept, path, size)?)
    }

    /// Whether a file begins with the contents that the image holds.
    fn begins_alike(&self, kept: &KeptFile, path: &Path, size: u64) -> Result<bool, RestoreError> {
        let SavedKind::Regular { size: held, space } = kept.file.kind else { return Ok(false) };
        // Everything begins with nothing: what has been written to an empty file is not lost for that.
        if size < held || held == 0 {
            return Ok(size == held);
        }
        saved::begins_with(path, self.reader, space, held)
    }

    /// Makes a file under a name that nobody else has: in its directory, or, where that does not allow it and its name does not
    /// matter, in `/tmp`.
    fn make_beside(&mut self, kept: &KeptFile, path: &Path, other: Option<&PathBuf>) -> Result<PathBuf, RestoreError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut place = place_beside(path, directory, self.generation);
        let mut outcome = self.make(kept, &place, other);
        if outcome.is_err() && !kept.written {
            place = place_beside(path, Path::new("/tmp"), self.generation);
            outcome = self.make(kept, &place, other);
        }
        outcome.map_err(failed("make", &place))?;
        Ok(place)
    }

    /// Makes a file, or gives another name to one that has been made.
    fn make(&mut self, kept: &KeptFile, path: &Path, other: Option<&PathBuf>) -> io::Result<()> {
        self.make_directories(path)?;
        if other.is_some_and(|other| std::fs::hard_link(other, path).is_ok()) {
            self.made.push(path.to_owned());
            return Ok(());
        }
        let file = saved_file::rebuild_file(&kept.file, path)?;
        self.made.push(path.to_owned());
        if let (Some(file), SavedKind::Regular { size, space }) = (file, &kept.file.kind) {
            file.set_len(*size)?;
            write_back(self.reader, *space, &file, path, *size).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Makes those directories that a path leads through and that are gone.
    fn make_directories(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| parent.symlink_metadata().is_err()).collect();
        for parent in missing.into_iter().rev() {
            saved_file::rebuild_directory(parent)?;
            self.made.push(parent.to_owned());
        }
        Ok(())
    }

    /// Whether the file that had this path is what it was, or will be when the job goes on.
    #[must_use]
    pub fn holds(&self, path: &FilePath) -> bool {
        let is_it = |found: &&Found<'_>| found.kept.file.path == *path;
        self.files.iter().find(is_it).is_some_and(|found| !matches!(found.now, Now::There))
    }

    /// Brings contents back: what descriptors and mappings of the job are open on.
    ///
    /// # Errors
    ///
    /// When one cannot be changed.
    pub fn roll_back(&self) -> Result<(), RestoreError> {
        for Found { kept, path, now } in &self.files {
            let at = match now {
                Now::RolledBack => path,
                // Found under another name.
                Now::Aside(place) if kept.held && !self.made.contains(place) => place,
                _ => continue,
            };
            if let SavedKind::Regular { size, space } = kept.file.kind
                && saved::roll_back_contents(at, self.reader, space, size)?
            {
                saved_file::rebuild_time(&kept.file, at).map_err(failed("set the time of", at))?;
            }
        }
        Ok(())
    }

    /// Gives every file its name. Gives lines for the user.
    ///
    /// # Errors
    ///
    /// When one cannot be given.
    pub fn name(&self) -> Result<Vec<String>, RestoreError> {
        let (mut made, mut unnamed, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        for Found { kept, path, now } in &self.files {
            let finish = |path: &Path| {
                saved_file::rebuild_owner_mode_and_time(&kept.file, path).map_err(failed("set the permissions of", path))
            };
            match now {
                Now::There | Now::RolledBack => (),
                Now::Made => {
                    finish(path)?;
                    made.push(path.display().to_string());
                }
                Now::Elsewhere(place) => {
                    notes.push(format!("{} is {} now, which the job reads", path.display(), place.display()))
                }
                Now::Unnamed(place) => {
                    finish(place)?;
                    std::fs::remove_file(place).map_err(failed("remove the name of", place))?;
                    unnamed.push(path.display().to_string());
                }
                Now::Aside(place) => {
                    if self.made.contains(place) {
                        finish(place)?;
                    }
                    let is_taken = path.symlink_metadata().is_ok() && kept.own_directories == 0;
                    let aside = is_taken.then(|| saved_file::set_aside(path, self.generation));
                    let aside = aside.transpose().map_err(failed("set aside", path))?;
                    std::fs::rename(place, path).map_err(failed("give its name back to", path))?;
                    let former = match self.made.contains(place) {
                        true => String::new(),
                        false => format!(", which had become {}", place.display()),
                    };
                    let aside =
                        aside.map_or(String::new(), |aside| format!("; what was there is set aside as {}", aside.display()));
                    notes.push(format!("the job has its {} again{former}{aside}", path.display()));
                }
            }
        }
        if !made.is_empty() {
            notes.push(format!("made again from the image what the job had open and is gone: {}", listed(&made)));
        }
        if !unnamed.is_empty() {
            notes.push(format!("the job reads the former contents of what has been replaced since: {}", listed(&unnamed)));
        }
        Ok(notes)
    }

    /// The job is back: what was made stays.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        saved::remove_made(&self.made);
    }
}

fn size_of(kept: &KeptFile) -> u64 {
    match kept.file.kind {
        SavedKind::Regular { size, .. } => size,
        _ => 0,
    }
}

/// What the job has of directories, and would miss in one that is made again.
struct Places(Vec<PathBuf>);

impl Places {
    fn of(job: &JobState, paths: &PathMap) -> Self {
        let mut all: Vec<&FilePath> = Vec::new();
        for process in &job.processes {
            if let Life::Alive(live) = &process.life {
                all.push(&live.root);
                all.extend(live.removed_cwd.is_none().then_some(&live.cwd));
            }
        }
        for file in &job.open_files {
            match &file.kind {
                OpenFileKind::Directory { path } | OpenFileKind::Path { path } => all.push(path),
                OpenFileKind::Inotify(inotify) => all.extend(inotify.watches.iter().filter_map(|watch| match &watch.target {
                    Watched::Path(path) => Some(path),
                    Watched::File(_) => None,
                })),
                _ => (),
            }
        }
        Self(all.into_iter().map(|path| paths.resolve(path)).collect())
    }

    /// Whether a file that is gone, or a socket's name, may be made again: of its directories only those may be gone that are the
    /// job's own, and that it used for nothing but such files. Any other has moved, or belongs to another machine: that is for
    /// the user to say.
    fn may_be_made(&self, own_directories: u32, path: &Path) -> bool {
        let missing = path.ancestors().skip(1).take_while(|ancestor| ancestor.symlink_metadata().is_err());
        match missing.enumerate().last() {
            None => true,
            Some((depth, place)) => depth < own_directories as usize && !self.0.iter().any(|used| used.starts_with(place)),
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    move |source| RestoreError::Commit { what, path: path.to_owned(), source }
}
