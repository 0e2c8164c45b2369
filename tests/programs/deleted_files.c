// Tests that open files that have been deleted keep contents, offsets and identity, between processes too.
// @restored Files: unlinked open files: contents, offsets, identity
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int writing = open("gone", O_RDWR | O_CREAT | O_EXCL, 0600), reading = open("gone", O_RDONLY);
    CHECK(writing >= 0 && reading >= 0 && unlink("gone") == 0);
    int unnamed = open(".", O_TMPFILE | O_RDWR, 0600);
    CHECK(unnamed >= 0);
    // A large one of which little is there.
    int sparse = open("sparse", O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(sparse >= 0 && unlink("sparse") == 0 && ftruncate(sparse, 1l << 36) == 0 && pwrite(sparse, "far", 3, 1l << 35) == 3);
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(close(ends[1]) == 0);
        int round = 0, got;
        while (read(ends[0], &got, sizeof got) == sizeof got) {
            // What the parent wrote through its description is read through this one.
            int value;
            CHECK(got == round && read(reading, &value, sizeof value) == sizeof value && value == round);
            round++;
        }
        _exit(round == rounds ? 0 : 1);
    }
    CHECK(close(ends[0]) == 0);
    struct stat first, other;
    for (int round = 0; round < rounds; round++) {
        CHECK(write(writing, &round, sizeof round) == sizeof round);
        CHECK(write(unnamed, &round, sizeof round) == sizeof round);
        CHECK(write(ends[1], &round, sizeof round) == sizeof round);
        rest();
        CHECK(fstat(writing, &first) == 0 && fstat(reading, &other) == 0);
        CHECK(first.st_ino == other.st_ino && first.st_nlink == 0 && first.st_size == (off_t)((size_t)(round + 1) * sizeof round));
        CHECK(access("gone", F_OK) == -1 && errno == ENOENT);
        int value;
        CHECK(pread(unnamed, &value, sizeof value, (off_t)((size_t)round * sizeof round)) == sizeof value && value == round);
        char far[4] = "";
        CHECK(pread(sparse, far, 3, 1l << 35) == 3 && strcmp(far, "far") == 0 && fstat(sparse, &other) == 0);
        CHECK(other.st_size == 1l << 36 && other.st_blocks < 10000);
    }
    CHECK(close(ends[1]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("no byte of what was deleted was lost");
}
