//! Messages to the user: one line per event, on standard error.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// One line per event.
    Normal,
    /// More.
    Verbose,
}

/// Where messages go, and which.
#[derive(Clone, Copy, Debug)]
pub struct Reporter(pub Verbosity);

impl Reporter {
    /// An event that goes as planned.
    pub fn event(self, message: impl fmt::Display) {
        if self.0 >= Verbosity::Normal {
            say(message);
        }
    }

    /// A detail.
    pub fn detail(self, message: impl fmt::Display) {
        if self.0 >= Verbosity::Verbose {
            say(message);
        }
    }

    /// Something that went wrong.
    pub fn error(self, message: impl fmt::Display) {
        say(message);
    }
}

/// What this process has said so far, for as long as it may have to say it again.
static SAID: Mutex<Option<String>> = Mutex::new(Some(String::new()));

/// A text as a terminal shows it harmlessly: a name from an image, or another user's, may have control characters.
#[must_use]
pub fn harmless(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Writes the message at once, each of its lines marked: standard error may be a file that others write to. One that cannot be written is no reason
/// to fail.
fn say(message: impl fmt::Display) {
    let lines: String = message.to_string().lines().map(|line| format!("ckpt: {}\n", harmless(line))).collect();
    let _ = std::io::stderr().write_all(lines.as_bytes());
    if let Some(said) = remembered().as_mut() {
        said.push_str(&lines);
    }
}

fn remembered() -> MutexGuard<'static, Option<String>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines that this process has written, as they stand on standard error; nothing after [`forget`].
#[must_use]
pub fn said() -> String {
    remembered().clone().unwrap_or_default()
}

/// Writes [them](said) again: they have been cut off from the file that standard error is.
pub fn say_again() {
    let _ = std::io::stderr().write_all(said().as_bytes());
}

/// Lines need not be remembered from now on.
pub fn forget() {
    *remembered() = None;
}

/// A duration for people: `31 ms`, `1.4 s`.
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(harmless("a\u{1b}[31mb\tc é"), "a\\u{1b}[31mb\\tc é");
    }
}
