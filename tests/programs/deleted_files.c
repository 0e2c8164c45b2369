// Tests that open files that have been deleted keep contents, offsets and identity, between processes too.
// @restored Files: unlinked open files: contents, offsets, identity, permissions, owner (as root), times
// @restored Files: open files of which one name is gone, and another is there: they are that file
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
    // One that stays as it is.
    int kept = open("kept", O_RDWR | O_CREAT | O_EXCL, 0640);
    struct timespec times[2] = {{.tv_sec = 1000000007, .tv_nsec = 11}, {.tv_sec = -5, .tv_nsec = 999999999}};
    CHECK(kept >= 0 && write(kept, "kept", 4) == 4 && unlink("kept") == 0);
    CHECK((geteuid() != 0 || fchown(kept, 1234, 5678) == 0) && fchmod(kept, 04640) == 0 && futimens(kept, times) == 0);
    struct stat before, now;
    CHECK(fstat(kept, &before) == 0 && before.st_mtim.tv_nsec == 999999999);
    // One that has another name still.
    int linked = open("linked", O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(linked >= 0 && link("linked", "other name") == 0 && unlink("linked") == 0);
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
        CHECK(fstat(kept, &now) == 0 && now.st_mode == before.st_mode && now.st_uid == before.st_uid && now.st_gid == before.st_gid);
        CHECK(now.st_atim.tv_sec == before.st_atim.tv_sec && now.st_atim.tv_nsec == before.st_atim.tv_nsec);
        CHECK(now.st_mtim.tv_sec == before.st_mtim.tv_sec && now.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
        CHECK(write(linked, &round, sizeof round) == sizeof round && fstat(linked, &now) == 0 && stat("other name", &other) == 0);
        CHECK(now.st_ino == other.st_ino && now.st_nlink == 1 && other.st_size == (off_t)((size_t)(round + 1) * sizeof round));
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
