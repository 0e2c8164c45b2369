//! Observing descriptors: `/proc/PID/fd` and `fdinfo`, joined over all processes of a job with kcmp(2).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use ckpt_sys::process::{KCMP_FILE, kcmp};

use super::FdEntry;
use crate::file::Attributes;
use crate::observe::{ObserveError, parse_error, proc_path, read_proc, read_proc_link};
use crate::{FileId, FileIndex, FilePath, HostPid};

/// A descriptor of one process, as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct SeenDescriptor {
    /// Whose it is.
    pub pid: HostPid,
    /// Its number.
    pub fd: i32,
    /// What `/proc/PID/fd/N` points to.
    pub link: FilePath,
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_mode`; 0 in its type bits for what has no file at all.
    pub mode: u32,
    /// `st_rdev`.
    pub rdev: u64,
    /// `st_size`.
    pub size: u64,
    /// `st_uid` and `st_gid`.
    pub owner: (u32, u32),
    /// `st_atim`, nanoseconds since the epoch.
    pub accessed_ns: i64,
    /// `st_mtim`, nanoseconds since the epoch.
    pub modified_ns: i64,
    /// `st_nlink`.
    pub links: u64,
    /// File offset.
    pub position: u64,
    /// `O_*`, without `O_CLOEXEC`.
    pub flags: u32,
    /// `FD_CLOEXEC`.
    pub close_on_exec: bool,
    /// All of `/proc/PID/fdinfo/N`, which says more for some kinds.
    pub info: Vec<u8>,
}

/// The descriptors of a frozen process, by ascending number, but for `hidden`, the agent's own.
///
/// # Errors
/// The process has ended, or the file is not as proc(5) describes it.
pub fn descriptors(pid: HostPid, hidden: i32) -> Result<Vec<SeenDescriptor>, ObserveError> {
    let path = proc_path(pid, "fd");
    let list = fs::read_dir(&path).map_err(|source| ObserveError::Read { pid, path, source })?;
    let mut numbers: Vec<i32> =
        list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|fd| *fd != hidden).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|fd| see(pid, fd)).collect()
}

pub(crate) fn see(pid: HostPid, fd: i32) -> Result<SeenDescriptor, ObserveError> {
    let file = format!("fd/{fd}");
    let path = proc_path(pid, &file);
    let meta = fs::metadata(&path).map_err(|source| ObserveError::Read { pid, path, source })?;
    let info_file = format!("fdinfo/{fd}");
    let info = read_proc(pid, &info_file)?;
    let bad = || parse_error(pid, &info_file, &info);
    let position = info_field(&info, "pos:").and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    let flags = info_field(&info, "flags:").and_then(|text| u32::from_str_radix(text, 8).ok()).ok_or_else(bad)?;
    Ok(SeenDescriptor {
        pid,
        fd,
        link: read_proc_link(pid, &file)?,
        device: meta.dev(),
        inode: meta.ino(),
        mode: meta.mode(),
        rdev: meta.rdev(),
        size: meta.size(),
        owner: (meta.uid(), meta.gid()),
        accessed_ns: nanoseconds(meta.atime(), meta.atime_nsec()),
        modified_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
        links: meta.nlink(),
        position,
        flags: flags & !(libc::O_CLOEXEC as u32),
        close_on_exec: flags & libc::O_CLOEXEC as u32 != 0,
        info,
    })
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

impl SeenDescriptor {
    /// The file that it is open on.
    #[must_use]
    pub fn id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode }
    }

    /// What is kept of a file without a name.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        let Self { mode, owner, accessed_ns, modified_ns, .. } = *self;
        Attributes { mode: mode & 0o7777, owner, accessed_ns, modified_ns }
    }

    /// The path of the link to its file, through which that can be opened anew.
    #[must_use]
    pub fn through(&self) -> PathBuf {
        proc_path(self.pid, &format!("fd/{}", self.fd))
    }

    /// Whether it is open on a POSIX message queue. The link of such a descriptor is a name without any folder.
    #[must_use]
    pub fn is_queue(&self) -> bool {
        /// Magic number of the file system of message queues (include/uapi/linux/magic.h has it not; ipc/mqueue.c).
        const MQUEUE_MAGIC: i64 = 0x1980_0202;
        self.link.0.iter().filter(|&&byte| byte == b'/').count() == 1
            && rustix::fs::statfs(self.through()).is_ok_and(|stat| stat.f_type == MQUEUE_MAGIC)
    }

    /// Whether it may only look as if exec closed it: of what was opened by TIOCGPTPEER or mq_open(2) with `O_CLOEXEC`, the kernel keeps that among the
    /// flags that all descriptors of the description show.
    #[must_use]
    pub fn may_not_close_on_exec(&self) -> bool {
        /// Major numbers of slaves (Documentation/admin-guide/devices.txt).
        const PTY_SLAVES: std::ops::RangeInclusive<u32> = 136..=143;
        let is_slave = self.mode & libc::S_IFMT == libc::S_IFCHR && PTY_SLAVES.contains(&rustix::fs::major(self.rdev));
        self.close_on_exec && (is_slave || self.is_queue())
    }
}

/// The value of a `key:` line of a fdinfo file.
#[must_use]
pub fn info_field<'a>(info: &'a [u8], key: &str) -> Option<&'a str> {
    let line = info.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(key.as_bytes()))?;
    std::str::from_utf8(line).ok().map(str::trim)
}

/// Open file descriptions found so far, each with one descriptor that refers to it.
#[derive(Default)]
pub struct Descriptions {
    seen: Vec<SeenDescriptor>,
    /// Indices of those of one file, in the order of [`compare`].
    by_file: HashMap<FileId, Vec<usize>>,
}

impl Descriptions {
    /// One descriptor for each description, in the order in which they were found.
    #[must_use]
    pub fn all(&self) -> &[SeenDescriptor] {
        &self.seen
    }

    /// The entry for a descriptor: its description is found among those known, or added.
    pub fn entry(&mut self, descriptor: SeenDescriptor) -> FdEntry {
        let (fd, close_on_exec) = (descriptor.fd, descriptor.close_on_exec);
        let known = self.by_file.entry(descriptor.id()).or_default();
        let index = match known.binary_search_by(|&index| compare(&self.seen[index], &descriptor)) {
            Ok(at) => known[at],
            Err(at) => {
                known.insert(at, self.seen.len());
                self.seen.push(descriptor);
                self.seen.len() - 1
            }
        };
        FdEntry { fd, file: FileIndex::from(index), close_on_exec }
    }
}

/// The order that the kernel gives to open file descriptions; equal: the same. It makes the search short for event descriptors,
/// which all have one inode.
fn compare(a: &SeenDescriptor, b: &SeenDescriptor) -> Ordering {
    match kcmp(a.pid.0, b.pid.0, KCMP_FILE, a.fd as u64, b.fd as u64) {
        Ok(0) => Ordering::Equal,
        Ok(1) => Ordering::Less,
        _ => Ordering::Greater,
    }
}

/// Whether a descriptor refers to the same open file description as the calling process's own `fd`.
#[must_use]
pub fn is_own(descriptor: &SeenDescriptor, fd: i32) -> bool {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    kcmp(own, descriptor.pid.0, KCMP_FILE, fd as u64, descriptor.fd as u64) == Ok(0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn descriptors_of_one_description_are_told_from_others_of_the_same_inode() {
        let events: Vec<_> = (0..40).map(|_| eventfd(0, EventfdFlags::empty()).unwrap()).collect();
        let twins: Vec<_> = events.iter().map(|event| event.try_clone().unwrap()).collect();
        let own = HostPid(std::process::id().cast_signed());
        let mut descriptions = Descriptions::default();
        let mut entry = |fd: &std::os::fd::OwnedFd| descriptions.entry(see(own, fd.as_raw_fd()).unwrap()).file.0;
        let first: Vec<u32> = events.iter().map(&mut entry).collect();
        assert_eq!(first, (0..40).collect::<Vec<u32>>());
        assert_eq!(twins.iter().rev().map(&mut entry).collect::<Vec<u32>>(), (0..40).rev().collect::<Vec<u32>>());
    }
}
