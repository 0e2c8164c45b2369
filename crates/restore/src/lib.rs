//! Bringing a job back from its image: the plan of a restart, and the few hundred bytes of code that swap one address space for
//! another.
//!
//! The order of things (`docs/restart.md` tells why; [`restore`] numbers the steps as that does):
//!
//! - [`checks`]: can this machine be the job's, are its files there? Nothing is changed. [`tree`]: who forks whom. Then the job's files
//!   are brought back to how they were at the checkpoint ([`rollback`]).
//! - [`namespaces`]: new ones are made, and their first process. [`ckpt_objects::open_file`]: one process, the [`standin`] for the
//!   launcher, makes every open file description of the job.
//! - [`family`]: the process tree grows; everybody takes its place in sessions and groups.
//! - [`process`]: each maps and fills its [`memory`], arranges its [`descriptors`], and enters the [`restorer`].
//! - When every thread waits at the gate ([`watcher`]): [`commit`] writes back what is mapped shared; then the gate opens for all at once.
//!
//! What happens with the job after that is the coordinator's part.

#![deny(unsafe_code)]

mod aside;
mod checks;
mod commit;
mod contents;
mod control;
mod descriptors;
mod environment;
mod error;
mod family;
mod holes;
mod listing;
mod memory;
mod missing;
mod namespaces;
mod options;
mod own_output;
mod paths;
mod process;
mod restart;
mod restorer;
mod rollback;
mod signals;
mod standin;
mod terminals;
#[cfg(test)]
mod testing;
mod tree;
mod vdso;
mod watcher;

use std::os::fd::OwnedFd;

use ckpt_image::{ImageName, ImageReader};
use ckpt_objects::job_file::JobFiles;
use ckpt_objects::terminal::OwnTerminal;
use ckpt_objects::{HostPid, NsPid};
use ckpt_session::environment::{offer, tell_starts};
use ckpt_session::job::JobInfo;
use ckpt_session::{JobState, Listener};
use ckpt_wire::Secret;

pub use error::RestoreError;
pub use namespaces::remedy as namespace_remedy;
pub use options::{Options, is_privileged};

use crate::control::Channels;
use crate::restart::{Restart, living};
use crate::tree::Tree;
use crate::watcher::{Watcher, thread_count};

/// A job that runs again.
#[derive(Debug)]
pub struct RestoredJob {
    /// Process 1 of its pid namespace. When it ends, everything in the namespace does.
    pub init: HostPid,
    /// The process that has the launcher's pid: what descends from it is the job.
    pub stand_in: HostPid,
    /// Where the job's agents find their coordinator: it must be there before the job is.
    pub listener: Listener,
    /// A pipe of numbers in four bytes: a wait status when the first process has ended, a negative number for a signal that the job
    /// sent to its launcher. It ends when no process is left.
    pub ends: OwnedFd,
    /// Living processes.
    pub processes: usize,
    /// Threads in them.
    pub threads: usize,
    /// Processes that made sockets of the job's, and have ended: their numbers here and in the namespace.
    pub makers: Vec<(HostPid, NsPid)>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
    /// Processes of the job are in the session and process group of the restart.
    pub shares_session: bool,
    /// Its files, by the paths that they have now.
    pub files: JobFiles,
    /// What the image says of the job, with paths as they are now: what the next image is to say.
    pub info: JobInfo,
}

/// Reads what an image says of its job.
///
/// # Errors
/// The metadata are damaged, or of another release.
pub fn read_job(reader: &ImageReader) -> Result<JobState, RestoreError> {
    let job: JobState = postcard::from_bytes(reader.metadata()).map_err(|error| RestoreError::Metadata(error.to_string()))?;
    // Names of files are made from its id.
    ImageName::new(&job.info.name, &job.info.id, job.info.generation)
        .map_err(|error| RestoreError::Metadata(error.to_string()))?;
    Ok(job)
}

/// Brings a job back. The caller must have one thread. `own` is its terminal; `tell` is told at once what takes its time.
///
/// The numbers are those of `docs/restart.md`. Steps 5 to 9 are done by the processes that step 4 begins with: see [`family`].
///
/// # Errors
///
/// One variant for each thing that can fail. Nothing of the job has run then, nothing of it is left, and its files are as they were before.
pub fn restore(
    reader: &ImageReader,
    job: &JobState,
    options: &Options,
    own: Option<&OwnTerminal>,
    tell: &dyn Fn(&str),
) -> Result<RestoredJob, RestoreError> {
    let (adopted, standing) = terminals::adopt(job, own);
    let job = adopted.as_ref().unwrap_or(job);
    // 2. Check. 3. Plan the tree. Only when neither refuses are the job's files rolled back.
    let mut checked = checks::check(job, reader, options)?;
    let tree = Tree::plan(job, namespaces::pid_max(!checked.user.is_privileged))?;
    checked.roll_back(job, options.strict)?;
    // 4. New namespaces; in these, 5. open file descriptions, 6. the tree, 7. memory, 8. descriptors, 9. the restorer.
    let (channels, readers) = Channels::make()?;
    let restart = Restart::new(job, reader, &checked, &tree, &channels, standing);
    let init = signals::with_all_blocked(|| namespaces::make_init(&restart))?;
    let mut watcher = Watcher::new(job, &tree, channels.control, init, readers.reports, tell);
    watcher.notes = checked.notes;
    drop(channels);
    watcher.wait_for_all()?;
    let (stand_in, namespace) = watcher.identify()?;
    let listener = Listener::bind(Secret(job.info.secret), namespace).map_err(RestoreError::Listener)?;
    // 10. The last step.
    watcher.notes.extend(commit::commit(job, reader, &checked.paths, &checked.output)?);
    watcher.let_helpers_commit()?;
    let _ = checked.rollback.settle();
    watcher.notes.extend(checked.rollback.keep());
    watcher.notes.extend(offer(&checked.info));
    checked.info.restarted = watcher.starts();
    watcher.notes.extend(tell_starts(&checked.info));
    terminals::lend(job, own);
    // 11. The gate opens.
    signals::hold_those_that_are_listened_to(job);
    let (makers, notes) = watcher.open_the_gate();
    terminals::redraw(job, stand_in);
    Ok(RestoredJob {
        init,
        stand_in,
        listener,
        ends: readers.ends,
        processes: living(job),
        threads: thread_count(job),
        makers,
        notes,
        shares_session: standing.adopted,
        files: checked.files,
        info: checked.info,
    })
}
