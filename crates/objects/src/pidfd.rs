//! Pidfds: descriptors of a process (pidfd_open(2)).
//!
//! A restart makes each where its process is there already: every process that has it opens its own. What several processes got from a
//! common parent is one open file description no more, which only `fcntl(F_SETFL)` could tell.

use serde::{Deserialize, Serialize};

use crate::NsPid;

mod observe;
mod rebuild;

pub use observe::observe;
pub use rebuild::rebuild;

/// A pidfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidfdState {
    /// The process; nothing: one that has ended and been waited for.
    pub process: Option<NsPid>,
}
