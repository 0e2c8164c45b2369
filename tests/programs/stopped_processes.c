// Tests that stopped processes stay stopped, and go on when they are told to.
// @restored Stopped processes: SIGSTOP, with one and with several threads; they stay stopped, and continue on SIGCONT
// @not-kept Stopped processes: whether the parent was notified already: it is notified (again) after a restart
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static char state_of(pid_t pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    CHECK(file && fgets(text, sizeof text, file));
    fclose(file);
    char *end = strrchr(text, ')');
    CHECK(end);
    return end[2];
}

static volatile long *counters;

static void *counts(void *which) {
    for (;;) counters[(long)which]++;
}

// A child that counts, in so many threads.
static pid_t start(long first, long threads) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        pthread_t thread;
        for (long i = 1; i < threads; i++) CHECK(pthread_create(&thread, NULL, counts, (void *)(first + i)) == 0);
        counts((void *)first);
    }
    return pid;
}

static void stop(pid_t pid) {
    int status;
    CHECK(kill(pid, SIGSTOP) == 0);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counters != MAP_FAILED);
    pid_t one = start(0, 1), many = start(1, 3), sleeper = fork();
    CHECK(sleeper >= 0);
    if (sleeper == 0) {
        pause();
        _exit(7);
    }
    while (!counters[0] || !counters[1] || !counters[2] || !counters[3]) rest();
    stop(one);
    stop(many);
    stop(sleeper);
    for (int round = 0; round < rounds; round++) {
        long before[4];
        for (int i = 0; i < 4; i++) before[i] = counters[i];
        rest();
        for (int i = 0; i < 4; i++) CHECK(counters[i] == before[i]);
        CHECK(state_of(one) == 'T');
        CHECK(state_of(many) == 'T');
        CHECK(state_of(sleeper) == 'T');
        if (round % 50 != 49) continue;
        // They go on from where they were, and stop again.
        CHECK(kill(one, SIGCONT) == 0 && kill(many, SIGCONT) == 0);
        for (int i = 0; i < 4; i++) {
            while (counters[i] == before[i]) rest();
        }
        stop(one);
        stop(many);
    }
    CHECK(kill(one, SIGKILL) == 0 && kill(many, SIGKILL) == 0 && kill(sleeper, SIGTERM) == 0 && kill(sleeper, SIGCONT) == 0);
    int status;
    while (waitpid(one, &status, 0) != one || WIFSTOPPED(status));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (waitpid(many, &status, 0) != many || WIFSTOPPED(status));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (waitpid(sleeper, &status, 0) != sleeper || WIFSTOPPED(status));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    puts("the stopped stayed stopped");
}
