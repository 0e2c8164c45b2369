// Tests that mappings of files that have been deleted keep their contents, and stay shared between the two that have them.
// @restored Memory: mappings of unlinked files, private and shared
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

enum { SIZE = 1 << 16 };

static char *map_and_delete(const char *name, int flags, unsigned key, int *keep) {
    char contents[SIZE];
    fill(contents, SIZE, key);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0640);
    CHECK(fd >= 0 && write(fd, contents, SIZE) == SIZE);
    char *mapping = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
    CHECK(mapping != MAP_FAILED && unlink(name) == 0);
    if (keep) *keep = fd;
    else CHECK(close(fd) == 0);
    return mapping;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv), fd;
    char *private = map_and_delete("private.gone", MAP_PRIVATE, 1, NULL);
    char *shared = map_and_delete("shared.gone", MAP_SHARED, 2, NULL);
    char *open_too = map_and_delete("open.gone", MAP_SHARED, 3, &fd);
    *private = 77;
    int *turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(turn != MAP_FAILED);
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    for (int round = 0; round < rounds; round++) {
        while (__atomic_load_n(turn, __ATOMIC_SEQ_CST) % 2 != me) usleep(1000);
        unsigned key = 10 + 2 * (unsigned)round + (unsigned)me;
        CHECK(*private == 77 && pattern(1, 1) == (unsigned char)private[1]);
        if (round > 0 || me) CHECK(holds(shared + 4096, SIZE - 4096, key - 1) && holds(open_too, SIZE, key - 1));
        fill(shared + 4096, SIZE - 4096, key);
        fill(open_too, SIZE, key);
        CHECK(holds(shared, 4096, 2));
        char contents[SIZE];
        CHECK(pread(fd, contents, SIZE, 0) == SIZE && holds(contents, SIZE, key));
        struct stat status;
        CHECK(fstat(fd, &status) == 0 && status.st_nlink == 0 && status.st_size == SIZE && (status.st_mode & 0777) == 0640);
        rest();
        __atomic_fetch_add(turn, 1, __ATOMIC_SEQ_CST);
    }
    if (me) _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("what was deleted was not lost");
}
