// Tests that files are what they were which are written, made and removed by the less usual calls: streams of the C library, posix_spawn(3), files without
// a name that are given one, exchanged names, copies made by the kernel, holes, and by syscall(2). Each step begins with what the one
// before left.
// @restored Files: the same for files that streams, `posix_spawn`, `O_TMPFILE`, `renameat2`, `copy_file_range`, `fallocate` and the C library's `syscall` function touch
#include "check.h"
#include <fcntl.h>
#include <spawn.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define SIZE 50000

extern char **environ;

static char block[SIZE], back[SIZE];

static void is(const char *what, long found, long expected) {
    if (found != expected) dprintf(2, "%s: %ld instead of %ld\n", what, found, expected);
    CHECK(found == expected);
}

static long size_of(const char *path) {
    struct stat stat_;
    return stat(path, &stat_) == 0 ? (long)stat_.st_size : -1;
}

static void streams(unsigned round) {
    FILE *log = fopen("log", "a");
    CHECK(log && fprintf(log, "%06u\n", round) == 7 && fclose(log) == 0);
    is("log", size_of("log"), 7 * (round + 1));
    FILE *state = fopen("state", "r+");
    unsigned value;
    CHECK(state && fscanf(state, "%u", &value) == 1 && value == round);
    CHECK((state = freopen("state", "w", state)) && fprintf(state, "%u", round + 1) > 0);
    rest();
    CHECK(fclose(state) == 0);
}

// The C library opens the file itself, in the child.
static void spawned(unsigned round) {
    posix_spawn_file_actions_t actions;
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_addopen(&actions, 1, "spawned", O_WRONLY | O_CREAT | O_APPEND, 0600) == 0);
    char *argv[] = {"echo", "a line", NULL};
    pid_t child;
    int status;
    CHECK(posix_spawn(&child, "/bin/echo", &actions, NULL, argv, environ) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
    is("spawned", size_of("spawned"), 7 * (round + 1));
}

static void without_a_name(unsigned round) {
    char name[64], path[64];
    int fd = open(".", O_TMPFILE | O_RDWR, 0640);
    // Not on every file system.
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) return;
    CHECK(fd >= 0);
    sprintf(name, "linked.%u", round);
    sprintf(path, "/proc/self/fd/%d", fd);
    CHECK(write(fd, name, strlen(name)) > 0 && linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0 && close(fd) == 0);
    sprintf(name, "linked.%u", round - 3);
    if (round >= 3) CHECK(remove(name) == 0);
}

// Two names of different files, and a directory in the place of a file.
static void exchanged(unsigned round) {
    is("one", size_of("one"), round % 2 ? 2 : 1);
    is("other", size_of("other"), round % 2 ? 1 : 2);
    CHECK(renameat2(AT_FDCWD, "one", AT_FDCWD, "other", RENAME_EXCHANGE) == 0);
    rest();
    CHECK(renameat2(AT_FDCWD, "dir", AT_FDCWD, "file", RENAME_EXCHANGE) == 0);
    int fd = open(round % 2 ? "dir/in" : "file/in", O_WRONLY | O_CREAT | O_APPEND, 0600);
    CHECK(fd >= 0 && write(fd, ".", 1) == 1 && close(fd) == 0);
    is("in", size_of(round % 2 ? "dir/in" : "file/in"), round + 1);
}

static void copied(unsigned round) {
    int from = open("copy", O_RDONLY), to = open("copy.tmp", O_RDWR | O_CREAT | O_EXCL, 0644);
    CHECK(from >= 0 && to >= 0 && read(from, block, SIZE) == SIZE && holds(block, SIZE, round));
    CHECK(copy_file_range(from, &(off_t){0}, to, NULL, SIZE / 2, 0) == SIZE / 2);
    CHECK(sendfile(to, from, &(off_t){SIZE / 2}, SIZE / 2) == SIZE / 2);
    CHECK(pread(to, back, SIZE, 0) == SIZE && memcmp(block, back, SIZE) == 0);
    fill(block, SIZE, round + 1);
    CHECK(pwrite(to, block, SIZE, 0) == SIZE && fchmod(to, round % 2 ? 0600 : 0640) == 0);
    CHECK(futimens(to, (struct timespec[]){{1500000000 + round, 7}, {1500000000 + round, 7}}) == 0);
    CHECK(close(from) == 0 && close(to) == 0 && unlink("copy") == 0);
    rest();
    CHECK(rename("copy.tmp", "copy") == 0);
}

static void holes(unsigned round) {
    int fd = open("holes", O_RDWR);
    off_t at = round % 10 * 4096;
    CHECK(fd >= 0 && pread(fd, back, 4096, at) == 4096);
    is("holes", back[17], round < 10 ? 1 : (char)(round - 9));
    int punched = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096);
    // Not on every file system.
    CHECK(punched == 0 || errno == EOPNOTSUPP);
    CHECK(pwrite(fd, &(char){(char)(round + 1)}, 1, at + 17) == 1 && close(fd) == 0);
}

static void directories(unsigned round) {
    char name[64] = "made.XXXXXX", file[96];
    CHECK(mkdtemp(name));
    sprintf(file, "%s/file", name);
    int fd = creat(file, 0600);
    CHECK(fd >= 0 && close(fd) == 0);
    rest();
    sprintf(file, "made.%u", round);
    CHECK(rename(name, file) == 0);
    if (round < 2) return;
    sprintf(file, "made.%u/file", round - 2);
    CHECK(remove(file) == 0);
    *strrchr(file, '/') = 0;
    CHECK(remove(file) == 0);
}

// As programs do whose C library lacks the function.
static void by_number(unsigned round) {
    long fd = syscall(SYS_openat, AT_FDCWD, "numbered", O_WRONLY | O_CREAT | O_APPEND, 0600);
    CHECK(fd >= 0 && syscall(SYS_write, fd, "line\n", 5) == 5 && syscall(SYS_close, fd) == 0);
    is("numbered", size_of("numbered"), 5 * (round + 1));
    rest();
    char from[32], to[32];
    sprintf(from, "numbered.%u", round);
    sprintf(to, "numbered.%u", round + 1);
    if (round == 0) CHECK((fd = syscall(SYS_open, from, O_WRONLY | O_CREAT | O_EXCL, 0600)) >= 0 && close((int)fd) == 0);
    is("renameat2", syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 1), 0);
    is("mkdir", syscall(SYS_mkdir, "numbered.dir", 0700), 0);
    rest();
    is("unlinkat", syscall(SYS_unlinkat, AT_FDCWD, "numbered.dir", AT_REMOVEDIR), 0);
    is("truncate", syscall(SYS_truncate, to, (long)round), 0);
    is("size", size_of(to), round);
}

static void made(const char *name, const void *bytes, size_t size) {
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0640);
    CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size && close(fd) == 0);
}

int main(int argc, char **argv) {
    unsigned rounds = (unsigned)rounds_of(argc, argv);
    made("state", "0", 1);
    made("one", "1", 1);
    made("other", "22", 2);
    made("file", "", 0);
    CHECK(mkdir("dir", 0750) == 0);
    memset(block, 1, SIZE);
    made("holes", block, SIZE);
    fill(block, SIZE, 0);
    made("copy", block, SIZE);
    for (unsigned round = 0; round < rounds; round++) {
        streams(round);
        spawned(round);
        without_a_name(round);
        exchanged(round);
        copied(round);
        holes(round);
        directories(round);
        by_number(round);
    }
    puts("every file was what the step before had left");
}
