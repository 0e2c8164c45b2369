//! A blocking call of every kind neither fails because of a checkpoint nor waits anew after each.

use std::time::{Duration, Instant};

use ckpt_tests::{Identity, Job, program_survives};

program_survives!(in_threads, Job::program("blocking_calls", 300, &["threads"]));
program_survives!(in_processes, Job::program("blocking_calls", 300, &["processes"]));
program_survives!(large_transfers);

/// A call that waits for a second takes about that, with ten checkpoints in it, in a process that has only one thread.
fn takes_its_time(call: &str) {
    let start = Instant::now();
    Job::program("blocking_calls", 100, &["threads", call]).left_running(Identity::User);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{call} of 1 s took {took:?} under checkpoints");
}

/// Makes a test for each call, in the only thread of a process.
macro_rules! alone {
    ($($call:ident)*) => {
        mod alone {
            $(#[test] fn $call() { super::takes_its_time(stringify!($call)); })*
        }
    };
}

alone! {
    poll ppoll select pselect epoll_wait epoll_pwait epoll_event nanosleep clock_nanosleep clock_nanosleep_until usleep
    futex_wait futex_wait_until sem_timedwait cond_timedwait sigtimedwait sigwaitinfo sigwait pipe_read pipe_write
    fifo_open wait4 waitid pause sigsuspend
}
