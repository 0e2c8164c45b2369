// Tests that the three interval timers go on: a periodic one, a far one that counts down, and those of processor time.
// @restored Interval timers: ITIMER_REAL (and alarm), ITIMER_VIRTUAL, ITIMER_PROF: time left and period
#include "check.h"
#include <sys/time.h>

static volatile int alarms, virtual_alarms, profile_alarms;

static void on_alarm(int signal) {
    if (signal == SIGALRM) alarms++;
    if (signal == SIGVTALRM) virtual_alarms++;
    if (signal == SIGPROF) profile_alarms++;
}

static void spin(double seconds) {
    double end = now() + seconds;
    while (now() < end)
        for (volatile int i = 0; i < 10000; i++) {}
}

static void wait_for_alarm(void) {
    // SIGALRM is blocked but in sigsuspend, so that it is never missed.
    sigset_t open;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &open) == 0);
    sigdelset(&open, SIGALRM);
    CHECK(sigsuspend(&open) == -1 && errno == EINTR);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && sigaction(SIGVTALRM, &action, NULL) == 0 && sigaction(SIGPROF, &action, NULL) == 0);
    struct itimerval period = {{0, 10000}, {0, 10000}}, found;
    CHECK(setitimer(ITIMER_REAL, &period, NULL) == 0);
    for (int round = 0; round < rounds / 2; round++) {
        int before = alarms;
        wait_for_alarm();
        CHECK(alarms == before + 1);
        CHECK(getitimer(ITIMER_REAL, &found) == 0);
        CHECK(found.it_interval.tv_usec == 10000 && found.it_interval.tv_sec == 0);
        CHECK(found.it_value.tv_sec == 0 && found.it_value.tv_usec <= 20000);
    }
    // One that does not fire: it only counts down, and at about the pace of the clock or, over a restart, less.
    struct itimerval far = {{0, 0}, {1000, 0}};
    CHECK(setitimer(ITIMER_REAL, &far, NULL) == 0);
    CHECK(setitimer(ITIMER_VIRTUAL, &period, NULL) == 0 && setitimer(ITIMER_PROF, &period, NULL) == 0);
    double start = now(), last = 1001;
    for (int round = 0; round < rounds / 2; round++) {
        spin(0.01);
        CHECK(getitimer(ITIMER_REAL, &found) == 0);
        double left = (double)found.it_value.tv_sec + (double)found.it_value.tv_usec / 1e6;
        CHECK(found.it_interval.tv_sec == 0 && found.it_interval.tv_usec == 0);
        CHECK(left <= last && left > 900);
        CHECK(1000 - left < now() - start + 0.5);
        last = left;
    }
    // Both clocks of processor time must have struck by now, or do so soon.
    while (virtual_alarms == 0 || profile_alarms == 0) spin(0.01);
    CHECK(getitimer(ITIMER_VIRTUAL, &found) == 0 && found.it_interval.tv_usec == 10000);
    CHECK(getitimer(ITIMER_PROF, &found) == 0 && found.it_interval.tv_usec == 10000);
    puts("the timers kept time");
}
