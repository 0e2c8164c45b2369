// Tests that signalfds give the signals of whoever reads them, that epoll wakes up for them, and that what is pending waits.
// @restored signalfd: masks, pending signals
#include "check.h"
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    sigset_t set, late;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 2);
    sigemptyset(&late);
    sigaddset(&late, SIGUSR2);
    sigaddset(&late, SIGRTMIN + 3);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && sigprocmask(SIG_BLOCK, &late, NULL) == 0);
    int fd = signalfd(-1, &set, SFD_CLOEXEC), at_last = signalfd(-1, &late, SFD_NONBLOCK);
    int epoll = epoll_create1(0);
    CHECK(fd >= 0 && at_last >= 0 && epoll >= 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    // Two that wait until the end.
    CHECK(kill(getpid(), SIGUSR2) == 0 && sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 4242}) == 0);
    int down[2];
    CHECK(pipe(down) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(close(down[1]) == 0);
        int round;
        while (read(down[0], &round, sizeof round) == sizeof round) {
            rest();
            int signal = round % 2 ? SIGUSR1 : SIGRTMIN + 2;
            CHECK(sigqueue(getppid(), signal, (union sigval){.sival_int = round}) == 0);
        }
        _exit(0);
    }
    CHECK(close(down[0]) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(write(down[1], &round, sizeof round) == sizeof round);
        // By turns in epoll and in the read itself.
        if (round % 3) CHECK(epoll_wait(epoll, &event, 1, 20000) == 1 && event.data.u64 == 77 && event.events == EPOLLIN);
        struct signalfd_siginfo info;
        CHECK(read(fd, &info, sizeof info) == sizeof info);
        CHECK(info.ssi_signo == (uint32_t)(round % 2 ? SIGUSR1 : SIGRTMIN + 2) && info.ssi_code == SI_QUEUE);
        CHECK(info.ssi_int == round && info.ssi_pid == (uint32_t)child && info.ssi_uid == getuid());
        CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
        CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && !(fcntl(fd, F_GETFL) & O_NONBLOCK) && (fcntl(at_last, F_GETFL) & O_NONBLOCK));
    }
    struct signalfd_siginfo infos[3];
    CHECK(read(at_last, infos, sizeof infos) == 2 * sizeof *infos);
    CHECK(infos[0].ssi_signo == SIGUSR2 && infos[1].ssi_signo == (uint32_t)(SIGRTMIN + 3) && infos[1].ssi_int == 4242);
    CHECK(read(at_last, infos, sizeof infos) == -1 && errno == EAGAIN);
    CHECK(close(down[1]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("every signal was read once");
}
