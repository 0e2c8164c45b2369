// Tests that a thread inside a handler on the smallest alternate stack that the machine allows is checkpointed unharmed.
// @restored Signals: the smallest alternate stack that the machine allows
#include "check.h"
#include <sys/auxv.h>

static volatile int handled;

static void on_usr1(int signal) {
    (void)signal;
    struct timespec ten_milliseconds = {0, 10000000};
    // The bare call: the stack is too small for anything more.
    CHECK(syscall(SYS_nanosleep, &ten_milliseconds, NULL) == 0);
    handled++;
}

// The C library is not asked, which may have something called before it.
static int is_entered_by_the_kernel(int signal, void (*handler)(int)) {
    uint64_t action[4];
    CHECK(syscall(SYS_rt_sigaction, signal, NULL, action, 8) == 0);
    return action[0] == (uint64_t)(uintptr_t)handler;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    size_t smallest = getauxval(AT_MINSIGSTKSZ);
    CHECK(smallest > 0);
    // Room for the handler's frame, a little work, and the frame of one more signal in the middle of it.
    size_t size = 2 * smallest + 2048, guard = 4096;
    size_t mapped = (size + 4095) / 4096 * 4096;
    char *block = mmap(NULL, mapped + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED && mprotect(block + guard, mapped, PROT_READ | PROT_WRITE) == 0);
    // Set before there is the stack, or after it: nothing else may need room there.
    struct sigaction early = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK}, seen;
    CHECK(sigaction(SIGUSR2, &early, NULL) == 0);
    stack_t mine = {.ss_sp = block + guard, .ss_size = size};
    CHECK(sigaltstack(&mine, NULL) == 0);
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(is_entered_by_the_kernel(SIGUSR1, on_usr1) && is_entered_by_the_kernel(SIGUSR2, on_usr1));
    CHECK(sigaction(SIGUSR2, NULL, &seen) == 0 && seen.sa_handler == on_usr1 && (seen.sa_flags & (SA_ONSTACK | SA_SIGINFO)) == SA_ONSTACK);
    // Once before, so that it is found when it is needed: the dynamic linker wants more stack than there is.
    CHECK(syscall(SYS_getpid) == getpid());
    for (int round = 0; round < rounds; round++) {
        CHECK(raise(SIGUSR1) == 0);
        CHECK(handled == round + 1);
    }
    puts("the small stack was enough");
}
