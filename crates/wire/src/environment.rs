//! The variables that a process of the job finds in its environment, and the names and numbers that both sides know without them.

use ckpt_sys::signal_set::SignalSet;

/// Variable with the job's id.
pub const ENV_JOB: &str = "CKPT_JOB_ID";
/// Variable with the job's [`crate::Secret`], in hexadecimal digits. Its presence makes the agent active.
pub const ENV_SECRET: &str = "CKPT_SECRET";
/// Variable with the directory of the images.
pub const ENV_DIR: &str = "CKPT_DIR";
/// Variable with the number of the checkpoint signal; [`DEFAULT_SIGNAL`] where it is missing.
pub const ENV_SIGNAL: &str = "CKPT_SIGNAL";
/// Variable with the path of the agent's library.
pub const ENV_AGENT: &str = "CKPT_AGENT";
/// Variable with the signals that processes of the job are shielded from: the launcher's pid, a colon, and numbers of signals, as in
/// `4711:10,12,15`.
pub const ENV_SHIELD: &str = "CKPT_SHIELD";
/// Reads the value of [`ENV_SIGNAL`].
#[must_use]
pub fn parse_signal(text: &[u8]) -> Option<i32> {
    parse_number(text).filter(|value| (1..=64).contains(value))
}

/// Reads the value of [`ENV_SHIELD`]: the launcher's pid and the signals. Numbers that no signal has are left out.
#[must_use]
pub fn parse_shield(text: &[u8]) -> Option<(i32, SignalSet)> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let launcher = parse_number(text.get(..colon)?)?;
    let signals = text.get(colon + 1..)?.split(|&byte| byte == b',');
    Some((launcher, signals.filter_map(parse_signal).collect()))
}

fn parse_number(text: &[u8]) -> Option<i32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Variable with the path of a file that holds the variables of the batch job that the job runs in now.
pub const ENV_FILE: &str = "CKPT_ENV_FILE";

/// What the name of a file ends in that lies beside [`ENV_FILE`], which has this in the place of its own ending: when the processes that a restart has
/// made are to have started (`PID NOW FORMER`, a line each).
pub const STARTED: &str = ".started";
/// Variable that lets programs use io_uring by `syscall`. Without it they are told that the kernel has none.
pub const ENV_IO_URING: &str = "CKPT_IO_URING";

/// The checkpoint signal: `SIGRTMAX - 2`. Real-time signals near the top are the least used of all.
pub const DEFAULT_SIGNAL: i32 = 62;

/// The signals 63 and 64. A program that starts with [`SHIELD_MARK`] alone of them blocked has its shielded signals blocked by the agent of
/// the program before it, not by that program. The signals 32 and 33 cannot serve: no program can block them, and glibc does not pass
/// them on to a program that it spawns.
pub const SHIELD_MARKS: SignalSet = SignalSet::of_all(&[63, 64]);
/// The signal 63: see [`SHIELD_MARKS`].
pub const SHIELD_MARK: SignalSet = SignalSet::of(63);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shield_names_the_launcher_and_signals() {
        assert_eq!(parse_shield(b"4711:10,12,15"), Some((4711, SignalSet::of_all(&[10, 12, 15]))));
        assert_eq!(parse_shield(b"1:"), Some((1, SignalSet::EMPTY)));
        assert_eq!(parse_shield(b"1:0,65,x,9"), Some((1, SignalSet::of(9))));
        assert!(parse_shield(b"10,12").is_none() && parse_shield(b"x:1").is_none() && parse_shield(b"99999999999:1").is_none());
    }

    #[test]
    fn a_signal_has_a_number() {
        assert_eq!(
            (parse_signal(b"62"), parse_signal(b"65"), parse_signal(b""), parse_signal(b"6x")),
            (Some(62), None, None, None)
        );
    }
}
