//! Timers of timer_create(2).

use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, program_survives, survives};

program_survives!(posix_timers);
program_survives!(fast_timers);
program_survives!(posix_timer_ids, Job::program("posix_timer_ids", 200, &[]));
program_survives!(cpu_timers, Job::program("cpu_timers", 200, &[]));

survives!(ids_by_counting, Job::program("posix_timer_ids", 200, &[]).without("timer_ids"));

/// On a kernel that does not list them, timers are refused by name; a job that has none is checkpointed.
#[test]
fn refused_where_the_kernel_does_not_list_them() {
    for (program, refused) in [("posix_timer_ids", true), ("eventfds", false)] {
        let job = Job::program(program, 60, &[]).without("timer_list");
        let sandbox = job.sandbox(Identity::own());
        let mut running = job.launch(&sandbox);
        let code = running.wait(BOUND);
        let messages = running.stderr();
        assert_eq!(code, 0, "{messages}");
        assert_eq!(messages.contains("has a timer of timer_create(2), which this kernel"), refused, "{messages}");
        assert_eq!(messages.contains("ckpt: checkpoint 1:"), !refused, "{messages}");
    }
}
