//! Epoll instances: what they wait for (epoll(7)).
//!
//! A registration belongs to an open file description and the number that its descriptor had when it was registered. It outlives that
//! descriptor as long as another one of the same description is open anywhere. So a restart registers each description under its old
//! number, whoever has it there now.
//!
//! What the kernel does not show, and a restart therefore cannot know:
//! - Whether an edge (`EPOLLET`) was reported already: a registration whose file is ready reports that once more at most.
//! - Which process registered a signalfd, for whose signals it waits: it is taken to be the first one that has both open.
//! - Settings for busy polling (`EPIOCSPARAMS`).

use serde::{Deserialize, Serialize};

use crate::FileIndex;

mod observe;
mod rebuild;

pub use observe::observe;
pub use rebuild::{rebuild, register_common, register_own};

/// Bits that stay when a one-shot registration has fired (`EP_PRIVATE_BITS`, fs/eventpoll.c):
/// `EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET`.
const PRIVATE_BITS: u32 = 0xf000_0000;

/// An epoll instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollState {
    /// What it waits for.
    pub registrations: Vec<Registration>,
}

/// What `epoll_ctl` registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The number that the descriptor had when it was registered.
    pub fd: i32,
    /// Index into `JobState::open_files`.
    pub file: FileIndex,
    /// `EPOLL*`: what it waits for, and how.
    pub events: u32,
    /// What the program gets with an event.
    pub data: u64,
}

impl Registration {
    /// Whether it is a one-shot registration that has fired: it waits for nothing until it is modified.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.events & !PRIVATE_BITS == 0
    }
}
