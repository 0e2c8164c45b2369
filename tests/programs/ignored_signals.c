// Tests that signals which a program ignores do not end the calls of its threads, at whatever moment they come.
// @restored Signals: ignored signals interrupt no call, in programs with several threads
#include "check.h"
#include <sys/epoll.h>
#include <sys/prctl.h>

static int done;

// These calls end with EINTR for any thread that is woken for a signal, even if there is none in the end.
static void *waits(void *unused) {
    (void)unused;
    int epoll = epoll_create1(0);
    struct epoll_event event;
    CHECK(epoll >= 0);
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) CHECK(epoll_wait(epoll, &event, 1, 50) == 0);
    return unused;
}

static void *waits_for_a_signal(void *unused) {
    (void)unused;
    sigset_t set;
    CHECK(sigemptyset(&set) == 0 && sigaddset(&set, SIGUSR2) == 0 && pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    struct timespec time = {0, 50000000};
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) CHECK(sigtimedwait(&set, NULL, &time) == -1 && errno == EAGAIN);
    return unused;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, i < 3 ? waits : waits_for_a_signal, NULL) == 0);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    while (child == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        struct timespec moment = {0, 300000};
        CHECK(kill(parent, SIGURG) == 0 && kill(parent, SIGWINCH) == 0 && kill(parent, SIGPIPE) == 0 && nanosleep(&moment, NULL) == 0);
    }
    for (int round = 0; round < rounds; round++) rest();
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("nobody was interrupted");
}
