//! Step 2 of a restart: whether this machine can be the job's, and whether its files are there. Nothing is changed.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ckpt_image::ImageReader;
use ckpt_objects::directory::DirectoryIdentity;
use ckpt_objects::file::{self, FileIdentity, RegularFile, input};
use ckpt_objects::file_lock::{self, TakenLock};
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::memory::{Backing, Vma};
use ckpt_objects::open_file::OpenFile;
use ckpt_objects::open_file::{Need, needs};
use ckpt_objects::process::LiveProcess;
use ckpt_objects::shared_memory::{SharedMemory, SharedMemoryKind};
use ckpt_objects::socket;
use ckpt_objects::{FileIndex, FilePath};
use ckpt_session::JobState;
use ckpt_session::environment;
use ckpt_session::job::{JobInfo, Variable};
use ckpt_session::library;
use ckpt_wire::touched::{ENV_TOUCHED, VARIABLE_SIZE};

use crate::aside::Aside;
use crate::error::RestoreError;
use crate::listing::MAPPED;
use crate::missing::Missing;
use crate::options::{Options, User};
use crate::paths::PathMap;
use crate::rollback::Rollback;

mod machine;

/// A job that can be brought back here, and how.
pub struct Checked<'a> {
    /// What the image says of the job, with paths as they are now.
    pub info: JobInfo,
    /// Where its files are.
    pub paths: PathMap,
    /// Where the rest goes of what was written to the restart's own output.
    pub output: Aside,
    /// The plan for the job's files.
    pub rollback: Rollback<'a>,
    /// Lines for the user.
    pub notes: Vec<String>,
    /// Where its mapped files are, by their index; nothing for those that are gone or have changed, and are not needed.
    pub mapped: Vec<Option<PathBuf>>,
    /// Variables that are to be written into the processes' environments.
    pub refreshed: Vec<Variable>,
    /// The variable that tells the job's agents where their list is; empty where there is none, or its path is too long for them.
    pub touched: Vec<u8>,
    /// Its files, by the paths that they have now.
    pub files: JobFiles,
    /// Who restarts it.
    pub user: User,
    /// Where its images go.
    home: PathBuf,
}

/// Step 2: looks at everything that can be known before anything is made or changed.
///
/// # Errors
///
/// For the first thing that is in the way; for all missing files at once.
pub fn check<'a>(job: &JobState, reader: &'a ImageReader, options: &Options) -> Result<Checked<'a>, RestoreError> {
    let user = User::own();
    machine::processor(job)?;
    machine::users(job, user)?;
    let (mut info, mut paths) = (job.info.clone(), PathMap::new(options.maps.clone()));
    let mut notes = Vec::from_iter(moved_directory(job, reader.path(), &mut paths));
    paths.move_job(&mut info);
    let former = std::mem::take(&mut info.environment);
    info.environment = environment::variables(&former);
    let copy = library::copy_of(&job.info.id);
    if job.mapped_files.iter().any(|file| file.path.as_path() == copy) {
        library::lend_again(&job.info.id).map_err(RestoreError::Library)?;
    }
    environment::check(&environment::place(&info), &info.id).map_err(RestoreError::Variables)?;
    let home = home_of(&info, options, reader);
    let aside = Aside { dir: ckpt_session::files::aside_in(&home, &info) };
    let output = Aside { dir: ckpt_session::files::output_in(&home, &info) };
    let rollback = Rollback::plan(job, reader, &mut paths, &info, aside)?;
    let holds = |path: &FilePath| rollback.provides(path);
    let mut missing = Missing::default();
    let mapped = mapped_files(job, &paths, &holds, &mut missing)?;
    notes.extend(open_files(job, &paths, &holds, &mut missing)?);
    missing.finish(&paths, &former, &info.environment)?;
    let resolve = |path: &FilePath| paths.resolve(path);
    notes.extend(socket::all::check(job.objects(), &resolve, options.strict, &holds)?);
    machine::memory(reader)?;
    if let Some(TakenLock { path, who }) = file_lock::check(job.objects(), &resolve) {
        return Err(RestoreError::Locked { path, who });
    }
    let refreshed = if options.refresh_env { info.environment.clone() } else { Vec::new() };
    let (touched, files) = (Vec::new(), JobFiles::default());
    Ok(Checked { info, paths, output, rollback, notes, mapped, refreshed, touched, files, user, home })
}

impl Checked<'_> {
    /// Carries out the plan for the job's files, and begins the next segment of the job's list of them.
    ///
    /// # Errors
    ///
    /// When a file cannot be brought back; with `strict`, when one has lost its contents.
    pub fn roll_back(&mut self, job: &JobState, strict: bool) -> Result<(), RestoreError> {
        self.rollback.apply()?;
        if let (true, Some(lost)) = (strict, self.rollback.lost().first()) {
            return Err(RestoreError::Lost(lost.clone()));
        }
        self.files = self.rollback.begin_segment(job, &self.paths, &self.info, &self.home);
        let variable = [ENV_TOUCHED.as_bytes(), b"=", &self.files.dir.0, b"\0"].concat();
        if variable.len() <= VARIABLE_SIZE {
            self.touched = variable;
        }
        Ok(())
    }
}

/// Where the job's images are and go: beside the one that it comes from where their directory is gone.
fn home_of(info: &JobInfo, options: &Options, reader: &ImageReader) -> PathBuf {
    let dir = options.dir.as_deref().unwrap_or(info.settings.dir.as_path());
    let beside = || reader.path().canonicalize().ok().and_then(|image| Some(image.parent()?.to_owned()));
    if dir.exists() { dir.to_owned() } else { beside().unwrap_or_else(|| dir.to_owned()) }
}

/// Adds what a moved launch directory means for all paths; gives a line that says so. The job goes on in the working directory of the restart
/// where its own is gone, or where another directory has that path (as another job's on another machine may) and `image` lies here where images
/// lay there.
pub fn moved_directory(job: &JobState, image: &Path, paths: &mut PathMap) -> Option<String> {
    let old = job.info.launch_dir.as_path();
    let here = std::env::current_dir().ok()?;
    if paths.resolve_path(old) != old || old == here || !is_used(job, old) {
        return None;
    }
    let why = match old.metadata() {
        Err(_) => "is gone",
        Ok(_) if job.info.launch_dir_is.may_be(&DirectoryIdentity::of(old)) => return None,
        Ok(_) if lies_alike(job, image, &here) => "is another directory",
        Ok(_) => return None,
    };
    paths.add(old.to_owned(), here.clone());
    Some(format!("{} {why}; the job goes on in {}", old.display(), here.display()))
}

/// Whether a process of the job works below a directory, or has something open there by its path.
fn is_used(job: &JobState, dir: &Path) -> bool {
    let works = job.objects().living().any(|(_, live)| live.removed_cwd.is_none() && live.cwd.as_path().starts_with(dir));
    // The launcher's own input and output are replaced.
    let is_replaced = |file: &OpenFile| file.inherited.is_some() && file.regular().is_some();
    let is_below =
        |file: &OpenFile| !is_replaced(file) && file.kind.used_path().is_some_and(|path| path.as_path().starts_with(dir));
    works
        || job.open_files.iter().any(is_below)
        || job.files.files.iter().any(|file| file.state.is_some() && file.path.as_path().starts_with(dir))
}

/// Whether an image is in the same place below a directory as the job's images were below its launch directory.
fn lies_alike(job: &JobState, image: &Path, here: &Path) -> bool {
    let Ok(image) = image.canonicalize() else { return false };
    let now = image.parent().and_then(|dir| dir.strip_prefix(here).ok());
    now.is_some() && now == job.info.settings.dir.as_path().strip_prefix(job.info.launch_dir.as_path()).ok()
}

/// Where every mapped file is; nothing for one that is not as it was, and is not needed. What the image `holds` will be as it was.
pub fn mapped_files(
    job: &JobState,
    paths: &PathMap,
    holds: &dyn Fn(&FilePath) -> bool,
    missing: &mut Missing,
) -> Result<Vec<Option<PathBuf>>, RestoreError> {
    let mut result = Vec::new();
    for (index, identity) in (0u32..).zip(&job.mapped_files) {
        let path = paths.resolve(&identity.path);
        let difference = match identity.deleted {
            true => Some(Difference::Gone),
            false if holds(&identity.path) => None,
            false => differs(identity, &path),
        };
        // What the job wrote to it through a shared mapping goes back with the rest; a restart before this one may have done so already.
        let goes_back = goes_back(job, identity) && path.metadata().is_ok_and(|meta| meta.size() >= identity.size);
        let difference = difference.filter(|difference| !goes_back || matches!(difference, Difference::Gone));
        let needed = needed_by(job, index);
        result.push(match (difference, needed) {
            (None, _) => Some(path),
            (Some(_), None) => None,
            (Some(Difference::Gone), Some(pid)) => {
                let error = path.metadata().err().unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
                missing.add(&identity.path, path, pid, MAPPED, error)?;
                None
            }
            (Some(Difference::Changed(how)), Some(pid)) => {
                let hint = ", or use an image made with --self-contained";
                return Err(RestoreError::Changed { path, pid, use_: MAPPED, how, hint });
            }
        });
    }
    Ok(result)
}

/// Whether the job has a file mapped in a way that it can be written through: the image holds what is mapped.
fn goes_back(job: &JobState, identity: &FileIdentity) -> bool {
    job.shared_memory.iter().any(|object| matches!(&object.kind, SharedMemoryKind::Named { path, .. } if *path == identity.path))
}

enum Difference {
    Gone,
    Changed(String),
}

fn differs(identity: &FileIdentity, path: &Path) -> Option<Difference> {
    let Ok(metadata) = std::fs::metadata(path) else { return Some(Difference::Gone) };
    let mtime = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
    if metadata.size() == identity.size && mtime == identity.mtime_ns {
        return None;
    }
    // The same build copied to another node has another time.
    if !identity.build_id.is_empty() && file::build_id(&FilePath::from(path)).as_ref() == Some(&identity.build_id) {
        return None;
    }
    Some(Difference::Changed(if metadata.size() == identity.size {
        "has been written to since the checkpoint".to_owned()
    } else {
        format!("had {} bytes and has {}", identity.size, metadata.size())
    }))
}

/// A process whose mappings need a file as it was, because the image does not hold all their pages.
fn needed_by(job: &JobState, index: u32) -> Option<i32> {
    let needs = |live: &LiveProcess| {
        live.memory.vmas.iter().any(|vma| match vma.backing {
            Backing::PrivateFile { file, stored, .. } => file == index && !stored,
            Backing::SharedFile { file, .. } => file == index,
            _ => false,
        })
    };
    job.objects().living().find(|(_, live)| needs(live)).map(|(process, _)| process.pid.0)
}

/// Whether everything that the job has open by a name is there, and no file is shorter than it was, unless the image `holds` it. Gives
/// lines on an input that is replaced.
pub fn open_files(
    job: &JobState,
    paths: &PathMap,
    holds: &dyn Fn(&FilePath) -> bool,
    missing: &mut Missing,
) -> Result<Vec<String>, RestoreError> {
    let mut notes = Vec::new();
    let resolve = |path: &FilePath| paths.resolve(path);
    for (index, description) in (0..).map(FileIndex).zip(&job.open_files) {
        // The launcher's own input and output are replaced.
        if description.inherited.is_some() {
            notes.extend(input::note(description, &resolve));
            continue;
        }
        let pid = job.objects().owner(|file| file == index);
        // What the image holds has been made where it was missing, and gets its contents back. What lies in memory is made anew.
        let is_provided = |regular: &RegularFile| holds(&regular.path) || is_kept_in_memory(job, &regular.path);
        if description.regular().is_some_and(is_provided) || input::is_there(description, &resolve) {
            continue;
        }
        match input::note(description, &resolve) {
            Some(note) => notes.push(note),
            None => {
                needs(job.objects(), description).into_iter().try_for_each(|need| check_need(need, paths, holds, pid, missing))?
            }
        }
    }
    for (index, object) in (0u32..).zip(&job.shared_memory) {
        if let SharedMemoryKind::Named { path, in_memory: false, .. } = &object.kind
            && !holds(path)
        {
            let maps = |vma: &Vma| matches!(vma.backing, Backing::SharedMemory { object, .. } if object == index);
            let owner = job.objects().living().find(|(_, live)| live.memory.vmas.iter().any(maps));
            let pid = owner.map_or(0, |(process, _)| process.pid.0);
            present(paths, path, object.size, pid, MAPPED, missing)?;
        }
    }
    for (process, live) in job.objects().living() {
        for (path, use_) in [(&live.cwd, "has as its working directory"), (&live.root, "has as its root")] {
            let removed = live.removed_cwd.as_ref().is_some_and(|removed| removed.path == *path);
            let now = paths.resolve(path);
            match now.metadata() {
                _ if removed => (),
                Ok(meta) if meta.is_dir() => (),
                _ if holds(path) => (),
                Ok(_) => missing.add(path, now, process.pid.0, use_, std::io::ErrorKind::NotADirectory.into())?,
                Err(error) => missing.add(path, now, process.pid.0, use_, error)?,
            }
        }
    }
    Ok(notes)
}

/// Whether what a process needs is there, or will be.
fn check_need(
    need: Need<'_>,
    paths: &PathMap,
    holds: &dyn Fn(&FilePath) -> bool,
    pid: i32,
    missing: &mut Missing,
) -> Result<(), RestoreError> {
    let (path, use_) = match need {
        Need::File(path, size) => return present(paths, path, size, pid, "has open", missing),
        Need::Place(path) | Need::Fifo(path) => (path, "has open"),
        Need::Watched(path) => (path, "watches"),
    };
    let now = paths.resolve(path);
    let found = if matches!(need, Need::Place(_)) { now.symlink_metadata() } else { now.metadata() };
    match found {
        Ok(meta) if matches!(need, Need::Fifo(_)) && !meta.file_type().is_fifo() && !holds(path) => {
            let how = "is not a named pipe any more".to_owned();
            Err(RestoreError::Changed { path: now, pid, use_, how, hint: "" })
        }
        Err(error) if !holds(path) => missing.add(path, now, pid, use_, error),
        _ => Ok(()),
    }
}

fn is_kept_in_memory(job: &JobState, file: &FilePath) -> bool {
    let is_it =
        |object: &SharedMemory| matches!(&object.kind, SharedMemoryKind::Named { path, in_memory: true, .. } if path == file);
    job.shared_memory.iter().any(is_it)
}

fn present(
    paths: &PathMap,
    old: &FilePath,
    size: u64,
    pid: i32,
    use_: &'static str,
    missing: &mut Missing,
) -> Result<(), RestoreError> {
    let path = paths.resolve(old);
    match path.metadata() {
        Ok(metadata) if metadata.size() < size => {
            let how = format!("had {size} bytes and has only {}", metadata.size());
            Err(RestoreError::Changed { path, pid, use_, how, hint: "" })
        }
        Ok(_) => Ok(()),
        Err(error) => missing.add(old, path, pid, use_, error),
    }
}
