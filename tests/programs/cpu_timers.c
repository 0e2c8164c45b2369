// Tests that timers of processor time go on: of the process, of each thread, of another process, by each way to name a clock.
// @restored POSIX timers: CPU-time clocks of the process, of a thread (also as "my own"), of another process of the job
#include "check.h"

static void spin(double seconds) {
    double end = now() + seconds;
    while (now() < end)
        for (volatile int i = 0; i < 10000; i++) {}
}

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec / 1e9; }

static int timer(clockid_t clock, int signal, double first, double interval) {
    struct sigevent event = {.sigev_notify = signal ? SIGEV_SIGNAL : SIGEV_NONE, .sigev_signo = signal};
    struct itimerspec set = {{(time_t)interval, (long)((interval - (double)(time_t)interval) * 1e9)}, {(time_t)first, (long)((first - (double)(time_t)first) * 1e9)}};
    int id = -1;
    CHECK(syscall(SYS_timer_create, clock, &event, &id) == 0);
    CHECK(syscall(SYS_timer_settime, id, 0, &set, NULL) == 0);
    return id;
}

static double left(int id) {
    struct itimerspec now;
    CHECK(syscall(SYS_timer_gettime, id, &now) == 0);
    return seconds(now.it_value);
}

static volatile int struck[2];
static void on_timer(int signal) { struck[signal == SIGUSR2]++; }

static int rounds, idle_timer, busy_timer, unset_timer;
static pthread_barrier_t ready;

static void *idle(void *argument) {
    idle_timer = timer(CLOCK_THREAD_CPUTIME_ID, 0, 1000, 0);
    pthread_barrier_wait(&ready);
    for (int round = 0; round < rounds; round++) rest();
    pthread_barrier_wait(&ready);
    return argument;
}

static void *busy(void *argument) {
    busy_timer = timer(CLOCK_THREAD_CPUTIME_ID, 0, 1000, 0);
    unset_timer = timer(CLOCK_THREAD_CPUTIME_ID, 0, 0, 0);
    timer(CLOCK_THREAD_CPUTIME_ID, SIGUSR2, 0.02, 0.02);
    pthread_barrier_wait(&ready);
    for (int round = 0; round < rounds; round++) {
        spin(0.005);
        rest();
    }
    // It still runs down with this thread's time only.
    double before = left(busy_timer), others = left(idle_timer);
    struct itimerspec set = {{0, 0}, {100, 0}};
    CHECK(syscall(SYS_timer_settime, unset_timer, 0, &set, NULL) == 0);
    spin(0.1);
    CHECK(left(busy_timer) < before - 0.01 && left(unset_timer) < 100 - 0.01 && left(idle_timer) > others - 0.01);
    pthread_barrier_wait(&ready);
    return argument;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    CHECK(pthread_barrier_init(&ready, NULL, 3) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int round = 0; round < rounds; round++) {
            spin(0.002);
            rest();
        }
        pause();
    }
    // Only the first thread takes the signals.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    clockid_t others;
    CHECK(clock_getcpuclockid(child, &others) == 0);
    int of_child = timer(others, 0, 1000, 0);
    timer(CLOCK_PROCESS_CPUTIME_ID, SIGUSR1, 0.02, 0.02);
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, idle, NULL) == 0 && pthread_create(&threads[1], NULL, busy, NULL) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    pthread_barrier_wait(&ready);
    clockid_t of_thread;
    CHECK(pthread_getcpuclockid(threads[1], &of_thread) == 0);
    int by_name = timer(of_thread, 0, 1000, 0);
    double last = 1001;
    for (int round = 0; round < rounds; round++) {
        struct timespec ten_milliseconds = {0, 10000000};
        nanosleep(&ten_milliseconds, NULL);
        double rest = left(by_name);
        CHECK(rest <= last && rest > 900 && left(of_child) > 900 && left(of_child) <= 1000);
        last = rest;
    }
    double before = left(of_child), deadline = now() + 10;
    pthread_barrier_wait(&ready);
    CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    CHECK(left(of_child) <= before && left(of_child) < 1000);
    while ((struck[0] == 0 || struck[1] == 0) && now() < deadline) spin(0.01);
    CHECK(struck[0] > 0 && struck[1] > 0);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    puts("the processors' time was measured");
}
