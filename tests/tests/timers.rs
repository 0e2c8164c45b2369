//! Timers of timer_create(2).

use ckpt_tests::{Identity, Job, program_survives, survives};

program_survives!(posix_timers);
program_survives!(posix_timer_ids, "posix_timer_ids", 200);
program_survives!(cpu_timers, "cpu_timers", 200);

survives!(ids_by_counting, Job::program("posix_timer_ids", 200, &[]).without("timer_ids"));

/// Restarted three times over.
#[test]
fn over_and_over() {
    for (program, rounds) in [("posix_timers", 400), ("posix_timer_ids", 300), ("cpu_timers", 300)] {
        Job::program(program, rounds, &[]).survives_chain(Identity::own(), 3);
    }
}
