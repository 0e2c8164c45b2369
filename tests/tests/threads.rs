//! Threads: locks, storage, stacks and registers are as they were, and new threads can be made.

use ckpt_tests::{Job, not_run, program_survives};

program_survives!(mutex_and_condvar);
program_survives!(barrier_and_tls);
program_survives!(thread_create_and_join);
program_survives!(robust_mutexes);
program_survives!(restartable_sequences);
program_survives!(leader_gone);
program_survives!(deep_stack, "deep_stack", 120);
program_survives!(avx2_registers);

mod avx512_registers {
    use super::*;
    use ckpt_tests::{Identity, job::ROUNDS};

    /// Runs a test where the processor has what it is about.
    fn with_avx512(test: impl FnOnce(&Job)) {
        if std::arch::is_x86_feature_detected!("avx512f") {
            test(&Job::program("avx512_registers", ROUNDS / 2, &[]));
        } else {
            not_run("needs a processor with AVX-512");
        }
    }

    #[test]
    fn as_root() {
        Identity::Root.run(|identity| with_avx512(|job| job.survives(identity, 2)));
    }

    #[test]
    fn as_user() {
        Identity::User.run(|identity| with_avx512(|job| job.survives(identity, 2)));
    }

    #[test]
    fn left_running() {
        with_avx512(|job| job.left_running(Identity::own()));
    }
}
