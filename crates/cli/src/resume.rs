//! Looks in a directory for an image of the job that is being launched (`ckpt-launch --resume`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ckpt_coordinator::control::own_running;
use ckpt_coordinator::job_name;
use ckpt_image::generations::{Check, SelectError, Selected, Skipped, Trust, claim, is_in_use, open_newest};
use ckpt_image::{ImageName, ImageReader, ReadError};
use ckpt_restore::read_job;
use ckpt_session::job::JobInfo;

/// A valid id that no job has.
const NO_JOB: &str = "0000000000000000";

/// The result of the search.
#[derive(Debug)]
pub enum Found {
    /// An image of the job.
    Image {
        /// The newest complete one.
        selected: Box<Selected>,
        /// Its lock, which keeps others from resuming it; nothing if the file system has no locks.
        held: Option<File>,
        /// The number of older jobs that match too.
        older: usize,
    },
    /// No image; with those that were passed over.
    Nothing(Vec<Passed>),
}

/// An image of the job that cannot be resumed.
#[derive(Debug)]
pub enum Passed {
    /// It is no complete image, or not this user's.
    Skipped(Skipped),
    /// Its job runs.
    Runs(PathBuf),
}

impl Passed {
    /// Whether it is this user's, and damaged: a job that is started anew instead writes over what it has done.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Skipped(skipped) if !matches!(skipped.reason, ReadError::Foreign { .. }))
    }
}

/// Looks in `dir` for the job of this user with this command and [key](ckpt_coordinator::batch::key). Of several, the one whose newest image is the
/// youngest is meant; one that runs is another.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn find(dir: &Path, command: &[OsString], key: &str, trust: Trust) -> io::Result<Found> {
    // Root goes on with its own jobs: it launches no one else's.
    let trust = if trust == Trust::OneUser { Trust::Own } else { trust };
    let mut jobs: BTreeMap<String, (String, Vec<PathBuf>)> = BTreeMap::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                if let Some(name) = ImageName::parse(&path) {
                    let (_, images) = jobs.entry(name.job().to_owned()).or_insert_with(|| (name.name().to_owned(), Vec::new()));
                    images.push(path);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    let own_name = ImageName::new(&job_name(command), NO_JOB, 1).map(|name| name.name().to_owned()).unwrap_or_default();
    let mut passed = Vec::new();
    let mut candidates: Vec<(u64, Selected)> = Vec::new();
    // If the file system has no locks, at least the jobs on this machine are known.
    let running = own_running().unwrap_or_default();
    for (job, (name, images)) in jobs {
        match images.iter().find_map(|path| info(path, trust)) {
            Some(info) if !is_meant(&info, command, key) => continue,
            // Whose they are cannot be known any more, but perhaps they are missed.
            None if name != own_name => continue,
            _ => (),
        }
        let runs_here = running.iter().any(|running| running.job == job);
        if let Some(path) = images.iter().find(|path| runs_here || is_in_use(path)) {
            passed.push(Passed::Runs(path.clone()));
            continue;
        }
        match open_newest(&images, Check::EveryByte, trust) {
            Ok(selected) => candidates.push((selected.image.header().created_at_ns, selected)),
            Err(SelectError::NoImage { skipped }) => passed.extend(skipped.into_iter().map(Passed::Skipped)),
            // They were sorted by their jobs; a name that lies is no image of this one.
            Err(SelectError::SeveralJobs { .. } | SelectError::SeveralUsers { .. }) => (),
        }
    }
    candidates.sort_by_key(|(created_at, _)| *created_at);
    while let Some((_, selected)) = candidates.pop() {
        match claim(selected.image.path()) {
            // Another run was faster.
            Ok(None) => passed.push(Passed::Runs(selected.image.path().to_owned())),
            held => return Ok(Found::Image { selected: Box::new(selected), held: held.ok().flatten(), older: candidates.len() }),
        }
    }
    Ok(Found::Nothing(passed))
}

/// What an image says of its job, if it is whole enough to say it.
fn info(path: &Path, trust: Trust) -> Option<JobInfo> {
    let image = ImageReader::open(path).ok().filter(|image| trust == Trust::Any || image.is_own())?;
    read_job(&image).ok().map(|job| job.info)
}

fn is_meant(info: &JobInfo, command: &[OsString], key: &str) -> bool {
    info.key == key && info.command.iter().map(|word| word.as_os_str()).eq(command.iter().map(OsString::as_os_str))
}
