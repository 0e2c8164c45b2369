//! What the kernel does on a signal (sigaction(2)).

use ckpt_sys::signal_set::SignalSet;
use ckpt_sys::syscall;
use linux_raw_sys::general as nr;

use crate::state::CONFIG;

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
pub type Action = [u64; 4];

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;
/// The handler gets a `siginfo_t`.
pub const SA_SIGINFO: u64 = nr::SA_SIGINFO as u64;
/// The signal is not blocked while its handler runs.
pub const SA_NODEFER: u64 = nr::SA_NODEFER as u64;
/// Most calls that the handler interrupts are made again.
pub const SA_RESTART: u64 = nr::SA_RESTART as u64;

/// Signals that are ignored by default: CHLD, CONT, URG, WINCH.
pub const IGNORED_BY_DEFAULT: SignalSet =
    SignalSet::of_all(&[nr::SIGCHLD as i32, nr::SIGCONT as i32, nr::SIGURG as i32, nr::SIGWINCH as i32]);

/// The action of a signal; `None` for a number that no signal has.
pub fn of(signal: i32) -> Option<Action> {
    let mut action = Action::default();
    // SAFETY: with no new action, the old one is written to `action`, a kernel sigaction.
    let asked = unsafe { syscall!(nr::__NR_rt_sigaction, signal, 0, action.as_mut_ptr(), size_of::<SignalSet>()) };
    asked.is_ok().then_some(action)
}

/// Whether a signal with this handler, as the kernel knows it, is ignored.
pub fn is_ignored(signal: i32, handler: u64) -> bool {
    handler == IGNORE || handler == DEFAULT && IGNORED_BY_DEFAULT.contains(signal)
}

/// Whether a handler, as the kernel knows it, is the shield's.
pub fn is_shield(handler: u64) -> bool {
    handler > IGNORE && handler == CONFIG.get().shield
}

/// Whether a handler, as the kernel knows it, is the program's own. The shield drops the signal, or ends the process.
fn is_programs(handler: u64) -> bool {
    handler > IGNORE && !is_shield(handler)
}

/// Whether a signal has a handler of the program's.
pub fn has_handler(signal: i32) -> bool {
    of(signal).is_some_and(|[handler, ..]| is_programs(handler))
}

/// Whether a signal ends a call: a call that every handler ends, or one that only a handler without [`SA_RESTART`] does.
pub fn ends_a_call(signal: i32, by_any_handler: bool) -> bool {
    match of(signal).unwrap_or_default() {
        [DEFAULT, ..] => by_any_handler && !IGNORED_BY_DEFAULT.contains(signal),
        [handler, flags, ..] => is_programs(handler) && (by_any_handler || flags & SA_RESTART == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_signals_are_ignored_by_default() {
        assert!(is_ignored(nr::SIGCHLD as i32, DEFAULT) && !is_ignored(nr::SIGTERM as i32, DEFAULT));
        assert!(is_ignored(nr::SIGTERM as i32, IGNORE) && !is_ignored(nr::SIGCHLD as i32, 0x1000));
        assert!(of(0).is_none() && of(65).is_none() && of(nr::SIGKILL as i32) == Some([0; 4]));
    }
}
