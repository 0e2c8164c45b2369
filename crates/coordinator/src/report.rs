//! Messages to the user: one line per event, on standard error.

use std::fmt;
use std::io::Write;

use crate::options::Verbosity;

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

/// Writes the message at once, each of its lines marked: standard error may be a file that others write to. One that cannot be written is no reason
/// to fail.
fn say(message: impl fmt::Display) {
    let lines: String = message.to_string().lines().map(|line| format!("ckpt: {line}\n")).collect();
    let _ = std::io::stderr().write_all(lines.as_bytes());
}
