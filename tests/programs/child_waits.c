// Tests that a wait for a child ends with the child, and not with the signal that tells of its end.
// @restored Signals: calls that have what they wait for return it, though a handler without SA_RESTART runs
#include "check.h"

enum { CHILDREN = 12 };

static volatile int told;

static void on_signal(int signal) {
    (void)signal;
    told++;
}

static void start(int number) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct timespec time = {0, 200000 + (number * 7919 % 13) * 150000};
        nanosleep(&time, NULL);
        _exit(number % 100);
    }
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    int number = 0;
    for (int i = 0; i < CHILDREN; i++) start(number++);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 20; i++) {
            int status;
            pid_t child = waitpid(-1, &status, 0);
            CHECK(child > 0 && WIFEXITED(status));
            start(number++);
        }
    }
    for (int i = 0; i < CHILDREN; i++) CHECK(waitpid(-1, NULL, 0) > 0);
    CHECK(told > 0 && waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
    puts("every wait ended with a child");
}
