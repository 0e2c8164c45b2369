// Tests that robust mutexes held over a checkpoint are handed on when their owner, a thread or a process, dies after it.
// @restored Futexes: robust lists
#include "check.h"

static pthread_mutex_t *shared_mutex;
static int rounds;

static void make_robust(pthread_mutex_t *mutex, int shared) {
    pthread_mutexattr_t attributes;
    CHECK(pthread_mutexattr_init(&attributes) == 0);
    CHECK(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
    CHECK(pthread_mutexattr_setpshared(&attributes, shared ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE) == 0);
    CHECK(pthread_mutex_init(mutex, &attributes) == 0);
}

static void hold(pthread_mutex_t *mutex) {
    CHECK(pthread_mutex_lock(mutex) == 0);
    for (int i = 0; i < 50 && i < rounds; i++) rest();
}

static void *owner(void *mutex) {
    hold(mutex);
    return NULL;
}

static void inherit(pthread_mutex_t *mutex) {
    CHECK(pthread_mutex_lock(mutex) == EOWNERDEAD);
    CHECK(pthread_mutex_consistent(mutex) == 0 && pthread_mutex_unlock(mutex) == 0);
    CHECK(pthread_mutex_lock(mutex) == 0 && pthread_mutex_unlock(mutex) == 0);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    shared_mutex = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared_mutex != MAP_FAILED);
    make_robust(shared_mutex, 1);
    pthread_mutex_t own;
    make_robust(&own, 0);
    for (int round = 0; round < rounds; round += 50) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            hold(shared_mutex);
            _exit(0);
        }
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, owner, &own) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        inherit(&own);
        CHECK(waitpid(child, NULL, 0) == child);
        inherit(shared_mutex);
    }
    puts("no lock was lost with its owner");
}
