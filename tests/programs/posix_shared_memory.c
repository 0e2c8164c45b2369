// Tests that POSIX shared memory keeps names, contents, sizes and sharing: mapped in whole and in part, and open but not mapped.
// @restored POSIX shared memory: name, contents, size, permissions, objects that are open and not mapped, parts that no process maps; recreated if /dev/shm is empty
// @not-kept POSIX shared memory: objects that no process has open or mapped: like any file, they are used if they still exist
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

enum { PAGE = 4096, SIZE = 5 * PAGE };

// Names end with the second argument, if there is one.
static const char *end;

static int create(char *name, const char *kind) {
    sprintf(name, "/ckpt-%s-%d%s", kind, end ? 0 : getpid(), end ? end : "");
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && ftruncate(fd, SIZE) == 0 && fchmod(fd, 0640) == 0);
    return fd;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    end = argv[2];
    char mapped_name[40], open_name[40], part_name[40], bytes[SIZE];
    int mapped = create(mapped_name, "mapped"), open_only = create(open_name, "open"), part = create(part_name, "part");
    volatile int *shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    unsigned char *middle = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, part, 2 * PAGE);
    CHECK(shared != MAP_FAILED && middle != MAP_FAILED && close(mapped) == 0);
    fill(bytes, SIZE, 1);
    CHECK(pwrite(open_only, bytes, SIZE, 0) == SIZE);
    fill(bytes, SIZE, 2);
    CHECK(pwrite(part, bytes, SIZE, 0) == SIZE && close(part) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    int me = child == 0;
    for (int round = 0; round < rounds; round++) {
        while (shared[0] != 2 * round + me) usleep(200);
        fill((unsigned char *)shared + PAGE, 4 * PAGE, (unsigned)(2 * round + me + 1));
        bytes[0] = (char)round;
        if (!me) {
            CHECK(pwrite(open_only, bytes, 1, SIZE / 2) == 1);
            rest();
        }
        CHECK(pread(open_only, bytes + 1, 1, SIZE / 2) == 1 && bytes[1] == (char)round);
        shared[0] = 2 * round + me + 1;
        // By its name it is the same.
        int again = shm_open(part_name, O_RDONLY, 0);
        struct stat status;
        CHECK(again >= 0 && fstat(again, &status) == 0 && status.st_size == SIZE && (status.st_mode & 0777) == 0640 && status.st_uid == geteuid());
        CHECK(pread(again, bytes, SIZE, 0) == SIZE && holds(bytes, SIZE, 2) && close(again) == 0);
    }
    if (me) _exit(0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(holds((unsigned char *)shared + PAGE, 4 * PAGE, (unsigned)(2 * rounds)));
    for (size_t at = 0; at < PAGE; at++) CHECK(middle[at] == pattern(2, 2 * PAGE + at));
    CHECK(pread(open_only, bytes, SIZE, 0) == SIZE && holds(bytes, SIZE / 2, 1));
    for (size_t at = SIZE / 2 + 1; at < SIZE; at++) CHECK((unsigned char)bytes[at] == pattern(1, at));
    CHECK(shm_unlink(mapped_name) == 0 && shm_unlink(open_name) == 0 && shm_unlink(part_name) == 0);
    puts("all shared");
}
