// Tests that fork works after a restart, that exit codes reach wait4, and that a child lives on across the checkpoint.
// @restored Process: children, fork and wait after a restart
#include "check.h"

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    pid_t self = getpid();
    for (int round = 0; round < rounds; round++) {
        unsigned key = (unsigned)round;
        static char block[20000];
        fill(block, sizeof block, key);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(getppid() == self);
            rest();
            CHECK(holds(block, sizeof block, key));
            _exit(round % 256);
        }
        CHECK(child != self);
        int status;
        CHECK(wait4(child, &status, 0, NULL) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == round % 256);
        CHECK(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD);
    }
    puts("every child's exit code arrived");
}
