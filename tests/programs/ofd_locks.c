// Tests that record locks of open file descriptions stay with those, over fork and dup.
// @restored File locks: OFD record locks (fcntl F_OFD_SETLK): description, kind, ranges
#include "check.h"
#include <fcntl.h>

static int set(int fd, short type, off_t start, off_t len) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

static int is_held(int fd, short type, off_t start, off_t len) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    CHECK(fcntl(fd, F_OFD_GETLK, &lock) == 0);
    CHECK(lock.l_type == F_UNLCK || lock.l_pid == -1);
    return lock.l_type != F_UNLCK;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int first = open("locked", O_RDWR | O_CREAT, 0600), second = open("locked", O_RDWR), reader = open("locked", O_RDONLY);
    CHECK(first >= 0 && second >= 0 && reader >= 0);
    CHECK(set(first, F_WRLCK, 0, 10) == 0 && set(first, F_RDLCK, 50, 50) == 0 && set(second, F_WRLCK, 20, 10) == 0);
    CHECK(set(reader, F_RDLCK, 60, 0) == 0);
    int shared = dup(first);
    pid_t child = fork();
    if (child == 0) {
        // The lock is the description's: this process may use it too.
        for (;;) {
            CHECK(set(first, F_WRLCK, 5, 2) == 0 && set(second, F_WRLCK, 5, 2) == -1 && errno == EAGAIN);
            rest();
        }
    }
    for (int round = 0; round < rounds; round++) {
        CHECK(!is_held(first, F_WRLCK, 0, 10) && is_held(second, F_RDLCK, 0, 1) && is_held(second, F_RDLCK, 9, 1));
        CHECK(is_held(first, F_RDLCK, 20, 1) && is_held(first, F_RDLCK, 29, 1) && !is_held(first, F_WRLCK, 30, 5));
        CHECK(is_held(second, F_WRLCK, 50, 1) && !is_held(second, F_RDLCK, 50, 50));
        CHECK(is_held(second, F_WRLCK, 5000, 1) && !is_held(second, F_RDLCK, 5000, 1) && !is_held(shared, F_WRLCK, 40, 1));
        CHECK(set(shared, F_WRLCK, 2, 1) == 0);
        rest();
    }
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    CHECK(close(first) == 0 && is_held(second, F_WRLCK, 0, 1) && close(shared) == 0 && !is_held(second, F_WRLCK, 0, 1));
    CHECK(unlink("locked") == 0);
    puts("every description has its locks");
}
