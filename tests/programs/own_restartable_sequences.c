// Tests that a thread which has replaced the C library's restartable sequences area by one of its own keeps that one, with its size.
// @restored Threads: a restartable sequences area of the program's own, of any size; none where it has ended the library's
#define _GNU_SOURCE
#include "processors.h"
#include <sys/rseq.h>

enum { SIZE = 256 };

static int rounds;

static long rseq_call(void *area, unsigned size, int flags) { return syscall(SYS_rseq, area, size, flags, RSEQ_SIG); }

static void leave_the_library(void) {
    char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
    // The library tells how much of it is in use; it has registered that, or the least that the kernel takes.
    if (rseq_call(area, __rseq_size < 32 ? 32 : __rseq_size, 1) != 0) CHECK(rseq_call(area, 32, 1) == 0);
}

static void *without(void *unused) {
    leave_the_library();
    _Alignas(SIZE) char area[SIZE];
    for (int round = 0; round < rounds; round++) {
        rest();
        // Only where there is none can another be registered.
        memset(area, 0, sizeof area);
        CHECK(rseq_call(area, SIZE, 0) == 0 && rseq_call(area, SIZE, 1) == 0);
    }
    return unused;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    if (__rseq_size == 0) {
        puts("its own all the time");
        return 0;
    }
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, without, NULL) == 0);
    leave_the_library();
    static _Alignas(SIZE) struct {
        struct rseq area;
        char room[SIZE - sizeof(struct rseq)];
    } own;
    CHECK(rseq_call(&own, SIZE, 0) == 0);
    for (int round = 0; round < rounds; round++) {
        visit_processors(&own.area.cpu_id);
        rest();
        CHECK(rseq_call(&own, SIZE, 0) == -1 && errno == EBUSY);
    }
    CHECK(rseq_call(&own, SIZE, 1) == 0 && pthread_join(thread, NULL) == 0);
    puts("its own all the time");
}
