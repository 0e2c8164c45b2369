//! What processes and threads have told the kernel of themselves; and what is refused by name.

use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, not_run, program_survives, refused};

program_survives!(schedulers);
program_survives!(capabilities);
program_survives!(personality);
program_survives!(memory_barriers);
program_survives!(removed_directories);
program_survives!(exit_signals);

/// Only root may have this set, and has the capability for it not everywhere.
#[test]
fn io_flusher() {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    if effective.is_none_or(|effective| effective & 1 << CAP_SYS_RESOURCE == 0) {
        return not_run("needs CAP_SYS_RESOURCE");
    }
    let job = Job::program("io_flusher", 300, &[]);
    job.survives(Identity::own(), 2);
    job.survives_chain(Identity::own(), 3);
    job.left_running(Identity::own());
}

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
    traced: "is traced by process"
}

/// One checkpoint, and none after it, for which somebody would listen.
#[test]
fn a_process_that_answers_too_late_goes_on() {
    let program = ckpt_tests::program("refused_properties");
    let job = Job::new([program.as_os_str(), "held".as_ref()]).interval("1000");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    running.until("the pids", BOUND, |_| sandbox.join("pids").exists().then_some(()));
    let mut debugger = sandbox.own_command(&program);
    debugger.arg("hold");
    let (code, _, said) = sandbox.finish(debugger);
    if code == 77 {
        return not_run("this machine does not allow what would be refused: a debugger");
    }
    assert_eq!(code, 0, "{said}");
    assert_eq!((running.wait(BOUND), sandbox.read_text("out").as_str()), (0, "untouched\n"), "{}", running.stderr());
    assert!(running.stderr().contains("end the debugger that holds it"), "{}", running.stderr());
}
