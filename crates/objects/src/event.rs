//! What event descriptors share: files of the kernel's own that have no file system (`anon_inode:`), each of a kind with its own
//! `/proc/PID/fdinfo`.
//!
//! The kinds that are kept have modules of their own; the others are only named here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::FilePath;
use crate::descriptor::{SeenDescriptor, info_field};
use crate::rebuild::RebuildError;

/// How `/proc/PID/fd/N` of a file without a file system begins.
const ANONYMOUS: &[u8] = b"anon_inode:";

/// Why an event descriptor cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// An epoll instance refers to a file that no process of the job has open.
    #[error("an epoll instance that waits for a file which nobody in the job has open any more (it was descriptor {0})")]
    Registration(i32),
    /// An inotify watch's file cannot be found.
    #[error("an inotify watch of a file that cannot be found by any path (inode {inode:#x} on device {device:#x})")]
    Watch {
        /// Inode number.
        inode: u64,
        /// Device number as the kernel keeps it.
        device: u64,
    },
    /// A pidfd of a process that is not the job's.
    #[error("a pidfd of a process outside of the job, or of a single thread,")]
    Foreign,
    /// `/proc/PID/fdinfo` reads otherwise than documented.
    #[error("{what} (which cannot be understood: {info:?})")]
    Parse {
        /// What it is.
        what: &'static str,
        /// All that was read.
        info: String,
    },
    /// `/proc/PID/fdinfo` could not be read again.
    #[error("{what} (which cannot be read: {source})")]
    Read {
        /// What it is.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Which kind of file without a file system a link of `/proc/PID/fd` names, without brackets: `eventpoll`, `eventfd`, `timerfd`, …
#[must_use]
pub fn kind(link: &FilePath) -> Option<&str> {
    let kind = std::str::from_utf8(link.0.strip_prefix(ANONYMOUS)?).ok()?;
    Some(kind.trim_start_matches('[').trim_end_matches(']'))
}

/// What a kind is that is not kept, for messages.
#[must_use]
pub fn describe(kind: &str) -> String {
    match kind {
        "fanotify" => "a fanotify group".into(),
        "io_uring" => "an io_uring instance (which --no-io-uring of ckpt-launch forbids)".into(),
        "perf_event" => "a performance event (perf_event_open)".into(),
        "userfaultfd" => "a userfaultfd".into(),
        "bpf-map" => "a BPF map".into(),
        "bpf-prog" => "a BPF program".into(),
        "landlock-ruleset" => "a Landlock rule set".into(),
        "seccomp notify" => "a seccomp notifier".into(),
        "fscontext" => "a file system in the making (fsopen)".into(),
        "sync_file" => "a fence of a device (sync_file)".into(),
        kind if kind.starts_with("kvm-") => format!("a part of a virtual machine ({kind})"),
        kind => format!("a kernel object of the kind {kind}"),
    }
}

/// A descriptor of this process for the very open file description that another has (Linux 5.6; needs the right to trace it).
///
/// What is done to it happens to the job: nothing that a program could tell is to be done.
pub(crate) fn duplicate(descriptor: &SeenDescriptor) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(descriptor.pid.0).ok_or(io::ErrorKind::NotFound)?;
    /// `PIDFD_THREAD` (Linux 6.9): the thread may be another than the first, where that has ended.
    const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
    let process = pidfd_open(pid, PidfdFlags::empty()).or_else(|_| pidfd_open(pid, THREAD))?;
    Ok(pidfd_getfd(process, descriptor.fd, PidfdGetfdFlags::empty())?)
}

/// The value of a `key:` line of fdinfo in a base.
pub(crate) fn number(info: &[u8], key: &str, base: u32) -> Option<u64> {
    u64::from_str_radix(info_field(info, key)?, base).ok()
}

/// The error for a fdinfo that was not understood.
pub(crate) fn not_understood(what: &'static str, info: &[u8]) -> EventError {
    EventError::Parse { what, info: String::from_utf8_lossy(info).into_owned() }
}

/// For `map_err`: an event descriptor that could not be made, or not brought into the state that it had.
pub(crate) fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> RebuildError {
    move |error| RebuildError::Call { what: what.to_owned(), source: error.into() }
}

/// Gives a new description the status flags that it had, as far as such a file has any.
pub(crate) fn set_flags(fd: impl AsFd, flags: u32) -> rustix::io::Result<()> {
    let settable = OFlags::NONBLOCK | OFlags::APPEND;
    let kept = fcntl_getfl(&fd)? & !settable;
    fcntl_setfl(&fd, kept | OFlags::from_bits_retain(flags) & settable)
}

/// What `/proc` shows of a descriptor of this process.
#[cfg(test)]
pub(crate) fn seen(fd: impl AsFd) -> SeenDescriptor {
    use std::os::fd::AsRawFd;
    let number = fd.as_fd().as_raw_fd();
    crate::descriptor::see(crate::HostPid(std::process::id().cast_signed()), number).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_with_and_without_brackets() {
        assert_eq!(kind(&FilePath(b"anon_inode:[eventpoll]".to_vec())), Some("eventpoll"));
        assert_eq!(kind(&FilePath(b"anon_inode:inotify".to_vec())), Some("inotify"));
        assert_eq!(kind(&FilePath(b"/tmp/anon_inode:[eventfd]".to_vec())), None);
        assert_eq!(describe("secretmem"), "a kernel object of the kind secretmem");
    }
}
