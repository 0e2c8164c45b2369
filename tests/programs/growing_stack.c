// Tests that memory that grows down goes on doing so, down to the gap that is kept before its neighbour.
// @restored Memory: MAP_GROWSDOWN, its growth and the gap below it
#include "vmflags.h"
#include <setjmp.h>

enum { PAGE = 4096, GAP = 256 * PAGE, ROOM = 16 << 20 };
static sigjmp_buf back;

static void on_fault(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

static int touches(volatile char *at) {
    if (sigsetjmp(back, 1)) return 0;
    *at = 1;
    return 1;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    static char own_stack[65536];
    stack_t stack = {.ss_sp = own_stack, .ss_size = sizeof own_stack};
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    CHECK(sigaltstack(&stack, NULL) == 0 && sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    char *room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED && munmap(room + PAGE, ROOM - PAGE) == 0);
    // A neighbour is at the bottom of the room, and what grows at its top.
    CHECK(mprotect(room, PAGE, PROT_READ) == 0);
    char *top = room + ROOM - 4 * PAGE;
    CHECK(mmap(top, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0) == top);
    fill(top, 4 * PAGE, 1);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(holds(top, 4 * PAGE, 1));
        char *next = top - (round + 1) * PAGE;
        CHECK(touches(next));
        memset(next, round & 127, PAGE);
        for (int earlier = 0; earlier <= round; earlier++) CHECK(top[-(earlier + 1) * PAGE + 77] == (earlier & 127));
        CHECK(has_flag(next, "gd"));
        CHECK(!touches(room + PAGE) && !touches(room + GAP / 2));
    }
    puts("it grew, and no further than it may");
}
