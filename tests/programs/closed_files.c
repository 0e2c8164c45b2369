// Tests that files which are closed between two steps are what they were: written by pwrite(2), through a shared mapping, by a temporary file that is
// renamed over another, cut and grown, and with names that come and go. Each step begins with what the one before left.
// @restored Files: files that were closed at the checkpoint, and were written, mapped, truncated, replaced, linked or removed after it
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

#define BLOCK 4096
#define BLOCKS 64

static int opened(const char *path, int flags) {
    int fd = open(path, flags, 0640);
    if (fd < 0) dprintf(2, "%s: ", path);
    CHECK(fd >= 0);
    return fd;
}

static unsigned counter(int fd, off_t at) {
    unsigned value = 0;
    CHECK(pread(fd, &value, sizeof value, at) == sizeof value);
    return value;
}

static void is(const char *what, unsigned found, unsigned expected) {
    if (found != expected) dprintf(2, "%s: %u instead of %u\n", what, found, expected);
    CHECK(found == expected);
}

// A counter in each block, raised in place.
static void in_place(unsigned round) {
    int fd = opened("table", O_RDWR);
    for (int block = 0; block < BLOCKS; block += 7) {
        unsigned value = counter(fd, block * BLOCK);
        is("table", value++, round);
        CHECK(pwrite(fd, &value, sizeof value, block * BLOCK) == sizeof value);
        if (block == 28) rest();
    }
    CHECK(close(fd) == 0);
}

static void by_mapping(unsigned round) {
    int fd = opened("mapped", O_RDWR);
    char *map = mmap(NULL, BLOCKS * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED && close(fd) == 0);
    for (int block = 0; block < BLOCKS; block += 5) {
        is("mapped", *(unsigned *)(map + block * BLOCK), round);
        ++*(unsigned *)(map + block * BLOCK);
        if (block == 30) rest();
    }
    CHECK(munmap(map, BLOCKS * BLOCK) == 0);
}

// As editors and simulations save: a temporary file, made durable, takes the name.
static void by_renaming(unsigned round) {
    int fd = opened("state", O_RDONLY);
    unsigned value = counter(fd, 0);
    CHECK(close(fd) == 0);
    is("state", value++, round);
    char name[] = "state.XXXXXX";
    fd = mkstemp(name);
    CHECK(fd >= 0 && write(fd, &value, sizeof value) == sizeof value && fsync(fd) == 0);
    rest();
    CHECK(close(fd) == 0 && rename(name, "state") == 0);
}

static void cut_and_grown(unsigned round) {
    struct stat stat_;
    CHECK(stat("cut", &stat_) == 0);
    is("cut", (unsigned)stat_.st_size, 100000 - round * 10);
    CHECK(truncate("cut", stat_.st_size - 10) == 0);
    int fd = opened("grown", O_RDWR);
    CHECK(fstat(fd, &stat_) == 0);
    is("grown", (unsigned)stat_.st_size, round * 1000);
    CHECK(ftruncate(fd, stat_.st_size + 1000) == 0 && pwrite(fd, "x", 1, stat_.st_size) == 1 && close(fd) == 0);
    rest();
}

// One file has two names in turn, and none of them stays for long.
static void by_names(unsigned round) {
    const char *here = round % 2 ? "odd" : "even", *there = round % 2 ? "even" : "odd";
    CHECK(access(there, F_OK) != 0 && errno == ENOENT);
    CHECK(link(here, there) == 0 && unlink(here) == 0);
    int fd = opened(there, O_WRONLY | O_APPEND);
    CHECK(write(fd, ".", 1) == 1 && close(fd) == 0);
    char name[32];
    sprintf(name, "part.%u", round);
    fd = opened(name, O_WRONLY | O_CREAT | O_EXCL);
    CHECK(write(fd, name, strlen(name)) == (ssize_t)strlen(name) && close(fd) == 0);
    if (round < 5) return;
    sprintf(name, "part.%u", round - 5);
    CHECK(unlink(name) == 0);
}

static void made(const char *name, off_t size) {
    int fd = opened(name, O_RDWR | O_CREAT | O_EXCL);
    unsigned none = 0;
    CHECK(pwrite(fd, &none, size ? sizeof none : 0, 0) >= 0 && ftruncate(fd, size) == 0 && close(fd) == 0);
}

int main(int argc, char **argv) {
    unsigned rounds = (unsigned)rounds_of(argc, argv);
    made("table", BLOCK * BLOCKS);
    made("mapped", BLOCK * BLOCKS);
    made("state", sizeof(unsigned));
    made("cut", 100000);
    made("grown", 0);
    made("even", 0);
    for (unsigned round = 0; round < rounds; round++) {
        in_place(round);
        by_mapping(round);
        by_renaming(round);
        cut_and_grown(round);
        by_names(round);
    }
    puts("every file was what the step before had left");
}
