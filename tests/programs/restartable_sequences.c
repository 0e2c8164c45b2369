// Tests that each thread's restartable sequences area is still registered after a restart: the kernel keeps writing to it.
// @restored Threads: restartable sequences (rseq)
#include "check.h"
#include <sched.h>
#include <sys/rseq.h>

static int rounds;

static void *work(void *unused) {
    (void)unused;
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    cpu_set_t before;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    for (int round = 0; round < rounds; round++) {
        // Only the kernel knows where we are put: on each processor in turn, it must tell the right one.
        for (int cpu = 0; cpu < 4; cpu++) {
            if (!CPU_ISSET(cpu, &before)) continue;
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
            // A checkpoint between may have us restarted, but not moved.
            CHECK((int)*(volatile uint32_t *)&area->cpu_id == cpu);
            CHECK(sched_getcpu() == cpu);
        }
        CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
        rest();
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    if (__rseq_size == 0) {
        puts("the kernel knew all the time");
        return 0;
    }
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    work(NULL);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("the kernel knew all the time");
}
