//! The files that `--save-files` names.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use walkdir::WalkDir;

/// Most bytes that all saved files of a checkpoint may hold, holes not counted: the job stands still while they are copied.
pub const LIMIT: u64 = 1 << 30;
/// Most files that may be saved.
pub const MOST_FILES: usize = 100_000;

/// As a shell understands them, but that what begins with a dot must be named.
const SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Why files that are to be saved are not. There is no checkpoint then: one that lacks what it was to hold would be found out too
/// late.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The pattern cannot be understood.
    #[error("--save-files {pattern}: {why}; write it as for a shell")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read.
    #[error("{}, which --save-files names, cannot be {action}: {source}; make that possible, or leave it out of --save-files", path.display())]
    Read {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not a file whose contents are its own.
    #[error("{}, which --save-files names, is a device; leave it out of --save-files", path.display())]
    Device {
        /// The device.
        path: PathBuf,
    },
    /// They are too large.
    #[error(
        "with {} the files that --save-files names come to more than {} MiB; name fewer, or keep them where every machine has them",
        path.display(),
        LIMIT >> 20
    )]
    TooMuch {
        /// The file with which they come to more.
        path: PathBuf,
    },
    /// They are too many.
    #[error("--save-files names more than {MOST_FILES} files, {} among them; name fewer", path.display())]
    TooMany {
        /// One of them.
        path: PathBuf,
    },
    /// They cannot be kept beside the image until they are in it.
    #[error("cannot keep the files that --save-files names in {} while the image is written: {source}; give another directory with --dir", dir.display())]
    Stage {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl SaveError {
    /// An error about reading a file.
    pub fn read(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { action, path: path.to_owned(), source }
    }
}

/// A pattern as the file system is searched by it: one that is relative begins in `launch_dir`.
///
/// # Errors
///
/// When it is no pattern, or cannot be one with that directory.
pub fn full_pattern(pattern: &str, launch_dir: &Path) -> Result<String, SaveError> {
    let wrong = |why: String| SaveError::Pattern { pattern: pattern.to_owned(), why };
    let mut words = pattern;
    while let Some(rest) = words.strip_prefix("./") {
        words = rest.trim_start_matches('/');
    }
    let words = if words.len() > 1 { words.trim_end_matches('/') } else { words };
    let full = if words.starts_with('/') {
        words.to_owned()
    } else {
        let dir = launch_dir.to_str().ok_or_else(|| wrong(format!("{} is not UTF-8", launch_dir.display())))?;
        match words {
            "." | "" => Pattern::escape(dir),
            words => format!("{}/{words}", Pattern::escape(dir.trim_end_matches('/'))),
        }
    };
    Pattern::new(&full).map_err(|error| wrong(error.msg.to_owned()))?;
    Ok(full)
}

/// Everything that the patterns name, with what is in directories; parents come first. Paths have no symbolic links in their
/// directories. Neither what `is_left_out` nor sockets are among it.
///
/// # Errors
///
/// When something that is named cannot be examined.
pub fn find(
    patterns: &[String],
    launch_dir: &Path,
    is_left_out: &dyn Fn(&Path, &Metadata) -> bool,
) -> Result<BTreeMap<PathBuf, Metadata>, SaveError> {
    let mut found = BTreeMap::new();
    let mut parents: HashMap<PathBuf, PathBuf> = HashMap::new();
    for pattern in patterns {
        let full = full_pattern(pattern, launch_dir)?;
        let matches = glob::glob_with(&full, SHELL)
            .map_err(|error| SaveError::Pattern { pattern: pattern.clone(), why: error.msg.to_owned() })?;
        // What cannot even be listed on the way is not the job's, which runs as the same user.
        for path in matches.flatten() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                add_tree(&path, is_left_out, &mut found)?;
                continue;
            };
            let real = match parents.get(parent) {
                Some(real) => real.clone(),
                None => {
                    let Ok(real) = parent.canonicalize() else { continue };
                    parents.insert(parent.to_owned(), real.clone());
                    real
                }
            };
            add_tree(&real.join(name), is_left_out, &mut found)?;
        }
    }
    Ok(found)
}

fn add_tree(
    root: &Path,
    is_left_out: &dyn Fn(&Path, &Metadata) -> bool,
    found: &mut BTreeMap<PathBuf, Metadata>,
) -> Result<(), SaveError> {
    if found.contains_key(root) {
        return Ok(());
    }
    let mut entries = WalkDir::new(root).follow_links(false).follow_root_links(false).into_iter();
    while let Some(entry) = entries.next() {
        let metadata = entry.and_then(|entry| Ok((entry.metadata()?, entry.into_path())));
        let (metadata, path) = match metadata {
            Ok(both) => both,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                match io::Error::from(error) {
                    // Somebody else removed it meanwhile.
                    gone if gone.kind() == io::ErrorKind::NotFound => continue,
                    source => return Err(SaveError::Read { action: "examined", path, source }),
                }
            }
        };
        if is_left_out(&path, &metadata) || metadata.file_type().is_socket() {
            if metadata.is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        if found.len() >= MOST_FILES {
            return Err(SaveError::TooMany { path });
        }
        found.insert(path, metadata);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(found: &BTreeMap<PathBuf, Metadata>, dir: &Path) -> Vec<String> {
        found.keys().map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string()).collect()
    }

    fn all(patterns: &[&str], dir: &Path) -> BTreeMap<PathBuf, Metadata> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        find(&patterns, dir, &|path, _| path.ends_with("not-this")).unwrap()
    }

    #[test]
    fn patterns_are_a_shells_and_directories_are_taken_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a [strange] dir");
        fs::create_dir_all(dir.join("sub/deep/empty")).unwrap();
        for name in ["a.dat", "b.dat", ".c.dat", "sub/d.dat", "sub/.e", "sub/deep/f", "not-this"] {
            fs::write(dir.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("sub", dir.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        assert_eq!(names(&all(&["*.dat", "./*.dat"], &dir), &dir), ["a.dat", "b.dat"]);
        let sub = ["sub", "sub/.e", "sub/d.dat", "sub/deep", "sub/deep/empty", "sub/deep/f"];
        assert_eq!(names(&all(&["sub/"], &dir), &dir), sub);
        assert_eq!(names(&all(&["**/*.dat"], &dir), &dir), ["a.dat", "b.dat", "sub/d.dat"]);
        assert_eq!(names(&all(&["link"], &dir), &dir), ["link"]);
        assert_eq!(names(&all(&["link/*.dat"], &dir), &dir), ["sub/d.dat"]);
        assert_eq!(all(&["."], &dir).len(), 1 + 3 + 1 + 6);
        let absolute = format!("{}/?.dat", Pattern::escape(dir.to_str().unwrap()));
        assert_eq!(names(&all(&[&absolute], Path::new("/")), &dir), ["a.dat", "b.dat"]);
        assert!(all(&["nothing/*"], &dir).is_empty());
        assert!(matches!(full_pattern("a***", &dir), Err(SaveError::Pattern { .. })));
    }
}
