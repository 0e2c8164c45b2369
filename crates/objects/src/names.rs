//! Types for what must not be mixed up: ids of two pid namespaces, numbers of spaces and files, and paths as the kernel gives them.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A process or thread id as the job sees it, in the job's own pid namespace. The same after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NsPid(pub i32);

/// A process or thread id as the coordinator sees it. It differs from the job's own after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPid(pub i32);

impl HostPid {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        Self(i32::try_from(std::process::id()).unwrap_or(0))
    }

    /// The inode number of its pid namespace.
    ///
    /// # Errors
    ///
    /// When `/proc/PID/ns/pid` cannot be read: the process has ended, or is another user's.
    pub fn pid_namespace(self) -> io::Result<u64> {
        Ok(std::fs::metadata(format!("/proc/{self}/ns/pid"))?.ino())
    }
}

impl fmt::Display for NsPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NsPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ns:{}", self.0)
    }
}

impl fmt::Display for HostPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HostPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host:{}", self.0)
    }
}

/// Which open file description of a job: an index into `JobState::open_files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileIndex(pub u32);

impl FileIndex {
    /// The index as one of a slice.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

impl From<usize> for FileIndex {
    fn from(at: usize) -> Self {
        Self(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// Under which number an image keeps pages that belong together: those of an address space, a shared memory object, or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpaceId(pub u32);

/// Gives out numbers of spaces, ascending from 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spaces(u32);

impl Spaces {
    /// A number that is not in use.
    pub fn take(&mut self) -> SpaceId {
        self.0 += 1;
        SpaceId(self.0 - 1)
    }
}

/// A file of this machine, as long as it is open or mapped: its inode number may be used again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

/// A path, or any other string of the kernel's, kept as the bytes it is: Linux promises no encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FilePath(pub Vec<u8>);

/// Bytes in an image. In formats for people, such as JSON, a string, where what is not UTF-8 cannot be kept.
impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer).map(|text| Self(text.into_bytes()))
        } else {
            Vec::deserialize(deserializer).map(Self)
        }
    }
}

impl FilePath {
    /// The bytes as a path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_os_str())
    }

    /// The bytes as an operating system string.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl From<&Path> for FilePath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<PathBuf> for FilePath {
    fn from(path: PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&OsStr> for FilePath {
    fn from(text: &OsStr) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}
