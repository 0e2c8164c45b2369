// Tests that reservations of terabytes without access cost nothing, stay reserved, and can be opened up page by page.
// @restored Memory: reservations of terabytes, at no cost
#include "check.h"

enum { PAGE = 4096 };
static const size_t TERABYTE = 1ul << 40;

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char *reserved = mmap(NULL, 4 * TERABYTE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(reserved != MAP_FAILED);
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
    puts("the reservation stood");
}
