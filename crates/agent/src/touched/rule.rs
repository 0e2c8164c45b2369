//! What must be known of a file before it is touched.

use ckpt_wire::touched::{Identity, Knowledge};
use linux_raw_sys::general as nr;

use super::place::kind;
use super::table;

/// What is about to be done to a file that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    Nothing,
    /// Its contents only grow.
    Appends,
    /// Its contents may change.
    Rewrites,
    /// It gets this size.
    Resizes(u64),
    /// Its mode, owner or times change.
    Attributes,
    /// Its name goes, and perhaps the file.
    Removes,
    /// It gets another name.
    Renames,
}

/// The kind of file that was found where something is about to be touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, though something will be made there.
    Absent,
    /// A directory.
    Directory,
    /// Something else, or it cannot be told.
    Other,
}

/// What must be known of a file before it is touched in this way; `None`: nothing.
pub fn needed(touch: Touch, stat: &nr::statx) -> Option<Knowledge> {
    let regular = kind(stat) == nr::S_IFREG;
    match touch {
        Touch::Nothing => None,
        Touch::Appends => regular.then_some(Knowledge::Noted),
        Touch::Rewrites => regular.then_some(Knowledge::Kept),
        // What only gets longer keeps its contents.
        Touch::Resizes(size) if size >= stat.stx_size => regular.then_some(Knowledge::Noted),
        Touch::Resizes(_) => regular.then_some(Knowledge::Kept),
        Touch::Attributes => (!matches!(kind(stat), nr::S_IFCHR | nr::S_IFBLK)).then_some(Knowledge::Noted),
        // Its contents go on under the new name.
        Touch::Renames if regular => Some(Knowledge::Noted),
        Touch::Renames | Touch::Removes => Some(Knowledge::Kept),
    }
}

/// Whether the name itself counts: the file may have others, or have had.
pub fn name_counts(touch: Touch, stat: &nr::statx, identity: &Identity) -> bool {
    matches!(touch, Touch::Removes | Touch::Renames) && kind(stat) != nr::S_IFDIR && !table::is_new(identity)
}

/// Whether a file is removed that was made in this segment: at the beginning there was none, or another one, which is noted.
pub fn needs_nothing(touch: Touch, identity: &Identity) -> bool {
    touch == Touch::Removes && table::is_new(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mode: u32, size: u64) -> nr::statx {
        // SAFETY: all fields are numbers.
        let zeroes = unsafe { core::mem::zeroed::<nr::statx>() };
        nr::statx { stx_mode: mode as u16, stx_size: size, ..zeroes }
    }

    #[test]
    fn contents_are_kept_only_where_they_may_change() {
        let file = stat(nr::S_IFREG, 10);
        assert!(needed(Touch::Nothing, &file).is_none());
        assert_eq!(needed(Touch::Appends, &file), Some(Knowledge::Noted));
        assert_eq!(needed(Touch::Rewrites, &file), Some(Knowledge::Kept));
        assert_eq!(needed(Touch::Resizes(10), &file), Some(Knowledge::Noted));
        assert_eq!(needed(Touch::Resizes(9), &file), Some(Knowledge::Kept));
        assert_eq!(needed(Touch::Renames, &file), Some(Knowledge::Noted));
        assert_eq!(needed(Touch::Removes, &file), Some(Knowledge::Kept));
    }

    #[test]
    fn devices_and_pipes_have_no_contents() {
        for mode in [nr::S_IFCHR, nr::S_IFIFO] {
            assert!(needed(Touch::Rewrites, &stat(mode, 0)).is_none() && needed(Touch::Appends, &stat(mode, 0)).is_none());
        }
        assert!(needed(Touch::Attributes, &stat(nr::S_IFCHR, 0)).is_none());
        assert_eq!(needed(Touch::Renames, &stat(nr::S_IFDIR, 0)), Some(Knowledge::Kept));
    }
}
