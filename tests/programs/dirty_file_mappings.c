// Tests that files that are mapped shared go back to what they were at the checkpoint, in memory and on disk: also pages that were not in memory then,
// and that the job has changed since.
// @restored Memory: shared file mappings, with dirty pages and with pages that were not in memory
// @refused Memory: shared mappings of files larger than the memory that is free (a copy of them must be made while the job stands still)
#include "check.h"
#include <fcntl.h>

enum { PAGE = 4096, PAGES = 256 };

struct page {
    unsigned round, number;
    char rest[PAGE - 8];
};

static struct page *map(const char *name, int *fd, off_t offset, size_t pages) {
    *fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(*fd >= 0 && ftruncate(*fd, PAGES * PAGE) == 0);
    struct page *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, offset);
    CHECK(at != MAP_FAILED);
    return at;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv), disk, memory, part;
    char in_memory[64];
    snprintf(in_memory, sizeof in_memory, "/dev/shm/dirty_file_mappings.%d", getpid());
    struct page *file = map("dirty.file", &disk, 0, PAGES), *shm = map(in_memory, &memory, 0, PAGES);
    struct page *half = map("half.file", &part, PAGES / 2 * PAGE, PAGES / 2);
    // No page comes into memory that was not asked for.
    CHECK(madvise(file, PAGES * PAGE, MADV_RANDOM) == 0);
    // A page holds the round that it was written in: each round writes some, and all must be of the right round.
    unsigned expected[PAGES] = {0};
    for (unsigned number = 0; number < PAGES; number++) file[number].number = shm[number].number = number;
    for (unsigned number = 0; number < PAGES / 2; number++) half[number].number = number;
    for (unsigned round = 1; (int)round <= rounds; round++) {
        // Written back and dropped from memory: then only the file system has it.
        if (round % 3 == 0) {
            CHECK(msync(file, PAGES * PAGE, MS_SYNC) == 0 && madvise(file, PAGES * PAGE, MADV_DONTNEED) == 0);
            CHECK(posix_fadvise(disk, 0, 0, POSIX_FADV_DONTNEED) == 0);
        }
        for (unsigned i = 0; i < 8; i++) {
            unsigned number = (round * 37 + i * 11) % PAGES;
            CHECK(file[number].round == expected[number] && shm[number].round == expected[number]);
            expected[number] = file[number].round = shm[number].round = round;
            if (number < PAGES / 2) half[number].round = round;
        }
        rest();
        for (unsigned number = 0; number < PAGES; number++) {
            if (round % 3 && number % 8) continue;
            CHECK(file[number].number == number && file[number].round == expected[number]);
            CHECK(shm[number].number == number && shm[number].round == expected[number]);
            struct page read;
            CHECK(pread(disk, &read, PAGE, number * PAGE) == PAGE && read.round == expected[number] && read.number == number);
            if (number < PAGES / 2) CHECK(half[number].number == number && half[number].round == expected[number]);
        }
    }
    CHECK(unlink(in_memory) == 0);
    puts("every page was of its round");
}
