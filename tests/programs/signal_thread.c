// Tests that a process whose threads all block all signals, but for one that takes them with sigwait, is checkpointed.
// @restored Signals: threads that block all signals and wait with sigwait
#include "check.h"

static int rounds;
static volatile int taken;

static void *take(void *unused) {
    (void)unused;
    sigset_t all;
    sigfillset(&all);
    for (;;) {
        int signal;
        CHECK(sigwait(&all, &signal) == 0);
        if (signal == SIGTERM) return NULL;
        CHECK(signal == SIGUSR1);
        __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);
    }
}

static void *work(void *unused) {
    (void)unused;
    for (int round = 0; round < rounds; round++) rest();
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    sigset_t all, mask;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    pthread_t taker, worker;
    CHECK(pthread_create(&taker, NULL, take, NULL) == 0 && pthread_create(&worker, NULL, work, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(kill(getpid(), SIGUSR1) == 0);
        while (taken == round) usleep(100);
        CHECK(taken == round + 1);
        // What the program blocked it still sees as blocked, but for the one signal that no job can block: the checkpoint's.
        CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
        for (int signal = 1; signal < SIGRTMAX; signal++)
            if (signal != SIGKILL && signal != SIGSTOP && signal != SIGRTMAX - 2 && (signal < 32 || signal >= SIGRTMIN))
                CHECK(sigismember(&mask, signal) == 1);
        rest();
    }
    CHECK(kill(getpid(), SIGTERM) == 0);
    CHECK(pthread_join(taker, NULL) == 0 && pthread_join(worker, NULL) == 0);
    puts("one thread took every signal");
}
