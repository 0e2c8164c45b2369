//! Eventfds: a counter that can be waited for (eventfd(2)).

use serde::{Deserialize, Serialize};

mod observe;
mod rebuild;

pub use observe::observe;
pub use rebuild::rebuild;

/// An eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventfdState {
    /// Its count.
    pub count: u64,
    /// `EFD_SEMAPHORE`: a read takes one, not all.
    pub semaphore: bool,
}
