// Memory that the kernel may drop (MAP_DROPPABLE, Linux 6.11): it holds what was written or zero, and zero in children. Where
// the kernel has none, memory that is wiped in children does the same.
// @restored Memory: MAP_DROPPABLE, empty, so that two restarts draw no random bytes twice
#include "check.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

enum { SIZE = 64 << 10 };

static unsigned char *map(void) {
    unsigned char *block = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) {
        block = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(block != MAP_FAILED && madvise(block, SIZE, MADV_WIPEONFORK) == 0);
    }
    return block;
}

// Every byte is as it was written, or empty: a page may be dropped, even halfway through being written.
static int is_written_or_empty(const unsigned char *block, unsigned key) {
    for (size_t at = 0; at < SIZE; at++)
        if (block[at] != 0 && block[at] != pattern(key, at)) return 0;
    return 1;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    unsigned char *block = map();
    for (int round = 1; round <= rounds; round++) {
        fill(block, SIZE, (unsigned)round);
        rest();
        CHECK(is_written_or_empty(block, (unsigned)round));
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            for (size_t at = 0; at < SIZE; at++) CHECK(block[at] == 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    printf("droppable memory holds\n");
    return 0;
}
