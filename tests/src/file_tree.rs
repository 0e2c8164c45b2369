//! Everything in a directory at one moment, to be compared with another: names, kinds, modes, owners, contents, links and times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::job::difference;

/// How many differences are shown.
const SHOWN: usize = 30;

/// All that lies in a directory, by its path from there.
#[derive(Debug, Default, Clone)]
pub struct FileTree(BTreeMap<PathBuf, Entry>);

/// One file of any kind.
#[derive(Debug, Clone)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    /// A file's bytes, or where a symbolic link leads.
    contents: Vec<u8>,
    /// The first name of the same file, where it has several here.
    same_as: Option<PathBuf>,
}

impl FileTree {
    /// What lies in a directory now. `skip` says which names at its top are left out.
    ///
    /// # Panics
    /// When something cannot be read.
    #[must_use]
    pub fn of(dir: &Path, skip: impl Fn(&str) -> bool) -> Self {
        let mut tree = Self::default();
        let mut names = BTreeMap::new();
        let mut todo: Vec<PathBuf> =
            sorted(dir).into_iter().filter(|name| !skip(&name.to_string_lossy())).map(Into::into).collect();
        todo.reverse();
        while let Some(path) = todo.pop() {
            let at = dir.join(&path);
            let meta = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("cannot look at {}: {error}", at.display()));
            let unreadable = |error| panic!("cannot read {}: {error}", at.display());
            let contents = if meta.is_file() {
                fs::read(&at).unwrap_or_else(unreadable)
            } else if meta.is_symlink() {
                fs::read_link(&at).map_or_else(unreadable, |to| to.as_os_str().as_bytes().to_vec())
            } else {
                Vec::new()
            };
            if meta.is_dir() {
                todo.extend(sorted(&at).into_iter().rev().map(|name| path.join(name)));
            }
            let first = (!meta.is_dir()).then(|| names.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone()).clone());
            let same_as = first.filter(|first| *first != path);
            let (owner, modified) = ((meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
            tree.0.insert(path, Entry { kind: kind(&meta), mode: meta.mode() & 0o7777, owner, modified, contents, same_as });
        }
        tree
    }

    /// The part of it whose paths hold this text.
    #[must_use]
    pub fn with(&self, text: &str) -> Self {
        let part = self.0.iter().filter(|(path, _)| path.to_string_lossy().contains(text));
        Self(part.map(|(path, entry)| (path.clone(), entry.clone())).collect())
    }

    /// The bytes of all its files whose names hold this text.
    #[must_use]
    pub fn contents(&self, text: &str) -> Vec<&[u8]> {
        let named = self.0.iter().filter(|(path, _)| path.file_name().is_some_and(|name| name.to_string_lossy().contains(text)));
        named.map(|(_, entry)| entry.contents.as_slice()).collect()
    }

    /// How many files of any kind are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How another differs from this one, a line for each path; `times` says whether the times of what is no directory count.
    /// Empty where it does not differ.
    #[must_use]
    pub fn differences(&self, found: &Self, times: bool) -> String {
        let mut paths: Vec<&PathBuf> = self.0.keys().chain(found.0.keys()).collect();
        paths.sort();
        paths.dedup();
        let mut lines = Vec::new();
        for path in paths {
            let differs = match (self.0.get(path), found.0.get(path)) {
                (Some(expected), Some(found)) => expected.differs(found, times),
                (Some(expected), None) => format!("is missing: {}", expected.named()),
                (None, Some(found)) => format!("should not be there: {}", found.named()),
                (None, None) => String::new(),
            };
            if !differs.is_empty() {
                lines.push(format!("  {}: {differs}\n", path.as_os_str().as_bytes().escape_ascii()));
            }
        }
        let mut text: String = lines.iter().take(SHOWN).map(String::as_str).collect();
        if lines.len() > SHOWN {
            let _ = writeln!(text, "  and {} more", lines.len() - SHOWN);
        }
        text
    }

    /// Another is as this one is.
    ///
    /// # Panics
    /// When it is not, with the differences by name, and `told`.
    #[track_caller]
    pub fn compare(&self, found: &Self, times: bool, told: &str) {
        let differences = self.differences(found, times);
        assert!(differences.is_empty(), "the files differ:\n{differences}{told}");
    }
}

impl Entry {
    /// How another differs, in words.
    fn differs(&self, found: &Self, times: bool) -> String {
        if self.kind != found.kind {
            return format!("{} instead of {}", found.named(), self.named());
        }
        let mut said = Vec::new();
        if self.contents != found.contents {
            said.push(format!("contents differ {}", difference(&self.contents, &found.contents)));
        }
        if self.mode != found.mode {
            said.push(format!("mode {:o} instead of {:o}", found.mode, self.mode));
        }
        if self.owner != found.owner {
            said.push(format!("owner {:?} instead of {:?}", found.owner, self.owner));
        }
        if self.same_as != found.same_as {
            said.push(format!("the same file as {:?} instead of {:?}", found.same_as, self.same_as));
        }
        if times && self.kind != "directory" && self.modified != found.modified {
            said.push(format!("modified at {:?} instead of {:?}", found.modified, self.modified));
        }
        said.join("; ")
    }

    /// What it is, in words.
    fn named(&self) -> String {
        let extent = if self.contents.is_empty() { String::new() } else { format!(" of {} bytes", self.contents.len()) };
        format!("a {}{extent}", self.kind)
    }
}

/// The names in a directory, in their order.
fn sorted(dir: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
    let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

/// What kind of file it is, in words.
fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_fifo() => "named pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    }
}
