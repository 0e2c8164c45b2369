// Tests that a timer that is over in the midst of a checkpoint sends its signal once, not again after a restart.
// @restored Interval timers: a timer that expires during the checkpoint: one signal, not two
#include "check.h"
#include <sys/time.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int signal) {
    (void)signal;
    alarms++;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    sigset_t alarm, none, pending;
    sigemptyset(&none);
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && sigprocmask(SIG_BLOCK, &alarm, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        struct itimerval once = {.it_value = {0, 1000 + round * 997 % 19000}}, now;
        CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
        // Every other time the signal waits for a while.
        if (round % 2) rest();
        while (alarms == round) CHECK(sigsuspend(&none) == -1);
        CHECK(alarms == round + 1 && getitimer(ITIMER_REAL, &now) == 0 && now.it_value.tv_sec == 0 && now.it_value.tv_usec == 0);
        CHECK(sigpending(&pending) == 0 && !sigismember(&pending, SIGALRM));
    }
    puts("each was sent once");
    return 0;
}
