// A program that takes long to begin, started by one that blocks every signal by calls of its own: while the one is reached by another way than
// the checkpoint signal, the other, whose agent is not there yet, must not be, since the signal would end it.
// @restored Process: a program that loads its libraries slowly after `exec`, with the checkpoint signal blocked
#include "check.h"

#define STARTED "CKPT_TEST_SLOW_START"

// Before the constructors of libraries, the agent's among them.
static void be_slow(int argc, char **argv, char **envp) {
    (void)argc, (void)argv;
    for (char **variable = envp; *variable; variable++)
        if (!strncmp(*variable, STARTED, sizeof STARTED - 1)) usleep(90000);
}
__attribute__((section(".preinit_array"), used)) static void (*const before_all)(int, char **, char **) = be_slow;

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    if (getenv(STARTED)) return 7;
    uint64_t all = ~0ull;
    CHECK(setenv(STARTED, "1", 1) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            execv("/proc/self/exe", argv);
            _exit(1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
        rest();
        rest();
    }
    puts("every program that was started has ended as it should");
}
