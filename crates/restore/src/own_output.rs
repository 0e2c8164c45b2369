//! The restart's own output, where it goes to a file that the job writes. That is cut to its size at the checkpoint, as any other such file.
//! But others may have written to this one since: the batch script, other commands of it, the batch system, the launcher and this restart.
//!
//! 1. [`OwnOutput::find`] looks which files these are.
//! 2. [`OwnOutput::keep_tails`] copies what follows the checkpoint, before anything is changed; when the restart fails, the copies go.
//! 3. [`OwnOutput::cut`] cuts them, and says again what this restart has said into them.
//!
//! What the job itself wrote after the checkpoint cannot be told from the rest, and is copied with it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ckpt_objects::file::{RegularFile, open_although};
use ckpt_objects::open_file::OpenFile;
use ckpt_objects::open_file::standard;
use ckpt_objects::rebuild::own_fd_path;
use ckpt_session::JobState;
use ckpt_session::report;
use rustix::fs::{FileType, OFlags, SeekFrom};

use crate::aside::Aside;
use crate::error::RestoreError;

/// The number of standard error.
const STANDARD_ERROR: u8 = 2;

/// The files that standard output and error of this restart go to, and that the job writes.
pub struct OwnOutput<'a> {
    job: &'a JobState,
    aside: &'a Aside,
    files: Vec<Output<'a>>,
    /// What the copies have been made for has been done.
    is_cut: bool,
}

/// One file.
struct Output<'a> {
    regular: &'a RegularFile,
    /// The standard descriptors that are open on it.
    numbers: Vec<u8>,
    /// As far as this it is kept: by the job, by copies, or by what is said again.
    kept_to: u64,
    /// Copies, and their bytes.
    copies: Vec<PathBuf>,
    copied: u64,
}

impl<'a> OwnOutput<'a> {
    /// Finds them. A file that was emptied for this restart stays as it is.
    pub fn find(job: &'a JobState, aside: &'a Aside) -> Self {
        let mut files: Vec<Output<'a>> = Vec::new();
        for number in 0..=STANDARD_ERROR {
            let Some(regular) = own_file(job, number) else { continue };
            match files.iter_mut().find(|file| identity(file.regular) == identity(regular)) {
                Some(known) => known.numbers.push(number),
                None => {
                    files.push(Output { regular, numbers: vec![number], kept_to: regular.size, copies: Vec::new(), copied: 0 })
                }
            }
        }
        Self { job, aside, files, is_cut: false }
    }

    /// Copies what is behind the checkpoint in each.
    ///
    /// # Errors
    ///
    /// When it cannot be copied. No file has been changed.
    pub fn keep_tails(&mut self) -> Result<(), RestoreError> {
        self.files.iter_mut().try_for_each(|file| file.keep_tail(self.aside, &report::said()))
    }

    /// Cuts each file to its size at the checkpoint, where its descriptions go on. Gives lines for the user.
    ///
    /// # Errors
    ///
    /// When somebody has written to one since it was copied, and that cannot be copied.
    pub fn cut(&mut self) -> Result<Vec<String>, RestoreError> {
        let mut notes = Vec::new();
        for file in &mut self.files {
            file.keep_tail(self.aside, "")?;
            // A file that cannot be cut is still an output.
            let _ = rustix::fs::ftruncate(standard(file.numbers[0]), file.regular.size);
            file.go_on(self.job);
            if !file.copies.is_empty() {
                let copies: Vec<String> = file.copies.iter().map(|copy| copy.display().to_string()).collect();
                notes.push(format!(
                    "what was written to {} after the checkpoint, {} bytes, is set aside as {}",
                    file.regular.path,
                    file.copied,
                    copies.join(" and ")
                ));
            }
        }
        self.is_cut = true;
        if self.files.iter().any(|file| file.numbers.contains(&STANDARD_ERROR)) {
            report::say_again();
        }
        Ok(notes)
    }
}

impl Drop for OwnOutput<'_> {
    fn drop(&mut self) {
        if !self.is_cut {
            self.files.iter().flat_map(|file| &file.copies).for_each(|copy| self.aside.forget(copy));
        }
    }
}

impl Output<'_> {
    /// Copies what is not kept yet. `said` will be said again, and need not be kept at the end of it.
    fn keep_tail(&mut self, aside: &Aside, said: &str) -> Result<(), RestoreError> {
        let fd = standard(self.numbers[0]);
        let path = self.regular.path.as_path();
        let failed = |source| RestoreError::Aside { path: path.to_owned(), dir: aside.dir.clone(), source };
        let len = rustix::fs::fstat(fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        if len <= self.kept_to {
            return Ok(());
        }
        // It may be open for writing only.
        let file = open_although(&own_fd_path(fd), OFlags::RDONLY | OFlags::CLOEXEC);
        let file = file.map(File::from).map_err(|errno| failed(errno.into()))?;
        let is_said = self.numbers.contains(&STANDARD_ERROR) && ends_with(&file, self.kept_to, len, said.as_bytes());
        let end = if is_said { len - said.len() as u64 } else { len };
        if end > self.kept_to {
            let name = path.file_name().unwrap_or(OsStr::new("output"));
            self.copies.push(aside.keep_tail(file.as_fd(), self.kept_to, end, name).map_err(failed)?);
            self.copied += end - self.kept_to;
        }
        self.kept_to = len;
        Ok(())
    }

    /// Sets the offsets: to where the checkpoint left them, and no further than the end.
    fn go_on(&self, job: &JobState) {
        let has_gone_on = |number: &u8| {
            let is_it = |open: &&OpenFile| {
                let is_same = |regular| identity(regular) == identity(self.regular);
                open.inherited == Some(*number) && open.regular().is_some_and(is_same)
            };
            let Some(open) = job.open_files.iter().find(is_it) else { return false };
            let _ = rustix::fs::seek(standard(*number), SeekFrom::Start(open.position));
            true
        };
        let (_, others): (Vec<u8>, Vec<u8>) = self.numbers.iter().partition(|number| has_gone_on(number));
        for number in others {
            if rustix::fs::tell(standard(number)).is_ok_and(|position| position > self.regular.size) {
                let _ = rustix::fs::seek(standard(number), SeekFrom::Start(self.regular.size));
            }
        }
    }
}

/// The file of the job's that a standard descriptor of this process writes to, if that is not shorter than it was.
fn own_file(job: &JobState, number: u8) -> Option<&RegularFile> {
    let fd = standard(number);
    let stat = rustix::fs::fstat(fd).ok()?;
    let reads_only = rustix::fs::fcntl_getfl(fd).ok()? & OFlags::RWMODE == OFlags::RDONLY;
    if reads_only || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let is_it = |regular: &&RegularFile| {
        regular.written
            && identity(regular) == (stat.st_dev, stat.st_ino)
            && u64::try_from(stat.st_size).is_ok_and(|size| size >= regular.size)
    };
    job.open_files.iter().filter_map(OpenFile::regular).find(is_it)
}

fn identity(regular: &RegularFile) -> (u64, u64) {
    (regular.device, regular.inode)
}

/// Whether the bytes `from..to` of a file end with these.
fn ends_with(file: &File, from: u64, to: u64, end: &[u8]) -> bool {
    let mut found = vec![0; end.len()];
    let start = to.checked_sub(end.len() as u64).filter(|start| *start >= from);
    start.is_some_and(|start| file.read_exact_at(&mut found, start).is_ok()) && found == end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_looked_for_behind_the_checkpoint_only() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abcdef", 0).unwrap();
        assert!(ends_with(&file, 2, 6, b"def") && ends_with(&file, 3, 6, b"def") && ends_with(&file, 6, 6, b""));
        assert!(!ends_with(&file, 4, 6, b"def") && !ends_with(&file, 0, 6, b"de") && !ends_with(&file, 0, 6, b"0abcdef"));
    }
}
