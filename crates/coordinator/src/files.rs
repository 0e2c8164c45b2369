//! The files that a job has touched, from one checkpoint to the next: which paths those are, how each is at the freeze, and what of
//! their contents goes into the image.
//!
//! Nothing grows with the size of a file while the job stands still, where that can be avoided:
//!
//! ```text
//! at the freeze, the file is                 its contents are
//! -----------------------------------------  ---------------------------------------------------------------------
//! closed, or only appended to; small         read when the job runs on, into the image
//! closed, or only appended to; large         hashed when the job runs on; they stay in the file
//! open for writing, untouched since the      read when the job runs on; the image before has them too
//!   image before
//! open for writing                           cloned or copied at once
//! ```
//!
//! What the job changes while it is being read is not lost: its agents keep the contents of every file that was closed at the
//! checkpoint before they let the job change it ([`ckpt_objects::touched`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ckpt_image::{Codec, ImageReader, ImageWriter, generations};
use ckpt_objects::file::data_ranges;
use ckpt_objects::job_file::{
    self, Contents, FileKind, FileNumber, FileState, Hashed, JobFile, JobFiles, LIMIT, Role, SaveError, StageError, Staged,
    Stager,
};
use ckpt_objects::shared_memory::SharedMemoryKind;
use ckpt_objects::touched::{self, Touch, TouchedDir};
use ckpt_objects::{FilePath, SpaceId, Spaces};
use ckpt_session::files::{begin_segment, begun_ns, budget, is_of_the_kernel, keys, left_out, list_of, own_streams};
use ckpt_session::job::JobInfo;
use ckpt_session::{Bytes, JobState};
use ckpt_wire::touched::{Identity, RecordKind};

use crate::dump::Packer;
use crate::error::DumpError;

mod used;

pub use used::{Use, UsedFile, used};

/// The part of the budget that one file may have which is not open for writing: larger ones stay where they are.
const SHARE: u64 = 16;
/// Bytes of the largest file that is held though the job only reads it.
const LARGEST_READ: u64 = 16 << 20;

/// The files of a running job.
#[derive(Debug)]
pub struct Files {
    list: TouchedDir,
    /// Nothing is noted by agents: only what descriptors show is known.
    unlisted: bool,
    /// The segment that goes on, and how far its log and that of the one before have been read.
    segment: u64,
    read_to: [u64; 2],
    known: BTreeMap<FilePath, Known>,
    /// The newest image, and under which numbers it holds files.
    newest: Option<(PathBuf, HashMap<FilePath, SpaceId>)>,
    /// Which segment began with each generation.
    generations: BTreeMap<u64, u64>,
    /// The user has been told that images do not hold these.
    told: BTreeSet<FilePath>,
}

/// What is known of a path.
#[derive(Clone, Debug, Default)]
struct Known {
    /// How it was at the last checkpoint.
    state: Option<FileState>,
    /// The hash of its contents as far as they were read.
    hashed: Option<Hashed>,
    /// The job has touched it since the last checkpoint.
    is_new: bool,
}

/// The files of a job at one freeze.
#[derive(Debug)]
pub struct Capture {
    /// How they are.
    pub files: Vec<JobFile>,
    /// What the user should know.
    pub complaints: Vec<String>,
    staged: Staged,
    /// How the job uses files.
    used: Vec<UsedFile>,
    chosen: Chosen,
    segment: u64,
    log_end: u64,
}

/// A file that is read while the job runs on: its index, and how.
#[derive(Debug)]
struct Later {
    file: usize,
    how: HowToRead,
}

/// What has been chosen so far of the contents of files.
#[derive(Debug)]
struct Chosen {
    /// What is to be read when the job runs on.
    later: Vec<Later>,
    /// By the file, so that one with two names is held once.
    contents: HashMap<FileNumber, Contents>,
    spaces: Spaces,
    /// Bytes that may still be held, and of one file that is not open for writing.
    room: u64,
    share: u64,
    named_room: u64,
    /// Files that are written in place and not held.
    not_held: Vec<usize>,
}

impl Chosen {
    /// Nothing, with so much room in bytes.
    fn new(room: u64, spaces: Spaces) -> Self {
        Self {
            later: Vec::new(),
            contents: HashMap::new(),
            spaces,
            room,
            share: room / SHARE,
            named_room: LIMIT,
            not_held: Vec::new(),
        }
    }
}

/// How a file is read while the job runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HowToRead {
    /// Into the image, as the contents of this space.
    Hold {
        space: SpaceId,
        /// The image before has the same contents.
        in_newest: bool,
        /// It is open for writing.
        in_place: bool,
    },
    /// For its hash. One that is open for writing may be changed meanwhile without any notice.
    Hash { in_place: bool },
}

impl Files {
    /// Those of a job that begins.
    ///
    /// # Errors
    ///
    /// When its list cannot be made: agents must not be told of it then.
    pub fn begin(info: &JobInfo) -> (Self, io::Result<()>) {
        let list = list_of(info);
        let begun = begin_segment(&list, 1, &[], budget(&info.settings));
        (Self::new(list, begun.is_err(), 1), begun)
    }

    /// Those of a job that has been brought back with these files, when its list has gone on.
    #[must_use]
    pub fn go_on(files: &JobFiles, generation: u64) -> Self {
        let list = TouchedDir::at(files.dir.as_path().to_owned());
        let segment = list.segment();
        let mut all = Self::new(list, segment.is_none(), segment.unwrap_or(files.segment));
        all.generations.insert(generation, files.segment);
        // What the killed run has noted was rolled back: what is at those paths now may be somebody else's.
        if let Ok((_, end)) = all.list.read(all.segment.saturating_sub(1), 0) {
            all.read_to[0] = end;
        }
        for file in files.files.iter().filter(|file| file.role == Role::Touched && file.state.is_some()) {
            all.known.insert(file.path.clone(), Known::default());
        }
        all
    }

    fn new(list: TouchedDir, unlisted: bool, segment: u64) -> Self {
        Self {
            list,
            unlisted,
            segment,
            read_to: [0; 2],
            known: BTreeMap::new(),
            newest: None,
            generations: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// The job has ended: without images nobody needs the list.
    pub fn end(&self, info: &JobInfo) {
        let dirs = self.directories_of_images(info);
        if dirs.into_iter().all(|dir| generations::list(dir, &info.id).is_ok_and(|left| left.is_empty())) {
            self.list.remove();
        }
    }

    /// Where images of the job are: later ones may go elsewhere than the first.
    fn directories_of_images<'a>(&'a self, info: &'a JobInfo) -> BTreeSet<&'a Path> {
        BTreeSet::from([info.settings.dir.as_path(), self.list.path().parent().unwrap_or(Path::new("/"))])
    }

    /// Where the list is.
    #[must_use]
    pub fn list(&self) -> &TouchedDir {
        &self.list
    }

    /// Takes over what the job has noted so far, while it still runs: what is left for the freeze is little.
    pub fn catch_up(&mut self, info: &JobInfo) {
        // What cannot be read now is told at the freeze.
        let _ = self.read_logs(&left_out(info));
    }

    /// Looks at all files of a frozen job, takes what must be taken now, and begins the next segment of its list. `spaces`: those
    /// that are not in use.
    ///
    /// # Errors
    ///
    /// When a file that the user named cannot be held.
    pub fn capture(&mut self, state: &JobState, used: &[UsedFile], spaces: Spaces) -> Result<Capture, SaveError> {
        let info = &state.info;
        let left_out = left_out(info);
        let mut complaints = self.read_logs(&left_out);
        self.add_open_files(state, used, &left_out);
        let named = if info.settings.save_files.is_empty() {
            BTreeMap::new()
        } else {
            job_file::find(&info.settings.save_files, info.launch_dir.as_path(), &|path, _| left_out(path))?
        };
        let named: BTreeSet<FilePath> = named.into_keys().map(FilePath::from).collect();
        let mut files = self.look_at_known(state, &named);
        let is_read = |file: &&UsedFile| file.use_ == Use::Read;
        let read: BTreeSet<&FilePath> = used.iter().filter(is_read).map(|file| &file.path).collect();
        for path in read.into_iter().filter(|path| !self.known.contains_key(*path) && !named.contains(*path)) {
            if let Ok(state @ Some(_)) = job_file::look(path.as_path()) {
                files.push(JobFile { path: path.clone(), role: Role::Read, state });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut chosen = Chosen::new(budget(&info.settings), spaces);
        let mut choice = Choice::new(self, used, &mut chosen, info.settings.dir.as_path());
        // What may be changed without a call that agents see.
        choice.all(&mut files, |role, use_| role == Role::Named || use_ == Use::Write)?;
        let staged = choice.stager.finish();
        complaints.extend(self.tell_of_files_not_held(&files, &chosen.not_held));
        let log_end = self.read_to[1];
        complaints.extend(self.begin_next_segment(info, &files));
        Ok(Capture { files, complaints, staged, used: used.to_vec(), chosen, segment: self.segment, log_end })
    }

    /// Adds what the job has open, and named pipes, to the files that are known.
    fn add_open_files(&mut self, state: &JobState, used: &[UsedFile], left_out: &dyn Fn(&Path) -> bool) {
        let changed = used.iter().filter(|file| file.use_ > Use::Read && !is_of_the_kernel(file.path.as_path()));
        let pipes = state.pipes.iter().filter_map(|pipe| pipe.path.as_ref());
        for path in changed.map(|file| &file.path).chain(pipes).filter(|path| !left_out(path.as_path())) {
            self.known.entry(path.clone()).or_default();
        }
    }

    /// How the files are that are known or named by the user, but for the launcher's own streams and files in memory, which images hold
    /// as memory.
    fn look_at_known(&mut self, state: &JobState, named: &BTreeSet<FilePath>) -> Vec<JobFile> {
        let in_memory = state.shared_memory.iter().filter_map(|object| match &object.kind {
            SharedMemoryKind::Named { path, in_memory: true, .. } => Some(path),
            _ => None,
        });
        let in_memory: HashSet<&FilePath> = in_memory.collect();
        let own = own_streams();
        let mut files = Vec::new();
        let nothing_known = Known::default();
        let others = named.iter().filter(|path| !self.known.contains_key(*path)).map(|path| (path, &nothing_known));
        let paths: Vec<(&FilePath, &Known)> =
            self.known.iter().chain(others).filter(|(path, _)| in_memory.is_empty() || !in_memory.contains(path)).collect();
        for ((path, known), state) in paths.iter().zip(look_at_all(&paths)) {
            let role = if named.contains(path) { Role::Named } else { Role::Touched };
            // What cannot be seen cannot be brought back either.
            let Ok(state) = state else { continue };
            if state.as_ref().is_some_and(|state| own.contains(&(state.identity.device, state.identity.inode))) {
                continue;
            }
            // Where nothing is, and nothing was before, there is nothing to say, unless the job has just removed it.
            if state.is_some() || known.is_new || known.state.is_some() {
                files.push(JobFile { path: (*path).clone(), role, state });
            }
        }
        self.known.values_mut().for_each(|known| known.is_new = false);
        files
    }

    /// Lines for the user about files that are written in place and not held, once for each.
    fn tell_of_files_not_held(&mut self, files: &[JobFile], not_held: &[usize]) -> Vec<String> {
        let mut complaints = Vec::new();
        for JobFile { path, state, .. } in not_held.iter().filter_map(|&at| files.get(at)) {
            let size = Bytes(state.as_ref().map_or(0, FileState::size));
            if self.told.insert(path.clone()) {
                complaints.push(format!(
                    "{path} ({size}) is open for writing and not held in images: a restart cuts off what has been appended to it, \
                     and leaves other changes (--file-budget SIZE holds more)"
                ));
            }
        }
        complaints
    }

    /// Begins the next segment of the list. Gives a line for the user where that fails.
    fn begin_next_segment(&mut self, info: &JobInfo, files: &[JobFile]) -> Option<String> {
        if self.unlisted {
            return None;
        }
        match self.list.begin(self.segment + 1, begun_ns(), budget(&info.settings), &keys(files)) {
            Ok(()) => {
                self.segment += 1;
                self.read_to = [self.read_to[1], 0];
                None
            }
            Err(error) => Some(format!(
                "the list of the files that the job touches cannot go on in {}: {error}; a restart may not bring all of them back",
                self.list.path().display()
            )),
        }
    }

    /// Takes over what the job has noted since the last look.
    fn read_logs(&mut self, left_out: &dyn Fn(&Path) -> bool) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.unlisted {
            return complaints;
        }
        for (at, segment) in [self.segment.saturating_sub(1), self.segment].into_iter().enumerate() {
            match self.list.read(segment, self.read_to[at]) {
                Ok((touches, end)) => {
                    self.read_to[at] = end;
                    for touch in touches {
                        self.take(touch, left_out);
                    }
                }
                Err(error) => complaints.push(format!(
                    "the list of the files that the job touches cannot be read in {}: {error}",
                    self.list.path().display()
                )),
            }
        }
        complaints
    }

    fn take(&mut self, touch: Touch, left_out: &dyn Fn(&Path) -> bool) {
        if touch.kind == RecordKind::Moved {
            let below: Vec<FilePath> = self
                .known
                .range(touch.path.clone()..)
                .take_while(|(path, _)| path.0.starts_with(&touch.path.0))
                .map(|(path, _)| path.clone())
                .collect();
            for old in below {
                if let (Some(new), Some(known)) = (touched::moved(&old, &touch.path, &touch.other), self.known.get(&old).cloned())
                {
                    self.known.insert(new, Known { is_new: true, ..known });
                    // The old name may have been made anew already.
                    self.known.entry(old).and_modify(|known| known.is_new = true);
                }
            }
        } else if !left_out(touch.path.as_path()) && !is_of_the_kernel(touch.path.as_path()) {
            let known = self.known.entry(touch.path).or_default();
            known.is_new = true;
            if matches!(touch.kind, RecordKind::Kept | RecordKind::Lost) {
                known.hashed = None;
            }
        }
    }

    /// Appends contents to the image, when the job runs on: what was taken at the freeze, and what could wait.
    ///
    /// # Errors
    ///
    /// When the image cannot be written.
    pub fn append(&mut self, capture: &mut Capture, writer: &ImageWriter, codec: Codec) -> Result<(), DumpError> {
        let mut packer = Packer::new(writer, codec);
        for part in &capture.staged.parts {
            let staged = &capture.staged;
            packer
                .add(part.space, part.offset, part.len, |from, bytes| staged.read(part, from, bytes).map_err(DumpError::Saved))?;
        }
        // All others: agents keep what they change meanwhile.
        let nowhere = Path::new("/");
        let rest = |role, use_| !(role == Role::Named || use_ == Use::Write);
        // None of them must be held, so that none is refused.
        let _ = Choice::new(self, &capture.used, &mut capture.chosen, nowhere).all(&mut capture.files, rest);
        let (mut read, mut places) = (Vec::new(), HashMap::new());
        for Later { file, how } in std::mem::take(&mut capture.chosen.later) {
            let JobFile { path, state: Some(state), role } = &capture.files[file] else { continue };
            let logs = [(capture.segment.saturating_sub(1), capture.log_end), (capture.segment, 0)];
            let mut reading = Reading {
                files: self,
                packer: &mut packer,
                all: &capture.files,
                places: &mut places,
                logs,
                spaces: &mut capture.chosen.spaces,
            };
            let contents = match how {
                HowToRead::Hold { space, in_newest, in_place } => reading.hold(path, state, space, in_newest, in_place)?,
                HowToRead::Hash { in_place } => reading.hash(path, state, in_place),
            };
            read.push((state.identity, contents));
            if contents == Contents::Unknown && *role == Role::Named {
                return Err(DumpError::Changed(path.clone()));
            }
            if contents == Contents::Unknown && *role == Role::Touched && self.told.insert(path.clone()) {
                capture.complaints.push(format!(
                    "the contents of {path} could not be read as they were at the checkpoint: a restart may not bring them back"
                ));
            }
        }
        // Other names of the same files.
        let read: HashMap<FileNumber, Contents> = read.into_iter().collect();
        for state in capture.files.iter_mut().filter_map(|file| file.state.as_mut()) {
            if let Some(contents) = read.get(&state.identity) {
                state.set_contents(*contents);
            }
        }
        Ok(packer.flush()?)
    }

    /// What the image says of the files.
    #[must_use]
    pub fn state(&self, capture: &Capture) -> JobFiles {
        let dir = if self.unlisted { FilePath::default() } else { self.list.path().into() };
        JobFiles { dir, segment: capture.segment, log_end: capture.log_end, files: capture.files.clone() }
    }

    /// The image is durable: what came before it is not needed any more, but for the generations that are left.
    pub fn committed(&mut self, capture: &Capture, generation: u64, path: &Path, info: &JobInfo) {
        let mut spaces = HashMap::new();
        for JobFile { path, state, .. } in &capture.files {
            if let Some(Contents::Held(space)) = state.as_ref().and_then(FileState::contents) {
                spaces.insert(path.clone(), space);
            }
            match state {
                Some(_) => {
                    if let Some(known) = self.known.get_mut(path) {
                        known.state.clone_from(state);
                    }
                }
                None => {
                    self.known.remove(path);
                }
            }
        }
        self.newest = Some((path.to_owned(), spaces));
        self.generations.insert(generation, capture.segment);
        if self.unlisted {
            return;
        }
        // Agents need not keep what the image has.
        self.list.add(&keys(&capture.files));
        let dirs = self.directories_of_images(info);
        let left: Vec<_> = dirs.into_iter().flat_map(|dir| generations::list(dir, &info.id).unwrap_or_default()).collect();
        let segments: Vec<Option<u64>> = left
            .iter()
            .map(|(name, path)| self.generations.get(&name.generation()).copied().or_else(|| segment_of(path)))
            .collect();
        if let Some(oldest) = segments.into_iter().collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().min()) {
            self.list.prune(oldest.saturating_sub(1));
            self.generations.retain(|_, segment| *segment >= oldest);
        }
    }
}

/// The segment that began with an image; nothing where it cannot be read.
fn segment_of(image: &Path) -> Option<u64> {
    let reader = ImageReader::open(image).ok()?;
    let state: JobState = postcard::from_bytes(reader.metadata()).ok()?;
    Some(state.files.segment)
}

/// How all of these are, by several threads where there are many: the job stands still.
fn look_at_all(paths: &[(&FilePath, &Known)]) -> Vec<io::Result<Option<FileState>>> {
    /// Fewer are looked at sooner than a thread is made.
    const MANY: usize = 256;
    let look =
        |paths: &[(&FilePath, &Known)]| -> Vec<_> { paths.iter().map(|(path, _)| job_file::look(path.as_path())).collect() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if paths.len() < MANY || threads == 1 {
        return look(paths);
    }
    let (own, others) = paths.split_at(paths.len() / threads);
    std::thread::scope(|scope| {
        let parts: Vec<_> = others
            .chunks(others.len().div_ceil(threads - 1))
            .map(|part| (part, std::thread::Builder::new().spawn_scoped(scope, move || look(part)).ok()))
            .collect();
        let mut all = look(own);
        for (part, thread) in parts {
            // Where no thread can be made, this one does it.
            all.extend(thread.and_then(|thread| thread.join().ok()).unwrap_or_else(|| look(part)));
        }
        all
    })
}

/// Chooses for regular files what becomes of their contents.
struct Choice<'a> {
    files: &'a BTreeMap<FilePath, Known>,
    newest: Option<&'a (PathBuf, HashMap<FilePath, SpaceId>)>,
    used: HashMap<(u64, &'a FilePath), &'a UsedFile>,
    stager: Stager<'a>,
    chosen: &'a mut Chosen,
}

impl<'a> Choice<'a> {
    fn new(files: &'a Files, used: &'a [UsedFile], chosen: &'a mut Chosen, beside: &'a Path) -> Self {
        let used = used.iter().map(|file| ((file.inode, &file.path), file)).collect();
        Self { files: &files.known, newest: files.newest.as_ref(), used, stager: Stager::new(beside), chosen }
    }

    /// Chooses for those that are `meant`, by their role and their use: those that must be held first, then what may be written to,
    /// small ones first.
    fn all(&mut self, files: &mut [JobFile], meant: impl Fn(Role, Use) -> bool) -> Result<(), SaveError> {
        let mut order = Vec::new();
        for (at, JobFile { path, role, state }) in files.iter().enumerate() {
            let Some(state) = state else { continue };
            let use_ = self.use_of(path, state);
            if meant(*role, use_) {
                order.push((std::cmp::Reverse(*role), std::cmp::Reverse(use_), state.size(), at));
            }
        }
        order.sort_unstable();
        for (std::cmp::Reverse(role), std::cmp::Reverse(use_), _, at) in order {
            let JobFile { path, state: Some(state), .. } = &mut files[at] else { continue };
            if !matches!(state.kind, FileKind::Regular { .. }) {
                if role == Role::Named && state.kind == FileKind::Device {
                    return Err(SaveError::Device { path: path.as_path().to_owned() });
                }
                continue;
            }
            let contents = match self.chosen.contents.get(&state.identity) {
                Some(&known) => known,
                None => {
                    let chosen = self.choose(at, path, role, state)?;
                    self.chosen.contents.insert(state.identity, chosen);
                    chosen
                }
            };
            state.set_contents(contents);
            if !matches!(contents, Contents::Held(_)) && role == Role::Touched && use_ == Use::Write {
                self.chosen.not_held.push(at);
            }
        }
        Ok(())
    }

    fn use_of(&self, path: &FilePath, state: &FileState) -> Use {
        self.used.get(&(state.identity.inode, path)).map_or(Use::Read, |used| used.use_)
    }

    fn choose(&mut self, at: usize, path: &FilePath, role: Role, state: &FileState) -> Result<Contents, SaveError> {
        let used = self.used.get(&(state.identity.inode, path));
        let in_place = used.is_some_and(|used| used.use_ == Use::Write);
        let size = state.size();
        if used.is_some_and(|used| used.untouchable) && role != Role::Named && size > 0 {
            return Ok(Contents::Unknown);
        }
        let Chosen { room, share, named_room, .. } = *self.chosen;
        let room = match role {
            Role::Named => named_room,
            Role::Touched if in_place => room,
            Role::Touched => room.min(share),
            Role::Read => room.min(LARGEST_READ),
        };
        // Holes are not counted. A file that may be too large is looked at, others are what their size says.
        let mut data = size;
        if data > room {
            let ranges = job_file::open_to_read(path.as_path()).and_then(|file| data_ranges(&file, size));
            data = ranges.map_or(size, |ranges| ranges.iter().map(|(start, end)| end - start).sum());
        }
        if data > room {
            return match role {
                Role::Named => Err(SaveError::TooMuch { path: path.as_path().to_owned() }),
                Role::Touched => {
                    self.chosen.later.push(Later { file: at, how: HowToRead::Hash { in_place } });
                    Ok(Contents::Unknown)
                }
                Role::Read => Ok(Contents::Unknown),
            };
        }
        let quiet = self.files.get(path).and_then(|known| known.state.as_ref()).is_some_and(|before| before.is_unchanged(state))
            && self.newest.is_some_and(|(_, spaces)| spaces.contains_key(path))
            && !used.is_some_and(|used| used.mapped);
        let space = self.chosen.spaces.take();
        if size == 0 && role != Role::Named {
            // Nothing is to be read.
        } else if (in_place || role == Role::Named) && !quiet {
            let from = path.as_path();
            let staged =
                job_file::open_to_read(from).map_err(StageError::Read).and_then(|file| self.stager.add(&file, from, size, space));
            match (staged, role) {
                (Ok(()), _) => (),
                (Err(StageError::Read(source)), Role::Named) => return Err(SaveError::read("read", from)(source)),
                (Err(StageError::Write(source)), Role::Named) => {
                    return Err(SaveError::Stage { dir: self.stager.beside().to_owned(), source });
                }
                (Err(_), _) => return Ok(Contents::Unknown),
            }
        } else {
            self.chosen.later.push(Later { file: at, how: HowToRead::Hold { space, in_newest: quiet, in_place } });
        }
        match role {
            Role::Named => self.chosen.named_room -= data,
            Role::Touched | Role::Read => self.chosen.room -= data,
        }
        Ok(Contents::Held(space))
    }
}

/// Reads files while the job runs on.
struct Reading<'a, 'b> {
    files: &'a mut Files,
    packer: &'a mut Packer<'b>,
    /// All files of the checkpoint.
    all: &'a [JobFile],
    /// Where files were when that was last looked at, by device and inode number.
    places: &'a mut HashMap<(u64, u64), FilePath>,
    /// The logs in which agents may have written since the freeze, and from where on.
    logs: [(u64, u64); 2],
    spaces: &'a mut Spaces,
}

/// Where the contents of the checkpoint are found when the job runs on.
enum Place {
    /// Nobody has changed them.
    File,
    /// An agent has kept them in this file.
    Undo(PathBuf),
    /// They are gone.
    Lost,
}

impl Reading<'_, '_> {
    /// Reads a file into the image.
    fn hold(
        &mut self,
        path: &FilePath,
        state: &FileState,
        space: SpaceId,
        in_newest: bool,
        in_place: bool,
    ) -> Result<Contents, DumpError> {
        let size = state.size();
        if let Some((path, file)) = self.open(path, state)
            && self.pack(&file, size, space)?
            && let Place::File = self.place(&path, state, &file, in_place)
        {
            return Ok(Contents::Held(space));
        }
        let space = self.spaces.take();
        if let Place::Undo(undo) = self.kept(state)
            && let Ok(file) = File::open(undo)
            && self.pack(&file, size, space)?
        {
            return Ok(Contents::Held(space));
        }
        if in_newest && self.copy_from_newest(path, space)? {
            return Ok(Contents::Held(space));
        }
        Ok(Contents::Unknown)
    }

    /// Hashes a file, from where that was done before: what is only appended to has not changed up to there.
    fn hash(&mut self, path: &FilePath, state: &FileState, in_place: bool) -> Contents {
        let size = state.size();
        let is_same = |known: &&Known| known.state.as_ref().is_some_and(|before| before.identity.is(&state.identity));
        let before = self.files.known.get(path).filter(|known| !in_place && is_same(known));
        let mut hashed = before.and_then(|known| known.hashed.clone()).unwrap_or_default();
        if hashed.len() > size {
            hashed = Hashed::default();
        }
        if let Some((at, file)) = self.open(path, state)
            && let Ok(hash) = hashed.extend(&file, size)
            && let Place::File = self.place(&at, state, &file, in_place)
        {
            if let Some(known) = self.files.known.get_mut(path) {
                known.hashed = Some(hashed);
            }
            return Contents::Hashed(hash);
        }
        match self.kept(state) {
            Place::Undo(undo) => match File::open(undo).and_then(|file| Hashed::default().extend(&file, size)) {
                Ok(hash) => Contents::Hashed(hash),
                Err(_) => Contents::Unknown,
            },
            Place::File | Place::Lost => Contents::Unknown,
        }
    }

    /// Opens a file, which the job may have renamed since the freeze.
    fn open(&mut self, path: &FilePath, state: &FileState) -> Option<(FilePath, File)> {
        let key = (state.identity.device, state.identity.inode);
        let is_it = |path: &FilePath| {
            let file = job_file::open_to_read(path.as_path()).ok()?;
            let meta = file.metadata().ok()?;
            ((meta.dev(), meta.ino()) == key).then(|| (path.clone(), file))
        };
        if let Some(found) = is_it(path).or_else(|| is_it(self.places.get(&key)?)) {
            return Some(found);
        }
        let touches: Vec<Touch> = self.touches().collect();
        let moves = touches.iter().filter(|touch| touch.kind == RecordKind::Moved);
        let now = moves.fold(path.clone(), |path, to| touched::moved(&path, &to.path, &to.other).unwrap_or(path));
        if let Some(found) = is_it(&now) {
            return Some(found);
        }
        for path in self.all.iter().map(|file| &file.path).chain(touches.iter().map(|touch| &touch.path)) {
            if let Ok(meta) = path.as_path().symlink_metadata() {
                self.places.insert((meta.dev(), meta.ino()), path.clone());
            }
        }
        is_it(self.places.get(&key)?)
    }

    /// What agents have noted since the freeze.
    fn touches(&self) -> impl Iterator<Item = Touch> {
        let logs = self.logs.iter().filter_map(|&(segment, from)| self.files.list.read(segment, from).ok());
        logs.flat_map(|(touches, _)| touches)
    }

    /// Whether the contents could be read.
    fn pack(&mut self, file: &File, size: u64, space: SpaceId) -> Result<bool, DumpError> {
        let Ok(ranges) = data_ranges(file, size) else { return Ok(false) };
        for (start, end) in ranges {
            let packed = self
                .packer
                .add(space, start, end - start, |from, bytes| file.read_exact_at(bytes, start + from).map_err(DumpError::Saved));
            match packed {
                Ok(()) => (),
                Err(DumpError::Saved(_)) => return Ok(false),
                Err(other) => return Err(other),
            }
        }
        Ok(true)
    }

    /// Where the contents of a file are that has just been read.
    fn place(&self, path: &FilePath, state: &FileState, file: &File, in_place: bool) -> Place {
        let is_it = file.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (state.identity.device, state.identity.inode));
        let now = job_file::look(path.as_path()).ok().flatten();
        if !is_it {
            Place::Lost
        } else if now.is_some_and(|now| state.is_unchanged(&now)) {
            Place::File
        } else if in_place || self.files.unlisted {
            Place::Lost
        } else {
            // It may have been renamed, or only appended to: agents keep what is changed in another way.
            self.kept(state)
        }
    }

    /// What agents have done about a file since the freeze.
    fn kept(&self, state: &FileState) -> Place {
        let identity = Identity::from(state.identity);
        for touch in self.touches().filter(|touch| touch.record.identity == identity) {
            match touch.kind {
                RecordKind::Kept => return self.files.list.undo(&touch.other).map_or(Place::Lost, Place::Undo),
                RecordKind::Lost => return Place::Lost,
                _ => (),
            }
        }
        Place::File
    }

    /// Copies contents from the image before. Whether it had them.
    fn copy_from_newest(&mut self, path: &FilePath, space: SpaceId) -> Result<bool, DumpError> {
        let Some((image, spaces)) = &self.files.newest else { return Ok(false) };
        let (Some(&old), Ok(reader)) = (spaces.get(path), ImageReader::open(image)) else { return Ok(false) };
        let mut chunk = Vec::new();
        let mut loaded = None;
        for placed in reader.extents_of(old.0) {
            if loaded != Some(placed.chunk) {
                if reader.read_chunk(placed.chunk, &mut chunk).is_err() {
                    return Ok(false);
                }
                loaded = Some(placed.chunk);
            }
            let start = placed.extent.offset as usize;
            let Some(bytes) = chunk.get(start..start + placed.extent.len as usize) else { return Ok(false) };
            self.packer.add(space, placed.extent.address, bytes.len() as u64, |from, part| {
                part.copy_from_slice(&bytes[from as usize..from as usize + part.len()]);
                Ok(())
            })?;
        }
        Ok(true)
    }
}
