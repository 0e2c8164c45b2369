//! What a restart takes out of the job's way without knowing whether somebody wants it. It is kept in a directory beside the images: one
//! for files, which goes when the job has ended well, and one for what others wrote to the job's output, which stays.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ckpt_objects::job_file::{self, FileKind, open_to_read};
use rustix::io::Errno;
use walkdir::WalkDir;

/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// The directory, which is made when there is something to put into it.
#[derive(Debug)]
pub struct Aside {
    /// Its path.
    pub dir: PathBuf,
}

impl Aside {
    /// Copies the bytes `from..to` of a file into one called `name`, or `name.2` and so on where there is one. It is durable then.
    ///
    /// # Errors
    ///
    /// When it cannot be copied; no part of it is left.
    pub fn keep_tail(&self, file: BorrowedFd<'_>, from: u64, to: u64, name: &OsStr) -> io::Result<PathBuf> {
        self.make()?;
        let place = free_place(&self.dir, name)?;
        copy_tail(file, from, to, &place).inspect_err(|_| self.remove_empty())?;
        Ok(place)
    }

    /// Moves a file, with all that is in it if it is a directory, to the place below this directory that its path says.
    ///
    /// # Errors
    ///
    /// When it cannot be moved; it is where it was then.
    pub fn take(&self, path: &Path) -> io::Result<PathBuf> {
        let place = self.place_of(path, "")?;
        move_file(path, &place)?;
        Ok(place)
    }

    /// Copies a regular file to the place that its path says. The copy is durable then.
    ///
    /// # Errors
    ///
    /// When it cannot be copied; no part of it is left.
    pub fn copy(&self, path: &Path) -> io::Result<PathBuf> {
        let place = self.place_of(path, "")?;
        copy_file(path, &place).inspect_err(|_| drop(std::fs::remove_file(&place)))?;
        Ok(place)
    }

    /// Copies the bytes `from..to` of the file at a path.
    ///
    /// # Errors
    ///
    /// When they cannot be copied; no part of them is left.
    pub fn take_tail(&self, path: &Path, from: u64, to: u64) -> io::Result<PathBuf> {
        let file = open_to_read(path)?;
        let place = self.place_of(path, &format!(".from-byte-{from}"))?;
        copy_tail(file.as_fd(), from, to, &place)?;
        Ok(place)
    }

    /// Gives what was set aside another name, as of a file with this path.
    ///
    /// # Errors
    ///
    /// When that cannot be done.
    pub fn link(&self, aside: &Path, path: &Path) -> io::Result<PathBuf> {
        let place = self.place_of(path, "")?;
        std::fs::hard_link(aside, &place)?;
        Ok(place)
    }

    /// A place that is free, for a file with this path: below the directory it has the same one.
    fn place_of(&self, path: &Path, ending: &str) -> io::Result<PathBuf> {
        self.make()?;
        let inside = path.strip_prefix("/").unwrap_or(path);
        let parent = self.dir.join(inside.parent().unwrap_or(Path::new("")));
        DirBuilder::new().mode(0o700).recursive(true).create(&parent)?;
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(ending);
        free_place(&parent, &name)
    }

    /// Removes the directories in which nothing is, this one too.
    pub fn remove_empty(&self) {
        let below = WalkDir::new(&self.dir).contents_first(true).into_iter().flatten();
        for entry in below.filter(|entry| entry.file_type().is_dir()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }

    /// Removes a file again, and the directory with the last one.
    pub fn forget(&self, path: &Path) {
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_dir(&self.dir);
    }

    /// Makes the directory. One that somebody else has made is not written to.
    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let meta = self.dir.symlink_metadata()?;
                let is_own = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
                if is_own { Ok(()) } else { Err(io::Error::other("it is no directory, or another user's")) }
            }
            other => other,
        }
    }
}

/// Where nothing is in a directory: `name`, or `name.2` and so on.
fn free_place(dir: &Path, name: &OsStr) -> io::Result<PathBuf> {
    for number in 1u64.. {
        let mut unique = OsString::from(name);
        if number > 1 {
            unique.push(format!(".{number}"));
        }
        let place = dir.join(unique);
        match place.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(place),
            Err(error) => return Err(error),
            Ok(_) => (),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Copies the bytes `from..to` of a file to where nothing is. They are durable then, or nothing of them is left.
fn copy_tail(file: BorrowedFd<'_>, from: u64, to: u64, place: &Path) -> io::Result<()> {
    let copy = File::options().write(true).create_new(true).mode(0o600).open(place)?;
    let outcome = copy_range(file, from, to, &copy).and_then(|()| copy.sync_all());
    outcome.inspect_err(|_| drop(std::fs::remove_file(place)))
}

/// Renames a file, or a directory with all that is in it; to another file system it is copied.
///
/// # Errors
///
/// When that cannot be done; it is where it was then.
pub fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => (),
        other => return other,
    }
    let state = job_file::look(from)?.ok_or(io::ErrorKind::NotFound)?;
    let made = match state.kind {
        FileKind::Regular { .. } => copy_file(from, to),
        FileKind::Directory => copy_directory(from, to),
        _ => job_file::rebuild_file(&state, to).map(drop),
    };
    let moved = made.and_then(|()| job_file::rebuild_attributes(&state, to)).and_then(|()| remove(from));
    moved.inspect_err(|_| drop(remove(to)))
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Copies a directory, with its permissions and times, to where nothing is.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    job_file::rebuild_directory(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let state = job_file::look(&from)?.ok_or(io::ErrorKind::NotFound)?;
        match state.kind {
            FileKind::Regular { .. } => copy_file(&from, &to)?,
            FileKind::Directory => copy_directory(&from, &to)?,
            _ => drop(job_file::rebuild_file(&state, &to)?),
        }
        job_file::rebuild_attributes(&state, &to)?;
    }
    Ok(())
}

/// Copies a regular file, with its permissions and times, to where nothing is.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let state = job_file::look(from)?.ok_or(io::ErrorKind::NotFound)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let mut file = open_to_read(from)?;
    if rustix::fs::ioctl_ficlone(&copy, &file).is_err() {
        io::copy(&mut file, &mut copy)?;
    }
    copy.sync_all()?;
    job_file::rebuild_attributes(&state, to)
}

/// Copies the bytes `from..to`, or as many of them as there are.
fn copy_range(file: BorrowedFd<'_>, from: u64, to: u64, mut copy: &File) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        match rustix::io::pread(file, &mut buffer[..want], at) {
            Ok(0) => break,
            Ok(read) => {
                copy.write_all(&buffer[..read])?;
                at += read as u64;
            }
            Err(Errno::INTR) => (),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tails_have_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"the job's, others'").unwrap();
        let aside = Aside { dir: dir.path().join("aside") };
        let keep = |from, to| aside.keep_tail(file.as_fd(), from, to, OsStr::new("out")).unwrap();
        let kept = [keep(10, 19), keep(0, 3), keep(11, 1000)];
        assert_eq!(kept.each_ref().map(|path| path.file_name().unwrap()), ["out", "out.2", "out.3"]);
        assert_eq!(kept.each_ref().map(|path| std::fs::read_to_string(path).unwrap()), [" others'", "the", "others'"]);
        assert_eq!(aside.dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        kept.iter().for_each(|path| aside.forget(path));
        assert!(!aside.dir.exists());
    }

    #[test]
    fn files_keep_their_paths_and_do_not_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside { dir: dir.path().join("aside") };
        let path = dir.path().join("sub/file");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let mut places = Vec::new();
        for text in ["one", "two"] {
            std::fs::write(&path, text).unwrap();
            places.push(aside.copy(&path).unwrap());
            places.push(aside.take(&path).unwrap());
            assert!(!path.exists());
        }
        assert!(places[0].ends_with(path.strip_prefix("/").unwrap()));
        let texts: Vec<String> = places.iter().map(|place| std::fs::read_to_string(place).unwrap()).collect();
        assert_eq!(texts, ["one", "one", "two", "two"]);
        std::fs::write(&path, "begin end").unwrap();
        assert_eq!(std::fs::read_to_string(aside.take_tail(&path, 5, 9).unwrap()).unwrap(), " end");
        aside.remove_empty();
        assert!(aside.dir.exists());
        move_file(&places[3], &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    }

    #[test]
    fn nothing_is_written_into_what_is_no_directory_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let aside = Aside { dir: dir.path().join("aside") };
        std::os::unix::fs::symlink(dir.path(), &aside.dir).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(aside.keep_tail(file.as_fd(), 0, 0, OsStr::new("out")).is_err());
    }
}
