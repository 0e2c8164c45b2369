//! All objects of a job together: what refers to another does so by its index here.

use crate::FileIndex;
use crate::file_lock::FileLock;
use crate::mqueue::Mqueue;
use crate::open_file::{OpenFile, OpenFileKind};
use crate::pipe::PipeState;
use crate::process::{Life, LiveProcess, ProcessState};
use crate::program::UnnamedProgram;
use crate::shared_memory::SharedMemory;
use crate::signalling::Signalling;
use crate::socket::SocketState;
use crate::sysv::SystemV;
use crate::terminal::Terminals;

/// The objects of a job, as an image has them.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    /// Processes, the dead that are not waited for included.
    pub processes: &'a [ProcessState],
    /// Open file descriptions.
    pub open_files: &'a [OpenFile],
    /// Pipes and named pipes.
    pub pipes: &'a [PipeState],
    /// Locks and leases.
    pub locks: &'a [FileLock],
    /// Descriptions that send signals.
    pub signalling: &'a [Signalling],
    /// Terminals.
    pub terminals: &'a Terminals,
    /// Sockets.
    pub sockets: &'a [SocketState],
    /// Shared memory.
    pub shared_memory: &'a [SharedMemory],
    /// Programs without a name.
    pub programs: &'a [UnnamedProgram],
    /// POSIX message queues.
    pub mqueues: &'a [Mqueue],
    /// System V semaphores and message queues.
    pub system_v: &'a SystemV,
}

impl<'a> Objects<'a> {
    /// The processes that are alive.
    pub fn living(self) -> impl Iterator<Item = (&'a ProcessState, &'a LiveProcess)> {
        self.processes.iter().filter_map(|process| match &process.life {
            Life::Alive(live) => Some((process, &**live)),
            Life::Zombie { .. } => None,
        })
    }

    /// A process that has an open file description for which `is_it` holds; 0: none, as for a file that is in flight.
    pub fn owner(self, is_it: impl Fn(FileIndex) -> bool) -> i32 {
        let has_it = |live: &LiveProcess| live.descriptors.iter().any(|entry| is_it(entry.file));
        self.living().find(|(_, live)| has_it(live)).map_or(0, |(process, _)| process.pid.0)
    }

    /// What a description is open on.
    #[must_use]
    pub fn kind(self, file: FileIndex) -> Option<&'a OpenFileKind> {
        self.open_files.get(file.at()).map(|file| &file.kind)
    }
}
