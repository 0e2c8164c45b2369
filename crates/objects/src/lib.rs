//! What the kernel keeps for a job, one module per kind of object.
//!
//! Each module holds an object's `State` as it stands in an image, how it is observed in a frozen process
//! (`observe…`, used by the coordinator) and how it is built anew (`rebuild…`, used by the restart), side by side.
//! Nothing here freezes a process, reads an image or decides an order: that is the coordinator's and the restart's part.
//!
//! All process ids in a state are those the job itself sees ([`NsPid`]): they do not change over a restart.

#![deny(unsafe_code)]

mod bytes;
pub mod clocks;
pub mod context;
pub mod credentials;
pub mod deferred;
pub mod descriptor;
pub mod device;
pub mod directory;
pub mod epoll;
pub mod event;
pub mod eventfd;
pub mod file;
pub mod file_lock;
pub mod inotify;
pub mod job_file;
pub mod memory;
pub mod mqueue;
pub mod names;
pub mod namespaces;
pub mod netlink_socket;
pub mod numbered;
pub mod objects;
pub mod observe;
pub mod older;
pub mod open_file;
pub mod pidfd;
pub mod pipe;
pub mod posix_timer;
pub mod process;
pub mod program;
pub mod rebuild;
pub mod shared_memory;
pub mod sharing;
pub mod signal;
pub mod signalfd;
pub mod signalling;
pub mod socket;
pub mod standard;
pub mod start;
pub mod subject;
pub mod sysv;
pub mod tcp_socket;
pub mod terminal;
pub mod thread;
pub mod timer;
pub mod timerfd;
pub mod touched;
pub mod udp_socket;
pub mod unix_socket;

pub use bytes::Bytes;
pub use names::{FileId, FileIndex, FilePath, HostPid, NsPid, SpaceId, Spaces};
pub use objects::Objects;
