//! Observing timers: `/proc/PID/timers`.

use std::io::ErrorKind;

use crate::HostPid;
use crate::observe::{ObserveError, parse_error, read_proc};

/// A timer as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenTimer {
    /// Its id.
    pub id: i32,
    /// Its clock.
    pub clock: i32,
    /// The signal that it sends.
    pub signal: i32,
    /// What comes with the signal.
    pub value: u64,
    /// Whom it tells.
    pub target: Target,
}

/// Whom a timer tells, as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nobody.
    Nobody,
    /// The process.
    Process,
    /// A thread, which may have ended.
    Thread(HostPid),
}

/// The timers of a process; nothing where this kernel does not show them.
pub fn observe(pid: HostPid) -> Result<Option<Vec<SeenTimer>>, ObserveError> {
    let text = match read_proc(pid, "timers") {
        Err(ObserveError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    parse(&text).map(Some).map_err(|line| parse_error(pid, "timers", &line))
}

/// Four lines for each: `ID: 1`, `signal: 60/00007fff86e452a8`, `notify: signal/pid.2634`, `ClockID: 0`.
fn parse(text: &[u8]) -> Result<Vec<SeenTimer>, Vec<u8>> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(4).map(|lines| parse_timer(lines).ok_or_else(|| lines.join(" ").into_bytes())).collect()
}

fn parse_timer(lines: &[&str]) -> Option<SeenTimer> {
    let field = |at: usize, key: &str| lines.get(at)?.strip_prefix(key).map(str::trim);
    let (signal, value) = field(1, "signal:")?.split_once('/')?;
    let (how, whom) = field(2, "notify:")?.split_once('/')?;
    let target = match (how, whom.split_once('.')?) {
        ("none", _) => Target::Nobody,
        (_, ("tid", tid)) => Target::Thread(HostPid(tid.parse().ok()?)),
        _ => Target::Process,
    };
    Some(SeenTimer {
        id: field(0, "ID:")?.parse().ok()?,
        clock: field(3, "ClockID:")?.parse().ok()?,
        signal: signal.parse().ok()?,
        value: u64::from_str_radix(value, 16).ok()?,
        target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_timers_of_every_notification() {
        let text = b"ID: 7\nsignal: 37/1122334455667788\nnotify: signal/pid.23668\nClockID: 1\n\
                     ID: 0\nsignal: 32/00007fff00000000\nnotify: signal/tid.99\nClockID: -2\n\
                     ID: 2\nsignal: 0/0000000000000000\nnotify: none/pid.5\nClockID: 0\n";
        let timers = parse(text).unwrap();
        let seen: Vec<_> = timers.iter().map(|timer| (timer.id, timer.clock, timer.signal, timer.target)).collect();
        let wanted = [(7, 1, 37, Target::Process), (0, -2, 32, Target::Thread(HostPid(99))), (2, 0, 0, Target::Nobody)];
        assert_eq!(seen, wanted);
        assert_eq!(timers[0].value, 0x1122_3344_5566_7788);
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"ID: 7\nsignal: 37\n").is_err());
    }
}
