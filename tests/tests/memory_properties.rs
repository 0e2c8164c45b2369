//! What programs have told the kernel of their memory: locks, advice, keys, seals, places; and memory that grows by itself.

use ckpt_tests::program_survives;

program_survives!(locked_memory);
program_survives!(advised_memory);
program_survives!(growing_stack);
program_survives!(protection_keys);
program_survives!(numa_policy);
program_survives!(sealed_memory);
program_survives!(dirty_file_mappings);
