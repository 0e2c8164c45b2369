// Tests that a job with an object that is not kept runs on: makes the object named by the argument, waits, and uses nothing of it.
// @refused fanotify: groups (the kernel does not show their marks)
// @refused userfaultfd: descriptors, and the ranges registered with them
// @refused io_uring: instances (requests in flight cannot be seen). Programs that ask for one by `syscall()`, as libuv (Node.js, uvloop) does, get none; `--no-io-uring` says so to all, `--innodb-use-native-aio=0` to MariaDB
// @refused Devices: character devices whose driver keeps a state for each descriptor (/dev/net/tun, /dev/fuse, GPUs)
// @refused Asynchronous I/O: contexts of io_setup (requests in flight cannot be seen)
// @refused Performance events: perf_event_open
// @refused Huge pages of hugetlbfs: anonymous mappings, private and shared, memfds, System V shared memory (use transparent huge pages)
// @refused Other sockets: memory mapped from a socket (packet rings, TCP_ZEROCOPY_RECEIVE)
// It ends with 77 where this machine does not allow the object.
#include "check.h"
#include <fcntl.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>

static int make(const char *object) {
    if (strcmp(object, "fanotify") == 0) return (int)syscall(SYS_fanotify_init, FAN_REPORT_FID, O_RDONLY);
    // UFFD_USER_MODE_ONLY: allowed to everybody.
    if (strcmp(object, "userfaultfd") == 0) return (int)syscall(SYS_userfaultfd, 1);
    if (strcmp(object, "io_uring") == 0) {
        char params[120] = {0};
        // As liburing does it: syscall() would say that there is none.
        long result;
        __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_io_uring_setup), "D"(2), "S"(params) : "rcx", "r11", "memory");
        return (int)result;
    }
    if (strcmp(object, "perf_event") == 0) {
        struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK};
        attr.exclude_kernel = attr.exclude_hv = 1;
        return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
    }
    if (strcmp(object, "device") == 0) return open("/dev/fuse", O_RDWR);
    if (strcmp(object, "aio") == 0) {
        unsigned long context = 0;
        return (int)syscall(SYS_io_setup, 8, &context);
    }
    // Without reserving any: the machine need not have huge pages for that.
    if (strcmp(object, "hugetlb") == 0 || strcmp(object, "hugetlb_shared") == 0) {
        int flags = (strcmp(object, "hugetlb") == 0 ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE;
        return mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED ? -1 : 0;
    }
    if (strcmp(object, "hugetlb_memfd") == 0) {
        int fd = memfd_create("huge", MFD_HUGETLB);
        if (fd >= 0) CHECK(mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0) != MAP_FAILED);
        return fd;
    }
    if (strcmp(object, "hugetlb_open") == 0) return memfd_create("huge", MFD_HUGETLB);
    if (strcmp(object, "hugetlb_segment") == 0) {
        // Removed at once: it goes with the process.
        int id = shmget(IPC_PRIVATE, 2 << 20, SHM_HUGETLB | SHM_NORESERVE | IPC_CREAT | 0600);
        void *at = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
        if (id >= 0) shmctl(id, IPC_RMID, NULL);
        return at == (void *)-1 ? -1 : 0;
    }
    if (strcmp(object, "socket_memory") == 0) {
        // What TCP_ZEROCOPY_RECEIVE needs.
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        return fd >= 0 && mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED ? fd : -1;
    }
    if (strcmp(object, "mq_notify") == 0) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
        int queue = mq_open("/ckpt-notified", O_RDWR | O_CREAT, 0600, NULL);
        if (queue < 0) return -1;
        CHECK(mq_unlink("/ckpt-notified") == 0 && mq_notify(queue, &event) == 0);
        return queue;
    }
    if (strcmp(object, "pidfd") == 0) return (int)syscall(SYS_pidfd_open, 1, 0);
    if (strcmp(object, "inotify") == 0) {
        // A file without a name, which nobody has open.
        int instance = inotify_init(), file = open("nameless", O_RDWR | O_CREAT, 0600);
        CHECK(instance >= 0 && file >= 0);
        CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0) != MAP_FAILED);
        CHECK(inotify_add_watch(instance, "nameless", IN_OPEN) == 1 && unlink("nameless") == 0 && close(file) == 0);
        return instance;
    }
    CHECK(!"such an object is known");
    return -1;
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    if (make(argv[1]) < 0) return 77;
    for (int round = 0; round < 100; round++) rest();
    puts("untouched");
}
