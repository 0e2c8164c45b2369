//! The parts of the job's output that restarts cut off. When the job has ended well it has written its own lines again, so only lines of
//! other writers are missing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Bytes of the largest file that is compared. A larger one stays.
const LARGEST: u64 = 64 << 20;

/// Removes those files of a directory whose every line is in this process's standard output or error, and the directory if none is left.
pub fn tidy(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Ok(Some(mut lines)) = Lines::of(&path) {
            for number in [1, 2] {
                // Opened anew, it has an offset of its own, and can be read.
                if let Ok(output) = File::open(format!("/proc/self/fd/{number}"))
                    && output.metadata().is_ok_and(|meta| meta.is_file())
                {
                    let _ = lines.find_in(BufReader::new(output));
                }
            }
            if lines.are_found() {
                let _ = fs::remove_file(&path);
            }
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Lines that are looked for.
#[derive(Debug, Default)]
struct Lines {
    whole: HashSet<Vec<u8>>,
    /// The rest of a line whose start was not cut off.
    end: Option<Vec<u8>>,
    /// The start of the line that the job was writing when it was killed.
    beginning: Option<Vec<u8>>,
}

impl Lines {
    /// Those of a file; nothing where that is large.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() > LARGEST {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(Self::from_bytes(&bytes)))
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        let beginning = lines.pop().filter(|last| !last.is_empty()).map(<[u8]>::to_vec);
        let end = if lines.is_empty() { None } else { Some(lines.remove(0).to_vec()) };
        Self { whole: lines.into_iter().map(<[u8]>::to_vec).collect(), end, beginning }
    }

    /// Forgets those that are in a text.
    fn find_in(&mut self, mut text: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        while !self.are_found() && text.read_until(b'\n', &mut line)? > 0 {
            let found = line.strip_suffix(b"\n").unwrap_or(&line);
            self.whole.remove(found);
            if self.end.as_ref().is_some_and(|end| found.ends_with(end)) {
                self.end = None;
            }
            if self.beginning.as_ref().is_some_and(|beginning| found.starts_with(beginning)) {
                self.beginning = None;
            }
            line.clear();
        }
        Ok(())
    }

    fn are_found(&self) -> bool {
        self.whole.is_empty() && self.end.is_none() && self.beginning.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(cut: &str, output: &str) -> bool {
        let mut lines = Lines::from_bytes(cut.as_bytes());
        lines.find_in(output.as_bytes()).unwrap();
        lines.are_found()
    }

    #[test]
    fn only_lines_of_others_are_missed() {
        assert!(is_there("", "") && is_there("line 2\nline 3\nli", "line 1\nline 2\nline 3\nline 4\n"));
        assert!(is_there("ne 1\nline 2\n", "line 1\nline 2\n") && is_there("ne", "new"));
        assert!(!is_there("line 2\nslurmstepd: error\nline 3\n", "line 1\nline 2\nline 3\nline 4\n"));
        assert!(!is_there("trailer", "line 1\n") && !is_there("header\n", "line 1\n"));
    }
}
