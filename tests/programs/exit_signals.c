// Tests that the end of a child is told by the signal that clone was given, or not at all, and that the dead of such children stay.
// @restored Process: exit signals other than SIGCHLD, zombies of such children, ignored SIGCHLD, SA_NOCLDWAIT
#include "check.h"
#include <sched.h>

static volatile int told[65];

static void on_signal(int signal) { told[signal]++; }

static pid_t fork_telling(int signal) { return (pid_t)syscall(SYS_clone, signal, 0, 0, 0, 0); }

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    const int signals[] = {SIGCHLD, SIGUSR1, SIGUSR2, SIGRTMIN + 1, 0};
    for (int i = 0; i < 4; i++) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        CHECK(sigaction(signals[i], &action, NULL) == 0);
    }
    int gate[2];
    CHECK(pipe(gate) == 0);
    pid_t living[5], dead[5];
    for (int i = 0; i < 5; i++) {
        if ((dead[i] = fork_telling(signals[i])) == 0) _exit(20 + i);
        siginfo_t info;
        CHECK(dead[i] > 0 && waitid(P_PID, (id_t)dead[i], &info, WEXITED | WNOWAIT | __WALL) == 0);
        if ((living[i] = fork_telling(signals[i])) == 0) {
            char byte;
            CHECK(close(gate[1]) == 0 && read(gate[0], &byte, 1) == 0);
            _exit(30 + i);
        }
        CHECK(living[i] > 0);
    }
    struct timespec moment = {0, 1000000};
    nanosleep(&moment, NULL);
    int before[65];
    memcpy(before, (int *)told, sizeof before);
    for (int i = 0; i < 4; i++) CHECK(before[signals[i]] == 1);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(memcmp(before, (int *)told, sizeof before) == 0);
    }
    int status;
    for (int i = 0; i < 5; i++) {
        // A plain wait sees no child whose end is told by another signal.
        if (signals[i] != SIGCHLD) CHECK(waitpid(dead[i], &status, WNOHANG) == -1 && errno == ECHILD);
        CHECK(waitpid(dead[i], &status, __WALL) == dead[i] && WEXITSTATUS(status) == 20 + i);
    }
    CHECK(close(gate[1]) == 0);
    for (int i = 0; i < 5; i++) CHECK(waitpid(living[i], &status, __WALL) == living[i] && WEXITSTATUS(status) == 30 + i);
    nanosleep(&moment, NULL);
    for (int i = 0; i < 4; i++) CHECK(told[signals[i]] == 2);
    // Nobody is told, and nobody stays, where the end of children is ignored.
    struct sigaction ignore = {.sa_handler = SIG_IGN}, no_wait = {.sa_handler = on_signal, .sa_flags = SA_NOCLDWAIT}, found;
    CHECK(sigaction(SIGCHLD, &ignore, NULL) == 0);
    for (int part = 0; part < 2; part++) {
        for (int round = 0; round < rounds / 4; round++) {
            rest();
            pid_t child = fork();
            if (child == 0) _exit(1);
            CHECK(child > 0 && waitpid(child, &status, 0) == -1 && errno == ECHILD);
            CHECK(sigaction(SIGCHLD, NULL, &found) == 0);
            CHECK(part ? found.sa_handler == on_signal && (found.sa_flags & SA_NOCLDWAIT) : found.sa_handler == SIG_IGN);
        }
        CHECK(sigaction(SIGCHLD, &no_wait, NULL) == 0);
    }
    puts("each end was told once, and as agreed");
}
