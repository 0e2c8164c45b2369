//! The objects that a restart misses, as text.

use std::fmt;
use std::path::{Path, PathBuf};

/// How many things one line names.
const NAMED: usize = 4;

/// Something that is not there.
#[derive(Debug)]
pub struct Thing {
    /// Where the job had it.
    pub old: PathBuf,
    /// Where it was looked for.
    pub path: PathBuf,
    /// A process that needs it.
    pub pid: i32,
    /// What that does with it.
    pub use_: &'static str,
}

/// Everything that is missing, a line for each place.
#[derive(Debug)]
pub struct Listing(pub Vec<Gone>);

/// A place that is gone, with what the job needs there.
#[derive(Debug)]
pub struct Gone {
    /// The highest directory that is gone, or the file.
    pub place: PathBuf,
    /// What the job knew it as.
    pub old: PathBuf,
    /// Where that may be now.
    pub new: Option<PathBuf>,
    /// What the job needs there.
    pub things: Vec<Thing>,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gone) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            gone.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, old, new, things } = self;
        match things.as_slice() {
            [only] if only.path == *place => {
                write!(f, "{}, which process {} {}, is gone", place.display(), only.pid, only.use_)?;
            }
            things => {
                write!(f, "{} is gone, and in it: ", place.display())?;
                for (at, thing) in things.iter().take(NAMED).enumerate() {
                    let name = thing.path.strip_prefix(place).unwrap_or(&thing.path);
                    let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{} (process {} {})", name.display(), thing.pid, thing.use_)?;
                }
                if things.len() > NAMED {
                    write!(f, " and {} more", things.len() - NAMED)?;
                }
            }
        }
        let new: &dyn fmt::Display = match new {
            Some(new) => &Quoted(new),
            None => &"NEW",
        };
        write!(f, "; bring it back, or give --map {}={new} where it has moved", Quoted(old))?;
        if self.things.iter().any(|thing| thing.use_ != MAPPED) {
            write!(f, " (ckpt-launch --save-files {} keeps such files in the image)", Quoted(old))?;
        }
        Ok(())
    }
}

/// What a process does with a file that it has mapped.
pub const MAPPED: &str = "has mapped";

/// A path as one types it to a shell.
pub struct Quoted<'a>(pub &'a Path);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "_-+./,:@%".contains(c);
        if text.chars().all(plain) { f.write_str(&text) } else { write!(f, "'{}'", text.replace('\'', r"'\''")) }
    }
}
