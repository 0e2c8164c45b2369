// Tests that pending signals stay pending with their values, senders and order: of the process, of a thread, real-time ones.
// @restored Signals: pending signals of the process and of each thread, with value, sender, order and all of their siginfo
#include "check.h"

static void take(int signal, int code, int value) {
    siginfo_t info = take_pending(signal);
    CHECK(info.si_code == code);
    CHECK(info.si_pid == getpid() && info.si_uid == getuid());
    if (code == SI_QUEUE) CHECK(info.si_value.sival_int == value);
}

static void none_left(void) {
    sigset_t pending;
    CHECK(sigpending(&pending) == 0);
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        if (signal < 32 || signal >= SIGRTMIN) CHECK(sigismember(&pending, signal) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    sigset_t set, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGRTMIN + 1);
    sigaddset(&set, SIGRTMIN + 2);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    for (int round = 0; round < rounds; round += 50) {
        for (int i = 0; i < 5; i++) CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = round + i}) == 0);
        CHECK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = -1}) == 0);
        for (int i = 0; i < 3; i++) CHECK(pthread_sigqueue(pthread_self(), SIGRTMIN + 2, (union sigval){.sival_int = 1000 + i}) == 0);
        CHECK(kill(getpid(), SIGUSR1) == 0);
        // A second one of the same is not queued.
        CHECK(kill(getpid(), SIGUSR1) == 0);
        CHECK(pthread_kill(pthread_self(), SIGUSR2) == 0);
        for (int i = 0; i < 50 && round + i < rounds; i++) {
            CHECK(sigpending(&pending) == 0);
            CHECK(sigismember(&pending, SIGUSR1) == 1 && sigismember(&pending, SIGUSR2) == 1);
            CHECK(sigismember(&pending, SIGRTMIN + 1) == 1 && sigismember(&pending, SIGRTMIN + 2) == 1);
            CHECK(sigismember(&pending, SIGCHLD) == 0 && sigismember(&pending, SIGTERM) == 0);
            rest();
        }
        for (int i = 0; i < 5; i++) take(SIGRTMIN + 1, SI_QUEUE, round + i);
        // The thread's own come before the process's.
        for (int i = 0; i < 3; i++) take(SIGRTMIN + 2, SI_QUEUE, 1000 + i);
        take(SIGRTMIN + 2, SI_QUEUE, -1);
        take(SIGUSR1, SI_USER, 0);
        // The C library shows SI_TKILL as SI_USER here.
        take(SIGUSR2, SI_USER, 0);
        none_left();
    }
    puts("each signal waited its turn");
}
