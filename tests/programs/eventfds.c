// Tests that eventfds keep their counts, flags and semaphore mode, and who shares them.
// @restored eventfd: count, semaphore mode, flags
#include "check.h"
#include <fcntl.h>
#include <sys/eventfd.h>

static uint64_t get(int fd) {
    uint64_t count;
    CHECK(read(fd, &count, sizeof count) == sizeof count);
    return count;
}

static void put(int fd, uint64_t count) { CHECK(write(fd, &count, sizeof count) == sizeof count); }

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int counter = eventfd(0, 0), semaphore = eventfd(7, EFD_SEMAPHORE | EFD_CLOEXEC), full = eventfd(0, EFD_NONBLOCK);
    int still = eventfd(0xffffffff, 0), down = eventfd(0, 0), up = eventfd(0, 0);
    CHECK(counter >= 0 && semaphore >= 0 && full >= 0 && still >= 0 && down >= 0 && up >= 0);
    put(full, 0xfffffffffffffffe);
    put(still, 0x100000000);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        // Waits in read for most of the time.
        for (int round = 0; round < rounds; round++) {
            CHECK(get(down) == (uint64_t)round + 1);
            put(up, (uint64_t)round + 3);
        }
        _exit(0);
    }
    for (int round = 0; round < rounds; round++) {
        put(counter, 3);
        put(counter, (uint64_t)round << 33);
        CHECK(get(semaphore) == 1);
        rest();
        CHECK(get(counter) == ((uint64_t)round << 33) + 3);
        put(semaphore, 1);
        put(down, (uint64_t)round + 1);
        CHECK(get(up) == (uint64_t)round + 3);
        uint64_t one = 1;
        CHECK(write(full, &one, sizeof one) == -1 && errno == EAGAIN);
        CHECK((fcntl(full, F_GETFL) & O_NONBLOCK) && !(fcntl(counter, F_GETFL) & O_NONBLOCK));
        CHECK(fcntl(semaphore, F_GETFD) == FD_CLOEXEC && fcntl(still, F_GETFD) == 0);
    }
    CHECK(get(still) == 0x1ffffffff && get(full) == 0xfffffffffffffffe);
    for (int i = 0; i < 7; i++) CHECK(get(semaphore) == 1);
    CHECK(fcntl(semaphore, F_SETFL, O_NONBLOCK) == 0 && read(semaphore, &(uint64_t){0}, 8) == -1 && errno == EAGAIN);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("all counts were right");
}
