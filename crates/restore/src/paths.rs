//! Where the files of a job are now: `--map OLD=NEW`, and a launch directory that moved.

use std::path::{Path, PathBuf};

use ckpt_objects::FilePath;
use ckpt_objects::directory::DirectoryIdentity;
use ckpt_session::job::JobInfo;

/// Replacements of path prefixes, by whole components.
#[derive(Clone, Debug, Default)]
pub struct PathMap {
    rules: Vec<(PathBuf, PathBuf)>,
}

impl PathMap {
    /// Rules as given; the longest old path that matches wins.
    #[must_use]
    pub fn new(rules: Vec<(PathBuf, PathBuf)>) -> Self {
        let mut map = Self { rules };
        map.sort();
        map
    }

    /// Adds a rule.
    pub fn add(&mut self, old: PathBuf, new: PathBuf) {
        self.rules.push((old, new));
        self.sort();
    }

    fn sort(&mut self) {
        self.rules.sort_by_key(|(old, _)| std::cmp::Reverse(old.components().count()));
    }

    /// Where `path` is now.
    #[must_use]
    pub fn resolve(&self, path: &FilePath) -> PathBuf {
        self.resolve_path(path.as_path())
    }

    /// Where `path` is now.
    #[must_use]
    pub fn resolve_path(&self, path: &Path) -> PathBuf {
        for (old, new) in &self.rules {
            if let Ok(rest) = path.strip_prefix(old) {
                // Joining an empty path would end the result with a slash, which only a directory may have.
                return if rest.as_os_str().is_empty() { new.clone() } else { new.join(rest) };
            }
        }
        path.to_path_buf()
    }

    /// A pattern for files that were below an old path: one for where they are now.
    #[must_use]
    fn resolve_pattern(&self, pattern: &str) -> String {
        for (old, new) in &self.rules {
            if let (Ok(rest), Some(new)) = (Path::new(pattern).strip_prefix(old), new.to_str()) {
                return Path::new(&glob::Pattern::escape(new)).join(rest).to_string_lossy().into_owned();
            }
        }
        pattern.to_owned()
    }

    /// Brings what an image says of its job's own places up to date, so that later images say where the job is now.
    pub fn move_job(&self, info: &mut JobInfo) {
        let launch_dir = self.resolve(&info.launch_dir);
        info.launch_dir_is = DirectoryIdentity::of(&launch_dir);
        info.launch_dir = launch_dir.into();
        info.settings.dir = self.resolve(&info.settings.dir).into();
        for pattern in &mut info.settings.save_files {
            *pattern = self.resolve_pattern(pattern);
        }
    }

    /// What the job knew `place` as, which is an ancestor of where its `path` is now, or that itself: what a rule for it must begin with.
    #[must_use]
    pub fn old_of(&self, path: &Path, place: &Path) -> PathBuf {
        let inside = |ancestor: &&Path| self.resolve_path(ancestor).starts_with(place);
        path.ancestors().take_while(inside).last().unwrap_or(path).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced_by_whole_components() {
        let map = PathMap::new(vec![("/a".into(), "/x".into()), ("/a/b".into(), "/y".into())]);
        let at = |path: &str| map.resolve(&FilePath::from(Path::new(path)));
        assert_eq!(at("/a/c"), Path::new("/x/c"));
        assert_eq!(at("/a/b/c"), Path::new("/y/c"));
        assert_eq!(at("/a/b").as_os_str(), "/y");
        assert_eq!(at("/ab"), Path::new("/ab"));
        assert_eq!(at("/"), Path::new("/"));
        assert_eq!(map.resolve_pattern("/a/b/*.dat"), "/y/*.dat");
        assert_eq!(map.resolve_pattern("a/b/*.dat"), "a/b/*.dat");
        assert_eq!(PathMap::new(vec![("/a".into(), "/x[1]".into())]).resolve_pattern("/a/[bc]"), "/x[[]1[]]/[bc]");
    }
}
