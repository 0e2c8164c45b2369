//! Signals: handlers, masks, what is pending, timers and alternate stacks.

use std::time::Duration;

use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, program_survives, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

program_survives!(same_signal);
program_survives!(signal_handlers);
program_survives!(pending_signals);
program_survives!(interval_timers);
program_survives!(alternate_stack);
program_survives!(small_alternate_stack);
program_survives!(signal_thread);
program_survives!(blocking_threads);
program_survives!(library_threads);
program_survives!(stopped_processes);
program_survives!(raw_handlers);
program_survives!(ignored_signals);
program_survives!(first_calls);
program_survives!(one_shot_timers);
program_survives!(own_signals, Job::program("own_signals", 150, &[]));

/// Signals that a program ignores come from outside while it is frozen and let go, ten times a second.
#[test]
fn ignored_signals_from_outside() {
    let job = Job::program("ignored_signals", 300, &[]).interval("0.1");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let code = running.until("the end of the job", BOUND, |running| {
        let program = tree::child(running.pid());
        for signal in [Signal::SIGURG, Signal::SIGWINCH, Signal::SIGPIPE].into_iter().cycle().take(60) {
            // Before the program says so, a SIGPIPE would end it.
            let ignores = signal != Signal::SIGPIPE || program.is_some_and(ignores_pipes);
            if let Some(pid) = program.filter(|_| ignores) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        running.ended()
    });
    let output = job.output(&sandbox, code, 1);
    assert_eq!((code, &output.stdout[..]), (0, &b"nobody was interrupted\n"[..]), "{}", output.told());
}

/// Whether a process ignores SIGPIPE.
fn ignores_pipes(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & 1 << (Signal::SIGPIPE as i32 - 1) != 0)
}
