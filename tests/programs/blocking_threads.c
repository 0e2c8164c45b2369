// Tests threads and processes that block every signal by raw system calls: they are checkpointed all the same, and keep their masks.
// @restored Threads that block every signal: threads and whole processes that block every signal by raw calls, running or waiting; masks; the blocking call
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void block_all(void) {
    uint64_t all = ~0ull;
    CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8) == 0);
}

static uint64_t blocked(void) {
    uint64_t set;
    CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &set, 8) == 0);
    return set;
}

// What can be blocked at all.
#define EVERYTHING (~0ull & ~(1ull << (SIGKILL - 1)) & ~(1ull << (SIGSTOP - 1)))

static int rounds, to_thread[2], from_thread[2];
static _Atomic int done;

static void *reads(void *unused) {
    block_all();
    for (int i = 0; i < rounds; i++) {
        int number;
        CHECK(read(to_thread[0], &number, sizeof number) == sizeof number && number == i);
        CHECK(blocked() == EVERYTHING);
        CHECK(write(from_thread[1], &number, sizeof number) == sizeof number);
    }
    return unused;
}

static void *computes(void *unused) {
    block_all();
    uint64_t state = 1;
    while (!done) {
        for (int i = 0; i < 100000; i++) state = state * 6364136223846793005ull + 1442695040888963407ull;
        CHECK(blocked() == EVERYTHING);
    }
    return unused;
}

static void *waits_for_signals(void *unused) {
    block_all();
    uint64_t usr1 = 1ull << (SIGUSR1 - 1);
    int seen = 0;
    while (!done) {
        struct timespec moment = {0, 20000000};
        long signal = syscall(SYS_rt_sigtimedwait, &usr1, NULL, &moment, 8);
        // Neither EINTR nor any other signal.
        CHECK(signal == SIGUSR1 || (signal == -1 && errno == EAGAIN));
        seen += signal == SIGUSR1;
        CHECK(blocked() == EVERYTHING);
    }
    *(int *)unused = seen;
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    CHECK(pipe(to_thread) == 0 && pipe(from_thread) == 0);
    int to_child[2], from_child[2];
    CHECK(pipe(to_child) == 0 && pipe(from_child) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        // Not one thread of this process takes a signal.
        block_all();
        for (int i = 0; i < rounds; i++) {
            int number;
            CHECK(read(to_child[0], &number, sizeof number) == sizeof number);
            CHECK(blocked() == EVERYTHING);
            CHECK(write(from_child[1], &number, sizeof number) == sizeof number);
        }
        _exit(0);
    }
    pthread_t threads[3];
    int signals = 0;
    CHECK(pthread_create(&threads[0], NULL, reads, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, computes, NULL) == 0);
    CHECK(pthread_create(&threads[2], NULL, waits_for_signals, &signals) == 0);
    for (int i = 0; i < rounds; i++) {
        int number = i, back = -1;
        CHECK(write(to_thread[1], &number, sizeof number) == sizeof number);
        CHECK(write(to_child[1], &number, sizeof number) == sizeof number);
        rest();
        CHECK(read(from_thread[0], &back, sizeof back) == sizeof back && back == i);
        CHECK(read(from_child[0], &back, sizeof back) == sizeof back && back == i);
        if (i == rounds / 2) CHECK(pthread_kill(threads[2], SIGUSR1) == 0);
    }
    done = 1;
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    printf("no mask changed, %d signal came\n", signals);
}
