//! Threads: locks, storage, stacks and registers are as they were, and new threads can be made.

use ckpt_tests::{Job, program_survives};

program_survives!(mutex_and_condvar);
program_survives!(barrier_and_tls);
program_survives!(thread_create_and_join);
program_survives!(robust_mutexes);
program_survives!(restartable_sequences);
program_survives!(own_restartable_sequences);
program_survives!(leader_gone);
program_survives!(deep_stack, Job::program("deep_stack", 120, &[]));
program_survives!(avx2_registers);
program_survives!(cpuid_faulting, Job::program("cpuid_faulting", 300, &[]).needs(processor_has("cpuid_fault"), "CPUID faulting"));
program_survives!(tile_permission, Job::program("tile_permission", 300, &[]).needs(processor_has("amx_tile"), "AMX"));
program_survives!(
    avx512_registers,
    Job::program("avx512_registers", 150, &[]).needs(std::arch::is_x86_feature_detected!("avx512f"), "a processor with AVX-512")
);

/// Whether the kernel lists something among what the processor can do and it makes use of.
fn processor_has(flag: &str) -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.split_whitespace().any(|word| word == flag))
}
