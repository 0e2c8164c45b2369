//! What programs have told the kernel of their memory: locks, advice, keys, seals, places; and memory that grows by itself.

use ckpt_tests::{Identity, Job, program_survives};

program_survives!(locked_memory);
program_survives!(advised_memory);
program_survives!(growing_stack);
program_survives!(protection_keys);
program_survives!(numa_policy);
program_survives!(sealed_memory);
program_survives!(dirty_file_mappings);

#[test]
fn three_restarts_change_nothing() {
    for program in [
        "locked_memory",
        "advised_memory",
        "growing_stack",
        "protection_keys",
        "numa_policy",
        "sealed_memory",
        "dirty_file_mappings",
    ] {
        for identity in [Identity::own(), Identity::User] {
            Job::program(program, 300, &[]).survives_chain(identity, 3);
        }
    }
}
