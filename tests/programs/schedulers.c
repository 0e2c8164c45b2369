// Tests that every thread keeps how it is scheduled. What an ordinary user may not set is left out.
// @restored Process: scheduling policy of each thread (OTHER, BATCH, IDLE, and as root FIFO, RR, DEADLINE), nice, reset-on-fork, I/O priority, affinity
// @not-kept Process: utilisation clamps and time slices of sched_setattr, autogroup: hints to the scheduler that no result depends on
// @not-kept Process: core scheduling cookies: the kernel does not show them
#include "check.h"
#include <sched.h>
#include <sys/resource.h>

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static int rounds, ready;
static const struct attributes wanted[] = {
    {.policy = SCHED_OTHER, .nice = 7},
    {.policy = SCHED_BATCH, .nice = 3},
    {.policy = SCHED_IDLE},
    {.policy = SCHED_OTHER, .nice = 2, .flags = 1},
    {.policy = SCHED_FIFO, .priority = 11},
    {.policy = SCHED_RR, .priority = 12, .flags = 1},
    {.policy = 6, .runtime = 2000000, .deadline = 20000000, .period = 30000000},
};
enum { THREADS = sizeof wanted / sizeof *wanted, IOPRIO_BE = 2 << 13 };

static void *scheduled(void *argument) {
    struct attributes set = *(const struct attributes *)argument, found;
    int number = (int)((const struct attributes *)argument - wanted);
    set.size = sizeof set;
    CHECK(syscall(SYS_ioprio_set, 1, 0, IOPRIO_BE | number) == 0);
    // Policies that heed no nice value keep it.
    int heeded = set.policy == SCHED_OTHER || set.policy == SCHED_BATCH, nice = heeded ? set.nice : 9;
    CHECK(setpriority(PRIO_PROCESS, 0, nice) == 0);
    int allowed = syscall(SYS_sched_setattr, 0, &set, 0) == 0;
    CHECK(allowed || set.policy == SCHED_FIFO || set.policy == SCHED_RR || set.policy == 6);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(syscall(SYS_ioprio_get, 1, 0) == (IOPRIO_BE | number));
        memset(&found, 0, sizeof found);
        CHECK(syscall(SYS_sched_getattr, 0, &found, sizeof found, 0) == 0);
        if (!allowed) {
            CHECK(found.policy == SCHED_OTHER && found.nice == nice);
            continue;
        }
        CHECK(found.policy == set.policy && (found.flags & 1) == set.flags && found.priority == set.priority);
        CHECK(getpriority(PRIO_PROCESS, 0) == nice);
        if (set.policy == 6) CHECK(found.runtime == set.runtime && found.deadline == set.deadline && found.period == set.period);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, scheduled, (void *)&wanted[i]) == 0);
    while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < THREADS) rest();
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("each as it was told to be");
}
