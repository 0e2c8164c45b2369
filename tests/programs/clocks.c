// Tests that clocks read through the vDSO agree with the kernel's and never go back, across checkpoint and restart.
// @restored Time: clocks read through the vDSO
#include "check.h"
#include <sched.h>
#include <sys/time.h>

static double read_clock(clockid_t clock, int by_kernel) {
    struct timespec time;
    CHECK((by_kernel ? syscall(SYS_clock_gettime, clock, &time) : clock_gettime(clock, &time)) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE};
    double last[5] = {0};
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 5; i++) {
            for (int repeat = 0; repeat < 200; repeat++) {
                double fast = read_clock(clocks[i], 0);
                // The clock of day may be set back; the others may not.
                CHECK(fast >= last[i] || clocks[i] == CLOCK_REALTIME);
                last[i] = fast;
            }
            // A restart may fall between the two: the second reading is only bounded from below, by a coarse clock's tick.
            CHECK(read_clock(clocks[i], 1) >= last[i] - 0.05 || clocks[i] == CLOCK_REALTIME);
        }
        struct timeval day;
        CHECK(gettimeofday(&day, NULL) == 0);
        CHECK(labs(time(NULL) - day.tv_sec) < 120);
        CHECK(sched_getcpu() >= 0);
        rest();
    }
    puts("time went forward");
}
