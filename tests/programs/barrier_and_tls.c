// Tests that barriers let 8 threads go together, and that each keeps its own thread-local storage.
// @restored Threads: barriers, thread-local storage
#include "check.h"

static pthread_barrier_t barrier;
static _Thread_local long counter;
static _Thread_local char block[256];
static pthread_key_t key;
static int rounds;
static long steps[8];

static void *work(void *argument) {
    long id = (long)argument;
    pthread_t self = pthread_self();
    pid_t tid = gettid();
    fill(block, sizeof block, (unsigned)id);
    CHECK(pthread_setspecific(key, (void *)(id + 1)) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(pthread_equal(self, pthread_self()) && tid == gettid());
        CHECK(holds(block, sizeof block, (unsigned)id));
        CHECK(pthread_getspecific(key) == (void *)(id + 1));
        CHECK(counter == round);
        counter++;
        errno = (int)id + 1;
        steps[id]++;
        int result = pthread_barrier_wait(&barrier);
        CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
        for (int other = 0; other < 8; other++) CHECK(__atomic_load_n(&steps[other], __ATOMIC_SEQ_CST) >= round + 1);
        CHECK(errno == (int)id + 1);
        result = pthread_barrier_wait(&barrier);
        CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
        if (id == round % 8) rest();
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    CHECK(pthread_barrier_init(&barrier, NULL, 8) == 0);
    CHECK(pthread_key_create(&key, NULL) == 0);
    pthread_t threads[8];
    for (long i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("no thread passed a barrier alone, none saw another's storage");
}
