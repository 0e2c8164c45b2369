// Tests that processes stay in directories that were removed, and have them open.
// @restored Files: working directories that were removed, and descriptors open on them
// @not-kept Files: the inode number of a removed directory: the restart makes a new empty directory
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

// Whether two paths lead to one directory without a name. A restart between the looks gives it another number.
static int same(const char *one, const char *other) {
    for (int attempt = 0; attempt < 10; attempt++) {
        struct stat first, second, third;
        CHECK(stat(one, &first) == 0 && stat(other, &second) == 0 && stat(one, &third) == 0);
        CHECK(S_ISDIR(first.st_mode) && first.st_nlink == 0 && (first.st_mode & 07777) == 0711 && second.st_nlink == 0);
        if (first.st_ino == third.st_ino) return first.st_ino == second.st_ino && first.st_dev == second.st_dev;
    }
    return 0;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(mkdir("outer", 0700) == 0 && mkdir("outer/inner", 0700) == 0 && chmod("outer/inner", 0711) == 0);
    int base = open(".", O_RDONLY | O_DIRECTORY), inner = open("outer/inner", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(base >= 0 && inner >= 0 && chdir("outer/inner") == 0);
    CHECK(unlinkat(base, "outer/inner", AT_REMOVEDIR) == 0 && unlinkat(base, "outer", AT_REMOVEDIR) == 0);
    pid_t child = fork();
    if (child == 0)
        for (;;) pause();
    char path[4096], own[64], childs[64];
    snprintf(own, sizeof own, "/proc/self/fd/%d", inner);
    snprintf(childs, sizeof childs, "/proc/%d/cwd", child);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(getcwd(path, sizeof path) == NULL && errno == ENOENT);
        CHECK(open("file", O_WRONLY | O_CREAT, 0600) == -1 && errno == ENOENT);
        CHECK(same(".", own) && same(".", childs));
        ssize_t len = readlink("/proc/self/cwd", path, sizeof path - 1);
        CHECK(len > 0);
        path[len] = 0;
        CHECK(strstr(path, "outer/inner (deleted)"));
        CHECK(faccessat(base, "outer", F_OK, 0) == -1 && errno == ENOENT);
    }
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    puts("still in a place without a name");
}
