// Tests that the heap of 4 threads that allocate all the time, small and large, keeps every block.
// @restored Memory: heaps of several threads
#include "check.h"

enum { SLOTS = 512 };
static int rounds;

static void *work(void *argument) {
    unsigned seed = (unsigned)(long)argument + 1;
    struct { unsigned char *block; size_t size; unsigned key; } slots[SLOTS] = {0};
    for (int round = 0; round < rounds; round++) {
        for (int step = 0; step < 200; step++) {
            unsigned slot = (unsigned)rand_r(&seed) % SLOTS;
            if (slots[slot].block) {
                CHECK(holds(slots[slot].block, slots[slot].size, slots[slot].key));
                if (step % 3 == 0) {
                    size_t size = slots[slot].size * 2 % 100000 + 1;
                    slots[slot].block = realloc(slots[slot].block, size);
                    CHECK(slots[slot].block);
                    size_t kept = size < slots[slot].size ? size : slots[slot].size;
                    CHECK(holds(slots[slot].block, kept, slots[slot].key));
                    slots[slot].size = size;
                    fill(slots[slot].block, size, slots[slot].key);
                } else {
                    free(slots[slot].block);
                    slots[slot].block = NULL;
                }
            } else {
                // Now and then one that malloc makes a mapping of its own for.
                size_t size = step % 50 == 0 ? 200000 : (size_t)rand_r(&seed) % 2000 + 1;
                slots[slot].block = malloc(size);
                CHECK(slots[slot].block);
                slots[slot].size = size;
                slots[slot].key = (unsigned)rand_r(&seed);
                fill(slots[slot].block, size, slots[slot].key);
            }
        }
        rest();
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (slots[slot].block) CHECK(holds(slots[slot].block, slots[slot].size, slots[slot].key));
        free(slots[slot].block);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("every block held what was put into it");
}
