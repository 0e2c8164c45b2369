// Tests a program that puts signal handlers of its own in the place of all others by raw system calls, as the Go runtime does.
// @restored Threads that block every signal: runtimes that replace or reset every handler by raw calls
#include "check.h"
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

__attribute__((naked)) static void give_back(void) { __asm__("mov $15, %eax\n\tsyscall"); }

static volatile int handled;
static void handle(int signal) { handled += signal == SIGUSR1; }

static void replace_all(void (*handler)(int)) {
    struct action action = {handler, 0x04000000 /* SA_RESTORER */ | SA_RESTART, give_back, 0};
    for (int signal = 1; signal <= 64; signal++) {
        if (signal == SIGKILL || signal == SIGSTOP || signal == SIGCHLD) continue;
        CHECK(syscall(SYS_rt_sigaction, signal, &action, NULL, 8) == 0);
    }
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    replace_all(handle);
    pid_t reset = fork();
    CHECK(reset >= 0);
    if (reset == 0) {
        // Any signal would end this one.
        replace_all(SIG_DFL);
        for (int round = 0; round < rounds; round++) rest();
        _exit(5);
    }
    for (int round = 0; round < rounds; round++) {
        CHECK(raise(SIGUSR1) == 0 && handled == round + 1);
        rest();
    }
    int status;
    CHECK(waitpid(reset, &status, 0) == reset && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    puts("all signals were handled");
}
