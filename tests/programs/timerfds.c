// Tests that timerfds keep their clocks, the time that is left, periods, and expirations that were not read.
// @restored timerfd: clocks, time left, periods, unread expirations
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/timerfd.h>

static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME};
enum { CLOCKS = sizeof clocks / sizeof *clocks };

static double seconds(struct timespec time) { return (double)time.tv_sec + (double)time.tv_nsec / 1e9; }

static struct timespec span(double time) { return (struct timespec){(time_t)time, (long)((time - (double)(time_t)time) * 1e9)}; }

static double wall(void) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_REALTIME, &time) == 0);
    return seconds(time);
}

static int timer(clockid_t clock, int how, double value, double interval) {
    int fd = timerfd_create(clock, TFD_NONBLOCK);
    struct itimerspec set = {span(interval), span(value)};
    CHECK(fd >= 0 && timerfd_settime(fd, how, &set, NULL) == 0);
    return fd;
}

static double left(int fd, double interval) {
    struct itimerspec now;
    CHECK(timerfd_gettime(fd, &now) == 0 && seconds(now.it_interval) > interval - 1e-6 && seconds(now.it_interval) < interval + 1e-6);
    return seconds(now.it_value);
}

static int ready(int fd) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

// Expirations since the last read; 0: none.
static uint64_t ticks(int fd) {
    uint64_t ticks;
    ssize_t got = read(fd, &ticks, sizeof ticks);
    CHECK(got == sizeof ticks || (got == -1 && errno == EAGAIN));
    return got == -1 ? 0 : ticks;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    double start = now(), deadline = wall() + 7200;
    int far[CLOCKS], until[CLOCKS], expired[CLOCKS], stopped[CLOCKS], missed[CLOCKS], once_an_hour[CLOCKS];
    double before[CLOCKS];
    for (int i = 0; i < CLOCKS; i++) {
        struct timespec time;
        CHECK(clock_gettime(clocks[i], &time) == 0);
        far[i] = timer(clocks[i], 0, 3600, 250);
        until[i] = timer(clocks[i], TFD_TIMER_ABSTIME, seconds(time) + 7200, 0);
        expired[i] = timer(clocks[i], 0, 1e-6, 0);
        stopped[i] = timer(clocks[i], 0, 0, 0);
        missed[i] = timer(clocks[i], 0, 0.005, 0.005);
        once_an_hour[i] = timer(clocks[i], 0, 1e-6, 3600);
        before[i] = 3600;
    }
    int pace = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec ten_milliseconds = {{0, 10000000}, {0, 10000000}};
    CHECK(pace >= 0 && timerfd_settime(pace, 0, &ten_milliseconds, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        // A blocking read of a period gives the pace.
        uint64_t passed;
        CHECK(read(pace, &passed, sizeof passed) == sizeof passed && passed >= 1);
        for (int i = 0; i < CLOCKS; i++) {
            // It runs down with the time of the job, which is no more than has passed by the clock.
            double rest = left(far[i], 250), elapsed = now() - start;
            CHECK(rest <= before[i] && rest > 3600 - elapsed - 0.1);
            before[i] = rest;
            rest = left(until[i], 0);
            // The wall clock goes on while the job is not there.
            if (clocks[i] == CLOCK_REALTIME) elapsed = wall() - (deadline - 7200);
            CHECK(rest > 7200 - elapsed - 0.1 && rest <= 7200);
            // A time of the wall clock stays that, whatever happens meanwhile.
            double error = rest - (deadline - wall());
            CHECK(clocks[i] != CLOCK_REALTIME || (error > -0.2 && error < 0.2));
            CHECK(ticks(far[i]) == 0 && ticks(until[i]) == 0 && ticks(stopped[i]) == 0 && left(stopped[i], 0) == 0);
            CHECK(ready(expired[i]) && ready(once_an_hour[i]) && !ready(far[i]));
        }
        CHECK(!(fcntl(pace, F_GETFL) & O_NONBLOCK) && (fcntl(far[0], F_GETFL) & O_NONBLOCK));
    }
    for (int i = 0; i < CLOCKS; i++) {
        CHECK(ticks(expired[i]) == 1 && ticks(expired[i]) == 0);
        CHECK(ticks(once_an_hour[i]) == 1 && left(once_an_hour[i], 3600) > 3000);
        // Two in each round at least, none of which was lost.
        uint64_t least = (uint64_t)rounds * 2;
        CHECK(ticks(missed[i]) >= least - least / 10);
    }
    puts("time went as it should");
}
