//! The call that a thread is blocked in, and since when: parsers of `/proc/PID/task/TID/syscall`, `sched` and `stat`. The agent and the
//! coordinator read the files, each in its own way.

use linux_raw_sys::general as nr;

/// A system call that a thread is blocked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: u32,
    /// Stack pointer.
    pub sp: u64,
    /// Address of the next instruction.
    pub pc: u64,
}

/// Reads a `syscall` file: `NR ARG1 … ARG6 SP PC`, or `running`, or `-1 SP PC` outside of a call.
#[must_use]
pub fn parse_syscall(text: &[u8]) -> Option<Call> {
    let (number, mut rest) = number(text, 10)?;
    let mut words = [0u64; 8];
    for word in &mut words {
        let (value, after) = self::number(skip_blanks(rest), 16)?;
        *word = value;
        rest = after;
    }
    Some(Call { number: number as u32, sp: words[6], pc: words[7] })
}

/// Reads `se.exec_start` of a `sched` file, in nanoseconds: when the thread last began to wait, or the last tick of a thread that runs. It is
/// printed as milliseconds with six decimals.
#[must_use]
pub fn parse_last_ran(text: &[u8]) -> Option<u64> {
    let (ms, rest) = number(skip_blanks(after(text, b"se.exec_start")?), 10)?;
    let (fraction, _) = number(rest.strip_prefix(b".")?, 10)?;
    Some(ms.wrapping_mul(1_000_000).wrapping_add(fraction))
}

/// Reads the processor that a thread last ran on from its `stat` file: field 39, counted from behind the name, which may hold any character.
#[must_use]
pub fn parse_processor(text: &[u8]) -> Option<u64> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    // The state, field 3, is the first behind the name.
    let field = text.get(end + 2..)?.split(|&byte| byte == b' ').nth(39 - 3)?;
    number(field, 10).map(|(cpu, _)| cpu)
}

/// Whether a call may have a relative time-out that the kernel does not shorten by itself when a signal interrupts it.
#[must_use]
pub fn has_relative_timeout(number: u32) -> bool {
    matches!(
        number,
        nr::__NR_restart_syscall
            | nr::__NR_poll
            | nr::__NR_epoll_wait
            | nr::__NR_epoll_pwait
            | nr::__NR_epoll_pwait2
            | nr::__NR_nanosleep
            | nr::__NR_clock_nanosleep
            | nr::__NR_futex
            | nr::__NR_rt_sigtimedwait
            | nr::__NR_semtimedop
            | nr::__NR_io_getevents
            | nr::__NR_io_pgetevents
    )
}

/// Reads a number at the start of `text` in base 10 or 16; gives it and what follows.
#[must_use]
pub fn number(text: &[u8], base: u64) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut used = 0;
    for &byte in text {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte - b'0'),
            b'a'..=b'f' if base == 16 => u64::from(byte - b'a') + 10,
            _ => break,
        };
        value = value.wrapping_mul(base).wrapping_add(digit);
        used += 1;
    }
    if used == 0 { None } else { Some((value, text.get(used..)?)) }
}

/// Skips blanks, colons and a `0x`.
#[must_use]
pub fn skip_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b':', rest @ ..] = text {
        text = rest;
    }
    text.strip_prefix(b"0x").unwrap_or(text)
}

/// What follows `key` in `text`.
#[must_use]
pub fn after<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(key.len()).position(|window| window == key)?;
    text.get(at + key.len()..)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn reads_a_blocked_call_and_nothing_else() {
        let text = b"230 0x0 0x0 0x7ffd 0x7ffe 0x0 0x0 0x7ffc10 0x7f1b2a\n";
        assert_eq!(parse_syscall(text), Some(Call { number: 230, sp: 0x7f_fc10, pc: 0x7f_1b2a }));
        assert_eq!(parse_syscall(b"running\n"), None);
        assert_eq!(parse_syscall(b"-1 0x7ffc10 0x7f1b2a\n"), None);
    }

    #[test]
    fn reads_the_processor_behind_any_name() {
        let mut text = b"12 (a) b) S".to_vec();
        for field in 4..=52 {
            text.extend(std::format!(" {field}").bytes());
        }
        assert_eq!(parse_processor(&text), Some(39));
        assert_eq!(parse_processor(b"12 (a"), None);
    }

    #[test]
    fn reads_when_a_thread_last_ran() {
        let text = b"head (2089, #threads: 1)\n----\nse.exec_start                                :        954296.754705\n";
        assert_eq!(parse_last_ran(text), Some(954_296_754_705));
    }
}
