// Tests that POSIX record locks keep their ranges, kinds and owners, and that a process that waits for one still does.
// @restored File locks: POSIX record locks (fcntl F_SETLK): process, kind, ranges; a process that waits for a lock (F_SETLKW)
// @refused File locks: a lock that a process outside of the job has taken meanwhile (the restart is refused, with the owner's name)
#include "check.h"
#include <fcntl.h>

static int set(int fd, short type, off_t start, off_t len, int command) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, command, &lock);
}

// Who forbids a lock of this kind here: 0 nobody.
static pid_t holder(int fd, short type, off_t start, off_t len) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    CHECK(fcntl(fd, F_GETLK, &lock) == 0);
    return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int fd = open("locked", O_RDWR | O_CREAT, 0600), gone = open("nameless", O_RDWR | O_CREAT, 0600), go[2], done[2];
    CHECK(fd >= 0 && gone >= 0 && unlink("nameless") == 0 && pipe(go) == 0 && pipe(done) == 0);
    CHECK(set(fd, F_WRLCK, 10, 10, F_SETLK) == 0 && set(fd, F_RDLCK, 100, 0, F_SETLK) == 0);
    CHECK(set(gone, F_WRLCK, 0, 0, F_SETLK) == 0);
    pid_t self = getpid(), child = fork(), waiter;
    if (child == 0) {
        // Another process has its own, through the same description.
        CHECK(set(fd, F_WRLCK, 30, 5, F_SETLK) == 0 && set(fd, F_RDLCK, 200, 1, F_SETLK) == 0);
        char byte;
        CHECK(write(done[1], "", 1) == 1);
        // Until its parent ends or says so.
        for (ssize_t n = 0; (n = read(go[0], &byte, 1)) != 1;) CHECK(n == -1 && errno == EINTR);
        CHECK(holder(fd, F_WRLCK, 10, 10) == self && holder(gone, F_RDLCK, 5, 1) == self);
        _exit(3);
    }
    char byte;
    CHECK(read(done[0], &byte, 1) == 1);
    if ((waiter = fork()) == 0) {
        CHECK(set(fd, F_WRLCK, 12, 1, F_SETLKW) == 0);
        CHECK(write(done[1], "", 1) == 1);
        _exit(4);
    }
    for (int round = 0; round < rounds; round++) {
        CHECK(holder(fd, F_WRLCK, 30, 1) == child && holder(fd, F_RDLCK, 34, 1) == child && holder(fd, F_WRLCK, 35, 10) == 0);
        CHECK(holder(fd, F_WRLCK, 200, 1) == child && holder(fd, F_RDLCK, 200, 1) == 0);
        CHECK(set(fd, F_WRLCK, 32, 1, F_SETLK) == -1 && (errno == EAGAIN || errno == EACCES));
        // What is ours another sees: a child has none of it.
        if (round % 20 == 0) {
            pid_t asks = fork();
            if (asks == 0) {
                int own = open("locked", O_RDWR);
                CHECK(own >= 0 && holder(own, F_RDLCK, 10, 1) == self && holder(own, F_RDLCK, 19, 1) == self);
                CHECK(holder(own, F_RDLCK, 9, 1) == 0 && holder(own, F_RDLCK, 20, 1) == 0);
                CHECK(holder(own, F_WRLCK, 1000000, 1) == self && holder(own, F_RDLCK, 1000000, 1) == 0);
                CHECK(holder(gone, F_WRLCK, 0, 0) == self);
                _exit(0);
            }
            int status;
            CHECK(waitpid(asks, &status, 0) == asks && status == 0);
        }
        rest();
    }
    int status;
    CHECK(waitpid(waiter, &status, WNOHANG) == 0);
    CHECK(write(go[1], "", 1) == 1 && waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
    CHECK(set(fd, F_UNLCK, 10, 10, F_SETLK) == 0 && read(done[0], &byte, 1) == 1);
    CHECK(waitpid(waiter, &status, 0) == waiter && WEXITSTATUS(status) == 4);
    CHECK(close(fd) == 0 && unlink("locked") == 0);
    puts("everybody has their locks");
}
