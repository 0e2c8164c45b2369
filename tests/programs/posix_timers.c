// Tests that timers of timer_create(2) keep their clocks, periods, the time that is left, whom they tell what, and expirations that wait.
// @restored POSIX timers: clock, period, time left, SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD_ID, signal and value, one pending signal with its overrun, disarmed timers
// @not-kept POSIX timers: absolute times of CLOCK_REALTIME and CLOCK_TAI: they become the time left; the kernel does not show which was requested
// @not-kept POSIX timers: timer_getoverrun of a signal received before the checkpoint: it cannot be set (si_overrun, which came with the signal, is kept)
#include "check.h"

static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI};
enum { CLOCKS = sizeof clocks / sizeof *clocks };

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec / 1e9; }

static struct timespec span(double time) { return (struct timespec){(time_t)time, (long)((time - (double)(time_t)time) * 1e9)}; }

// A timer by the kernel's own number: the C library's handles are not those.
static int timer(clockid_t clock, int notify, int signal, intptr_t value, double first, double interval) {
    struct sigevent event = {.sigev_notify = notify, .sigev_signo = signal, .sigev_value.sival_ptr = (void *)value};
    if (notify == SIGEV_THREAD_ID) event._sigev_un._tid = gettid();
    int id = -1;
    struct itimerspec set = {span(interval), span(first)};
    CHECK(syscall(SYS_timer_create, clock, &event, &id) == 0);
    CHECK(syscall(SYS_timer_settime, id, 0, &set, NULL) == 0);
    return id;
}

static double left(int id, double interval) {
    struct itimerspec now;
    CHECK(syscall(SYS_timer_gettime, id, &now) == 0);
    CHECK(seconds(now.it_interval) > interval - 1e-6 && seconds(now.it_interval) < interval + 1e-6);
    return seconds(now.it_value);
}

// How many expirations a waiting signal of a timer stands for; 0: none waits.
static int take(int signal, int id, intptr_t value) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    siginfo_t info;
    struct timespec none = {0, 0};
    if (sigtimedwait(&set, &info, &none) == -1) {
        CHECK(errno == EAGAIN);
        return 0;
    }
    CHECK(info.si_code == SI_TIMER && info.si_timerid == id && info.si_value.sival_ptr == (void *)value && info.si_overrun >= 0);
    return 1 + info.si_overrun;
}

static volatile int handled;
static int handled_id;

static void on_timer(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    CHECK(info->si_code == SI_TIMER && info->si_timerid == handled_id && info->si_value.sival_int == 42);
    handled += 1 + info->si_overrun;
}

static void *in_thread(void *argument) {
    int rounds = *(int *)argument, id = timer(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGRTMIN + 5, 5, 0.005, 0.005), got = 0;
    for (int round = 0; round < rounds; round++) {
        rest();
        got += take(SIGRTMIN + 5, id, 5);
    }
    CHECK(got >= rounds);
    return NULL;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    for (int signal = SIGRTMIN + 1; signal <= SIGRTMIN + 20; signal++) sigaddset(&set, signal);
    sigset_t handled_one;
    sigemptyset(&handled_one);
    sigaddset(&handled_one, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0 && pthread_sigmask(SIG_BLOCK, &handled_one, NULL) == 0);
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, in_thread, &rounds) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &handled_one, NULL) == 0);
    intptr_t wide = 0x1122334455667788;
    int far[CLOCKS], stopped[CLOCKS], once[CLOCKS], missed[CLOCKS], counted[CLOCKS];
    double before[CLOCKS];
    double start = now();
    for (int i = 0; i < CLOCKS; i++) {
        far[i] = timer(clocks[i], SIGEV_NONE, 0, 0, 3600, 250);
        stopped[i] = timer(clocks[i], SIGEV_SIGNAL, SIGRTMIN + 1, 1, 0, 0);
        once[i] = timer(clocks[i], SIGEV_SIGNAL, SIGRTMIN + 6 + i, wide + i, 1e-6, 0);
        missed[i] = timer(clocks[i], SIGEV_SIGNAL, SIGRTMIN + 11 + i, 7, 0.005, 0.005);
        counted[i] = timer(clocks[i], SIGEV_NONE, 0, 0, 0.005, 0.005);
        before[i] = 3600;
    }
    handled_id = timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 42, 0.02, 0.02);
    for (int round = 0; round < rounds; round++) {
        // A timer's handler may cut it short.
        struct timespec ten_milliseconds = {0, 10000000};
        nanosleep(&ten_milliseconds, NULL);
        for (int i = 0; i < CLOCKS; i++) {
            double rest = left(far[i], 250), elapsed = now() - start;
            CHECK(rest <= before[i] && rest > 3600 - elapsed - 0.1);
            before[i] = rest;
            CHECK(left(stopped[i], 0) == 0 && left(once[i], 0) == 0 && left(counted[i], 0.005) > 0);
        }
        CHECK(take(SIGRTMIN + 1, 0, 0) == 0);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    for (int i = 0; i < CLOCKS; i++) {
        CHECK(take(SIGRTMIN + 6 + i, once[i], wide + i) == 1 && take(SIGRTMIN + 6 + i, once[i], wide + i) == 0);
        // Two in each round at least, all of which one signal stands for.
        int passed = take(SIGRTMIN + 11 + i, missed[i], 7);
        CHECK(passed >= 2 * rounds - rounds / 5);
        CHECK(syscall(SYS_timer_getoverrun, missed[i]) == passed - 1);
        CHECK(take(SIGRTMIN + 11 + i, missed[i], 7) <= 1);
        CHECK(syscall(SYS_timer_delete, missed[i]) == 0 && syscall(SYS_timer_delete, missed[i]) == -1);
    }
    CHECK(handled >= rounds / 4);
    // New ones can be made, and are told apart from the old.
    int fresh = timer(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 100, 0);
    for (int i = 0; i < CLOCKS; i++) CHECK(fresh != far[i] && fresh != stopped[i] && fresh != once[i]);
    puts("all timers told the time");
}
