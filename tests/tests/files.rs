//! Files: descriptions at their offsets, shared and not, deleted or not, and bytes in flight in pipes.

use ckpt_tests::program_survives;

program_survives!(file_offsets);
program_survives!(shared_descriptions);
program_survives!(deleted_files);
program_survives!(replaced_files);
program_survives!(pipes);
