//! What processes share by a name or by memory: POSIX shared memory and semaphores, locks in shared memory.

use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, program_survives};

program_survives!(memfd_modes);
program_survives!(posix_shared_memory);
program_survives!(posix_semaphores, Job::program("posix_semaphores", 120, &[]));
program_survives!(process_shared_locks, Job::program("process_shared_locks", 120, &[]));
program_survives!(priority_inheritance, Job::program("priority_inheritance", 120, &[]));

/// On a machine that was started anew `/dev/shm` is empty.
#[test]
fn objects_in_memory_are_made_anew() {
    for (name, rounds) in [("posix_shared_memory", 200), ("posix_semaphores", 80)] {
        for identity in [Identity::Root, Identity::User] {
            identity.run(|identity| {
                let tag = format!("-{identity:?}-{}", std::process::id());
                let job = Job::program(name, rounds, &[&tag]);
                let sandbox = job.sandbox(identity);
                let images = job.killed(&sandbox);
                let ours = |file: &std::fs::DirEntry| file.file_name().to_string_lossy().ends_with(&tag);
                let files: Vec<_> = std::fs::read_dir("/dev/shm").expect("/dev/shm").flatten().filter(ours).collect();
                assert!(!files.is_empty());
                for file in &files {
                    std::fs::remove_file(file.path()).expect("a file of the job's");
                }
                let code = job.restart(&sandbox, &images, 1).wait(BOUND);
                let output = job.output(&sandbox, code, 2);
                assert_eq!(code, 0, "{}", output.told());
            });
        }
    }
}
