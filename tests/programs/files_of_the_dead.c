// Tests that files of `/proc` of a process that is gone stay open, and that whoever reads them is told so.
// @restored Files: files and directories of `/proc/PID` of a process that is gone
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        pause();
        _exit(0);
    }
    const char *names[] = {"stat", "status", "maps", "task", ""};
    enum { FILES = sizeof names / sizeof *names };
    int files[FILES];
    for (int i = 0; i < FILES; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/%s", child, names[i]);
        files[i] = open(path, O_RDONLY);
        CHECK(files[i] >= 0);
    }
    int status;
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    for (int round = 0; round < rounds; round++) {
        rest();
        char byte;
        // The status of a process is told from its first threads, of which there is none.
        for (int i = 0; i < 2; i++) CHECK(pread(files[i], &byte, 1, 0) == -1 && errno == ESRCH);
        for (int i = 0; i < FILES; i++) CHECK(fcntl(files[i], F_GETFL) >= 0);
        for (int i = 3; i < FILES; i++) CHECK(openat(files[i], "stat", O_RDONLY) == -1 && (errno == ENOENT || errno == ESRCH));
    }
    puts("the dead are dead");
}
