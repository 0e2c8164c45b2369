// Tests that priority-inheriting mutexes go on that are held, waited for, and waited with: in one process and shared, robust ones too, and by the raw calls.
// @restored Futexes: priority-inheriting mutexes with owners and waiters (FUTEX_LOCK_PI), requeueing to them (FUTEX_WAIT_REQUEUE_PI), robust ones
#include "check.h"
#include <linux/futex.h>

struct shared {
    pthread_mutex_t mutex, robust;
    uint32_t condition, lock, waiting;
    int turn;
};

static struct shared *shared;
static pthread_mutex_t local;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int rounds, turns;

static long futex(uint32_t *word, int what, uint32_t value, void *time, uint32_t *other, uint32_t last) {
    return syscall(SYS_futex, word, what, value, time, other, last);
}

// Waits on a condition with a priority-inheriting mutex, in turns with the first thread.
static void *in_thread(void *argument) {
    CHECK(pthread_mutex_lock(&local) == 0);
    for (int round = 0; round < rounds; round++) {
        while (turns % 2 == 0) CHECK(pthread_cond_wait(&changed, &local) == 0);
        turns++;
        CHECK(pthread_cond_signal(&changed) == 0);
    }
    CHECK(pthread_mutex_unlock(&local) == 0);
    return argument;
}

// Waits on a word, to be moved to the queue of a lock that somebody else holds.
static void requeued(void) {
    __atomic_store_n(&shared->waiting, 1, __ATOMIC_SEQ_CST);
    long result;
    while ((result = futex(&shared->condition, FUTEX_WAIT_REQUEUE_PI, 0, NULL, &shared->lock, 0)) == -1 && errno == EAGAIN && shared->condition == 0) {}
    if (result == -1) {
        // Moved already when it was interrupted: the lock is to be asked for then (futex(2), kernel/futex/requeue.c).
        CHECK(errno == EAGAIN && futex(&shared->lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0) == 0);
    }
    CHECK((shared->lock & FUTEX_TID_MASK) == (uint32_t)gettid());
    uint32_t mine = (uint32_t)gettid();
    if (!__atomic_compare_exchange_n(&shared->lock, &mine, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) CHECK(futex(&shared->lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
    _exit(0);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pthread_mutexattr_t attr;
    CHECK(pthread_mutexattr_init(&attr) == 0 && pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT) == 0);
    CHECK(pthread_mutex_init(&local, &attr) == 0);
    CHECK(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0 && pthread_mutex_init(&shared->mutex, &attr) == 0);
    CHECK(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0 && pthread_mutex_init(&shared->robust, &attr) == 0);
    shared->lock = (uint32_t)gettid();
    pid_t waiter = fork();
    CHECK(waiter >= 0);
    if (waiter == 0) requeued();
    while (!shared->waiting) usleep(1000);
    // Half of the time it waits for the word, the other half for the lock.
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    if (me) {
        CHECK(pthread_mutex_lock(&shared->robust) == 0);
        __atomic_store_n(&shared->waiting, 2, __ATOMIC_SEQ_CST);
    }
    while (shared->waiting != 2) usleep(1000);
    pthread_t thread;
    if (!me) CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0 && pthread_mutex_lock(&local) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(pthread_mutex_lock(&shared->mutex) == 0);
        rest();
        shared->turn++;
        CHECK(pthread_mutex_unlock(&shared->mutex) == 0);
        if (me) continue;
        while (turns % 2 == 1) CHECK(pthread_cond_wait(&changed, &local) == 0);
        turns++;
        CHECK(pthread_cond_signal(&changed) == 0);
        CHECK(pthread_mutex_trylock(&shared->robust) == EBUSY);
        if (round == rounds / 2) {
            shared->condition = 1;
            CHECK(futex(&shared->condition, FUTEX_CMP_REQUEUE_PI, 1, NULL, &shared->lock, 1) >= 0);
        }
    }
    if (me) for (;;) pause();
    while (turns % 2 == 1) CHECK(pthread_cond_wait(&changed, &local) == 0);
    CHECK(pthread_mutex_unlock(&local) == 0 && pthread_join(thread, NULL) == 0);
    uint32_t mine = (uint32_t)gettid();
    if (!__atomic_compare_exchange_n(&shared->lock, &mine, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) CHECK(futex(&shared->lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
    int status;
    CHECK(waitpid(waiter, &status, 0) == waiter && status == 0);
    while (__atomic_load_n(&shared->turn, __ATOMIC_SEQ_CST) < 2 * rounds) usleep(1000);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    CHECK(pthread_mutex_lock(&shared->robust) == EOWNERDEAD && pthread_mutex_consistent(&shared->robust) == 0);
    puts("all came to their turn");
}
