//! Observing locks: the `lock:` lines of `/proc/PID/fdinfo/N`, and `/proc/locks`, which have one form (`lock_get_status`, fs/locks.c).
//! Both are parsed by hand here: the procfs crate reads only the latter.

use super::{FileLock, Holder};
use crate::NsPid;
use crate::descriptor::FdEntry;

/// Why a lock cannot be kept; each says what it is.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A lease that somebody waits for.
    #[error("a lease that another process is breaking")]
    Breaking,
    /// Of the kernel's own.
    #[error("a delegation")]
    Delegation,
    /// `/proc` reads otherwise than documented.
    #[error("a file lock (which cannot be understood: {0:?})")]
    Parse(String),
}

/// The locks of a job that were seen so far.
#[derive(Debug, Default)]
pub struct Locks {
    /// All of them, each once.
    pub all: Vec<FileLock>,
}

/// A lock that somebody has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who set it; 0 or less: the kernel does not tell.
    pub pid: i32,
    /// A POSIX or OFD lock; else one of flock(2).
    pub of_records: bool,
    /// See [`FileLock`].
    pub exclusive: bool,
    /// See [`FileLock`].
    pub start: u64,
    /// See [`FileLock`].
    pub end: Option<u64>,
    /// See [`FileLock`].
    pub inode: (String, u64),
}

impl Locks {
    /// Adds what the fdinfo of a descriptor shows.
    ///
    /// # Errors
    /// A line is no lock as proc(5) describes it.
    pub fn see(&mut self, pid: NsPid, entry: FdEntry, info: &[u8]) -> Result<(), LockError> {
        for line in info.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"lock:")) {
            let line = String::from_utf8_lossy(line);
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let bad = || LockError::Parse(line.clone().into_owned());
            let holder = match words.get(1).copied() {
                Some("POSIX") => Holder::Process(pid),
                Some("OFDLCK") => Holder::Description,
                Some("FLOCK") => Holder::Flock,
                Some("LEASE") if words.get(2) == Some(&"ACTIVE") => Holder::Lease,
                Some("LEASE") => return Err(LockError::Breaking),
                Some("DELEG") => return Err(LockError::Delegation),
                _ => return Err(bad()),
            };
            let standing = parse(&words).ok_or_else(bad)?;
            let Standing { exclusive, start, end, inode, .. } = standing;
            let lock = FileLock { file: entry.file, fd: entry.fd, holder, exclusive, start, end, inode };
            // A second descriptor of the description shows it again.
            let is_known = self.all.iter().any(|known| {
                (known.holder, known.file, known.start, known.end) == (lock.holder, lock.file, lock.start, lock.end)
            });
            if !is_known {
                self.all.push(lock);
            }
        }
        Ok(())
    }
}

/// `ID: KIND ADVISORY|ACTIVE WRITE|READ PID MAJOR:MINOR:INODE START END`.
fn parse(words: &[&str]) -> Option<Standing> {
    let (device, inode) = words.get(5)?.rsplit_once(':')?;
    Some(Standing {
        pid: words.get(4)?.parse().ok()?,
        of_records: matches!(*words.get(1)?, "POSIX" | "OFDLCK"),
        exclusive: match *words.get(3)? {
            "WRITE" => true,
            "READ" => false,
            _ => return None,
        },
        start: words.get(6)?.parse().ok()?,
        end: match *words.get(7)? {
            "EOF" => None,
            end => Some(end.parse().ok()?),
        },
        inode: (device.to_owned(), inode.parse().ok()?),
    })
}

/// The locks of `/proc/locks` that are held, leases and those that are waited for left out.
#[must_use]
pub fn held(text: &str) -> Vec<Standing> {
    let lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| matches!(words.get(1), Some(&("POSIX" | "OFDLCK" | "FLOCK"))))
        .filter_map(|words| parse(&words))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileIndex;

    #[test]
    fn each_lock_is_seen_once_and_conflicts_are_those_of_the_kernel() {
        let info = b"pos:\t0\nflags:\t02\nlock:\t1: POSIX  ADVISORY  WRITE 77 08:01:123 10 19\n\
            lock:\t2: OFDLCK ADVISORY  READ -1 08:01:123 100 EOF\nlock:\t3: FLOCK  ADVISORY  WRITE 77 08:01:123 0 EOF\n\
            lock:\t4: LEASE  ACTIVE    READ 77 08:01:123 0 EOF\n";
        let mut locks = Locks::default();
        for fd in [3, 4] {
            locks.see(NsPid(77), FdEntry { fd, file: FileIndex(5), close_on_exec: false }, info).unwrap();
        }
        assert_eq!(locks.all.len(), 4);
        assert_eq!((locks.all[0].holder, locks.all[0].fd), (Holder::Process(NsPid(77)), 3));
        assert_eq!((locks.all[1].start, locks.all[1].end, locks.all[1].exclusive), (100, None, false));
        let others = held(
            "1: POSIX  ADVISORY  READ 9 08:01:123 19 30\n2: FLOCK  ADVISORY  READ 9 08:01:123 0 EOF\n2: -> FLOCK  ADVISORY  READ 9 08:01:123 0 EOF\n3: OFDLCK ADVISORY READ -1 08:01:123 100 100\n",
        );
        assert_eq!(others.len(), 3);
        let forbidden = |lock: usize| others.iter().map(|other| locks.all[lock].is_forbidden_by(other)).collect::<Vec<_>>();
        assert_eq!(forbidden(0), [true, false, false]);
        assert_eq!(forbidden(1), [false, false, false]);
        assert_eq!(forbidden(2), [false, true, false]);
        let entry = FdEntry { fd: 3, file: FileIndex(5), close_on_exec: false };
        let breaking = locks.see(NsPid(77), entry, b"lock:\t1: LEASE  BREAKING  READ 77 08:01:123 0 EOF\n");
        assert!(matches!(breaking, Err(LockError::Breaking)));
    }
}
