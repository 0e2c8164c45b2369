//! Event descriptors: epoll, eventfd, timerfd, signalfd, inotify, pidfd; and those that are refused by name.

use ckpt_tests::{program_survives, refused};

program_survives!(epoll);
program_survives!(eventfds);
program_survives!(timerfds);
program_survives!(signalfds);
program_survives!(inotify);
program_survives!(pidfds);

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
