//! Observing an inotify instance.

use super::search::Line;
use super::{InotifyState, Search, Watch};
use crate::descriptor::SeenDescriptor;
use crate::event::{self, EventError};

/// The inotify instance that a descriptor of a frozen process is open on. How much in it was not yet read can be known only where the
/// process may be traced; elsewhere it is taken to be nothing.
///
/// # Errors
/// fdinfo cannot be read, or what is watched is not found.
pub fn observe(descriptor: &SeenDescriptor, search: &mut Search<'_>) -> Result<InotifyState, EventError> {
    let lines = descriptor.info.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"inotify "));
    let lines: Vec<Line> = lines
        .map(|line| Line::parse(line).ok_or_else(|| event::not_understood("an inotify instance", line)))
        .collect::<Result<_, _>>()?;
    let found = search.find(lines.iter().map(|line| line.identity.clone()));
    let mut watches = Vec::new();
    for Line { wd, mask, identity } in lines {
        let target = found.get(&identity).cloned().ok_or_else(|| EventError::from(&identity))?;
        watches.push(Watch { wd, mask, target });
    }
    watches.sort_by_key(|watch| watch.wd);
    let pending = event::duplicate(descriptor).and_then(|fd| Ok(rustix::io::ioctl_fionread(fd)?)).unwrap_or(0);
    Ok(InotifyState { watches, pending })
}
