//! Event descriptors: epoll, eventfd, timerfd, signalfd, inotify, pidfd; and those that are refused by name.

use ckpt_tests::{Identity, Job, Sandbox, program_survives, refused, survives, tool};

program_survives!(epoll);
program_survives!(eventfds);
program_survives!(timerfds);
program_survives!(signalfds);
program_survives!(inotify);
program_survives!(pidfds);
program_survives!(io_uring_hidden);

/// A job of [`io_uring_hidden`](../programs/io_uring_hidden.c).
fn without_io_uring(arguments: &[&str], option: &str) -> Job {
    Job::program("io_uring_hidden", 250, arguments).option(option)
}

survives!(io_uring_is_forbidden, without_io_uring(&["raw"], "--no-io-uring"));

#[test]
fn io_uring_is_allowed() {
    let sandbox = Sandbox::new(Identity::own());
    let ask = "import ctypes; libc = ctypes.CDLL(None); print(libc.syscall(425, 2, ctypes.create_string_buffer(120)) >= 0)";
    for (options, answer) in [(&[][..], "False\n"), (&["--io-uring"], "True\n"), (&["--no-io-uring"], "False\n")] {
        let mut command = sandbox.command(tool("ckpt-launch"));
        command.args(options).args(["--", "/usr/bin/python3", "-c", ask]);
        let (code, out, err) = sandbox.finish(command);
        assert_eq!((code, out.as_str()), (0, answer), "{options:?} {err}");
    }
}

refused! { "refused_objects", 0:
    fanotify: "a fanotify group"
    userfaultfd: "a userfaultfd"
    io_uring: "an io_uring instance"
    perf_event: "a performance event"
    mq_notify: "a POSIX message queue with a notification"
    device: "the device /dev/fuse, whose state the kernel does not show"
    aio: "maps the ring of an asynchronous I/O context (io_setup)"
    hugetlb: "huge pages of hugetlbfs"
    hugetlb_shared: "huge pages of hugetlbfs"
    hugetlb_memfd: "huge pages of hugetlbfs"
    hugetlb_open: "huge pages of hugetlbfs"
    hugetlb_segment: "huge pages of hugetlbfs"
    socket_memory: "maps socket:["
    pidfd: "a pidfd of a process outside of the job"
    inotify: "an inotify watch of a file that cannot be found"
}
