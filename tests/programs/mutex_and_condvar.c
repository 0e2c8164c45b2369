// Tests that mutexes and condition variables among 8 threads keep their owners and waiters.
// @restored Threads: mutexes and condition variables with owners and waiters
#include "check.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;
static long queue[4], produced, consumed, sum;
static int count, done, total;

static void *produce(void *unused) {
    (void)unused;
    for (;;) {
        CHECK(pthread_mutex_lock(&lock) == 0);
        while (count == 4) CHECK(pthread_cond_wait(&emptied, &lock) == 0);
        if (produced == total) {
            done = 1;
            CHECK(pthread_cond_broadcast(&filled) == 0);
            CHECK(pthread_mutex_unlock(&lock) == 0);
            return NULL;
        }
        queue[count++] = ++produced;
        CHECK(pthread_cond_signal(&filled) == 0);
        CHECK(pthread_mutex_unlock(&lock) == 0);
    }
}

static void *consume(void *unused) {
    (void)unused;
    for (;;) {
        CHECK(pthread_mutex_lock(&lock) == 0);
        while (count == 0 && !done) CHECK(pthread_cond_wait(&filled, &lock) == 0);
        if (count == 0) {
            CHECK(pthread_mutex_unlock(&lock) == 0);
            return NULL;
        }
        sum += queue[--count];
        consumed++;
        // Every so often the lock is held while resting, so that some checkpoints find it owned and wanted.
        if (consumed % 64 == 0) rest();
        CHECK(pthread_cond_signal(&emptied) == 0);
        CHECK(pthread_mutex_unlock(&lock) == 0);
    }
}

int main(int argc, char **argv) {
    total = rounds_of(argc, argv) * 64;
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, i < 4 ? produce : consume, NULL) == 0);
    for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(consumed == total && produced == total);
    CHECK(sum == (long)total * (total + 1) / 2);
    puts("each of the items was made once and taken once");
}
