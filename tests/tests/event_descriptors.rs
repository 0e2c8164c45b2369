//! Event descriptors: epoll, eventfd, timerfd, signalfd, inotify, pidfd; and those that are refused by name.

use ckpt_tests::job::IMAGES;
use ckpt_tests::sandbox::BOUND;
use ckpt_tests::{Identity, Job, not_run, program, program_survives};

program_survives!(epoll);
program_survives!(eventfds);
program_survives!(timerfds);
program_survives!(signalfds);
program_survives!(inotify);
program_survives!(pidfds);

/// A job with such an object runs to its end; each checkpoint fails with a line that says what it is.
fn is_refused(object: &str, what: &str) {
    let job = Job::new([program("refused_objects").as_os_str(), object.as_ref()]);
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let code = running.wait(BOUND);
    let messages = running.stderr();
    if code == 77 {
        return not_run(&format!("this machine does not allow {what}"));
    }
    assert_eq!((code, sandbox.read_text("out").as_str()), (0, "untouched\n"), "{messages}");
    let named = messages.lines().any(|line| line.starts_with("ckpt: no checkpoint") && line.contains(&format!("has {what}")));
    assert!(named, "no line names {what}:\n{messages}");
    assert!(sandbox.images(IMAGES).is_empty(), "there is an image");
}

/// Makes a test for each object: what it is called in the message.
macro_rules! refused {
    ($($object:ident: $what:literal)*) => {
        mod refused {
            $(#[test] fn $object() { super::is_refused(stringify!($object), $what); })*
        }
    };
}

refused! {
    fanotify: "a fanotify group"
    userfaultfd: "a userfaultfd"
    io_uring: "an io_uring instance"
    perf_event: "a performance event"
    mq_notify: "a POSIX message queue with a notification"
    hugetlb: "huge pages of hugetlbfs"
    hugetlb_shared: "huge pages of hugetlbfs"
    hugetlb_memfd: "huge pages of hugetlbfs"
    hugetlb_open: "huge pages of hugetlbfs"
    hugetlb_segment: "huge pages of hugetlbfs"
    pidfd: "a pidfd of a process outside of the job"
    inotify: "an inotify watch of a file that cannot be found"
}
