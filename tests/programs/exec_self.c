// Tests that exec works after a restart: the program starts itself anew each round, and keeps its pid, descriptors and mask.
// @restored Process: exec after a restart, with descriptors and mask
#include "check.h"

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    if (argc == 2) {
        // The first start: note what must stay.
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        CHECK(sigprocmask(SIG_BLOCK, &mask, NULL) == 0);
        CHECK(signal(SIGUSR2, SIG_IGN) != SIG_ERR);
        CHECK(dup2(1, 77) == 77);
    }
    pid_t pid = argc == 2 ? getpid() : atoi(argv[2]);
    sigset_t mask;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, SIGUSR1) == 1);
    CHECK(getpid() == pid);
    rest();
    if (rounds == 0) {
        CHECK(signal(SIGUSR2, SIG_DFL) == SIG_IGN);
        CHECK(write(77, "the same process to the end\n", 28) == 28);
        return 0;
    }
    char next[16], same[16];
    snprintf(next, sizeof next, "%d", rounds - 1);
    snprintf(same, sizeof same, "%d", pid);
    execl("/proc/self/exe", argv[0], next, same, NULL);
    CHECK(!"exec came back");
}
