//! Observing a message queue.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use ckpt_sys::mqueue;
use ckpt_sys::raw::Errno;
use rustix::fs::{Mode, OFlags};

use super::Mqueue;
use crate::FileId;
use crate::descriptor::SeenDescriptor;
use crate::file::split_deleted;
use crate::numbered::Numbered;

/// How long a message may wait to be put back, where somebody outside of the job has taken its room.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a message queue cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum MqueueError {
    /// A notification is registered.
    #[error("a POSIX message queue with a notification (mq_notify) that process {0} waits for, whose value nobody is told,")]
    Notification(i32),
    /// It is another user's.
    #[error("a POSIX message queue of another user")]
    Foreign,
    /// It cannot be looked at.
    #[error("a POSIX message queue (which cannot be read: {0})")]
    Read(io::Error),
}

/// The message queues of a job.
#[derive(Debug, Default)]
pub struct Observer(Numbered<FileId, Mqueue>);

impl Observer {
    /// The number of the queue that a descriptor is open on. `is_user` tells the user ids of the job's processes.
    ///
    /// # Errors
    ///
    /// When it is no queue of the job's own, or cannot be looked at.
    pub fn see(&mut self, descriptor: &SeenDescriptor, is_user: impl Fn(u32) -> bool) -> Result<u32, MqueueError> {
        self.0.number(descriptor.id(), || {
            let queue = observe(descriptor)?;
            if is_user(queue.owner.0) { Ok(queue) } else { Err(MqueueError::Foreign) }
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.all().is_empty()
    }

    /// All of them, by number.
    #[must_use]
    pub fn into_states(self) -> Vec<Mqueue> {
        self.0.into_all()
    }
}

/// The queue that a descriptor of a frozen process is open on.
pub(super) fn observe(descriptor: &SeenDescriptor) -> Result<Mqueue, MqueueError> {
    let read = |error: rustix::io::Errno| MqueueError::Read(error.into());
    let queue = rustix::fs::open(descriptor.through(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(read)?;
    let mut text = [0u8; 128];
    let len = rustix::io::pread(&queue, &mut text, 0).map_err(read)?;
    if let Some(pid) = notified(&String::from_utf8_lossy(&text[..len])) {
        return Err(MqueueError::Notification(pid));
    }
    let failed = |Errno(errno)| MqueueError::Read(io::Error::from_raw_os_error(errno));
    let attributes = mqueue::attributes(queue.as_raw_fd()).map_err(failed)?;
    let size = usize::try_from(attributes.message_size).unwrap_or(0);
    let messages = if attributes.messages > 0 { messages(&queue, size).map_err(failed)? } else { Vec::new() };
    let stat = rustix::fs::fstat(&queue).map_err(read)?;
    let (name, removed) = split_deleted(&descriptor.link);
    Ok(Mqueue {
        name,
        removed,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        capacity: attributes.capacity,
        message_size: attributes.message_size,
        messages,
    })
}

/// Takes all messages out and puts them in again. A notification would be sent for the first; there is none.
fn messages(queue: &OwnedFd, size: usize) -> Result<Vec<(u32, Vec<u8>)>, Errno> {
    let queue = queue.as_raw_fd();
    let mut messages = Vec::new();
    let mut buffer = vec![0; size];
    let outcome = loop {
        match mqueue::receive(queue, &mut buffer) {
            Ok((priority, len)) => messages.push((priority, buffer[..len].to_vec())),
            Err(Errno(libc::ETIMEDOUT)) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let deadline = SystemTime::now() + PATIENCE;
    let seconds = deadline.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    for (priority, message) in &messages {
        mqueue::send(queue, *priority, message, seconds.cast_signed())?;
    }
    outcome.map(|()| messages)
}

/// `QSIZE:129        NOTIFY:2     SIGNO:0     NOTIFY_PID:8260`: the process that is to be told, if any.
fn notified(text: &str) -> Option<i32> {
    let (_, pid) = text.split_once("NOTIFY_PID:")?;
    pid.trim().parse().ok().filter(|&pid| pid != 0)
}
