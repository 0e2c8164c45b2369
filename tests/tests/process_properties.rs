//! What processes and threads have told the kernel of themselves; and what is refused by name.

use ckpt_tests::{Job, program_survives, refused};

program_survives!(schedulers);
program_survives!(capabilities);
program_survives!(personality);
program_survives!(removed_directories);
program_survives!(exit_signals);

refused! { "refused_properties", 2:
    seccomp: "has installed a seccomp filter"
    strict_seccomp: "strict seccomp mode"
    user_namespace: "has entered a namespace of users of its own"
    host_name: "has entered a namespace of users of its own"
    shared_descriptors: "shares its table of descriptors with process"
    shared_directories: "shares its working directory and umask with process"
    own_descriptors: "has a thread with descriptors of its own"
    own_directories: "has a thread with a working directory, root and umask of its own"
    secret_memory: "has secret memory of memfd_secret(2)"
    vfork: "as a child of vfork does until it calls exec"
}

/// One checkpoint, and none after it, for which somebody would listen.
#[test]
fn a_process_that_answers_too_late_goes_on() {
    let job = Job::new([ckpt_tests::program("refused_properties").as_os_str(), "traced".as_ref()]).interval("1000");
    job.is_refused("end the debugger that holds it", 0);
}
