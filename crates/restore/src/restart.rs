//! What every process of a restart knows.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::PathBuf;

use ckpt_image::ImageReader;
use ckpt_objects::FilePath;
use ckpt_objects::process::{Life, LiveProcess, ProcessState};
use ckpt_session::JobState;
use ckpt_session::job::Variable;

use crate::checks::Checked;
use crate::contents::Stored;
use crate::control::{self, Channels, Control, Report};
use crate::error::ProcessError;
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
    pub control: &'static Control,
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
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
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
            fill_threads: (processors / living(job).max(1)).max(1),
            terminal,
            user: checked.user,
        }
    }

    /// Whether the job is in a user namespace of its own.
    #[must_use]
    pub fn has_user_namespace(&self) -> bool {
        !self.user.is_privileged
    }

    /// Sends a report.
    pub fn report(&self, report: &Report) {
        control::send(self.reports, report);
    }

    /// Ends this process, having reported why.
    pub fn fail(&self, who: &str, error: &ProcessError) -> ! {
        self.report(&Report::Failed(format!("{who}: {error}")));
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

/// Ends this process without running what the restart registered for its own end.
pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it runs afterwards.
    unsafe { libc::_exit(code) }
}

/// How many processes of a job are alive.
pub fn living(job: &JobState) -> usize {
    job.processes.iter().filter(|process| matches!(process.life, Life::Alive(_))).count()
}
