// Tests that memory that was sealed stays sealed.
// @restored Memory: mseal
#include "vmflags.h"

enum { PAGE = 4096, PAGES = 8 };

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char *at = mmap(NULL, (PAGES + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && mprotect(at, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    fill(at, PAGES * PAGE, 1);
    CHECK(mprotect(at, PAGES * PAGE, PROT_READ) == 0);
    // Of kernels before Linux 6.10 nothing is asked.
    int sealed = syscall(462, at, PAGES * PAGE, 0ul) == 0;
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(holds(at, PAGES * PAGE, 1));
        if (!sealed) continue;
        CHECK(has_flag(at, "sl"));
        CHECK(mprotect(at, PAGES * PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EPERM);
        CHECK(munmap(at + PAGE, PAGE) == -1 && errno == EPERM);
    }
    puts("sealed as it was");
}
