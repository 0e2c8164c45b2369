//! Runtimes of other languages than C: they make threads, handle signals and allocate memory by system calls of their own.

use ckpt_tests::artifacts::{compile, go_program};
use ckpt_tests::{Job, program_survives, survives};

// With cgo: its threads are made by glibc, and its handlers set by raw calls.
program_survives!(goroutines, Job::new([go_program("goroutines").as_os_str(), "200".as_ref()]));

// Its runtime refuses to start behind another library, and reserves terabytes of address space.
program_survives!(
    address_sanitizer,
    Job::new([compile("heavy_malloc", &["-O1", "-pthread", "-fsanitize=address"]).as_os_str(), "100".as_ref()])
);

// The emulator maps the agent's library once more for its guest, and sets handlers by raw calls.
survives!(
    emulated_guest,
    Job::new(["qemu-x86_64", "/bin/bash", "-c", "for i in {1..25}; do echo $i; /bin/sleep 0.1; done; echo over"])
);
