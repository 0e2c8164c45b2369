//! The job's files, brought back to how they were at the checkpoint.
//!
//! 1. [`Rollback::plan`] reads what the image says of each path, and what the job's agents noted since, and looks at what is there
//!    now. Nothing is changed.
//! 2. [`Rollback::apply`] does what the plan says, before anything of the job is opened. What it takes away is set aside.
//! 3. When the restart fails after that, dropping the plan undoes it all, step by step from the last. When the job is back,
//!    [`Rollback::keep`] ends that.
//!
//! ```text
//! at the path was   is now                          is done
//! ----------------  ------------------------------  -----------------------------------------------------------------
//! nothing           anything                        set aside, a directory with all that is in it
//! a file            that file                       contents, permissions and time as they were
//! a file            nothing, but it is elsewhere    renamed back
//! a file            nothing                         recreated
//! a file            a copy with the same contents    as if it were that file
//! a file            another one                     that is set aside, then as if nothing were there
//! ```
//!
//! Doing it again from the start, after a kill at any step, gives the same: each step looks at what is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ckpt_image::ImageReader;
use ckpt_objects::FilePath;
use ckpt_objects::file;
use ckpt_objects::job_file::{self, Contents, FileKind, FileNumber, FileState, Hashed, JobFile, JobFiles, Role};
use ckpt_objects::touched::{self, Touch, TouchedDir};
use ckpt_objects::unix_socket;
use ckpt_session::files::{begin_segment, budget, is_of_the_kernel, left_out, list_in, own_streams};
use ckpt_session::job::JobInfo;
use ckpt_session::{Bytes, JobState};
use ckpt_wire::touched::RecordKind;
use rustix::fs::OFlags;
use walkdir::WalkDir;

use crate::aside::Aside;
use crate::contents::Stored;
use crate::error::RestoreError;
use crate::paths::PathMap;

/// How many files one line names.
const NAMED: usize = 3;
/// How often the plan is gone through: once more for each depth of directories that were renamed within each other.
const ROUNDS: usize = 8;

/// The plan for a job's files, and what has been done of it.
pub struct Rollback<'a> {
    reader: &'a ImageReader,
    aside: Aside,
    /// By the paths that they have now, directories before what is in them.
    wanted: BTreeMap<PathBuf, Wanted>,
    /// By the paths that the job had them at.
    places: HashMap<FilePath, PathBuf>,
    /// Files that are only read, and are not what they were: by the paths that they had.
    reads: HashMap<FilePath, Stored>,
    /// Where the present files are that the job had.
    present: HashMap<FileNumber, PathBuf>,
    /// Where files have been made again, so that their other names lead there.
    again: HashMap<FileNumber, PathBuf>,
    /// Files that wait for their place to become free.
    parked: HashMap<FileNumber, PathBuf>,
    /// The job's list of what it touches.
    list: TouchedDir,
    done: Vec<Done>,
    /// How many directories have got their names back.
    directories_moved: usize,
    /// Where copies are of files that have been rewritten: other names of such a file need none of their own.
    rewritten: HashMap<FileNumber, PathBuf>,
    /// By which paths those have been rewritten, or have got another name for the copy: once for all rounds.
    settled: HashSet<(PathBuf, FileNumber)>,
    set_aside: Vec<SetAside>,
    made: Vec<PathBuf>,
    /// What is not as it was, and why.
    lost: Vec<String>,
    notes: Vec<String>,
}

/// What is to be at a path.
struct Wanted {
    state: Option<FileState>,
    role: Role,
    /// Where contents are that the file itself may not have any more.
    stored: Option<Stored>,
    /// It comes from the image, not from what was noted later.
    in_image: bool,
}

/// Something that was set aside.
struct SetAside {
    path: PathBuf,
    bytes: u64,
    mtime_ns: i64,
}

/// A step that has been done, and can be undone.
enum Done {
    /// Renamed, or moved to another file system.
    Moved { from: PathBuf, to: PathBuf },
    /// Made.
    Made(PathBuf),
    /// Written to, after a copy of it was made.
    Rewritten { path: PathBuf, copy: PathBuf, state: FileState },
    /// Cut, after a copy of what was behind was made.
    Cut { path: PathBuf, at: u64, tail: PathBuf, state: FileState },
    /// Permissions, owner or time were changed.
    Attributes { path: PathBuf, state: FileState },
}

impl<'a> Rollback<'a> {
    /// Plans what is to be done. `info` says where the job is now.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn plan(
        job: &JobState,
        reader: &'a ImageReader,
        paths: &mut PathMap,
        info: &JobInfo,
        aside: Aside,
    ) -> Result<Self, RestoreError> {
        let list = find_list(&job.files, reader, paths, info);
        let mut plan = Self {
            reader,
            aside,
            wanted: BTreeMap::new(),
            places: HashMap::new(),
            reads: HashMap::new(),
            present: HashMap::new(),
            again: HashMap::new(),
            parked: HashMap::new(),
            list,
            done: Vec::new(),
            directories_moved: 0,
            rewritten: HashMap::new(),
            settled: HashSet::new(),
            set_aside: Vec::new(),
            made: Vec::new(),
            lost: Vec::new(),
            notes: Vec::new(),
        };
        for file in job.files.files.iter().filter(|file| file.role != Role::Read) {
            let stored = file.state.as_ref().and_then(Stored::in_image);
            plan.want(paths, &file.path, Wanted { state: file.state.clone(), role: file.role, stored, in_image: true });
        }
        plan.read_list(job, paths, info)?;
        plan.leave_out(job, paths, info);
        for path in plan.wanted.keys() {
            if let Ok(Some(now)) = job_file::look(path) {
                plan.present.entry(now.identity).or_insert_with(|| path.clone());
            }
        }
        for file in job.files.files.iter().filter(|file| file.role == Role::Read) {
            plan.plan_read(file, paths)?;
        }
        Ok(plan)
    }

    fn want(&mut self, paths: &PathMap, old: &FilePath, wanted: Wanted) {
        let path = paths.resolve(old);
        self.places.insert(old.clone(), path.clone());
        self.wanted.insert(path, wanted);
    }

    /// Takes over what agents have noted since the checkpoint.
    fn read_list(&mut self, job: &JobState, paths: &PathMap, info: &JobInfo) -> Result<(), RestoreError> {
        let JobFiles { dir, segment, log_end, .. } = &job.files;
        if dir.0.is_empty() {
            return Ok(());
        }
        if !self.list.is_own() {
            self.notes.push(format!(
                "the list of the files that the job touched after the checkpoint is not in {}: those that it made since then stay",
                self.list.path().display()
            ));
            return Ok(());
        }
        let ignored = left_out(info);
        let before = segment.saturating_sub(1);
        let mut moves: Vec<(FilePath, FilePath)> = Vec::new();
        let mut by_identity: HashMap<FileNumber, PathBuf> =
            self.wanted.iter().filter_map(|(path, wanted)| Some((wanted.state.as_ref()?.identity, path.clone()))).collect();
        let later = self.list.segments().into_iter().filter(|other| other > segment);
        let mut logs = vec![(before, *log_end), (*segment, 0)];
        logs.extend(later.map(|segment| (segment, 0)));
        for (segment, from) in logs {
            let (touches, _) = self.list.read(segment, from).map_err(failed("read", self.list.path()))?;
            for touch in touches {
                if touch.kind == RecordKind::Moved {
                    moves.push((touch.path, touch.other));
                    continue;
                }
                // How the path was called at the checkpoint.
                let old = moves
                    .iter()
                    .rev()
                    .fold(touch.path.clone(), |path, (from, to)| touched::moved(&path, to, from).unwrap_or(path));
                if ![old.as_path(), touch.path.as_path()].iter().any(|path| ignored(path) || is_of_the_kernel(path)) {
                    self.take_over(&touch, &old, paths, &mut by_identity);
                }
            }
        }
        Ok(())
    }

    /// Takes over one record: the first of each path counts, and the first contents that were kept of each file.
    fn take_over(&mut self, touch: &Touch, old: &FilePath, paths: &PathMap, by_identity: &mut HashMap<FileNumber, PathBuf>) {
        let path = paths.resolve(old);
        let identity = FileNumber::from(touch.record.identity);
        let undo = (touch.kind == RecordKind::Kept).then(|| self.list.undo(&touch.other)).flatten();
        if touch.kind != RecordKind::Absent
            && let Some(known) = by_identity.get(&identity).and_then(|path| self.wanted.get_mut(path))
        {
            if known.stored.is_none()
                && let (Some(undo), Some(state)) = (undo, &known.state)
            {
                known.stored = Some(Stored::in_file(undo, state));
            }
            if self.wanted.contains_key(&path) {
                return;
            }
        } else if self.wanted.contains_key(&path) {
            return;
        }
        let state = (touch.kind != RecordKind::Absent).then(|| state_of(touch));
        let Some(state) = state else {
            return self.want(paths, old, Wanted { state: None, role: Role::Touched, stored: None, in_image: false });
        };
        let stored = match (&state.kind, touch.kind) {
            (FileKind::Regular { .. }, RecordKind::Kept) => {
                self.list.undo(&touch.other).map(|undo| Stored::in_file(undo, &state))
            }
            _ => None,
        };
        by_identity.entry(identity).or_insert_with(|| path.clone());
        self.want(paths, old, Wanted { state: Some(state), role: Role::Touched, stored, in_image: false });
    }

    /// Leaves out what is brought back otherwise: this restart's own input and output, and the names of living sockets.
    fn leave_out(&mut self, job: &JobState, paths: &PathMap, info: &JobInfo) {
        let ignored = left_out(info);
        let own = own_streams();
        let sockets: HashSet<PathBuf> =
            job.sockets.iter().filter_map(unix_socket::name_that_is_used).map(|file| paths.resolve(&file.path)).collect();
        self.wanted.retain(|path, _| {
            let is_own = path.metadata().is_ok_and(|meta| own.contains(&(meta.dev(), meta.ino())));
            !is_own && !sockets.contains(path) && !ignored(path) && !path.starts_with(&self.aside.dir)
        });
    }

    /// A file that the job only reads is left as it is; the job reads what it had.
    fn plan_read(&mut self, file: &JobFile, paths: &mut PathMap) -> Result<(), RestoreError> {
        let Some(state) = &file.state else { return Ok(()) };
        let path = paths.resolve(&file.path);
        let now = job_file::look(&path).ok().flatten();
        if now.as_ref().is_some_and(|now| state.is_unchanged(now)) {
            return Ok(());
        }
        let is_there = now.is_some();
        match Stored::in_image(state) {
            Some(stored) if !is_there || !stored.begins(self.reader, &path).map_err(failed("read", &path))? => {
                self.reads.insert(file.path.clone(), stored);
            }
            Some(_) => (),
            None if !now.is_some_and(|now| now.identity.is(&state.identity)) => {
                if let Some(place) = named_in(&path, &state.identity) {
                    self.notes.push(format!("{} is {} now, which the job reads", path.display(), place.display()));
                    paths.add(file.path.as_path().to_owned(), place);
                }
            }
            None => (),
        }
        Ok(())
    }

    /// Whether what had this path at the checkpoint will be there.
    #[must_use]
    pub fn provides(&self, path: &FilePath) -> bool {
        if self.reads.contains_key(path) {
            return true;
        }
        let Some((place, wanted)) = self.places.get(path).and_then(|place| Some((place, self.wanted.get(place)?))) else {
            return false;
        };
        let Some(state) = &wanted.state else { return false };
        if !self.may_be_made(place, wanted.role) {
            return false;
        }
        match &state.kind {
            FileKind::Regular { size, .. } => {
                wanted.stored.is_some()
                    || *size == 0
                    || self.where_is(place, state).is_some_and(|at| at.metadata().is_ok_and(|meta| meta.len() >= *size))
            }
            FileKind::Device => false,
            _ => true,
        }
    }

    /// Whether the directories of a path are there, or the job's own. Any other that is gone has moved, or belongs to another machine:
    /// that is for the user to say.
    fn may_be_made(&self, path: &Path, role: Role) -> bool {
        let is_own = |dir: &Path| {
            self.wanted.get(dir).and_then(|wanted| wanted.state.as_ref()).is_some_and(|state| state.kind == FileKind::Directory)
        };
        let mut missing = path.ancestors().skip(1).take_while(|dir| dir.symlink_metadata().is_err());
        role == Role::Named || missing.all(is_own)
    }

    /// Where a file is now.
    fn where_is(&self, path: &Path, state: &FileState) -> Option<PathBuf> {
        if let Ok(Some(now)) = job_file::look(path)
            && now.identity.is(&state.identity)
        {
            return Some(path.to_owned());
        }
        let known = self.parked.get(&state.identity).or_else(|| self.present.get(&state.identity));
        let is_it = |at: &PathBuf| job_file::look(at).is_ok_and(|now| now.is_some_and(|now| now.identity.is(&state.identity)));
        // A number without a time of birth may be another file's by now.
        let known = known.filter(|_| state.identity.born_ns != 0).cloned().filter(is_it);
        // A restart that was killed may have left it there under a name of its own.
        let looks = matches!(state.kind, FileKind::Regular { .. } | FileKind::Directory);
        known.or_else(|| if looks { named_in(path, &state.identity) } else { None })
    }

    /// The contents of files that are only read, where they are not what is at their paths.
    #[must_use]
    pub fn reads(&self) -> &HashMap<FilePath, Stored> {
        &self.reads
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// When something cannot be done; nothing is changed then.
    pub fn apply(&mut self) -> Result<(), RestoreError> {
        let wanted = std::mem::take(&mut self.wanted);
        let mut outcome = Ok(());
        // A directory that gets its name back brings what is in it, which may not be as it was.
        for _ in 0..ROUNDS {
            let before = self.directories_moved;
            // What is missing may be found in the next round.
            self.lost.clear();
            outcome = self.take_away(&wanted).and_then(|()| self.bring_back(&wanted));
            if outcome.is_err() || self.directories_moved == before {
                break;
            }
        }
        self.wanted = wanted;
        outcome?;
        // Whose place another one has after all.
        for (_, place) in std::mem::take(&mut self.parked) {
            if let Ok(Some(now)) = job_file::look(&place) {
                self.set_aside(&place, &now)?;
            }
        }
        self.settle()
    }

    /// What is in the way, or should not be there.
    fn take_away(&mut self, wanted: &BTreeMap<PathBuf, Wanted>) -> Result<(), RestoreError> {
        // What is elsewhere now waits where it was, or as near to that as there is a directory: before a directory goes that it is in.
        let homes = wanted.iter().filter_map(|(path, wanted)| Some((wanted.state.as_ref()?.identity, path)));
        let homes: HashMap<FileNumber, &PathBuf> = homes.filter(|(identity, _)| identity.born_ns != 0).collect();
        for (path, wanted) in wanted.iter().rev() {
            let Some(now) = job_file::look(path).map_err(failed("examine", path))? else { continue };
            let Some(home) = homes.get(&now.identity).filter(|home| **home != path) else { continue };
            let is_other_name = wanted.state.as_ref().is_some_and(|state| state.identity.is(&now.identity));
            if is_other_name || self.parked.contains_key(&now.identity) {
                continue;
            }
            let near = home.ancestors().skip(1).find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
            let place = near.join(format!(".ckpt-parked-{}-{}", std::process::id(), self.done.len()));
            if std::fs::rename(path, &place).is_ok() {
                self.done.push(Done::Moved { from: path.clone(), to: place.clone() });
                self.parked.insert(now.identity, place);
            }
        }
        for (path, wanted) in wanted {
            let Some(now) = job_file::look(path).map_err(failed("examine", path))? else { continue };
            let stays = match &wanted.state {
                None => false,
                Some(state) => self.fits(path, state, wanted.stored.as_ref(), &now)?,
            };
            if !stays {
                self.set_aside(path, &now)?;
            }
        }
        Ok(())
    }

    /// Whether what is at a path is the file that was there, or a copy of it.
    fn fits(&self, path: &Path, state: &FileState, stored: Option<&Stored>, now: &FileState) -> Result<bool, RestoreError> {
        if !state.kind.is_like(&now.kind) {
            return Ok(false);
        }
        if now.identity.is(&state.identity) {
            return Ok(match (&state.kind, &now.kind) {
                (FileKind::Link { target }, FileKind::Link { target: is }) => target == is,
                _ => true,
            });
        }
        if self.where_is(path, state).is_some() {
            return Ok(false);
        }
        match (&state.kind, &now.kind) {
            (FileKind::Link { target }, FileKind::Link { target: is }) => Ok(target == is),
            (FileKind::Regular { size: 0, .. }, _) => Ok(now.size() == 0),
            (FileKind::Regular { size, contents }, _) => {
                if let Some(stored) = stored {
                    // Here another file may begin as this one did. Elsewhere the job may have written more to a copy of it.
                    let may_be = now.size() == *size || now.size() > *size && self.has_travelled(path, state, now);
                    return Ok(may_be && stored.begins(self.reader, path).map_err(failed("read", path))?);
                }
                match contents {
                    Contents::Hashed(hash) => Ok(hash_of(path, *size) == Some(*hash)),
                    // Nothing tells it from another one, and nothing could take its place.
                    _ => Ok(now.size() >= *size),
                }
            }
            _ => Ok(true),
        }
    }

    /// Whether files are on another file system, or another path, than they were.
    fn has_travelled(&self, path: &Path, state: &FileState, now: &FileState) -> bool {
        now.identity.device != state.identity.device || self.places.get(&FilePath::from(path)).is_none_or(|place| place != path)
    }

    fn set_aside(&mut self, path: &Path, now: &FileState) -> Result<(), RestoreError> {
        if now.kind == FileKind::Directory {
            // Whoever made what is in it.
            for entry in WalkDir::new(path).min_depth(1).into_iter().flatten() {
                if let Ok(Some(inner)) = job_file::look(entry.path())
                    && inner.kind != FileKind::Directory
                {
                    self.set_aside.push(SetAside { path: entry.path().into(), bytes: inner.size(), mtime_ns: inner.mtime_ns });
                }
            }
        } else {
            self.set_aside.push(SetAside { path: path.to_owned(), bytes: now.size(), mtime_ns: now.mtime_ns });
        }
        let place = self.aside.take(path).map_err(aside_failed(&self.aside, path))?;
        self.done.push(Done::Moved { from: path.to_owned(), to: place });
        Ok(())
    }

    /// What is missing, and what has changed.
    fn bring_back(&mut self, wanted_files: &BTreeMap<PathBuf, Wanted>) -> Result<(), RestoreError> {
        // Other names of a file lead to the copy of it that is there: a restart that was killed made it, or it came from another machine.
        for (path, wanted) in wanted_files {
            if let Some(state) = wanted.state.as_ref().filter(|state| matches!(state.kind, FileKind::Regular { .. }))
                && job_file::look(path).is_ok_and(|now| now.is_some_and(|now| !now.identity.is(&state.identity)))
            {
                self.again.entry(state.identity).or_insert_with(|| path.clone());
            }
        }
        for (path, wanted) in wanted_files {
            let Some(state) = &wanted.state else { continue };
            let now = job_file::look(path).map_err(failed("examine", path))?;
            let is_made = match now {
                Some(_) => false,
                None => match self.find_again(path, state, wanted_files)? {
                    true => false,
                    false => {
                        self.make(path, wanted, state)?;
                        true
                    }
                },
            };
            if !is_made && matches!(state.kind, FileKind::Regular { .. }) {
                self.restore_contents(path, wanted, state)?;
            }
        }
        Ok(())
    }

    /// Gives a file its name back that has another one now. Whether there was one.
    fn find_again(&mut self, path: &Path, state: &FileState, wanted: &BTreeMap<PathBuf, Wanted>) -> Result<bool, RestoreError> {
        let Some(at) = self.where_is(path, state) else { return Ok(false) };
        let other = wanted.get(&at).and_then(|other| other.state.as_ref());
        if self.parked.remove(&state.identity).is_none() && other.is_some_and(|other| other.identity.is(&state.identity)) {
            // Another name of it.
            if std::fs::hard_link(&at, path).is_err() {
                return Ok(false);
            }
            self.done.push(Done::Made(path.to_owned()));
            return Ok(true);
        }
        self.make_directories(path)?;
        if std::fs::rename(&at, path).is_err() {
            return Ok(false);
        }
        self.done.push(Done::Moved { from: at, to: path.to_owned() });
        self.directories_moved += usize::from(state.kind == FileKind::Directory);
        self.present.insert(state.identity, path.to_owned());
        Ok(true)
    }

    /// Makes a file again.
    fn make(&mut self, path: &Path, wanted: &Wanted, state: &FileState) -> Result<(), RestoreError> {
        if let Some(other) = self.again.get(&state.identity).filter(|_| state.kind != FileKind::Directory)
            && std::fs::hard_link(other, path).is_ok()
        {
            self.done.push(Done::Made(path.to_owned()));
            return Ok(());
        }
        let has_contents = wanted.stored.is_some() || !matches!(state.kind, FileKind::Regular { size: 1.., .. });
        if !has_contents || state.kind == FileKind::Device {
            self.lost.push(format!("{} (gone, and its contents are not held)", path.display()));
            return Ok(());
        }
        if wanted.role != Role::Named && path.parent().is_some_and(|dir| dir.symlink_metadata().is_err()) {
            self.lost.push(format!("{} (its directory is gone; --map OLD=NEW says where it is)", path.display()));
            return Ok(());
        }
        self.make_directories(path)?;
        let file = match job_file::rebuild_file(state, path) {
            Ok(file) => file,
            // It was somebody else's to make.
            Err(error) if is_forbidden(&error) => {
                self.lost.push(format!("{} (cannot be made: {error})", path.display()));
                return Ok(());
            }
            Err(error) => return Err(failed("make", path)(error)),
        };
        self.done.push(Done::Made(path.to_owned()));
        if let (Some(file), Some(stored)) = (file, &wanted.stored) {
            stored.write(self.reader, &file, path).map_err(failed("write", path))?;
        }
        self.again.insert(state.identity, path.to_owned());
        self.made.push(path.to_owned());
        Ok(())
    }

    /// Makes those directories that a path leads through and that are gone.
    fn make_directories(&mut self, path: &Path) -> Result<(), RestoreError> {
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|parent| parent.symlink_metadata().is_err()).collect();
        for parent in missing.into_iter().rev() {
            job_file::rebuild_directory(parent).map_err(failed("make", parent))?;
            self.done.push(Done::Made(parent.to_owned()));
        }
        Ok(())
    }

    /// Gives a regular file that is there its contents back.
    fn restore_contents(&mut self, path: &Path, wanted: &Wanted, state: &FileState) -> Result<(), RestoreError> {
        let Some(now) = job_file::look(path).map_err(failed("examine", path))? else { return Ok(()) };
        if wanted.in_image && state.is_unchanged(&now) {
            return Ok(());
        }
        let key = (path.to_owned(), now.identity);
        if self.settled.contains(&key) {
            return Ok(());
        }
        if let Some(copy) = self.rewritten.get(&now.identity) {
            self.settled.insert(key);
            let linked = self.aside.link(copy, path).map_err(aside_failed(&self.aside, path))?;
            self.done.push(Done::Made(linked));
            return Ok(());
        }
        let size = state.size();
        let begins = match (&wanted.stored, state.contents()) {
            _ if now.size() < size => Some(false),
            (Some(stored), _) => Some(stored.begins(self.reader, path).map_err(failed("read", path))?),
            (None, Some(Contents::Hashed(hash))) => Some(hash_of(path, size) == Some(hash)),
            // What is only appended to still begins as it did.
            (None, _) if !wanted.in_image => Some(true),
            (None, _) => None,
        };
        match (begins, &wanted.stored) {
            (Some(false), Some(stored)) => {
                let place = self.aside.copy(path).map_err(aside_failed(&self.aside, path))?;
                self.set_aside.push(SetAside { path: path.to_owned(), bytes: now.size(), mtime_ns: now.mtime_ns });
                self.rewritten.insert(now.identity, place.clone());
                self.settled.insert(key);
                self.done.push(Done::Rewritten { path: path.to_owned(), copy: place, state: now });
                let file = open(path, OFlags::RDWR).map_err(failed("open for writing", path))?;
                return stored.write(self.reader, &file, path).map_err(failed("write", path));
            }
            (Some(false), None) => self.lost.push(format!("{} (changed, and its contents are not held)", path.display())),
            (None, _) => self.lost.push(format!("{} (written in place, and its contents are not held)", path.display())),
            (Some(true), _) => (),
        }
        if now.size() > size {
            let file = open(path, OFlags::RDWR).map_err(failed("open for writing", path))?;
            let tail = self.aside.take_tail(path, size, now.size()).map_err(aside_failed(&self.aside, path))?;
            let bytes = now.size() - size;
            self.set_aside.push(SetAside { path: path.to_owned(), bytes, mtime_ns: now.mtime_ns });
            self.done.push(Done::Cut { path: path.to_owned(), at: size, tail, state: now });
            file.set_len(size).map_err(failed("cut", path))?;
        }
        Ok(())
    }

    /// Gives files their permissions and times: again when something has written to them.
    ///
    /// # Errors
    ///
    /// When the file system fails.
    pub fn settle(&mut self) -> Result<(), RestoreError> {
        // What is in a directory first: making it changes the directory's time, and permissions may forbid it.
        for (path, wanted) in self.wanted.iter().rev() {
            let Some(state) = &wanted.state else { continue };
            let Ok(Some(now)) = job_file::look(path) else { continue };
            let is_same = (now.mode, now.uid, now.gid, now.mtime_ns) == (state.mode, state.uid, state.gid, state.mtime_ns);
            if is_same || !now.kind.is_like(&state.kind) {
                continue;
            }
            self.done.push(Done::Attributes { path: path.clone(), state: now });
            job_file::rebuild_attributes(state, path).map_err(failed("set the permissions of", path))?;
        }
        Ok(())
    }

    /// Begins the next segment of the job's list, beside the images that are to come. What the image knows of the files goes on with
    /// the identities that they have now.
    pub fn begin_segment(&mut self, job: &JobState, paths: &PathMap, info: &JobInfo, home: &Path) -> JobFiles {
        let mut files = job.files.clone();
        for file in &mut files.files {
            let path = paths.resolve_path(file.path.as_path());
            if let (Some(state), Ok(Some(now))) = (&mut file.state, job_file::look(&path)) {
                (state.identity, state.ctime_ns) = (now.identity, now.ctime_ns);
            }
            file.path = path.into();
        }
        if !self.list.is_own() {
            self.list = list_in(home, info);
        }
        let newest = self.list.segments().last().copied().max(self.list.segment()).unwrap_or(0);
        let segment = newest.max(files.segment) + 1;
        let begun = begin_segment(&self.list, segment, &files.files, budget(&info.settings));
        files.dir = self.list.path().into();
        if let Err(error) = begun {
            self.notes.push(format!(
                "what the job does to files cannot be noted in {}: {error}; the next restart brings back only those that it has open",
                self.list.path().display()
            ));
        }
        files
    }

    /// What is not as it was at the checkpoint, and cannot be.
    #[must_use]
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    /// The job is back: what has been done stays. Gives lines for the user.
    pub fn keep(mut self) -> Vec<String> {
        self.done.clear();
        let mut notes = std::mem::take(&mut self.notes);
        if !self.set_aside.is_empty() {
            // What somebody has done after the job ended comes first.
            self.set_aside.sort_by_key(|one| std::cmp::Reverse(one.mtime_ns));
            let bytes: u64 = self.set_aside.iter().map(|one| one.bytes).sum();
            let names: Vec<String> = self.set_aside.iter().map(|one| one.path.display().to_string()).collect();
            let files = if names.len() == 1 { "1 file".to_owned() } else { format!("{} files", names.len()) };
            notes.push(format!(
                "set aside in {}: {files}, {}, made or changed after the checkpoint: {}",
                self.aside.dir.display(),
                Bytes(bytes),
                listed(&names)
            ));
        }
        if !self.made.is_empty() {
            let names: Vec<String> = self.made.iter().map(|path| path.display().to_string()).collect();
            notes.push(format!("recreated from the image: {}", listed(&names)));
        }
        if !self.reads.is_empty() {
            let names: Vec<String> = self.reads.keys().map(ToString::to_string).collect();
            notes.push(format!("the job reads the former contents of files that were replaced or removed: {}", listed(&names)));
        }
        if !self.lost.is_empty() {
            notes.push(format!("not as at the checkpoint: {}", listed(&self.lost)));
        }
        notes
    }
}

impl Drop for Rollback<'_> {
    /// Undoes what was done, the last first.
    fn drop(&mut self) {
        for done in std::mem::take(&mut self.done).into_iter().rev() {
            // What fails leaves a file as at the checkpoint, and what was there set aside.
            let _ = undo(&done);
        }
        self.aside.remove_empty();
    }
}

fn undo(done: &Done) -> io::Result<()> {
    match done {
        Done::Moved { from, to } => crate::aside::move_file(to, from),
        Done::Made(path) if path.symlink_metadata()?.is_dir() => std::fs::remove_dir(path),
        Done::Made(path) => std::fs::remove_file(path),
        Done::Rewritten { path, copy, state } => {
            let mut file = open(path, OFlags::RDWR)?;
            io::copy(&mut File::open(copy)?, &mut file)?;
            file.set_len(state.size())?;
            std::fs::remove_file(copy)?;
            job_file::rebuild_time(state, path)
        }
        Done::Cut { path, at, tail, state } => {
            let mut file = open(path, OFlags::RDWR)?;
            file.seek(io::SeekFrom::Start(*at))?;
            io::copy(&mut File::open(tail)?, &mut file)?;
            std::fs::remove_file(tail)?;
            job_file::rebuild_time(state, path)
        }
        Done::Attributes { path, state } => job_file::rebuild_attributes(state, path),
    }
}

/// Where the job's list is now: where it was, or beside the image.
fn find_list(files: &JobFiles, reader: &ImageReader, paths: &PathMap, info: &JobInfo) -> TouchedDir {
    let there = TouchedDir::at(paths.resolve(&files.dir));
    let beside = reader.path().canonicalize().ok().and_then(|image| Some(list_in(image.parent()?, info)));
    match beside {
        Some(beside) if !there.is_own() && beside.is_own() => beside,
        _ => there,
    }
}

/// How a file was before the job touched it.
fn state_of(touch: &Touch) -> FileState {
    let record = &touch.record;
    let kind = match record.mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular { size: record.size, contents: Contents::Unknown },
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Link { target: touch.other.clone() },
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        _ => FileKind::Device,
    };
    FileState {
        identity: record.identity.into(),
        mode: record.mode & 0o7777,
        uid: record.uid,
        gid: record.gid,
        mtime_ns: record.modified_ns,
        ctime_ns: 0,
        kind,
    }
}

/// The name that a file has now in the directory of its former path; nothing where it is not there, or cannot be told from another
/// for certain.
fn named_in(path: &Path, number: &FileNumber) -> Option<PathBuf> {
    use std::os::unix::fs::DirEntryExt;
    if number.born_ns == 0 {
        return None;
    }
    let entries = std::fs::read_dir(path.parent()?).ok()?.flatten();
    let candidates = entries.filter(|entry| entry.ino() == number.inode).map(|entry| entry.path());
    let is_it = |path: &PathBuf| job_file::look(path).is_ok_and(|now| now.is_some_and(|now| now.identity.is(number)));
    candidates
        .into_iter()
        .find(|path| is_it(path) && path.symlink_metadata().is_ok_and(|meta| meta.is_dir() || meta.nlink() == 1))
}

/// The hash of the beginning of a file; nothing where it is shorter.
fn hash_of(path: &Path, size: u64) -> Option<u128> {
    Hashed::default().extend(&job_file::open_to_read(path).ok()?, size).ok()
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    Ok(file::open_although(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW)?.into())
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The first few of these, and how many more there are.
pub fn listed(names: &[String]) -> String {
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    move |source| RestoreError::Commit { what, path: path.to_owned(), source }
}

fn aside_failed(aside: &Aside, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let dir = aside.dir.clone();
    move |source| RestoreError::Aside { path: path.to_owned(), dir, source }
}
