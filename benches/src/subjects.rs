//! The programs that are measured: small C programs, compiled for each run, because glibc's paths matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use xtask::processes::run_well;
use xtask::tools::root;

/// How long a compilation may take.
const COMPILE_LIMIT: Duration = Duration::from_secs(60);
/// How often a subject's notes are read.
const LOOK: Duration = Duration::from_millis(1);

/// Compiles `benches/subjects/NAME.c` into `dir`.
pub fn compile(name: &str, dir: &Path) -> Result<PathBuf> {
    let program = dir.join(name);
    let source = root().join("benches/subjects").join(name).with_extension("c");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-pthread", "-o"]).arg(&program).arg(source);
    run_well(&mut compile, COMPILE_LIMIT)?;
    Ok(program)
}

/// The time as `memory.c` notes it: nanoseconds since the epoch.
#[must_use]
pub fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// A line of a memory subject's notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When it was written, in nanoseconds since the epoch.
    pub time: u128,
    /// How long the ticker had not run, in nanoseconds; 0 for its first line.
    pub gap: u128,
}

/// The notes of a memory subject, as far as they have been written.
pub fn notes(path: &Path) -> Result<Vec<Note>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("failed to read {}", path.display())),
    };
    text.lines().map(|line| parse(line).with_context(|| format!("unexpected note {line:?}"))).collect()
}

fn parse(line: &str) -> Option<Note> {
    let mut words = line.split(' ').skip(1);
    Some(Note { time: words.next()?.parse().ok()?, gap: words.next()?.parse().ok()? })
}

/// Waits for a note later than `after`, and returns the first.
pub fn next_note(path: &Path, after: u128, limit: Duration) -> Result<Note> {
    let end = Instant::now() + limit;
    loop {
        if let Some(note) = notes(path)?.into_iter().find(|note| note.time > after) {
            return Ok(note);
        }
        if Instant::now() > end {
            bail!("the subject has not run within {} s", limit.as_secs());
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back() {
        assert_eq!(parse("gap 1700000000000000000 31000000"), Some(Note { time: 1_700_000_000_000_000_000, gap: 31_000_000 }));
        assert_eq!(parse("gap 17"), None);
        assert_eq!(parse(""), None);
    }
}
