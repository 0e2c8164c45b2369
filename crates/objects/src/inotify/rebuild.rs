//! Rebuilds inotify instances.

use std::cmp::Ordering;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, inotify};
use rustix::io::{Errno, ioctl_fionread, read};

use super::{InotifyState, Watched};
use crate::event::{self, failed};
use crate::rebuild::{RebuildError, own_fd_path};

/// `sizeof(struct inotify_event)`: an event without a name.
const EVENT_SIZE: u64 = 16;

/// Makes an inotify instance that watches nothing yet: see [`watch`].
///
/// # Errors
/// The user's instances are used up (`fs.inotify.max_user_instances`).
pub fn rebuild() -> Result<OwnedFd, RebuildError> {
    inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed("make an inotify instance"))
}

/// Lets a new instance watch what it did, from now on, under the same numbers, and gives it its status flags. `path` is where what is
/// watched is now.
///
/// # Errors
/// A path is gone or may not be read, or the user's watches are used up.
pub fn watch(fd: impl AsFd, state: &InotifyState, flags: u32, path: impl Fn(&Watched) -> PathBuf) -> Result<(), RebuildError> {
    let mut watches: Vec<_> = state.watches.iter().collect();
    watches.sort_by_key(|watch| watch.wd);
    let mut used_up = false;
    for watch in watches {
        let path = path(&watch.target);
        let mask = inotify::WatchFlags::from_bits_retain(watch.mask);
        loop {
            // The kernel numbers them one after the other.
            let wd = inotify::add_watch(&fd, &path, mask).map_err(RebuildError::file("watch", &path))?;
            match wd.cmp(&watch.wd) {
                Ordering::Equal => break,
                Ordering::Less => {
                    inotify::remove_watch(&fd, wd).map_err(RebuildError::file("stop watching", &path))?;
                    used_up = true;
                }
                // Two watches have come to be on one file.
                Ordering::Greater => return Err(RebuildError::file("give its old number to the watch of", &path)(Errno::EXIST)),
            }
        }
    }
    if used_up {
        // Of each number that was used up the kernel has reported the end.
        let mut events = [0; 4096];
        while read(&fd, &mut events).is_ok_and(|n| n > 0) {}
    }
    if state.pending > 0 {
        overflow(&fd).map_err(failed("let an inotify instance report that events were lost"))?;
    }
    event::set_flags(&fd, flags).map_err(failed("set the flags of an inotify instance"))
}

/// Leaves `IN_Q_OVERFLOW` in the queue, and nothing before it.
///
/// The kernel adds it when the queue is full, so it is filled with the ends of watches of a file that is nobody else's.
fn overflow(fd: impl AsFd) -> Result<(), Errno> {
    let file = rustix::fs::memfd_create("overflow", MemfdFlags::CLOEXEC)?;
    let path: &Path = &own_fd_path(file.as_fd());
    let mut waiting = ioctl_fionread(&fd)?;
    loop {
        for _ in 0..1024 {
            inotify::remove_watch(&fd, inotify::add_watch(&fd, path, inotify::WatchFlags::ATTRIB)?)?;
        }
        let now = ioctl_fionread(&fd)?;
        if now == waiting {
            break;
        }
        waiting = now;
    }
    let mut discard = usize::try_from(waiting.saturating_sub(EVENT_SIZE)).unwrap_or(0);
    let mut events = vec![0; 1 << 16];
    while discard > 0 {
        let most = discard.min(events.len());
        discard -= read(&fd, &mut events[..most])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    use inotify::{ReadFlags, WatchFlags};
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::super::{Search, observe};
    use super::*;
    use crate::event::seen;

    const NONBLOCK: u32 = OFlags::NONBLOCK.bits();

    /// A new directory with two files in it.
    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("ckpt-inotify-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("one"), "1").unwrap();
        fs::write(directory.join("two"), "2").unwrap();
        directory.canonicalize().unwrap()
    }

    fn add(fd: &OwnedFd, path: &Path, mask: WatchFlags) -> i32 {
        inotify::add_watch(fd, path, mask).unwrap()
    }

    /// The number, mask and name of each event that waits.
    fn events(fd: &OwnedFd) -> Vec<(i32, ReadFlags, String)> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            events.push((event.wd(), event.events(), name));
        }
        events
    }

    fn search() -> Vec<crate::HostPid> {
        vec![crate::HostPid(std::process::id().cast_signed())]
    }

    fn path(watched: &Watched) -> PathBuf {
        match watched {
            Watched::Path(path) => path.as_path().to_owned(),
            Watched::File(_) => panic!("has a path"),
        }
    }

    #[test]
    fn watches_come_back_under_their_numbers() {
        let directory = scratch("numbers");
        let old = rebuild().unwrap();
        let all = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::EXCL_UNLINK;
        // Numbers 1 and 3 to 9 are used up.
        inotify::remove_watch(&old, add(&old, &directory, WatchFlags::CREATE)).unwrap();
        assert_eq!(add(&old, &directory, all), 2);
        for _ in 0..7 {
            inotify::remove_watch(&old, add(&old, &directory.join("one"), WatchFlags::CREATE)).unwrap();
        }
        assert_eq!(add(&old, &directory.join("two"), WatchFlags::CLOSE_WRITE | WatchFlags::ONESHOT), 10);
        events(&old);
        let descriptions = [];
        let mut found = Search::new(search(), &descriptions);
        let state = observe(&seen(&old), &mut found).unwrap();
        let target = |path: &Path| Watched::Path(path.into());
        assert_eq!((state.pending, state.watches.len()), (0, 2));
        assert_eq!((state.watches[0].wd, &state.watches[0].target), (2, &target(&directory)));
        assert_eq!((state.watches[1].wd, &state.watches[1].target), (10, &target(&directory.join("two"))));

        let new = rebuild().unwrap();
        watch(&new, &state, NONBLOCK, path).unwrap();
        assert_eq!(observe(&seen(&new), &mut found).unwrap(), state);
        assert_eq!(events(&new), []);
        fs::write(directory.join("two"), "3").unwrap();
        fs::write(directory.join("two"), "4").unwrap();
        fs::write(directory.join("three"), "3").unwrap();
        let name = String::new;
        let expected =
            [(10, ReadFlags::CLOSE_WRITE, name()), (10, ReadFlags::IGNORED, name()), (2, ReadFlags::CREATE, "three".into())];
        assert_eq!(events(&new), expected);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_whose_name_is_gone_is_watched_where_it_is_open() {
        let directory = scratch("deleted");
        let file = fs::File::open(directory.join("one")).unwrap();
        let old = rebuild().unwrap();
        add(&old, &directory.join("one"), WatchFlags::ATTRIB | WatchFlags::OPEN);
        fs::remove_file(directory.join("one")).unwrap();
        let descriptions = [seen(&old), seen(&file)];
        let state = observe(&seen(&old), &mut Search::new(search(), &descriptions)).unwrap();
        assert_eq!(state.watches[0].target, Watched::File(crate::FileIndex(1)));
        assert!(state.pending > 0);
        let new = rebuild().unwrap();
        let state = InotifyState { pending: 0, ..state };
        watch(&new, &state, NONBLOCK, |_| own_fd_path(file.as_fd())).unwrap();
        drop(fs::File::open(own_fd_path(file.as_fd())).unwrap());
        assert_eq!(events(&new), [(1, ReadFlags::OPEN, String::new())]);
        // With nobody who has it open it cannot be found.
        drop(file);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn events_that_were_not_read_are_reported_lost() {
        let directory = scratch("lost");
        let old = rebuild().unwrap();
        add(&old, &directory, WatchFlags::CREATE);
        fs::write(directory.join("three"), "3").unwrap();
        let state = observe(&seen(&old), &mut Search::new(search(), &[])).unwrap();
        assert_eq!(state.pending, 32);
        let new = rebuild().unwrap();
        watch(&new, &state, NONBLOCK, path).unwrap();
        fs::write(directory.join("four"), "4").unwrap();
        let expected = [(-1, ReadFlags::QUEUE_OVERFLOW, String::new()), (1, ReadFlags::CREATE, "four".into())];
        assert_eq!(events(&new), expected);
        // The first still has its own.
        assert_eq!(events(&old).len(), 2);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn status_flags_come_back() {
        let fd = rebuild().unwrap();
        watch(&fd, &InotifyState::default(), NONBLOCK, path).unwrap();
        assert!(fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
        watch(&fd, &InotifyState::default(), 0, path).unwrap();
        assert!(!fcntl_getfl(&fd).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn what_nobody_can_find_is_refused() {
        let name = std::env::temp_dir().join(format!("ckpt-inotify-gone-{}", std::process::id()));
        let file = fs::File::create_new(&name).unwrap();
        let old = rebuild().unwrap();
        add(&old, &name, WatchFlags::OPEN);
        fs::remove_file(&name).unwrap();
        let error = observe(&seen(&old), &mut Search::new(Vec::new(), &[])).unwrap_err();
        assert!(
            error.to_string().starts_with("an inotify watch of a file that cannot be found by any path (inode 0x"),
            "{error}"
        );
        assert!(file.as_raw_fd() > 2);
    }
}
