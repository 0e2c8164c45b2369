// Tests that a deep stack keeps every frame, and that the main thread's stack grows further after a restart.
// @restored Memory: stacks, and the growth of the first thread's
#include "check.h"

static int descend(int depth, unsigned key) {
    char frame[2000];
    fill(frame, sizeof frame, key + (unsigned)depth);
    // The deepest point is where most checkpoints fall.
    int below = 0;
    if (depth > 0) below = descend(depth - 1, key);
    else rest();
    CHECK(holds(frame, sizeof frame, key + (unsigned)depth));
    return below + 1;
}

static int rounds;

static void *work(void *unused) {
    (void)unused;
    for (int round = 0; round < rounds; round++) CHECK(descend(3000, (unsigned)round) == 3001);
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    // Each round goes deeper than the one before: 6 MiB of the usual 8 in the end.
    for (int round = 0; round < rounds; round++) {
        int depth = 10 + round * 2900 / rounds;
        CHECK(descend(depth, (unsigned)round) == depth + 1);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    puts("every frame was whole");
}
