//! What a restart waits for, told once.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Address;
use crate::context::Context;

/// How long what is left of a killed run is in the way before the user is told what the restart waits for.
const UNTOLD: Duration = Duration::from_secs(1);
/// Time between two tries.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// Tells, once in a restart, what is waited for that takes its time.
pub(super) struct Patience<'a> {
    context: &'a dyn Context,
    told: Cell<bool>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(context: &'a dyn Context) -> Self {
        Self { context, told: Cell::new(false) }
    }

    /// Waits a moment for an address that a connection of the past has had since `begun`.
    pub(super) fn wait(&self, begun: Instant, address: &Address) {
        if begun.elapsed() > UNTOLD && !self.told.replace(true) {
            let text =
                format!("waiting for {address}, which a connection of the last run still has (TIME_WAIT), for a minute at most");
            self.context.waiting(text);
        }
        std::thread::sleep(RETRY);
    }
}
