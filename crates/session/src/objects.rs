//! The objects of a job, as its image has them.

use ckpt_objects::Objects;

use crate::JobState;

impl JobState {
    /// All objects that refer to each other by their index.
    #[must_use]
    pub fn objects(&self) -> Objects<'_> {
        Objects {
            processes: &self.processes,
            open_files: &self.open_files,
            pipes: &self.pipes,
            locks: &self.locks,
            signalling: &self.signalling,
            terminals: &self.terminals,
            sockets: &self.sockets,
            shared_memory: &self.shared_memory,
            programs: &self.programs,
            mqueues: &self.mqueues,
            system_v: &self.system_v,
        }
    }
}
