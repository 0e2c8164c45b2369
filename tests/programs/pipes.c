// Tests that bytes in flight in pipes and named pipes are neither lost nor doubled, and that flags and sizes stay.
// @restored Pipes: bytes in flight, packets, sizes, flags, named pipes
// @restored Pipes: a named pipe that was unlinked, before the checkpoint or after it
// @not-kept Pipes: the name (`/proc/PID/fd`) and mode of a named pipe that was unlinked before the checkpoint
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

enum { NAMES = 10 };

static int rounds;

// Writes numbers as fast as the pipe takes them; the reader is the slow one, so the pipe is mostly full.
static void write_numbers(int fd, int count) {
    for (int i = 0; i < count; i++) CHECK(write(fd, &i, sizeof i) == sizeof i);
    _exit(0);
}

static void read_number(int fd, int expected) {
    int number;
    CHECK(read(fd, &number, sizeof number) == sizeof number);
    if (number != expected) dprintf(2, "read %d for %d\n", number, expected);
    CHECK(number == expected);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    int plain[2], small[2], packets[2], still[2], full[2];
    CHECK(pipe(plain) == 0 && pipe2(small, O_CLOEXEC) == 0 && pipe2(packets, O_DIRECT) == 0 && pipe(still) == 0);
    CHECK(fcntl(small[1], F_SETPIPE_SZ, 4096) == 4096);
    CHECK(mkfifo("fifo", 0600) == 0);
    int fifo = open("fifo", O_RDWR);
    CHECK(fifo >= 0);
    CHECK(mkfifo("removed", 0600) == 0);
    int removed = open("removed", O_RDWR);
    CHECK(removed >= 0 && unlink("removed") == 0 && write(removed, "unnamed", 7) == 7);
    char names[NAMES + 1][16];
    for (int i = 0; i < NAMES; i++) {
        snprintf(names[i], sizeof names[i], "named %d", i);
        CHECK(mkfifo(names[i], 0600) == 0 && open(names[i], O_RDWR) >= 0);
    }
    // Two that nobody touches meanwhile: one with some bytes, one full to the brim.
    CHECK(write(still[1], "left alone", 10) == 10);
    CHECK(pipe2(full, O_NONBLOCK) == 0);
    char block[4096];
    long brim = 0;
    fill(block, sizeof block, 5);
    for (ssize_t put; (put = write(full[1], block, sizeof block)) > 0;) brim += put;
    CHECK(errno == EAGAIN && brim == 65536);
    pid_t writers[3];
    if ((writers[0] = fork()) == 0) write_numbers(plain[1], rounds * 100);
    if ((writers[1] = fork()) == 0) write_numbers(small[1], rounds * 100);
    if ((writers[2] = fork()) == 0) write_numbers(fifo, rounds * 100);
    CHECK(close(plain[1]) == 0 && close(small[1]) == 0);
    // Packets keep their bounds.
    for (int i = 0; i < 5; i++) CHECK(write(packets[1], block, (size_t)i * 100 + 1) == i * 100 + 1);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 100; i++) {
            read_number(plain[0], round * 100 + i);
            read_number(small[0], round * 100 + i);
            read_number(fifo, round * 100 + i);
        }
        char packet[1000];
        CHECK(read(packets[0], packet, sizeof packet) == round % 5 * 100 + 1);
        CHECK(write(packets[1], block, (size_t)(round % 5) * 100 + 1) == round % 5 * 100 + 1);
        rest();
        CHECK(fcntl(small[0], F_GETPIPE_SZ) == 4096 && fcntl(small[0], F_GETFD) == FD_CLOEXEC && fcntl(plain[0], F_GETFD) == 0);
        CHECK((fcntl(full[0], F_GETFL) & O_NONBLOCK) && !(fcntl(plain[0], F_GETFL) & O_NONBLOCK));
        CHECK(write(full[1], block, 1) == -1 && errno == EAGAIN);
        char unnamed[8];
        CHECK(read(removed, unnamed, sizeof unnamed) == 7 && memcmp(unnamed, "unnamed", 7) == 0);
        CHECK((fcntl(removed, F_GETFL) & O_ACCMODE) == O_RDWR && write(removed, unnamed, 7) == 7);
        // Those with names lose them one by one.
        struct stat meta;
        char *name = names[round * NAMES / rounds];
        CHECK(stat(name, &meta) == 0 && meta.st_mode == (S_IFIFO | 0600));
        if (names[(round + 1) * NAMES / rounds] != name) CHECK(unlink(name) == 0);
    }
    // The writers are done: end of file, but not for the named one, which we can write to ourselves.
    int number;
    CHECK(read(plain[0], &number, sizeof number) == 0 && read(small[0], &number, sizeof number) == 0);
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(waitpid(writers[i], &status, 0) == writers[i] && status == 0);
    }
    char text[16];
    CHECK(read(still[0], text, sizeof text) == 10 && memcmp(text, "left alone", 10) == 0);
    for (; brim > 0; brim -= (long)sizeof block) {
        char back[4096];
        CHECK(read(full[0], back, sizeof back) == sizeof back && holds(back, sizeof back, 5));
    }
    CHECK(read(full[0], text, 1) == -1 && errno == EAGAIN);
    puts("every byte came through once");
}
