//! Memory: the heap, mappings of every kind, and the program's own notion of where things are.

use ckpt_tests::{Job, program_survives};

program_survives!(heavy_malloc);
program_survives!(brk_growth);
program_survives!(mappings);
program_survives!(shared_anonymous_memory, Job::program("shared_anonymous_memory", 200, &[]));
program_survives!(mapped_deleted_files, Job::program("mapped_deleted_files", 150, &[]));
program_survives!(terabytes_reserved);
program_survives!(dlopen_after);
program_survives!(clocks);
program_survives!(droppable_memory);
program_survives!(guard_pages);
