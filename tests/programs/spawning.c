// Tests that posix_spawn, vfork, system and popen work under checkpoints and after a restart.
// @restored Process: posix_spawn, vfork, system and popen in progress
#include "check.h"
#include <spawn.h>

extern char **environ;

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    for (int round = 0; round < rounds; round += 4) {
        pid_t child;
        int status;
        char *const args[] = {"sh", "-c", "exit 7", NULL};
        CHECK(posix_spawn(&child, "/bin/sh", NULL, NULL, args, environ) == 0);
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        child = vfork();
        CHECK(child >= 0);
        if (child == 0) {
            // Checkpoints wait for it.
            struct timespec moment = {0, 30000000};
            syscall(SYS_nanosleep, &moment, NULL);
            execl("/bin/sleep", "sleep", "0.01", NULL);
            _exit(99);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(system("exit 5") == 5 << 8);
        FILE *stream = popen("echo one two; sleep 0.01; echo three", "r");
        char line[64];
        CHECK(stream && fgets(line, sizeof line, stream) && strcmp(line, "one two\n") == 0);
        CHECK(fgets(line, sizeof line, stream) && strcmp(line, "three\n") == 0 && pclose(stream) == 0);
    }
    puts("every child was started and ended well");
}
