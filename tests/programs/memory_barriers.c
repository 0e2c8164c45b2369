// Tests that a process stays registered for memory barriers, and that others do not become so.
// @restored Process: registrations with membarrier(2)
#define _GNU_SOURCE
#include "check.h"
#include <linux/membarrier.h>

// Linux 6.3.
#define GET_REGISTRATIONS (1 << 9)

static long barrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

static void *wait_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    long supported = barrier(MEMBARRIER_CMD_QUERY);
    CHECK(supported > 0 && supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        // Has registered for nothing.
        for (int round = 0; round < rounds; round++) {
            rest();
            CHECK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == -1 && errno == EPERM);
        }
        _exit(0);
    }
    int has_core = (supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) != 0, has_rseq = (supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ) != 0;
    CHECK(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 && barrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0);
    if (has_core) CHECK(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) == 0);
    if (has_rseq) CHECK(barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
    long all = barrier(GET_REGISTRATIONS);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);
        if (has_core) CHECK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) == 0);
        if (has_rseq) CHECK(barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ) == 0);
        CHECK(barrier(GET_REGISTRATIONS) == all);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("registered all the time");
}
