// Tests that threads can be made after a restart, and that those from before it can be joined and keep their stacks.
// @restored Threads: creation, join, detached ones, stacks
#include "check.h"

static int rounds;

static void *brief(void *argument) {
    char block[4000];
    fill(block, sizeof block, (unsigned)(long)argument);
    rest();
    CHECK(holds(block, sizeof block, (unsigned)(long)argument));
    return (void *)((long)argument * 3);
}

static void *lasting(void *argument) {
    char block[100000];
    fill(block, sizeof block, (unsigned)(long)argument);
    for (int round = 0; round < rounds / 2; round++) rest();
    CHECK(holds(block, sizeof block, (unsigned)(long)argument));
    return (void *)((long)argument + 7);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    pthread_t lasters[3];
    for (long i = 0; i < 3; i++) CHECK(pthread_create(&lasters[i], NULL, lasting, (void *)i) == 0);
    for (long round = 0; round < rounds; round++) {
        pthread_t thread;
        void *result;
        CHECK(pthread_create(&thread, NULL, brief, (void *)round) == 0);
        CHECK(pthread_join(thread, &result) == 0 && result == (void *)(round * 3));
    }
    for (long i = 0; i < 3; i++) {
        void *result;
        CHECK(pthread_join(lasters[i], &result) == 0 && result == (void *)(i + 7));
    }
    puts("every thread was made and joined");
}
