// Tests that mutexes, read-write locks, condition variables and barriers that processes share go on, held and waited for.
// @restored Futexes: process-shared mutexes, read-write locks, condition variables and barriers, robust mutexes of a process that ends after the restart
#include "check.h"

struct shared {
    pthread_mutex_t mutex, robust;
    pthread_rwlock_t lock;
    pthread_cond_t changed;
    pthread_barrier_t barrier;
    int turn, readers;
};

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pthread_mutexattr_t mutex;
    pthread_rwlockattr_t lock;
    pthread_condattr_t condition;
    pthread_barrierattr_t barrier;
    CHECK(pthread_mutexattr_init(&mutex) == 0 && pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_mutex_init(&shared->mutex, &mutex) == 0);
    CHECK(pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST) == 0 && pthread_mutex_init(&shared->robust, &mutex) == 0);
    CHECK(pthread_rwlockattr_init(&lock) == 0 && pthread_rwlockattr_setpshared(&lock, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_rwlock_init(&shared->lock, &lock) == 0);
    CHECK(pthread_condattr_init(&condition) == 0 && pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_cond_init(&shared->changed, &condition) == 0);
    CHECK(pthread_barrierattr_init(&barrier) == 0 && pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED) == 0);
    CHECK(pthread_barrier_init(&shared->barrier, &barrier, 3) == 0);
    pid_t holder = fork();
    CHECK(holder >= 0);
    if (holder == 0) {
        // Holds a lock until it is killed; all others find it dead then.
        CHECK(pthread_mutex_lock(&shared->robust) == 0);
        pthread_barrier_wait(&shared->barrier);
        for (;;) pause();
    }
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    pthread_barrier_wait(&shared->barrier);
    if (!me) CHECK(pthread_barrier_destroy(&shared->barrier) == 0 && pthread_barrier_init(&shared->barrier, &barrier, 2) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(pthread_mutex_lock(&shared->mutex) == 0);
        while (shared->turn % 2 != me) CHECK(pthread_cond_wait(&shared->changed, &shared->mutex) == 0);
        CHECK(shared->turn == 2 * round + me);
        rest();
        shared->turn++;
        CHECK(pthread_cond_broadcast(&shared->changed) == 0 && pthread_mutex_unlock(&shared->mutex) == 0);
        if (round % 2 == me) {
            CHECK(pthread_rwlock_wrlock(&shared->lock) == 0 && shared->readers == 0);
        } else {
            CHECK(pthread_rwlock_rdlock(&shared->lock) == 0);
            __atomic_add_fetch(&shared->readers, 1, __ATOMIC_SEQ_CST);
            usleep(500);
            __atomic_sub_fetch(&shared->readers, 1, __ATOMIC_SEQ_CST);
        }
        CHECK(pthread_rwlock_unlock(&shared->lock) == 0 && pthread_mutex_trylock(&shared->robust) == EBUSY);
        int who = pthread_barrier_wait(&shared->barrier);
        CHECK(who == 0 || who == PTHREAD_BARRIER_SERIAL_THREAD);
    }
    if (me) _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(kill(holder, SIGKILL) == 0 && waitpid(holder, &status, 0) == holder);
    CHECK(pthread_mutex_lock(&shared->robust) == EOWNERDEAD && pthread_mutex_consistent(&shared->robust) == 0);
    puts("all locks were kept");
}
