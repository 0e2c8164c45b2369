//! What the processes of a restart share while it goes on: one page of counters, and the pipe of reports.
#![allow(unsafe_code, reason = "one page is shared by all processes of a restart")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ckpt_sys::raw::Errno;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;
use rustix::fs::{Mode, OFlags};
use rustix::thread::futex;

use crate::error::RestoreError;
use crate::holes::PAGE;
use crate::restorer::{Failure, OPERATION_SIZE};

/// The shared page. The restorer counts in it too: see [`crate::restorer::Region::gate`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct SharedPage {
    /// How many threads of the job have reached the gate.
    pub arrived: AtomicU32,
    /// 0 while nothing of the job runs yet; then [`COMMITTED`], then [`OPEN`].
    pub gate: AtomicU32,
    /// How many of init and stand-in have done what must be done between [`COMMITTED`] and [`OPEN`].
    pub ready: AtomicU32,
    /// How many processes have reached each [`Phase`].
    phases: [AtomicU32; Phase::COUNT],
    /// How often a process has met others in the steps in which temporary processes end, all together.
    meetings: AtomicU32,
    /// Bytes of memory that have been filled: that the restart gets on.
    pub filled: AtomicU64,
}

/// Everything is there; nothing can fail any more.
pub const COMMITTED: u32 = 1;
/// The job runs.
pub const OPEN: u32 = 2;

/// What all processes of a restart do together, one after the other.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Every process has been created, and is in its session.
    Created,
    /// Every process group has been founded.
    Founded,
    /// Every process has joined its group.
    Joined,
    /// Founders that belong to another group are there; temporary processes may go.
    Grouped,
    /// They have gone, and everybody is with the parent that it had. The dead have died.
    Settled,
}

impl Phase {
    const COUNT: usize = 5;
}

impl SharedPage {
    /// Maps the page. It is never unmapped: every process of the restart has it.
    pub fn map() -> Result<&'static Self, Errno> {
        // SAFETY: the kernel chooses where; the fresh page is zero, which is a valid SharedPage, and is never unmapped by Rust code.
        unsafe {
            let protection = nr::PROT_READ | nr::PROT_WRITE;
            let at = syscall!(nr::__NR_mmap, 0, PAGE, protection, nr::MAP_SHARED | nr::MAP_ANONYMOUS, u64::MAX, 0)?;
            Ok(&*(at as *const Self))
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }

    /// Says that this process has reached `phase`, and waits until `everybody` has.
    pub fn meet(&self, phase: Phase, everybody: u32) {
        meet_at(&self.phases[phase as usize], everybody);
    }

    /// Meets those who are still there. `passed`: how many have met then, in this step and all before.
    pub fn meet_in_steps(&self, passed: u32) {
        meet_at(&self.meetings, passed);
    }

    /// A number that changes as long as the restart gets on.
    #[must_use]
    pub fn progress(&self) -> u64 {
        let phases: u32 = self.phases.iter().map(|phase| phase.load(Ordering::Relaxed)).sum();
        let met = phases + self.meetings.load(Ordering::Relaxed);
        self.filled.load(Ordering::Relaxed) + u64::from(met) + u64::from(self.arrived.load(Ordering::Relaxed))
    }
}

fn meet_at(count: &AtomicU32, everybody: u32) {
    count.fetch_add(1, Ordering::AcqRel);
    wake(count);
    wait_for(count, everybody);
}

/// Waits until a word is at least `value`.
pub fn wait_for(word: &AtomicU32, value: u32) {
    loop {
        let now = word.load(Ordering::Acquire);
        if now >= value {
            return;
        }
        // Whatever it says, the word is looked at again.
        let _ = futex::wait(word, futex::Flags::empty(), now, None);
    }
}

/// Wakes all who wait on a word.
pub fn wake(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}

/// A message to the restart from one of the processes that it made.
#[derive(Clone, Debug)]
pub enum Message {
    /// An operation of the restorer failed.
    Operation(Failure),
    /// The restart has failed, in words.
    Failed(String),
    /// Something that the user should know; the restart goes on.
    Note(String),
    /// What the restart waits for; it is to be told at once.
    Waiting(String),
    /// A process that made sockets has had this number outside, and this one in the namespace.
    Maker(i32, i32),
    /// Nobody is left who could report.
    End,
}

const FAILED: u32 = 0x4641_494c;
const NOTE: u32 = 0x4e4f_5445;
const WAITING: u32 = 0x5741_4954;
const MAKER: u32 = 0x4d41_4b45;

/// A pipe keeps messages of up to this many bytes apart (`PIPE_BUF`).
const MAX_MESSAGE: usize = 4096;

/// Makes the pipe of reports: a reader that does not block, and a writer. It keeps messages apart.
fn report_pipe() -> Result<(OwnedFd, OwnedFd), rustix::io::Errno> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::DIRECT)?;
    rustix::fs::fcntl_setfl(&reader, rustix::fs::fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
    Ok((reader, writer))
}

/// What the processes of a restart write to, and where the `/proc` outside is; the numbers are inherited.
#[derive(Debug)]
pub struct Channels {
    /// The shared page.
    pub control: &'static SharedPage,
    /// See [`report_pipe`].
    pub reports: OwnedFd,
    /// Where the stand-in tells how the job's first process ended, and what signals came from the job.
    pub ends: OwnedFd,
    /// The `/proc` outside.
    pub processes: OwnedFd,
}

/// The other ends of the pipes in [`Channels`].
#[derive(Debug)]
pub struct Readers {
    /// Of reports.
    pub reports: OwnedFd,
    /// Of ends.
    pub ends: OwnedFd,
}

impl Channels {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// When descriptors or memory are short.
    pub fn make() -> Result<(Self, Readers), RestoreError> {
        let failed = |what| move |source: io::Error| RestoreError::Channels { what, source };
        let control = SharedPage::map().map_err(|Errno(errno)| failed("map a page")(io::Error::from_raw_os_error(errno)))?;
        let (reports_out, reports) = report_pipe().map_err(|errno| failed("make a pipe")(errno.into()))?;
        let ends = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (ends_out, ends) = ends.map_err(|errno| failed("make a pipe")(errno.into()))?;
        let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let processes = rustix::fs::open("/proc", place, Mode::empty()).map_err(|errno| failed("open /proc")(errno.into()))?;
        Ok((Self { control, reports, ends, processes }, Readers { reports: reports_out, ends: ends_out }))
    }
}

/// Sends a report. There is nobody to tell when that fails.
pub fn send(writer: impl AsFd, report: &Message) {
    let mut message = Vec::new();
    match report {
        Message::Failed(text) | Message::Note(text) | Message::Waiting(text) => {
            let kind = match report {
                Message::Note(_) => NOTE,
                Message::Waiting(_) => WAITING,
                _ => FAILED,
            };
            message.extend(kind.to_ne_bytes());
            message.extend(text.as_bytes().iter().take(MAX_MESSAGE - 4));
            if message.len() == OPERATION_SIZE {
                // Only an operation may have this length.
                message.push(b' ');
            }
        }
        Message::Maker(outside, inside) => {
            message.extend(MAKER.to_ne_bytes());
            message.extend(format!("{outside} {inside}").as_bytes());
        }
        Message::Operation(_) | Message::End => return,
    }
    let _ = rustix::io::write(writer, &message);
}

/// Reads one report; nothing when there is none now.
pub fn receive(reader: impl AsFd) -> Option<Message> {
    let mut buffer = [0; MAX_MESSAGE];
    let n = loop {
        match rustix::io::read(reader.as_fd(), &mut buffer) {
            Ok(0) => return Some(Message::End),
            Ok(n) => break n,
            Err(rustix::io::Errno::INTR) => (),
            Err(rustix::io::Errno::AGAIN) => return None,
            Err(_) => return Some(Message::End),
        }
    };
    let message = &buffer[..n];
    if let Some(failure) = Failure::parse(message) {
        return Some(Message::Operation(failure));
    }
    let kind = message.get(..4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let text = || String::from_utf8_lossy(message.get(4..).unwrap_or_default()).trim_end().to_owned();
    Some(match kind {
        Some(NOTE) => Message::Note(text()),
        Some(WAITING) => Message::Waiting(text()),
        Some(MAKER) => {
            let numbers: Vec<i32> = text().split(' ').filter_map(|word| word.parse().ok()).collect();
            Message::Maker(numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0))
        }
        Some(FAILED) => Message::Failed(text()),
        _ => Message::Failed("a process of the restart sent a report that makes no sense; please report this".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_stay_apart_and_come_out_as_they_went_in() {
        let (reader, writer) = report_pipe().unwrap();
        assert!(receive(&reader).is_none());
        for text in ["short".to_owned(), "x".repeat(OPERATION_SIZE - 4), "y".repeat(9000)] {
            send(&writer, &Message::Failed(text.clone()));
            send(&writer, &Message::Note("aside".to_owned()));
            match receive(&reader) {
                Some(Message::Failed(got)) => assert_eq!(got, text[..text.len().min(MAX_MESSAGE - 4)]),
                other => panic!("{other:?}"),
            }
            assert!(matches!(receive(&reader), Some(Message::Note(note)) if note == "aside"));
            send(&writer, &Message::Maker(54321, 7));
            assert!(matches!(receive(&reader), Some(Message::Maker(54321, 7))));
        }
        drop(writer);
        assert!(matches!(receive(&reader), Some(Message::End)));
    }
}
