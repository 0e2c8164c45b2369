//! Runtimes of other languages than C: they make threads, handle signals and allocate memory by system calls of their own.

use ckpt_tests::artifacts::go_program;
use ckpt_tests::{Job, program_survives};

// With cgo: its threads are made by glibc, and its handlers set by raw calls.
program_survives!(goroutines, Job::new([go_program("goroutines").as_os_str(), "200".as_ref()]));
