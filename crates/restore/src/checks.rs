//! What is looked at before anything is done: whether this machine can be the job's, and whether its files are there. Nothing is
//! changed.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ckpt_image::ImageReader;
use ckpt_objects::FilePath;
use ckpt_objects::directory::DirectoryIdentity;
use ckpt_objects::file::{self, FileIdentity, OpenFile, OpenFileKind};
use ckpt_objects::inotify::Watched;
use ckpt_objects::memory::{Backing, Vma};
use ckpt_objects::process::{Life, LiveProcess, ProcessState};
use ckpt_objects::shared_memory::{SharedMemory, SharedMemoryKind};
use ckpt_session::JobState;
use ckpt_sys::cpu;
use procfs::{Current, Meminfo};

use crate::error::RestoreError;
use crate::input;
use crate::missing::{MAPPED, Missing};
use crate::paths::PathMap;

/// The living processes of a job.
fn living(job: &JobState) -> impl Iterator<Item = (&ProcessState, &LiveProcess)> {
    job.processes.iter().filter_map(|process| match &process.life {
        Life::Alive(live) => Some((process, &**live)),
        Life::Zombie { .. } => None,
    })
}

/// The names of the words of [`cpu::features`].
const FEATURE_WORDS: [&str; 8] =
    ["CPUID 1 ecx", "CPUID 1 edx", "CPUID 7 ebx", "CPUID 7 ecx", "CPUID 7 edx", "CPUID 7.1 eax", "CPUID 0x80000001 ecx", "-"];

/// Extensions that users know by name: word, bit, name.
const FEATURE_NAMES: [(usize, u32, &str); 22] = [
    (0, 0, "SSE3"),
    (0, 9, "SSSE3"),
    (0, 12, "FMA"),
    (0, 19, "SSE4.1"),
    (0, 20, "SSE4.2"),
    (0, 22, "MOVBE"),
    (0, 23, "POPCNT"),
    (0, 25, "AES"),
    (0, 28, "AVX"),
    (0, 29, "F16C"),
    (0, 30, "RDRAND"),
    (2, 3, "BMI1"),
    (2, 5, "AVX2"),
    (2, 8, "BMI2"),
    (2, 16, "AVX-512F"),
    (2, 17, "AVX-512DQ"),
    (2, 30, "AVX-512BW"),
    (2, 31, "AVX-512VL"),
    (2, 18, "RDSEED"),
    (2, 19, "ADX"),
    (4, 24, "AMX-TILE"),
    (6, 5, "LZCNT"),
];

/// Whether programs of the job may use something that this processor does not have.
pub fn processor(job: &JobState) -> Result<(), RestoreError> {
    let machine = &job.machine;
    let mut missing = Vec::new();
    for (word, (&had, has)) in machine.cpu_features.iter().zip(cpu::features()).enumerate() {
        for bit in (0..32).filter(|bit| had & !has & 1 << bit != 0) {
            let known = FEATURE_NAMES.iter().find(|name| (name.0, name.1) == (word, bit)).map(|name| name.2.to_owned());
            missing.push(known.unwrap_or_else(|| format!("{} bit {bit}", FEATURE_WORDS[word])));
        }
    }
    let components = machine.xcr0 & !cpu::xcr0();
    if components != 0 {
        missing.push(format!("register state {components:#x} of XCR0"));
    }
    if machine.xsave_size > cpu::xsave_size() {
        missing.push(format!("an XSAVE area of {} bytes", machine.xsave_size));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(RestoreError::Processor { missing: missing.join(", "), host: machine.host.clone() })
}

/// Whether whoever restarts the job may make its processes.
pub fn users(job: &JobState, privileged: bool, uid: u32) -> Result<(), RestoreError> {
    for (process, live) in living(job) {
        if let Some(&other) = live.credentials.uids.iter().find(|&&other| other != uid)
            && !privileged
        {
            return Err(RestoreError::User { pid: process.pid.0, uid: other });
        }
    }
    Ok(())
}

/// Whether there is memory for all pages that the image holds.
pub fn memory(reader: &ImageReader) -> Result<(), RestoreError> {
    let needed: u64 = reader.extents().iter().map(|placed| u64::from(placed.extent.len)).sum();
    // A system that does not tell is asked by trying.
    let Ok(Meminfo { mem_available: Some(available), swap_free, .. }) = Meminfo::current() else { return Ok(()) };
    let available = available + swap_free;
    if needed > available { Err(RestoreError::OutOfMemory { needed, available }) } else { Ok(()) }
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
    let works = living(job).any(|(_, live)| live.removed_cwd.is_none() && live.cwd.as_path().starts_with(dir));
    let is_below = |file: &OpenFile| match &file.kind {
        OpenFileKind::Regular(regular) => file.inherited.is_none() && regular.path.as_path().starts_with(dir),
        OpenFileKind::Directory { path } | OpenFileKind::Path { path } => path.as_path().starts_with(dir),
        _ => false,
    };
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
    living(job).find(|(_, live)| needs(live)).map(|(process, _)| process.pid.0)
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
    for (index, description) in (0u32..).zip(&job.open_files) {
        // The launcher's own input and output are replaced.
        if description.inherited.is_some() {
            notes.extend(input::note(description, paths));
            continue;
        }
        let pid = living(job)
            .find(|(_, live)| live.descriptors.iter().any(|entry| entry.file.0 == index))
            .map_or(0, |(process, _)| process.pid.0);
        // What the image holds has been made where it was missing, and gets its contents back. What lies in memory is made anew.
        match &description.kind {
            OpenFileKind::Regular(regular) if holds(&regular.path) || is_kept_in_memory(job, &regular.path) => (),
            OpenFileKind::Regular(_) if input::is_there(description, paths) => (),
            _ if input::is_replaced(description, paths).is_some() => notes.extend(input::note(description, paths)),
            _ => open_file(job, paths, holds, description, pid, missing)?,
        }
    }
    for (index, object) in (0u32..).zip(&job.shared_memory) {
        if let SharedMemoryKind::Named { path, in_memory: false, .. } = &object.kind
            && !holds(path)
        {
            let maps = |vma: &Vma| matches!(vma.backing, Backing::SharedMemory { object, .. } if object == index);
            let owner = living(job).find(|(_, live)| live.memory.vmas.iter().any(maps));
            let pid = owner.map_or(0, |(process, _)| process.pid.0);
            present(paths, path, object.size, pid, MAPPED, missing)?;
        }
    }
    for (process, live) in living(job) {
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

fn open_file(
    job: &JobState,
    paths: &PathMap,
    holds: &dyn Fn(&FilePath) -> bool,
    description: &OpenFile,
    pid: i32,
    missing: &mut Missing,
) -> Result<(), RestoreError> {
    let use_ = "has open";
    match &description.kind {
        OpenFileKind::Regular(regular) => present(paths, &regular.path, regular.size, pid, use_, missing),
        OpenFileKind::Directory { path } | OpenFileKind::Path { path } => {
            let now = paths.resolve(path);
            match now.symlink_metadata() {
                Ok(_) => Ok(()),
                Err(_) if holds(path) => Ok(()),
                Err(error) => missing.add(path, now, pid, use_, error),
            }
        }
        OpenFileKind::Pipe { pipe } => {
            let Some(path) = job.pipes.get(*pipe as usize).and_then(|pipe| pipe.path.as_ref()) else { return Ok(()) };
            let now = paths.resolve(path);
            match now.metadata() {
                Ok(metadata) if metadata.file_type().is_fifo() => Ok(()),
                _ if holds(path) => Ok(()),
                Ok(_) => {
                    let how = "is not a named pipe any more".to_owned();
                    Err(RestoreError::Changed { path: now, pid, use_, how, hint: "" })
                }
                Err(error) => missing.add(path, now, pid, use_, error),
            }
        }
        OpenFileKind::Inotify(inotify) => {
            for watch in &inotify.watches {
                let Watched::Path(path) = &watch.target else { continue };
                let now = paths.resolve(path);
                if let Err(error) = now.metadata()
                    && !holds(path)
                {
                    missing.add(path, now, pid, "watches", error)?;
                }
            }
            Ok(())
        }
        OpenFileKind::Device { .. }
        | OpenFileKind::PtyMaster { .. }
        | OpenFileKind::PtySlave { .. }
        | OpenFileKind::OutsideTerminal { .. }
        | OpenFileKind::Deleted(_)
        | OpenFileKind::RemovedDirectory(_)
        | OpenFileKind::SharedMemory { .. }
        | OpenFileKind::Proc { .. }
        | OpenFileKind::Epoll(_)
        | OpenFileKind::Eventfd(_)
        | OpenFileKind::Timerfd(_)
        | OpenFileKind::Signalfd(_)
        | OpenFileKind::Socket { .. }
        | OpenFileKind::Mqueue { .. }
        | OpenFileKind::Pidfd(_) => Ok(()),
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

/// The first number that this machine does not give to a process.
#[must_use]
pub fn pid_max() -> i32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().unwrap_or(1 << 22)
}
