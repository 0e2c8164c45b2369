// Guard pages within mappings (MADV_GUARD_INSTALL, Linux 6.13): nobody can touch them, their neighbours stay as they are, and a child has
// them too. Where the kernel has none, memory without access does the same.
// @restored Memory: guard pages (MADV_GUARD_INSTALL)
#include "check.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { PAGE = 4096, PAGES = 256 };

static int pipe_ends[2];

// Every eighth page is a guard, and a longer run at the end.
static int is_guard(int page) { return page % 8 == 3 || page >= PAGES - 16; }

// The kernel reads a page on our behalf, or says that it cannot be read.
static int can_be_read(const char *page) {
    char byte;
    if (write(pipe_ends[1], page, 1) == 1) {
        CHECK(read(pipe_ends[0], &byte, 1) == 1 && byte == *page);
        return 1;
    }
    CHECK(errno == EFAULT);
    return 0;
}

static void check_all(char *block, unsigned key) {
    for (int page = 0; page < PAGES; page++) {
        char *at = block + (size_t)page * PAGE;
        CHECK(can_be_read(at) == !is_guard(page));
        if (!is_guard(page)) CHECK(holds(at, PAGE, key + (unsigned)page));
    }
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(pipe(pipe_ends) == 0);
    char *block = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *untouched = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(block != MAP_FAILED && untouched != MAP_FAILED);
    int real = 1;
    for (int page = 0; page < PAGES; page++) {
        if (!is_guard(page)) continue;
        real = real && madvise(block + (size_t)page * PAGE, PAGE, MADV_GUARD_INSTALL) == 0;
        if (!real) CHECK(mprotect(block + (size_t)page * PAGE, PAGE, PROT_NONE) == 0);
    }
    if (real) CHECK(madvise(untouched, PAGE, MADV_GUARD_INSTALL) == 0);
    for (int round = 1; round <= rounds; round++) {
        for (int page = 0; page < PAGES; page++)
            if (!is_guard(page)) fill(block + (size_t)page * PAGE, PAGE, (unsigned)(round + page));
        rest();
        check_all(block, (unsigned)round);
        CHECK(!real || (!can_be_read(untouched) && can_be_read(untouched + PAGE)));
        if (round % 10 == 0) {
            pid_t child = fork();
            CHECK(child >= 0);
            if (child == 0) {
                check_all(block, (unsigned)round);
                _exit(0);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child && status == 0);
        }
    }
    // What stands in for a guard on another kernel cannot be taken away like one.
    if (real && argc < 3) {
        CHECK(madvise(block, PAGES * PAGE, MADV_GUARD_REMOVE) == 0);
        for (int page = 0; page < PAGES; page++) CHECK(can_be_read(block + (size_t)page * PAGE));
    }
    printf("guards held\n");
    return 0;
}
