// Tests that timers whose period is shorter than it takes to look at one do not keep a checkpoint from coming to its end, and go on after it.
// @restored POSIX timers: periods of microseconds, which expire again while the checkpoint reads them
// @restored Interval timers: periods of microseconds, which expire again while the checkpoint reads them
#include "check.h"
#include <sys/time.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    // Blocked: a timer begins its next period when its signal is taken.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGRTMIN);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    struct itimerspec fast = {{0, 2000}, {0, 2000}}, is;
    struct itimerval quick = {{0, 2}, {0, 2}}, was;
    CHECK(timer_settime(timer, 0, &fast, NULL) == 0 && setitimer(ITIMER_REAL, &quick, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(take_pending(SIGALRM).si_code == SI_KERNEL);
        siginfo_t info = take_pending(SIGRTMIN);
        CHECK(info.si_code == SI_TIMER && info.si_value.sival_int == 42 && info.si_overrun > 0);
        CHECK(timer_gettime(timer, &is) == 0 && is.it_interval.tv_nsec == 2000);
        CHECK(getitimer(ITIMER_REAL, &was) == 0 && was.it_interval.tv_usec == 2);
    }
    puts("both timers go on");
    return 0;
}
