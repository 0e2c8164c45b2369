// Tests that a process that may make no further process or thread (RLIMIT_NPROC of 0, as servers set it once they have begun) goes on with
// its memory and its threads. There is no room for a copy of it then: the image is written while it stands still.
// @restored Process: RLIMIT_NPROC of 0
#include "check.h"
#include <sys/resource.h>

static volatile int rounds_left;

static void *count(void *unused) {
    (void)unused;
    unsigned char *memory = malloc(1 << 20);
    CHECK(memory);
    memset(memory, 7, 1 << 20);
    while (rounds_left > 0) {
        rest();
        for (int at = 0; at < 1 << 20; at += 4096) CHECK(memory[at] == 7);
    }
    return memory;
}

int main(int argc, char **argv) {
    rounds_left = rounds_of(argc, argv);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, count, NULL) == 0);
    struct rlimit none = {0, 0}, limit;
    CHECK(setrlimit(RLIMIT_NPROC, &none) == 0);
    while (rounds_left > 0) {
        rest();
        rounds_left--;
        CHECK(getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    puts("no more than there were");
}
