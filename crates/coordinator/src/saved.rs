//! Files of `--save-files`, and directories of the job's own, on their way into the image: found and kept while the job stands
//! still, appended when it runs again.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ckpt_image::{Codec, ImageName, ImageWriter};
use ckpt_objects::file::OpenFileKind;
use ckpt_objects::job::JobInfo;
use ckpt_objects::process::Life;
use ckpt_objects::saved_file::{self, Captured, SaveError};
use ckpt_objects::{JobState, kept_file};

use crate::dump::{DumpError, Packer};
use crate::environment;

/// Tells what patterns may name and is never saved: images, and what every restart replaces by its own: the input and output of
/// this process, and the file of the batch job's variables.
pub fn left_out(info: &JobInfo) -> impl Fn(&Path, &Metadata) -> bool + use<> {
    let variables = environment::place(info);
    let own = (0..3).map(|fd| std::fs::metadata(format!("/proc/self/fd/{fd}")));
    let own: Vec<(u64, u64)> = own.flatten().filter(Metadata::is_file).map(|meta| (meta.dev(), meta.ino())).collect();
    move |path, meta| {
        let is_image = || ImageName::parse(path).is_some() || ImageName::parse_temporary(path).is_some();
        meta.is_file() && (own.contains(&(meta.dev(), meta.ino())) || path == variables || is_image())
    }
}

/// Takes all files that the job's settings name as they are now. Their spaces are numbered from `space` on.
pub fn capture(info: &JobInfo, space: u32) -> Result<Captured, SaveError> {
    if info.settings.save_files.is_empty() {
        return Ok(Captured::none(space));
    }
    let found = saved_file::find(&info.settings.save_files, info.launch_dir.as_path(), &left_out(info))?;
    saved_file::capture(found, info.settings.dir.as_path(), space)
}

/// Takes the directories that the job has made since its launch and works in, each with all that is in it, where that is little:
/// but for what `is_kept` otherwise. One that cannot be read is left out.
pub fn capture_own(state: &JobState, is_kept: &dyn Fn(&Path) -> bool, space: u32) -> Captured {
    let info = &state.info;
    let left_out = left_out(info);
    let mut captured = Captured::none(space);
    for root in own_roots(state) {
        let found = saved_file::find_in(&root, &|path, meta| is_kept(path) || left_out(path, meta));
        let beside = info.settings.dir.as_path();
        if let Some(tree) = found.and_then(|found| saved_file::capture(found, beside, captured.next_space).ok()) {
            captured.append(tree);
        }
    }
    captured
}

/// The topmost directories of the job's own that it works in: as a working directory, or open.
fn own_roots(state: &JobState) -> BTreeSet<PathBuf> {
    let living = state.processes.iter().filter_map(|process| match &process.life {
        Life::Alive(live) => Some(live.cwd.as_path()),
        Life::Zombie { .. } => None,
    });
    let open = state.open_files.iter().filter_map(|file| match &file.kind {
        OpenFileKind::Directory { path } => Some(path.as_path()),
        _ => None,
    });
    let used: BTreeSet<&Path> = living.chain(open).collect();
    let topmost = |dir: &Path| {
        let own = kept_file::own_directories(dir, state.info.launched_at_ns) as usize;
        own.checked_sub(1).and_then(|above| dir.ancestors().nth(above)).map(Path::to_owned)
    };
    used.into_iter().filter_map(topmost).collect()
}

/// Appends their contents.
pub fn append(writer: &ImageWriter, codec: Codec, captured: &Captured) -> Result<(), DumpError> {
    let mut packer = Packer::new(writer, codec);
    for kept in &captured.contents {
        packer.add(kept.space, kept.offset, kept.len, |from, part| captured.read(kept, from, part).map_err(DumpError::Saved))?;
    }
    Ok(packer.flush()?)
}
