//! What every process of a restart knows.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::PathBuf;

use ckpt_image::ImageReader;
use ckpt_objects::context::Context;
use ckpt_objects::file::RegularFile;
use ckpt_objects::process::{Life, LiveProcess, ProcessState};
use ckpt_objects::rebuild::RebuildError;
use ckpt_objects::shared_memory::SharedMemory;
use ckpt_objects::{FilePath, Objects, SpaceId};
use ckpt_session::JobState;
use ckpt_session::job::Variable;

use crate::checks::Checked;
use crate::contents::Stored;
use crate::control::{self, Channels, Message, SharedPage};
use crate::error::ProcessError;
use crate::memory::{self, MemoryError};
use crate::options::User;
use crate::paths::PathMap;
use crate::restorer::FAILED_EXIT_CODE;
use crate::tree::{Node, Role, Tree};

/// What every process of a restart knows: worked out beforehand, and inherited over `fork`.
#[derive(Clone, Copy)]
pub struct Restart<'a> {
    /// The job.
    pub job: &'a JobState,
    /// Its image.
    pub reader: &'a ImageReader,
    /// Where its files are.
    pub paths: &'a PathMap,
    /// Where its mapped files are, by their index; nothing for those that are gone or have changed, and are not needed.
    pub mapped: &'a [Option<PathBuf>],
    /// Contents of files that the job only reads, and that are not what they were: by the paths that they had.
    pub reads: &'a HashMap<FilePath, Stored>,
    /// The variable with the place of the job's list of touched paths; empty where agents cannot be told.
    pub touched: &'a [u8],
    /// Variables that are to be written into the processes' environments.
    pub environment: &'a [Variable],
    /// Its processes.
    pub tree: &'a Tree,
    /// What all share.
    pub control: &'static SharedPage,
    /// Where reports go.
    pub reports: BorrowedFd<'a>,
    /// Where the stand-in tells how the job's first process ended, and what signals came from the job.
    pub ends: BorrowedFd<'a>,
    /// The `/proc` outside.
    pub processes: BorrowedFd<'a>,
    /// Descriptors from this number on are none of the job's, as far as the limit allows.
    pub lowest: RawFd,
    /// How many threads each process may use to fill its memory.
    pub fill_threads: usize,
    /// How the job stands to the restart's own terminal.
    pub terminal: Standing,
    /// Who restarts it.
    pub user: User,
}

/// How the job stands to the restart's own terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// It is in the restart's session: [`crate::terminals::adopt`].
    pub adopted: bool,
    /// The restart may change the terminal.
    pub in_foreground: bool,
}

impl<'a> Restart<'a> {
    /// What is known when the job's files have been rolled back.
    pub fn new(
        job: &'a JobState,
        reader: &'a ImageReader,
        checked: &'a Checked<'_>,
        tree: &'a Tree,
        channels: &'a Channels,
        terminal: Standing,
    ) -> Self {
        Self {
            job,
            reader,
            paths: &checked.paths,
            mapped: &checked.mapped,
            reads: checked.rollback.reads(),
            touched: &checked.touched,
            environment: &checked.refreshed,
            tree,
            control: channels.control,
            reports: channels.reports.as_fd(),
            ends: channels.ends.as_fd(),
            processes: channels.processes.as_fd(),
            lowest: 3,
            fill_threads: (processors() / living(job).max(1)).max(1),
            terminal,
            user: checked.user,
        }
    }

    /// Sends a report.
    pub fn report(&self, report: &Message) {
        control::send(self.reports, report);
    }

    /// Ends this process, having reported why.
    pub fn fail(&self, who: &str, error: &ProcessError) -> ! {
        self.report(&Message::Failed(format!("{who}: {error}")));
        exit(FAILED_EXIT_CODE)
    }

    /// The process of the job that a node is.
    #[must_use]
    pub fn process(&self, node: &Node) -> Option<&'a ProcessState> {
        match node.role {
            Role::Job(index) => self.job.processes.get(index),
            _ => None,
        }
    }

    /// The process of the job that a node is, if that is alive.
    #[must_use]
    pub fn live(&self, node: &Node) -> Option<&'a LiveProcess> {
        match &self.process(node)?.life {
            Life::Alive(live) => Some(live),
            Life::Zombie { .. } => None,
        }
    }
}

impl Context for Restart<'_> {
    fn objects(&self) -> Objects<'_> {
        self.job.objects()
    }

    fn resolve(&self, path: &FilePath) -> PathBuf {
        self.paths.resolve(path)
    }

    fn lowest(&self) -> RawFd {
        self.lowest
    }

    fn has_user_namespace(&self) -> bool {
        !self.user.is_privileged
    }

    fn note(&self, text: String) {
        self.report(&Message::Note(text));
    }

    fn waiting(&self, text: String) {
        self.report(&Message::Waiting(text));
    }

    fn note_maker(&self) {
        let outside = rustix::fs::readlinkat(self.processes, "self", Vec::new());
        if let Some(outside) = outside.ok().and_then(|text| text.to_str().ok()?.parse().ok()) {
            self.report(&Message::Maker(outside, rustix::process::getpid().as_raw_nonzero().get()));
        }
    }

    fn fill(&self, space: SpaceId, file: BorrowedFd<'_>, size: u64) -> Result<(), RebuildError> {
        memory::fill_object(self.reader, space.0, file, size, processors(), &self.control.filled).map_err(contents)
    }

    fn fill_segment(&self, object: &SharedMemory, id: i32) -> Result<(), RebuildError> {
        memory::fill_segment(self.reader, object, id, processors(), &self.control.filled).map_err(contents)
    }

    fn has_former(&self, regular: &RegularFile) -> bool {
        self.reads.contains_key(&regular.path)
    }

    fn write_former(&self, regular: &RegularFile, file: &File) -> Result<(), RebuildError> {
        let Some(stored) = self.reads.get(&regular.path) else { return Ok(()) };
        let path = self.resolve(&regular.path);
        stored.write(self.reader, file, &path).map_err(RebuildError::file("write the former contents of", &path))
    }
}

fn contents(error: MemoryError) -> RebuildError {
    RebuildError::Contents(Box::new(error))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Ends this process without running what the restart registered for its own end.
pub fn exit(code: i32) -> ! {
    ckpt_sys::child::exit(code)
}

/// How many processes of a job are alive.
pub fn living(job: &JobState) -> usize {
    job.processes.iter().filter(|process| matches!(process.life, Life::Alive(_))).count()
}
