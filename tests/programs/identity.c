// Tests that getpid, gettid and getppid stay the same in every thread and process, and /proc/self agrees.
// @restored Process: the ids of processes, threads and parents, /proc/self
#include "check.h"

static int rounds;
static pid_t first, parent;

static void *work(void *unused) {
    (void)unused;
    pid_t tid = gettid(), self = getpid();
    for (int round = 0; round < rounds; round++) {
        CHECK(gettid() == tid && (pid_t)syscall(SYS_gettid) == tid);
        CHECK(getpid() == self && (pid_t)syscall(SYS_getpid) == self);
        CHECK(getppid() == parent);
        CHECK(syscall(SYS_tgkill, self, tid, 0) == 0);
        char path[64], found[64] = "", expected[64];
        CHECK(readlink("/proc/thread-self", found, sizeof found - 1) > 0);
        snprintf(expected, sizeof expected, "%d/task/%d", self, tid);
        CHECK(strcmp(found, expected) == 0);
        snprintf(path, sizeof path, "/proc/%d/task/%d/comm", self, tid);
        CHECK(access(path, R_OK) == 0);
        rest();
    }
    return NULL;
}

static void in_threads(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    work(NULL);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    first = getpid();
    parent = getppid();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        parent = first;
        in_threads();
        _exit(5);
    }
    in_threads();
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    puts("every number stayed");
}
