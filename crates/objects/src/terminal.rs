//! Terminals: pseudo-terminals whose master is in the job, and the terminal that the job was launched on.
//!
//! A pseudo-terminal is made anew with its number, settings, window, sessions and all bytes in flight, in a devpts file system of the
//! restart's own, where every number is free. The launcher's terminal is not the job's: the restart's own takes its place.
//!
//! ```text
//! master  -- what is written --> [ flip buffer ] --> line discipline --> [ 4095 bytes: lines, the unfinished one ] --> slave
//! master  <-- [ flip buffer, read buffer ] <-------- output processing <---------------------- what is written -- slave
//! ```
//!
//! Not kept: a character after which a literal one is awaited (`VLNEXT`), the columns that erasing a tab goes back by, and input that
//! was written before anybody had opened the slave for the first time.

use ckpt_sys::terminal::Termios;
use serde::{Deserialize, Serialize};

use crate::{FilePath, NsPid};

mod in_flight;
mod observe;
mod own;
pub mod pseudo;
mod rebuild;

pub use observe::{Group, Observer, TerminalError, is_terminal};
pub use own::{OwnTerminal, standard};
pub use rebuild::{give_up, hang_up, open_slave, prepare, seal, set_foreground, settle, take};

/// Every terminal of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminals {
    /// Pseudo-terminals that the job has the master of, or that have lost it.
    pub ptys: Vec<PtyState>,
    /// The launcher's terminal, if the job has anything to do with it.
    pub outside: Option<OutsideTerminal>,
}

/// What an open file description is of a terminal.
#[derive(Debug)]
pub enum End {
    /// The master of a pseudo-terminal.
    Master {
        /// Index into [`Terminals::ptys`].
        pty: u32,
        /// The path that it was opened by.
        path: FilePath,
    },
    /// The slave of a pseudo-terminal.
    Slave {
        /// Index into [`Terminals::ptys`].
        pty: u32,
        /// It was hung up.
        hung_up: bool,
        /// It was opened as `/dev/tty`.
        by_dev_tty: bool,
    },
    /// The terminal that the job was launched on.
    Outside {
        /// The path that it was opened by.
        path: FilePath,
    },
}

/// A pseudo-terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtyState {
    /// Its number, `N` in `/dev/pts/N`; nothing: one that was hung up, and that no path tells the number of.
    pub number: Option<u32>,
    /// What there is while its master is open; nothing: the master was closed, and the slave hung up for good.
    pub open: Option<OpenPty>,
}

/// A pseudo-terminal whose master is open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPty {
    /// The slave's settings.
    pub settings: TerminalSettings,
    /// The window's size: rows, columns, and in pixels width and height.
    pub window: [u16; 4],
    /// Packet mode (`TIOCPKT`).
    pub packet: bool,
    /// `TIOCPKT_*` that wait to be read by the master.
    pub packet_status: u8,
    /// The slave may not be opened (`TIOCSPTLCK`).
    pub locked: bool,
    /// Exclusive mode (`TIOCEXCL`) of the master, and of the slave.
    pub exclusive: [bool; 2],
    /// Whether the slave was opened.
    pub slave: Slave,
    /// The session that it is the controlling terminal of.
    pub session: Option<NsPid>,
    /// The foreground process group of that session.
    pub foreground: Option<NsPid>,
    /// The slave's node: owner, group, permission bits; where some process has it open.
    pub node: Option<(u32, u32, u32)>,
    /// Why output stands still.
    pub stopped: Option<Stopped>,
    /// Bytes in flight.
    pub in_flight: InFlight,
}

/// Whether a slave was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slave {
    /// Never yet: the master waits for it.
    #[default]
    Never,
    /// It is.
    Open,
    /// All have closed it: the master reads an error.
    Closed,
}

/// Why the output of a terminal stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stopped {
    /// The stop character was typed (`IXON`).
    Character,
    /// By tcflow(3).
    Call,
}

/// Bytes on their way through a pseudo-terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Finished lines that the slave has not read (canonical mode).
    pub lines: Vec<Line>,
    /// What the slave can read but for lines: everything in raw mode, the unfinished line in canonical mode.
    pub rest: Vec<u8>,
    /// Input that the line discipline has had no room for: it was neither translated nor echoed.
    pub unprocessed: Vec<u8>,
    /// Output that the master has not read.
    pub output: Vec<u8>,
}

/// A finished line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its bytes, with the character that ended it unless that was the end-of-file character.
    pub bytes: Vec<u8>,
    /// It was ended by the end-of-file character.
    pub end_of_file: bool,
}

/// The terminal that the job was launched on. A restart has its own in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideTerminal {
    /// The settings at the checkpoint, where they were others than when the launcher took the terminal over.
    pub settings: Option<TerminalSettings>,
    /// Processes of the launcher's session have it as their controlling terminal.
    pub controlling: bool,
    /// The job's process group in the foreground, if it was one of the job's own.
    pub foreground: Option<NsPid>,
}

/// Settings of a terminal (`struct termios2`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSettings {
    /// Input, output, control and local modes.
    pub modes: [u32; 4],
    /// Control characters, by `V*`.
    pub characters: [u8; 19],
    /// Input and output speed.
    pub speeds: [u32; 2],
}

impl From<Termios> for TerminalSettings {
    fn from(termios: Termios) -> Self {
        Self {
            modes: [termios.input, termios.output, termios.control, termios.local],
            characters: termios.characters,
            speeds: [termios.input_speed, termios.output_speed],
        }
    }
}

impl From<TerminalSettings> for Termios {
    fn from(settings: TerminalSettings) -> Self {
        let [input, output, control, local] = settings.modes;
        let [input_speed, output_speed] = settings.speeds;
        Self { input, output, control, local, line: 0, characters: settings.characters, input_speed, output_speed }
    }
}
