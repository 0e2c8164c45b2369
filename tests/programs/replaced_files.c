// Tests that open files are what they were at the checkpoint, though the program deletes, replaces, rewrites and renames them after it.
// @restored Files: open files that were deleted, replaced, renamed, rewritten or truncated after the checkpoint: name, contents, permissions, and their directories
// @not-kept Files: contents of a file that is larger than the budget (`--file-budget`) and changed in place: a line names it, `--strict` refuses
// @not-kept Files: files made, changed or removed by system calls without the C library, except files open for writing: these calls cannot be seen
// @not-kept Files: extended attributes and access lists
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

#define SIZE 20000
#define PAGE 4096l

static char block[SIZE], back[SIZE];

static int make(const char *path, int flags, mode_t mode, unsigned key) {
    int fd = open(path, flags | O_CREAT | O_EXCL, mode);
    CHECK(fd >= 0);
    fill(block, SIZE, key);
    if ((flags & O_ACCMODE) != O_RDONLY) CHECK(write(fd, block, SIZE) == SIZE);
    return fd;
}

static void has(int fd, unsigned key) {
    struct stat stat;
    CHECK(fstat(fd, &stat) == 0 && stat.st_size == SIZE);
    CHECK(pread(fd, back, SIZE, 0) == SIZE && holds(back, SIZE, key));
}

static nlink_t links_of(int fd) {
    struct stat stat;
    CHECK(fstat(fd, &stat) == 0);
    return stat.st_nlink;
}

static int is_at(const char *path, int fd) {
    struct stat one, other;
    return fstat(fd, &one) == 0 && stat(path, &other) == 0 && one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    umask(022);
    // Rewritten in place.
    int table = open("table", O_RDWR | O_CREAT, 0600);
    // Cut, and written from the start.
    int status = open("status", O_RDWR | O_CREAT, 0600);
    // Rotated.
    int log = open("log", O_RDWR | O_CREAT | O_APPEND, 0600), logged = 0, logs = 0;
    CHECK(table >= 0 && status >= 0 && log >= 0);
    for (unsigned round = 0; (int)round < rounds; round++) {
        int temporary = make("temporary", O_RDWR, 0640, round);
        CHECK(link("temporary", "second name") == 0);
        int second = open("second name", O_RDONLY);
        CHECK(second >= 0);
        // Opened for reading only, as whoever reads what another has written; and where the name is taken by another meanwhile.
        CHECK(close(make("read", O_WRONLY, 0600, round + 1)) == 0);
        int read_only = open("read", O_RDONLY);
        // Of permissions by which it could not be opened again.
        int forbidden = make("read only", O_RDWR, 0444, round + 2);
        CHECK(read_only >= 0 && mkdir("scratch", 0700) == 0 && mkdir("scratch/deep", 0750) == 0);
        int deep = make("scratch/deep/file", O_RDWR, 0600, round + 3);
        // Mapped, and closed.
        int fd = make("mapped", O_RDWR, 0600, round + 4);
        char *mapped = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(mapped != MAP_FAILED && close(fd) == 0);
        mapped[PAGE] = (char)(pattern(round + 4, PAGE) ^ 1);
        fill(block, SIZE, round + 5);
        CHECK(pwrite(table, block, SIZE, (off_t)(round % 3) * SIZE) == SIZE);
        CHECK(ftruncate(status, 0) == 0 && pwrite(status, block, 1 + round % SIZE, 0) == 1 + round % SIZE);
        CHECK(dprintf(log, "%u\n", round) > 0);
        logged++;

        rest();

        has(temporary, round);
        has(second, round);
        // This one may be without a name by now: it has been replaced, and nobody here writes to it.
        has(read_only, round + 1);
        has(forbidden, round + 2);
        has(deep, round + 3);
        CHECK(links_of(temporary) == 2 && links_of(second) == 2 && links_of(forbidden) == 1 && links_of(deep) == 1);
        CHECK(is_at("temporary", temporary) && is_at("second name", temporary));
        CHECK(is_at("read only", forbidden) && is_at("scratch/deep/file", deep) && is_at("log", log));
        struct stat stat;
        CHECK(fstat(temporary, &stat) == 0 && (stat.st_mode & 0777) == 0640);
        CHECK(fstat(forbidden, &stat) == 0 && (stat.st_mode & 0777) == 0444);
        mapped[PAGE] ^= 1;
        CHECK(holds(mapped, SIZE, round + 4));
        fd = open("mapped", O_RDONLY);
        has(fd, round + 4);
        CHECK(close(fd) == 0);
        CHECK(pread(table, back, SIZE, (off_t)(round % 3) * SIZE) == SIZE && holds(back, SIZE, round + 5));
        for (unsigned other = 1; other < 3 && other <= round; other++)
            CHECK(pread(table, back, SIZE, (off_t)((round - other) % 3) * SIZE) == SIZE && holds(back, SIZE, round + 5 - other));
        CHECK(fstat(status, &stat) == 0 && stat.st_size == 1 + round % SIZE);
        CHECK(pread(status, back, (size_t)stat.st_size, 0) == stat.st_size && holds(back, (size_t)stat.st_size, round + 5));

        CHECK(unlink("temporary") == 0 && unlink("second name") == 0 && unlink("read only") == 0 && unlink("mapped") == 0);
        CHECK(unlink("scratch/deep/file") == 0 && rmdir("scratch/deep") == 0 && rmdir("scratch") == 0);
        int next = make("next", O_WRONLY, 0600, ~round);
        CHECK(rename("next", "read") == 0 && close(next) == 0);
        has(read_only, round + 1);
        if (round % 7 == 6) {
            char name[20];
            snprintf(name, sizeof name, "log.%d", logs++);
            CHECK(rename("log", name) == 0 && (fd = open("log", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600)) >= 0);
            CHECK(dup2(fd, log) == log && close(fd) == 0);
        }
        CHECK(close(temporary) == 0 && close(second) == 0 && close(read_only) == 0 && close(forbidden) == 0 && close(deep) == 0);
        CHECK(munmap(mapped, SIZE) == 0 && unlink("read") == 0);
    }
    // Every line is in one log, once.
    CHECK(close(log) == 0);
    unsigned expected = 0;
    for (int at = 0; at <= logs; at++) {
        char name[20], line[20];
        snprintf(name, sizeof name, at < logs ? "log.%d" : "log", at);
        FILE *file = fopen(name, "r");
        CHECK(file);
        while (fgets(line, sizeof line, file)) CHECK((unsigned)atoi(line) == expected++);
        CHECK(fclose(file) == 0);
    }
    CHECK((int)expected == rounds && logged == rounds);
    puts("every file was what it had been");
}
