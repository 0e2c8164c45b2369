//! Processes: what they are called, whom they descend from, how they come and go.

use ckpt_tests::{Job, program_survives};

program_survives!(identity);
program_survives!(fork_and_wait);
program_survives!(exec_self, Job::program("exec_self", 250, &[]));
program_survives!(slow_start, Job::program("slow_start", 60, &[]));
program_survives!(spawning);
program_survives!(zombies);
program_survives!(sessions_and_groups);
program_survives!(tree_of_seed_1, Job::program("random_tree", 250, &["1"]));
program_survives!(tree_of_seed_2, Job::program("random_tree", 250, &["2"]));
program_survives!(tree_of_seed_3, Job::program("random_tree", 250, &["3"]));
program_survives!(tree_of_seed_4, Job::program("random_tree", 250, &["4"]));
program_survives!(tree_of_seed_5, Job::program("random_tree", 250, &["5"]));
program_survives!(process_settings);
program_survives!(no_more_processes);
program_survives!(environment_kept);
program_survives!(unnamed_program);
program_survives!(start_times);
