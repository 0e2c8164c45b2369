//! What processes and threads have told the kernel of themselves; and what is refused by name.

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, not_run, program, program_survives};

program_survives!(schedulers);
program_survives!(capabilities);
program_survives!(personality);
program_survives!(removed_directories);
program_survives!(exit_signals);

#[test]
fn three_restarts_change_nothing() {
    for program in ["schedulers", "capabilities", "personality", "removed_directories", "exit_signals"] {
        for identity in [Identity::own(), Identity::User] {
            Job::program(program, 300, &[]).survives_chain(identity, 3);
        }
    }
}

/// A job with such a property runs to its end; each checkpoint fails with a line that says what it is.
fn is_refused(property: &str, what: &str) {
    let job = Job::new([program("refused_properties").as_os_str(), property.as_ref()]);
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let code = running.wait(BOUND);
    let messages = running.stderr();
    if code == 77 {
        return not_run(&format!("this machine does not allow {property}"));
    }
    assert_eq!((code, sandbox.read_text("out").as_str()), (0, "untouched\n"), "{messages}");
    let named = messages.lines().any(|line| line.starts_with("ckpt: no checkpoint") && line.contains(what));
    assert!(named, "no line says {what}:\n{messages}");
    // Where it was not yet so, there may have been a checkpoint.
    assert!(sandbox.images(IMAGES).len() < 3, "there are images\n{messages}");
}

/// Makes a test for each property: what the message says.
macro_rules! refused {
    ($($property:ident: $what:literal)*) => {
        mod refused {
            $(#[test] fn $property() { super::is_refused(stringify!($property), $what); })*
        }
    };
}

refused! {
    seccomp: "has installed a seccomp filter"
    strict_seccomp: "strict seccomp mode"
    user_namespace: "has entered a namespace of users of its own"
    host_name: "has entered a namespace of users of its own"
    shared_descriptors: "shares its table of descriptors with process"
    shared_directories: "shares its working directory and umask with process"
    own_descriptors: "has a thread with descriptors of its own"
    own_directories: "has a thread with a working directory, root and umask of its own"
    secret_memory: "has secret memory of memfd_secret(2)"
    vfork: "waits for a child of vfork"
}
