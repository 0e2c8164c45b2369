//! Shared parts of observing: the error, and reading `/proc` of a frozen process.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::{FilePath, HostPid};

/// Why a process cannot be kept in an image.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The process holds something that this engine does not keep.
    #[error("process {pid} ({name}) {what}; {remedy}")]
    Refused {
        /// Its pid as the job sees it.
        pid: i32,
        /// Its name.
        name: FilePath,
        /// What it holds, as the rest of a sentence.
        what: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// The process is for a moment in a state that cannot be kept.
    #[error("process {pid} ({name}) {what}; the next checkpoint will be tried as planned")]
    Passing {
        /// Its pid as the job sees it.
        pid: i32,
        /// Its name.
        name: FilePath,
        /// In what state it is, as the rest of a sentence.
        what: String,
    },
    /// `/proc` could not be read.
    #[error("process {pid}: cannot read {path}: {source}")]
    Read {
        /// The pid.
        pid: HostPid,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `/proc` reads otherwise than documented.
    #[error("process {pid}: cannot understand {path}: {line:?}")]
    Parse {
        /// The pid.
        pid: HostPid,
        /// The file.
        path: PathBuf,
        /// The part that was not understood.
        line: String,
    },
    /// What was observed does not fit together: an error of this program.
    #[error("internal: {0}; please report this")]
    Internal(&'static str),
}

/// A path below `/proc/PID`.
#[must_use]
pub fn proc_path(pid: HostPid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// Reads a file below `/proc/PID`.
///
/// # Errors
/// The process has ended, or may not be looked at.
pub fn read_proc(pid: HostPid, file: &str) -> Result<Vec<u8>, ObserveError> {
    let path = proc_path(pid, file);
    fs::read(&path).map_err(|source| ObserveError::Read { pid, path, source })
}

/// Reads a link below `/proc/PID`.
///
/// # Errors
/// As for [`read_proc`].
pub fn read_proc_link(pid: HostPid, file: &str) -> Result<FilePath, ObserveError> {
    let path = proc_path(pid, file);
    fs::read_link(&path).map(FilePath::from).map_err(|source| ObserveError::Read { pid, path, source })
}

/// The error for a part of a file that was not understood.
#[must_use]
pub fn parse_error(pid: HostPid, file: &str, line: &[u8]) -> ObserveError {
    ObserveError::Parse { pid, path: proc_path(pid, file), line: String::from_utf8_lossy(line).into_owned() }
}
