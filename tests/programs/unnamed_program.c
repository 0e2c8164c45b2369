// Tests that `/proc/self/exe` of a program that was removed, replaced, or made by memfd_create(2) still leads to it, and that it can be run.
// @restored Processes: the link to a program that was removed, replaced (which then has another path), or came from a memfd
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

extern char **environ;

static void copy_to(int to) {
    int from = open("/proc/self/exe", O_RDONLY);
    struct stat stat;
    CHECK(from >= 0 && fstat(from, &stat) == 0);
    for (off_t at = 0; at < stat.st_size;)
        CHECK(sendfile(to, from, &at, (size_t)(stat.st_size - at)) > 0);
    CHECK(fchmod(to, 0755) == 0 && close(from) == 0);
}

static off_t size_of_own(void) {
    struct stat stat_of;
    CHECK(stat("/proc/self/exe", &stat_of) == 0 && stat_of.st_nlink == 0 && (stat_of.st_mode & 0777) == 0755);
    return stat_of.st_size;
}

// Looks at its own program, and runs it, in each round.
static int look(const char *kind, int rounds) {
    char first[4096] = "", now[4096] = "";
    // The other program takes its place.
    while (readlink("/proc/self/exe", first, sizeof first - 1) > 0 && !strstr(first, " (deleted)"))
        usleep(1000);
    off_t size = size_of_own();
    for (int round = 0; round < rounds; round++) {
        rest();
        memset(now, 0, sizeof now);
        CHECK(readlink("/proc/self/exe", now, sizeof now - 1) > 0);
        CHECK(strcmp(kind, "replaced") == 0 ? strstr(now, " (deleted)") != NULL : strcmp(first, now) == 0);
        CHECK(size_of_own() == size);
        if (round % 10 == 0) {
            char *arguments[] = {"unnamed_program", "again", NULL};
            pid_t child;
            int status;
            CHECK(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ) == 0);
            CHECK(waitpid(child, &status, 0) == child && status == 0);
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "again") == 0)
        return 0;
    if (argc > 2)
        return look(argv[2], atoi(argv[1]));
    char rounds[16];
    snprintf(rounds, sizeof rounds, "%d", rounds_of(argc, argv));
    const char *kinds[] = {"removed", "replaced", "memfd"};
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        const char *kind = kinds[i];
        char *arguments[] = {"unnamed_program", rounds, (char *)kind, NULL};
        int memory = i == 2 ? memfd_create(kind, 0) : -1;
        int to = i == 2 ? memory : open(kind, O_WRONLY | O_CREAT | O_EXCL, 0755);
        CHECK(to >= 0);
        copy_to(to);
        // A file that somebody has open for writing cannot be run.
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", to);
        int program = open(name, O_RDONLY | O_CLOEXEC);
        CHECK(program >= 0 && close(to) == 0);
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            fexecve(program, arguments, environ);
            _exit(9);
        }
        CHECK(close(program) == 0);
        char link[64];
        snprintf(link, sizeof link, "/proc/%d/exe", children[i]);
        char own[4096] = "", its[4096] = "";
        CHECK(readlink("/proc/self/exe", own, sizeof own - 1) > 0);
        do {
            memset(its, 0, sizeof its);
            CHECK(readlink(link, its, sizeof its - 1) > 0);
        } while (strcmp(own, its) == 0);
        if (i == 0)
            CHECK(unlink(kind) == 0);
        if (i == 1) {
            int other = open("other", O_WRONLY | O_CREAT | O_EXCL, 0755);
            CHECK(other >= 0 && write(other, "#!/bin/false\n", 13) == 13 && close(other) == 0 && rename("other", kind) == 0);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    puts("every program was its own");
}
