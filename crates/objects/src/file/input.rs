//! Standard input of the launcher. The job has what was left of it in files and ended pipes as it has any other file
//! ([`OpenFile::is_input`]); of the rest, and where the file is gone, it has the restart's own.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{RegularFile, rebuild_position};
use crate::FilePath;
use crate::context::Resolve;
use crate::open_file::OpenFile;
use crate::rebuild::RebuildError;

/// A line about an input that the restart's own stands in for, where that is so.
pub fn note(description: &OpenFile, resolve: Resolve<'_>) -> Option<String> {
    if description.is_outside_input() {
        return Some(
            "standard input was a pipe that another program wrote to: the job reads that of this restart now".to_owned(),
        );
    }
    let path = is_replaced(description, resolve)?;
    let path = path.as_path().display();
    Some(format!("standard input was {path}, which is gone or shorter now: the job reads that of this restart"))
}

/// The path of the file that was the input, where it does not reach as far as the job has read, and the restart has an input to read
/// instead. Without one the job would come to an early end, and seem to have ended well.
pub fn is_replaced<'a>(description: &'a OpenFile, resolve: Resolve<'_>) -> Option<&'a FilePath> {
    let regular = description.regular()?;
    let is_replaced = description.is_input && !goes_on(description, regular, &resolve(&regular.path)) && has_own();
    is_replaced.then_some(&regular.path)
}

/// Whether the job can go on to read its input at a path.
pub fn is_there(description: &OpenFile, resolve: Resolve<'_>) -> bool {
    description.is_input && description.regular().is_some_and(|regular| goes_on(description, regular, &resolve(&regular.path)))
}

fn goes_on(description: &OpenFile, regular: &RegularFile, path: &Path) -> bool {
    // Something else may be there now, and must not be waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let meta = file.and_then(|file| file.metadata());
    meta.is_ok_and(|meta| meta.is_file() && meta.len() >= description.position.min(regular.size))
}

/// Sets the offset of the restart's own input, where that is the job's file after all, which has another path now.
///
/// # Errors
/// The input cannot seek.
pub fn go_on_in_own(description: &OpenFile, own: BorrowedFd<'_>) -> Result<(), RebuildError> {
    match (description.regular(), rustix::fs::fstat(own)) {
        (Some(regular), Ok(stat)) if (stat.st_dev, stat.st_ino) == (regular.device, regular.inode) => {
            rebuild_position(own, regular.path.as_path(), description.position)
        }
        _ => Ok(()),
    }
}

/// Whether this restart has an input that gives something to read: not closed, `/dev/null`, or a terminal.
fn has_own() -> bool {
    let own = rustix::stdio::stdin();
    let Ok(stat) = rustix::fs::fstat(own) else { return false };
    let is_null = rustix::fs::stat("/dev/null").is_ok_and(|null| null.st_rdev == stat.st_rdev && null.st_mode == stat.st_mode);
    !is_null && !own.is_terminal()
}
