// Tests that a program may use the number of the checkpoint signal for itself: its handler runs once for each signal that the job sends.
// @restored Signals: handlers of the program's own for the number of the checkpoint signal, called by kill, sigqueue, pthread_kill and timers
// @not-kept Signals: the number of the checkpoint signal cannot be blocked or waited for by a program
#include "check.h"

static int number;
static volatile int calls, last_value, interruptions;

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)context;
    CHECK(signal == number && info->si_signo == number);
    calls++;
    if (info->si_code == SI_QUEUE) last_value = info->si_value.sival_int;
}

static void expect(int count) {
    while (calls < count) usleep(200);
    CHECK(calls == count);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    number = SIGRTMAX - 2;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO}, told;
    CHECK(sigaction(number, &action, NULL) == 0 && sigaction(number, NULL, &told) == 0);
    CHECK(told.sa_sigaction == on_signal && told.sa_flags & SA_SIGINFO && !(told.sa_flags & SA_RESTART));
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    for (int round = 0; round < rounds; round++) {
        calls = 0;
        CHECK(raise(number) == 0);
        expect(1);
        CHECK(sigqueue(getpid(), number, (union sigval){.sival_int = round + 1}) == 0);
        expect(2);
        CHECK(last_value == round + 1);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            // Mostly while its parent reads: a handler without SA_RESTART ends the call.
            usleep(3000);
            CHECK(kill(getppid(), number) == 0);
            usleep(10000);
            CHECK(write(pipes[1], "x", 1) == 1);
            _exit(0);
        }
        char byte;
        ssize_t n = read(pipes[0], &byte, 1);
        if (n == -1) {
            CHECK(errno == EINTR);
            interruptions++;
            n = read(pipes[0], &byte, 1);
        }
        CHECK(n == 1);
        expect(3);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        struct itimerspec soon = {.it_value = {0, 2000000}};
        CHECK(timer_settime(timer, 0, &soon, NULL) == 0);
        expect(4);
        rest();
    }
    CHECK(interruptions > 0 && signal(number, SIG_DFL) != SIG_ERR);
    puts("every signal came once");
}
