// Tests that pidfds are of the processes that they were of: alive, dead, waited for, and the process itself.
// @restored pidfd: of processes that live, have ended, or were waited for
// @refused pidfd: of processes outside of the job
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#ifndef PIDFD_NONBLOCK
#define PIDFD_NONBLOCK O_NONBLOCK
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static int pidfd_open_(pid_t pid, unsigned flags) {
    int fd = (int)syscall(SYS_pidfd_open, pid, flags);
    CHECK(fd >= 0);
    return fd;
}

static int send(int fd, int signal) { return (int)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0); }

static int ready(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    CHECK(poll(&poll_fd, 1, 0) >= 0);
    return (poll_fd.revents & POLLIN) != 0;
}

static pid_t child(int code) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        while (code < 0) pause();
        _exit(code);
    }
    return pid;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    pid_t alive_pid = child(-1), dead_pid = child(7), gone_pid = child(0);
    int alive = pidfd_open_(alive_pid, 0), dead = pidfd_open_(dead_pid, 0), gone = pidfd_open_(gone_pid, 0);
    int self = pidfd_open_(getpid(), 0), impatient = pidfd_open_(alive_pid, PIDFD_NONBLOCK), twin = dup(alive);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 5};
    CHECK(twin >= 0 && epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, alive, &event) == 0);
    siginfo_t info;
    CHECK(waitpid(gone_pid, NULL, 0) == gone_pid && waitid(P_PIDFD, (id_t)dead, &info, WEXITED | WNOWAIT) == 0);
    // A child that has inherited them, and asks them by itself.
    int up[2];
    CHECK(pipe(up) == 0);
    pid_t heir = fork();
    CHECK(heir >= 0);
    if (heir == 0) {
        CHECK(close(up[1]) == 0);
        for (char byte; read(up[0], &byte, 1) == 1;) CHECK(!ready(self) && send(self, 0) == 0 && ready(gone) && send(alive, 0) == 0);
        _exit(0);
    }
    CHECK(close(up[0]) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(!ready(alive) && !ready(twin) && !ready(self) && ready(dead) && ready(gone));
        CHECK(send(alive, 0) == 0 && send(twin, 0) == 0 && send(self, 0) == 0 && send(dead, 0) == 0);
        CHECK(send(gone, 0) == -1 && errno == ESRCH);
        CHECK(waitid(P_PIDFD, (id_t)dead, &info, WEXITED | WNOWAIT) == 0 && info.si_pid == dead_pid && info.si_status == 7);
        CHECK(waitid(P_PIDFD, (id_t)impatient, &info, WEXITED) == -1 && errno == EAGAIN);
        CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
        CHECK(fcntl(alive, F_GETFD) == FD_CLOEXEC && fcntl(twin, F_GETFD) == 0);
        CHECK((fcntl(impatient, F_GETFL) & O_NONBLOCK) && !(fcntl(alive, F_GETFL) & O_NONBLOCK));
        CHECK(write(up[1], "x", 1) == 1);
    }
    // The heir may be some rounds behind, and must find the living one alive.
    CHECK(close(up[1]) == 0);
    int status;
    CHECK(waitpid(heir, &status, 0) == heir && status == 0);
    CHECK(send(twin, SIGKILL) == 0 && epoll_wait(epoll, &event, 1, 20000) == 1 && event.data.u64 == 5);
    CHECK(waitid(P_PIDFD, (id_t)alive, &info, WEXITED) == 0 && info.si_pid == alive_pid && info.si_status == SIGKILL);
    CHECK(waitid(P_PIDFD, (id_t)dead, &info, WEXITED) == 0 && info.si_pid == dead_pid && info.si_status == 7);
    puts("every descriptor was of its process");
}
