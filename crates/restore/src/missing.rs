//! What the job needs and is not where it was: gathered over all checks, so that one error names everything, by the directory that is gone
//! with it, and says what to type.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ckpt_objects::FilePath;
use ckpt_session::job::Variable;

use crate::error::RestoreError;
use crate::listing::{Gone, Listing, Thing};
use crate::paths::PathMap;

/// What has been found missing so far.
#[derive(Debug, Default)]
pub struct Missing {
    things: Vec<Thing>,
}

impl Missing {
    /// Notes that `path`, where the job's `old` should be now, could not be found: `error` is what the system said of it.
    ///
    /// # Errors
    ///
    /// When it may be there, and cannot be reached.
    pub fn add(
        &mut self,
        old: &FilePath,
        path: PathBuf,
        pid: i32,
        use_: &'static str,
        error: io::Error,
    ) -> Result<(), RestoreError> {
        if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            return Err(RestoreError::Unreachable { path, pid, use_, source: error });
        }
        if self.things.iter().all(|thing| thing.path != path) {
            self.things.push(Thing { old: old.as_path().to_owned(), path, pid, use_ });
        }
        Ok(())
    }

    /// An error that lists everything, if there is anything. Where variables of the batch job say where something may be now, it says that: `former` they
    /// were when the job was last started, now they are `present`.
    ///
    /// # Errors
    ///
    /// That one.
    pub fn finish(self, paths: &PathMap, former: &[Variable], present: &[Variable]) -> Result<(), RestoreError> {
        let mut gone: BTreeMap<PathBuf, Gone> = BTreeMap::new();
        for thing in self.things {
            let place = first_missing(&thing.path);
            let old = paths.old_of(&thing.old, &place);
            let (old, new) = moved_with(&old, former, present).map_or((old, None), |(old, new)| (old, Some(new)));
            let group = gone.entry(place.clone()).or_insert_with(|| Gone { place, old, new, things: Vec::new() });
            group.things.push(thing);
        }
        if gone.is_empty() { Ok(()) } else { Err(RestoreError::Missing(Listing(gone.into_values().collect()))) }
    }
}

/// The directory that a variable of the batch job named, if `old` is in it or above it, and the one that it names now.
fn moved_with(old: &Path, former: &[Variable], present: &[Variable]) -> Option<(PathBuf, PathBuf)> {
    former.iter().find_map(|variable| {
        let was = variable.value.as_ref()?.as_path();
        let is = present.iter().find(|other| other.name == variable.name)?.value.as_ref()?.as_path();
        let is_it =
            was.is_absolute() && was != is && (old.starts_with(was) || was.starts_with(old)) && is.is_absolute() && is.is_dir();
        is_it.then(|| (was.to_owned(), is.to_owned()))
    })
}

/// The highest of a path's ancestors, or itself, that is not there.
fn first_missing(path: &Path) -> PathBuf {
    let missing = path.ancestors().take_while(|ancestor| ancestor.symlink_metadata().is_err());
    missing.last().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::MAPPED;

    fn gone() -> io::Error {
        io::Error::from(io::ErrorKind::NotFound)
    }

    fn said(rules: Vec<(PathBuf, PathBuf)>, olds: &[(&Path, &'static str)]) -> String {
        let paths = PathMap::new(rules);
        let mut missing = Missing::default();
        for (old, use_) in olds {
            let old = FilePath::from(*old);
            missing.add(&old, paths.resolve(&old), 7, use_, gone()).unwrap();
        }
        let variable = |name: &str, value: &str| Variable { name: Path::new(name).into(), value: Some(Path::new(value).into()) };
        let former = [variable("SLURM_JOB_ID", "17"), variable("TMPDIR", "/local/job.17/tmp")];
        let present = [variable("SLURM_JOB_ID", "18"), variable("TMPDIR", "/tmp")];
        missing.finish(&paths, &former, &present).unwrap_err().to_string()
    }

    #[test]
    fn the_present_place_of_a_batch_jobs_directory_is_named() {
        let text = said(Vec::new(), &[(Path::new("/local/job.17/tmp/file"), "has open")]);
        assert!(text.contains("--map /local/job.17/tmp=/tmp "), "{text}");
    }

    #[test]
    fn everything_is_listed_by_the_directory_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("job 1"), dir.path().join("two"));
        let text = said(
            Vec::new(),
            &[(&one.join("a"), "has open"), (&one.join("sub/b"), "watches"), (&two, MAPPED), (&one.join("a"), MAPPED)],
        );
        let (one, two) = (one.display(), two.display());
        let first = format!(
            "{one} is gone, and in it: a (process 7 has open), sub/b (process 7 watches); bring it back, or give --map '{one}'=NEW \
             where it has moved (ckpt-launch --save-files '{one}' keeps such files in the image)"
        );
        let second =
            format!("{two}, which process 7 has mapped, is gone; bring it back, or give --map {two}=NEW where it has moved");
        assert_eq!(text, format!("{first}\n{second}"));
    }

    #[test]
    fn what_was_mapped_is_named_as_the_job_knew_it() {
        let dir = tempfile::tempdir().unwrap();
        let rules = vec![("/old/scratch".into(), dir.path().to_owned())];
        let text = said(rules, &[(Path::new("/old/scratch/sub/file"), "has open")]);
        assert!(text.contains(&format!("{} is gone", dir.path().join("sub").display())), "{text}");
        assert!(text.contains("--map /old/scratch/sub=NEW"), "{text}");
        // The new place itself is wrong.
        let rules = vec![("/old/scratch".into(), dir.path().join("no/where"))];
        assert!(said(rules, &[(Path::new("/old/scratch/file"), "has open")]).contains("--map /old/scratch=NEW"));
    }

    #[test]
    fn what_cannot_be_reached_is_not_called_gone() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let added = Missing::default().add(&FilePath::from(Path::new("/x")), "/x".into(), 7, "has open", error);
        assert!(matches!(added, Err(RestoreError::Unreachable { .. })));
        assert!(Missing::default().finish(&PathMap::default(), &[], &[]).is_ok());
    }
}
