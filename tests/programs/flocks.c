// Tests that locks of flock(2) stay with their descriptions, and that who waits for one still does.
// @restored File locks: flock(2), exclusive and shared, of files, directories and unnamed files; a process that waits for a lock
// @restored File locks: flock(2) locks on a descriptor inherited from the starter of the restart, as at the launch
#include "check.h"
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

static int free_for(const char *path, int operation) {
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    int result = flock(fd, operation | LOCK_NB);
    CHECK(result == 0 || errno == EWOULDBLOCK);
    CHECK(close(fd) == 0);
    return result == 0;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int exclusive = open("exclusive", O_RDWR | O_CREAT, 0600), shared = open("shared", O_RDONLY | O_CREAT, 0600);
    int also = open("shared", O_RDONLY), nameless = open("nameless", O_RDWR | O_CREAT, 0600), done[2];
    CHECK(mkdir("directory", 0700) == 0);
    int directory = open("directory", O_RDONLY | O_DIRECTORY);
    CHECK(exclusive >= 0 && shared >= 0 && also >= 0 && nameless >= 0 && directory >= 0 && pipe(done) == 0);
    int twin = open("nameless", O_RDONLY);
    CHECK(twin >= 0 && unlink("nameless") == 0);
    CHECK(flock(exclusive, LOCK_EX) == 0 && flock(shared, LOCK_SH) == 0 && flock(also, LOCK_SH) == 0);
    CHECK(flock(nameless, LOCK_EX) == 0 && flock(directory, LOCK_EX) == 0);
    pid_t waiter = fork();
    if (waiter == 0) {
        int own = open("exclusive", O_RDONLY);
        CHECK(own >= 0 && flock(own, LOCK_SH) == 0 && write(done[1], "", 1) == 1);
        _exit(6);
    }
    for (int round = 0; round < rounds; round++) {
        CHECK(!free_for("exclusive", LOCK_SH) && !free_for("exclusive", LOCK_EX));
        CHECK(free_for("shared", LOCK_SH) && !free_for("shared", LOCK_EX));
        CHECK(!free_for("directory", LOCK_SH));
        CHECK(flock(twin, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
        rest();
    }
    int status;
    char byte;
    CHECK(waitpid(waiter, &status, WNOHANG) == 0 && flock(exclusive, LOCK_UN) == 0);
    // It has a copy of our description, but waits on its own.
    CHECK(read(done[0], &byte, 1) == 1 && waitpid(waiter, &status, 0) == waiter && WEXITSTATUS(status) == 6);
    CHECK(flock(shared, LOCK_UN) == 0 && !free_for("shared", LOCK_EX) && close(also) == 0 && free_for("shared", LOCK_EX));
    CHECK(flock(nameless, LOCK_UN) == 0 && flock(twin, LOCK_EX | LOCK_NB) == 0);
    CHECK(unlink("exclusive") == 0 && unlink("shared") == 0 && rmdir("directory") == 0);
    puts("every lock is where it was");
}
