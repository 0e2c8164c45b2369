// Tests that the heap that brk grows goes on where it was, and that its start does not move.
// @restored Memory: the heap of brk, its start and its growth
#include "check.h"

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    enum { STEP = 8192 };
    char *start = sbrk(0);
    CHECK(start != (void *)-1);
    for (int round = 0; round < rounds; round++) {
        CHECK(sbrk(0) == start + (size_t)round * STEP);
        char *block = sbrk(STEP);
        CHECK(block == start + (size_t)round * STEP);
        // What brk gives is zero.
        for (int at = 0; at < STEP; at++) CHECK(block[at] == 0);
        fill(block, STEP, (unsigned)round);
        int earlier = round * 7 % (round + 1);
        CHECK(holds(start + (size_t)earlier * STEP, STEP, (unsigned)earlier));
        rest();
    }
    for (int round = 0; round < rounds; round++) CHECK(holds(start + (size_t)round * STEP, STEP, (unsigned)round));
    CHECK(brk(start) == 0 && sbrk(0) == start);
    // The exit below needs a heap again: the C library asks for it anew.
    CHECK(write(1, "the heap grew in one piece\n", 27) == 27);
    _exit(0);
}
