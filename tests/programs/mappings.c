// Tests that private and shared mappings of files and of nothing keep contents, protections and neighbours.
// @restored Memory: file and anonymous mappings, private and shared: contents, protection, address
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>

enum { PAGE = 4096, PAGES = 64 };
static sigjmp_buf back;

static void on_fault(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

// Whether a byte can be read, and written.
static int readable(volatile char *at) {
    if (sigsetjmp(back, 1)) return 0;
    (void)*at;
    return 1;
}

static int writable(volatile char *at) {
    if (sigsetjmp(back, 1)) return 0;
    *at = *at;
    return 1;
}

static int file_of(const char *name, unsigned key) {
    static char contents[PAGES * PAGE];
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    fill(contents, sizeof contents, key);
    CHECK(write(fd, contents, sizeof contents) == sizeof contents);
    return fd;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_handler = on_fault};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
    const size_t size = PAGES * PAGE;
    int private_file = file_of("private.file", 1), shared_file = file_of("shared.file", 2);
    char *private = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, private_file, 0);
    char *reading = mmap(NULL, size, PROT_READ, MAP_PRIVATE, private_file, 0);
    char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, shared_file, 0);
    char *offset = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, shared_file, 16 * PAGE);
    char *anonymous = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *sparse = mmap(NULL, 1ul << 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(private != MAP_FAILED && reading != MAP_FAILED && shared != MAP_FAILED && offset != MAP_FAILED);
    CHECK(anonymous != MAP_FAILED && sparse != MAP_FAILED);
    // The mappings outlive the descriptor of the one.
    CHECK(close(private_file) == 0);
    fill(private + 8 * PAGE, PAGE, 3);
    fill(anonymous, size, 4);
    // A patchwork of protections in one mapping.
    for (int page = 0; page < PAGES; page++)
        CHECK(mprotect(anonymous + page * PAGE, PAGE, page % 3 == 0 ? PROT_NONE : page % 3 == 1 ? PROT_READ : PROT_READ | PROT_WRITE) == 0);
    // And a hole in another.
    CHECK(munmap(reading + 4 * PAGE, PAGE) == 0);
    static char expected[PAGES * PAGE];
    for (int round = 0; round < rounds; round++) {
        fill(expected, size, 1);
        fill(expected + 8 * PAGE, PAGE, 3);
        CHECK(memcmp(private, expected, size) == 0);
        CHECK(!readable(reading + 4 * PAGE) && !writable(reading) && readable(reading));
        fill(expected, size, 1);
        CHECK(memcmp(reading, expected, 4 * PAGE) == 0);
        CHECK(memcmp(reading + 5 * PAGE, expected + 5 * PAGE, size - 5 * PAGE) == 0);
        // What is written through the mapping is read through the descriptor, and by the other mapping.
        fill(shared + 16 * PAGE, PAGE, 100 + (unsigned)round);
        CHECK(memcmp(shared + 16 * PAGE, offset, 8 * PAGE) == 0);
        char page[PAGE];
        CHECK(pread(shared_file, page, PAGE, 16 * PAGE) == PAGE && holds(page, PAGE, 100 + (unsigned)round));
        rest();
        CHECK(holds(offset, PAGE, 100 + (unsigned)round));
        fill(expected, size, 4);
        for (int number = 0; number < PAGES; number++) {
            char *at = anonymous + number * PAGE;
            CHECK(readable(at) == (number % 3 != 0) && writable(at) == (number % 3 == 2));
            if (number % 3 != 0) CHECK(memcmp(at, expected + number * PAGE, PAGE) == 0);
        }
        // Few pages of a large mapping are ever touched; the others stay zero.
        size_t place = (size_t)round * 7 % 1000 * (1ul << 22);
        CHECK(*(long *)(sparse + place + PAGE) == 0);
        *(long *)(sparse + place) = (long)place + 1;
        for (int earlier = 0; earlier <= round && earlier < 1000; earlier++) {
            size_t before = (size_t)earlier * 7 % 1000 * (1ul << 22);
            CHECK(*(long *)(sparse + before) == (long)before + 1);
        }
    }
    puts("every page was what and where it should be");
}
