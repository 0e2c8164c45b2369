// Tests that the clocks that count from a machine's start go on over a restart from where they were, wherever the machine's are, and that
// deadlines in the job's memory keep their meaning.
// @restored Time: CLOCK_MONOTONIC and CLOCK_BOOTTIME continue from the checkpoint on any machine; absolute deadlines of sleeps, condition variables, semaphores and timerfds
// @not-kept Time: clocks, if time namespaces are not allowed: the job has the machine's clocks, and a line says so if they go back
// @not-kept Time: CPU time of processes and threads: it cannot be set, so it starts at zero in each run
#include "check.h"
#include <semaphore.h>
#include <sys/timerfd.h>

// No restart of a test takes so long, and no machine of a test is so close to another's start.
enum { LONG = 5000 };

static double read_clock(clockid_t clock) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct timespec in_ms(clockid_t clock, long ms) {
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    time.tv_nsec += ms * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec / 1e9; }

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE};
    double last[4];
    for (int i = 0; i < 4; i++) last[i] = read_clock(clocks[i]);
    double between = read_clock(CLOCK_BOOTTIME) - read_clock(CLOCK_MONOTONIC);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_condattr_t attributes;
    pthread_cond_t condition;
    CHECK(pthread_condattr_init(&attributes) == 0 && pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&condition, &attributes) == 0);
    sem_t semaphore;
    CHECK(sem_init(&semaphore, 0, 0) == 0);
    int timer = timerfd_create(CLOCK_BOOTTIME, 0);
    struct itimerspec far = {.it_value = in_ms(CLOCK_BOOTTIME, 0)}, left;
    far.it_value.tv_sec += 10 * LONG;
    CHECK(timerfd_settime(timer, TFD_TIMER_ABSTIME, &far, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        struct timespec deadline = in_ms(clocks[round % 2], 10);
        switch (round % 4) {
        case 2:
            CHECK(pthread_mutex_lock(&mutex) == 0);
            CHECK(pthread_cond_timedwait(&condition, &mutex, &deadline) == ETIMEDOUT);
            CHECK(pthread_mutex_unlock(&mutex) == 0);
            break;
        case 3:
            deadline = in_ms(CLOCK_MONOTONIC, 10);
            CHECK(sem_clockwait(&semaphore, CLOCK_MONOTONIC, &deadline) == -1 && errno == ETIMEDOUT);
            break;
        default: CHECK(clock_nanosleep(clocks[round % 2], TIMER_ABSTIME, &deadline, NULL) == 0);
        }
        clockid_t clock = round % 4 == 1 ? CLOCK_BOOTTIME : CLOCK_MONOTONIC;
        CHECK(read_clock(clock) >= seconds(deadline) && read_clock(clock) < seconds(deadline) + LONG);
        for (int i = 0; i < 4; i++) {
            double time = read_clock(clocks[i]);
            CHECK(time >= last[i] && time < last[i] + LONG);
            last[i] = time;
        }
        double apart = read_clock(CLOCK_BOOTTIME) - read_clock(CLOCK_MONOTONIC) - between;
        CHECK(apart > -LONG && apart < LONG);
        CHECK(timerfd_gettime(timer, &left) == 0);
        double off = read_clock(CLOCK_BOOTTIME) + seconds(left.it_value) - seconds(far.it_value);
        CHECK(off > -LONG && off < LONG);
    }
    puts("no clock went back, and none ran ahead");
}
