// Tests that a thread for which the CPUID instruction is a SIGSEGV stays so, and that others have it, and hand on what they have.
// @restored Threads: CPUID faulting (arch_prctl ARCH_SET_CPUID), of each thread
#include "check.h"
#include <asm/prctl.h>
#include <cpuid.h>
#include <setjmp.h>

static __thread sigjmp_buf faulted;
static int rounds;

static void on_fault(int signal) { siglongjmp(faulted, signal); }

static int allowed(void) { return (int)syscall(SYS_arch_prctl, ARCH_GET_CPUID, 0); }

// Whether the instruction is really there for this thread.
static int works(void) {
    if (sigsetjmp(faulted, 1)) return 0;
    unsigned a, b, c, d;
    __cpuid(0, a, b, c, d);
    return a > 0;
}

static void *keeps(void *expected) {
    int may = expected != NULL;
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(allowed() == may && works() == may);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    CHECK(signal(SIGSEGV, on_fault) != SIG_ERR && allowed() == 1 && works());
    pthread_t with, without;
    CHECK(pthread_create(&with, NULL, keeps, argv) == 0);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0);
    CHECK(pthread_create(&without, NULL, keeps, NULL) == 0);
    keeps(NULL);
    CHECK(pthread_join(with, NULL) == 0 && pthread_join(without, NULL) == 0);
    puts("who may ask for the processor is as it was");
}
