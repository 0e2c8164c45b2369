//! The files that a restart must find to rebuild a description.

use super::{OpenFile, OpenFileKind};
use crate::inotify::Watched;
use crate::{FileIndex, FilePath, Objects};

/// A file that a restart must find by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// A regular file, of at least so many bytes. What is missing is not made by anybody else.
    File(&'a FilePath, u64),
    /// Anything, a symbolic link too.
    Place(&'a FilePath),
    /// A named pipe.
    Fifo(&'a FilePath),
    /// Anything, for an inotify watch.
    Watched(&'a FilePath),
}

/// What must be there for a description to be rebuilt.
#[must_use]
pub fn needs<'a>(objects: Objects<'a>, file: &'a OpenFile) -> Vec<Need<'a>> {
    match &file.kind {
        OpenFileKind::Regular(regular) => vec![Need::File(&regular.path, regular.size)],
        OpenFileKind::Directory { path } | OpenFileKind::Path { path } => vec![Need::Place(path)],
        OpenFileKind::Pipe { pipe } => {
            let path = objects.pipes.get(*pipe as usize).and_then(|pipe| pipe.path.as_ref());
            path.map(Need::Fifo).into_iter().collect()
        }
        OpenFileKind::Inotify(inotify) => {
            let paths = inotify.watches.iter().filter_map(|watch| match &watch.target {
                Watched::Path(path) => Some(Need::Watched(path)),
                Watched::File(_) => None,
            });
            paths.collect()
        }
        OpenFileKind::Device { .. }
        | OpenFileKind::PtyMaster { .. }
        | OpenFileKind::PtySlave { .. }
        | OpenFileKind::OutsideTerminal { .. }
        | OpenFileKind::Deleted(_)
        | OpenFileKind::RemovedDirectory(_)
        | OpenFileKind::SharedMemory { .. }
        | OpenFileKind::Proc { .. }
        | OpenFileKind::Epoll(_)
        | OpenFileKind::Eventfd(_)
        | OpenFileKind::Timerfd(_)
        | OpenFileKind::Signalfd(_)
        | OpenFileKind::Socket { .. }
        | OpenFileKind::Mqueue { .. }
        | OpenFileKind::Pidfd(_) => Vec::new(),
    }
}

/// The path of a description, if a lock can be taken of it by that.
#[must_use]
pub fn lockable_path(objects: Objects<'_>, file: FileIndex) -> Option<&FilePath> {
    match &objects.open_files.get(file.at())?.kind {
        OpenFileKind::Regular(regular) => Some(&regular.path),
        OpenFileKind::Directory { path } => Some(path),
        OpenFileKind::Pipe { pipe } => objects.pipes.get(*pipe as usize)?.path.as_ref(),
        _ => None,
    }
}
