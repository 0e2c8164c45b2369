//! POSIX message queues (mq_overview(7)).
//!
//! A queue is a file of its IPC namespace, and a job that has one open is restarted in a namespace of its own. Messages cannot be looked at: they are
//! taken out while the job is frozen, and put in again at once in the same order.

use serde::{Deserialize, Serialize};

use crate::FilePath;

mod observe;
mod rebuild;

pub use observe::{MqueueError, Observer};
pub use rebuild::{finish, rebuild};

/// A message queue that a process has open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mqueue {
    /// Its name, with the slash before it.
    pub name: FilePath,
    /// Its name was removed.
    pub removed: bool,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Most messages.
    pub capacity: i64,
    /// Most bytes of a message.
    pub message_size: i64,
    /// Priority and bytes of each message, in the order in which they are received.
    pub messages: Vec<(u32, Vec<u8>)>,
}

#[cfg(test)]
mod tests {
    use super::observe::observe;
    use super::*;
    use crate::descriptor::see;
    use std::os::fd::AsRawFd;

    #[test]
    fn messages_are_seen_and_stay_and_come_back() {
        let name = FilePath(format!("/ckpt-unit-{}", std::process::id()).into_bytes());
        let messages: Vec<(u32, Vec<u8>)> =
            [(9, "first"), (3, "second"), (3, "third"), (0, "")].map(|(p, m)| (p, m.into())).into();
        let state = Mqueue {
            name,
            removed: false,
            mode: 0o640,
            owner: (0, 0),
            capacity: 5,
            message_size: 64,
            messages: messages.clone(),
        };
        let Ok(queue) = rebuild(&state) else { return };
        finish(&queue, &state).unwrap();
        let own = crate::HostPid(std::process::id().cast_signed());
        for _ in 0..2 {
            let seen = see(own, queue.as_raw_fd()).unwrap();
            assert!(seen.is_queue());
            let found = observe(&seen).unwrap();
            assert_eq!((found.messages, found.mode, found.capacity, found.removed), (messages.clone(), 0o640, 5, false));
        }
        finish(&queue, &Mqueue { removed: true, ..state }).unwrap();
        assert!(observe(&see(own, queue.as_raw_fd()).unwrap()).unwrap().removed);
    }
}
