// Tests that reservations of terabytes without access cost nothing, stay reserved, and can be opened up page by page.
// @restored Memory: reservations of terabytes, at no cost
// @restored Memory: mappings that have grown beyond the machine's memory, if vm.overcommit_memory allows it
#include "check.h"

enum { PAGE = 4096 };
static const size_t TERABYTE = 1ul << 40, GIGABYTE = 1ul << 30;

// One mapping of twice the machine's memory, which it does not give out at once. Gives how much it is.
static size_t grow(char **start) {
    size_t whole = 2 * (size_t)sysconf(_SC_PHYS_PAGES) * PAGE / GIGABYTE * GIGABYTE + GIGABYTE, len = 0;
    char *at = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(at != MAP_FAILED && munmap(at, whole) == 0);
    for (; len < whole; len += GIGABYTE) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        // Fails where the machine keeps account (vm.overcommit_memory 2).
        if (mmap(at + len, GIGABYTE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) break;
    }
    *start = at;
    return len;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char *reserved = mmap(NULL, 4 * TERABYTE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(reserved != MAP_FAILED);
    char *grown;
    size_t len = grow(&grown);
    for (size_t at = 0; at < len; at += GIGABYTE) fill(grown + at, PAGE, (unsigned)(at / GIGABYTE));
    const size_t stride = 4 * TERABYTE / 4096;
    for (int round = 0; round < rounds; round++) {
        char *page = reserved + (size_t)round * stride;
        CHECK(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0);
        for (int at = 0; at < PAGE; at += 512) CHECK(page[at] == 0);
        fill(page, PAGE, (unsigned)round);
        rest();
        for (int earlier = 0; earlier <= round; earlier++) CHECK(holds(reserved + (size_t)earlier * stride, PAGE, (unsigned)earlier));
        // Nobody may have put anything into the rest.
        CHECK(mmap(page + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
        CHECK(errno == EEXIST);
    }
    for (size_t at = 0; at < len; at += GIGABYTE) CHECK(holds(grown + at, PAGE, (unsigned)(at / GIGABYTE)));
    puts("the reservation stood");
}
