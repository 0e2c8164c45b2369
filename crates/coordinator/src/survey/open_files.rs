//! The open file descriptions of all processes, each once, with the locks that were set through them.

use std::collections::HashSet;

use ckpt_objects::descriptor::{Descriptions, FdEntry, descriptors};
use ckpt_objects::file_lock::Locks;
use ckpt_objects::observe::ObserveError;
use ckpt_objects::open_file::{self, OpenFile, OpenFileError};
use ckpt_objects::process::group_session_and_terminal;
use ckpt_objects::signalling::{self, Signalling};
use ckpt_objects::socket::observe::Surroundings;
use ckpt_objects::socket::{self, Sockets};
use ckpt_objects::subject::Subject;
use ckpt_objects::terminal::{self, Group};
use ckpt_objects::{NsPid, Spaces, shared_memory, sysv};

use super::job::Job;
use crate::frozen::FrozenProcess;

/// What the descriptors of all processes are open on.
#[derive(Default)]
pub struct OpenFiles {
    pub descriptions: Descriptions,
    pub locks: Locks,
    pub kinds: open_file::Observer,
    pub sockets: Sockets,
    pub terminals: terminal::Observer,
}

/// What else is joined with open files.
pub struct Others<'a> {
    pub ipc: &'a sysv::Observer<'a, FrozenProcess>,
    pub shared: &'a mut shared_memory::Observer,
    pub spaces: &'a mut Spaces,
}

impl OpenFiles {
    /// The descriptors of a process, and the locks that it has set.
    pub fn descriptors(&mut self, job: &Job<'_>, process: &FrozenProcess) -> Result<Vec<FdEntry>, ObserveError> {
        let mut entries = Vec::new();
        for mut descriptor in descriptors(process.live, process.agent_socket)? {
            if descriptor.may_not_close_on_exec()
                && let Ok(flags) = process.call(libc::SYS_fcntl, &[descriptor.fd.into(), libc::F_GETFD.into(), 0.into()])
            {
                descriptor.close_on_exec = flags & libc::FD_CLOEXEC as u64 != 0;
            }
            let locked = descriptor.info.windows(5).any(|word| word == b"lock:").then(|| descriptor.clone());
            let entry = self.descriptions.entry(descriptor);
            if let Some(descriptor) = locked {
                let seen = self.locks.see(process.ns_pid, entry, &descriptor.info);
                seen.map_err(|error| job.frozen.refuse_descriptor(&descriptor, error))?;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Looks at all sockets, and adds files that are only in flight between them to the descriptions.
    pub fn observe_sockets(&mut self, job: &Job<'_>) -> Result<(), ObserveError> {
        let number = job.peers();
        let cwds =
            job.frozen.processes.iter().filter_map(|process| std::fs::read_link(format!("/proc/{}/cwd", process.pid)).ok());
        let mut bases: Vec<_> = cwds.chain([job.info.launch_dir.as_path().to_owned()]).collect();
        bases.sort();
        bases.dedup();
        let surroundings = Surroundings { pid: &number, strict: job.info.settings.strict, bases: &bases };
        let sockets = socket::observe::observe(&mut self.descriptions, &surroundings);
        self.sockets = sockets.map_err(|(descriptor, error)| match job.frozen.refuse_descriptor(&descriptor, &error) {
            ObserveError::Refused { pid, name, what, .. } if error.passes() => ObserveError::Passing { pid, name, what },
            ObserveError::Refused { pid, name, what, .. } => ObserveError::Refused { pid, name, what, remedy: error.remedy() },
            other => other,
        })?;
        Ok(())
    }

    /// Looks at all terminals, which tell of many descriptions and processes at once. Gives the processes that have a controlling one.
    pub fn observe_terminals(
        &mut self,
        job: &Job<'_>,
        before: Option<&terminal::TerminalSettings>,
    ) -> Result<HashSet<NsPid>, ObserveError> {
        let groups = job.frozen.processes.iter().map(|process| {
            let (group, session, terminal) = group_session_and_terminal(process.live)?;
            let (own_group, own_session) = job.group_and_session(&process.status);
            Ok(Group { pid: process.live, host: (session, group), own: (own_session, own_group), terminal })
        });
        let groups = groups.collect::<Result<Vec<_>, ObserveError>>()?;
        let seen = self.descriptions.all();
        self.terminals = terminal::Observer::observe(seen, &groups, before).map_err(|(at, error)| {
            match (at.and_then(|at| seen.get(at.at())), job.frozen.processes.first()) {
                (Some(descriptor), _) => job.frozen.refuse_descriptor(descriptor, error),
                (None, Some(first)) => first
                    .refuse(format!("or another is controlled by {error}"), "end the program that uses it before a checkpoint"),
                (None, None) => ObserveError::Internal("a terminal of a job without processes"),
            }
        })?;
        let controlled = job.frozen.processes.iter().filter(|process| self.terminals.controlled.contains(&process.live));
        Ok(controlled.map(|process| process.ns_pid).collect())
    }

    /// What each description is open on, by its index.
    pub fn observe(&mut self, job: &Job<'_>, others: Others<'_>) -> Result<Vec<OpenFile>, ObserveError> {
        let surroundings = open_file::Surroundings {
            descriptions: self.descriptions.all(),
            processes: job.frozen.processes.iter().map(|process| process.pid).collect(),
            number: &|pid| job.number(pid),
            is_user: &|uid| others.ipc.is_user(uid),
            signal: job.info.signal,
            terminals: std::mem::take(&mut self.terminals.ends),
            sockets: &self.sockets,
            shared: others.shared,
            spaces: others.spaces,
        };
        self.kinds.observe(surroundings).map_err(|(descriptor, error)| match error {
            OpenFileError::Internal(error) => error,
            OpenFileError::Refused(what) => job.frozen.refuse_descriptor(descriptor, what),
        })
    }

    /// Descriptions that send signals. Those of the launcher are replaced.
    pub fn signalling(&self, job: &Job<'_>, open_files: &[OpenFile]) -> Result<Vec<Signalling>, ObserveError> {
        let mut all = Vec::new();
        for ((at, descriptor), open) in self.descriptions.all().iter().enumerate().zip(open_files) {
            let Some(owner) = job.frozen.owner(descriptor).filter(|_| open.inherited.is_none()) else { continue };
            let found = signalling::observe(at.into(), owner.ns_pid, descriptor, |kind, host| job.signalled(kind, host));
            all.extend(found.map_err(|error| job.frozen.refuse_descriptor(descriptor, error))?);
        }
        Ok(all)
    }
}
