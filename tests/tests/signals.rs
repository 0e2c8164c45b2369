//! Signals: handlers, masks, what is pending, timers and alternate stacks.

use ckpt_tests::program_survives;

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
