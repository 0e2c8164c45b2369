// Tests that memory that was locked stays locked: at once, as it is touched, and what is mapped later.
// @restored Memory: mlock, mlock2 with MLOCK_ONFAULT, mlockall with MCL_FUTURE and MCL_ONFAULT
// @refused Memory: MCL_FUTURE where RLIMIT_MEMLOCK leaves no room for the checkpoint's own memory (it would be locked too)
#include "vmflags.h"
#include <sys/resource.h>

enum { PAGE = 4096, PAGES = 8 };

static char *block(void) {
    // With a page without access after it, so that no two become one.
    char *at = mmap(NULL, (PAGES + 1) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && mprotect(at, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    return at;
}

static long locked_kb(void) {
    FILE *status = fopen("/proc/self/status", "r");
    CHECK(status);
    char line[256];
    long kb = -1;
    while (fgets(line, sizeof line, status)) sscanf(line, "VmLck: %ld", &kb);
    CHECK(fclose(status) == 0);
    return kb;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char *locked = block(), *lazily = block(), *unlocked = block();
    char *shared = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    CHECK(mlock(locked, PAGES * PAGE) == 0 && mlock2(lazily, PAGES * PAGE, MLOCK_ONFAULT) == 0 && mlock(shared, PAGES * PAGE) == 0);
    fill(locked, PAGES * PAGE, 1);
    lazily[0] = 7;
    // Who has no room for all that is mapped later, the checkpoint's own memory too, locks nothing of it.
    int future = geteuid() == 0;
    if (future) CHECK(mlockall(MCL_FUTURE | (argc > 2 ? 0 : MCL_ONFAULT)) == 0);
    long kb = locked_kb();
    CHECK(kb >= 3 * PAGES * PAGE / 1024);
    unsigned char present[PAGES];
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(has_flag(locked, "lo") && !has_flag(locked, "lf") && holds(locked, PAGES * PAGE, 1));
        CHECK(has_flag(lazily, "lo") && has_flag(lazily, "lf") && has_flag(shared, "lo"));
        CHECK(!has_flag(unlocked, "lo"));
        CHECK(locked_kb() == kb);
        // What is locked is there, and what is locked as it is touched is not before.
        CHECK(mincore(locked, PAGES * PAGE, present) == 0);
        for (int page = 0; page < PAGES; page++) CHECK(present[page] & 1);
        CHECK(mincore(lazily, PAGES * PAGE, present) == 0);
        for (int page = 0; page < PAGES; page++) CHECK((present[page] & 1) == (page == 0));
        char *fresh = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(fresh != MAP_FAILED && mprotect(fresh, PAGE, PROT_READ | PROT_WRITE) == 0);
        CHECK(has_flag(fresh, "lo") == future && has_flag(fresh, "lf") == (future && argc <= 2));
        CHECK(munmap(fresh, PAGE) == 0);
    }
    puts("what was locked stayed so");
}
