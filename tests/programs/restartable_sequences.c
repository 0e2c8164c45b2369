// Tests that each thread's restartable sequences area is still registered after a restart: the kernel keeps writing to it.
// One that has not registered its own, on a stack where another has left one, has none afterwards either.
// @restored Threads: restartable sequences (rseq)
#define _GNU_SOURCE
#include "processors.h"
#include <asm/prctl.h>
#include <sys/mman.h>
#include <sys/rseq.h>

static int rounds;

static void *work(void *unused) {
    (void)unused;
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    for (int round = 0; round < rounds; round++) {
        // Only the kernel knows where we are put. A checkpoint between may have us restarted, but not moved.
        visit_processors(&area->cpu_id);
        rest();
    }
    return NULL;
}

// Bytes of the C library's description of a thread, and of variables of its own, around where fs points.
enum { BELOW = 4096, ABOVE = 4096, STACK = 256 << 10 };
static volatile int newcomer_is_to_register;
static volatile long newcomer_registered = 1;
static volatile int newcomer_lives = 1;
static struct rseq *newcomer_area;

// A thread before it has begun to be one of the C library's: only system calls.
static int newcomer(void *unused) {
    (void)unused;
    struct timespec moment = {0, 1000000};
    long result;
    while (!newcomer_is_to_register) {
        __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_nanosleep), "D"(&moment), "S"(NULL) : "rcx", "r11", "memory");
    }
    register long signature __asm__("r10") = RSEQ_SIG;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_rseq), "D"(newcomer_area), "S"(32L), "d"(0L), "r"(signature) : "rcx", "r11", "memory");
    newcomer_registered = result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_exit), "D"(0L) : "rcx", "r11", "memory");
    return 0;
}

static void start_newcomer(void) {
    char *self = __builtin_thread_pointer();
    char *memory = mmap(NULL, BELOW + ABOVE + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    char *tls = memory + STACK + BELOW;
    memcpy(tls, self, 2048);
    ((void **)tls)[0] = ((void **)tls)[2] = tls;
    newcomer_area = (struct rseq *)(tls + __rseq_offset);
    CHECK((int)newcomer_area->cpu_id >= 0);
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    CHECK(clone(newcomer, memory + STACK, flags, NULL, NULL, tls, &newcomer_lives) > 0);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    if (__rseq_size == 0) {
        puts("the kernel knew all the time");
        return 0;
    }
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    start_newcomer();
    work(NULL);
    newcomer_is_to_register = 1;
    while (newcomer_lives) rest();
    CHECK(newcomer_registered == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("the kernel knew all the time");
}
