// Tests that files open for reading, writing, appending and both go on at their offsets, with their flags.
// @restored Files: offsets, access modes and status flags
#include "check.h"
#include <fcntl.h>
#include <sys/stat.h>

enum { LINE = 16 };

static void line_of(char *line, int number) { CHECK(snprintf(line, LINE + 1, "line %10d\n", number) == LINE); }

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char line[LINE + 1], found[LINE + 1];
    int fd = open("numbers", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    for (int i = 0; i < rounds; i++) {
        line_of(line, i);
        CHECK(write(fd, line, LINE) == LINE);
    }
    CHECK(close(fd) == 0);
    int reading = open("numbers", O_RDONLY);
    FILE *stream = fopen("numbers", "r");
    int writing = open("written", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int appending = open("appended", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    int both = open("both", O_RDWR | O_CREAT | O_TRUNC | O_NOATIME, 0600);
    // Its descriptor's number is far off.
    int far = fcntl(both, F_DUPFD_CLOEXEC, 500);
    CHECK(reading >= 0 && stream && writing >= 0 && appending >= 0 && both >= 0 && far == 500);
    // One that nothing more is written to, at an offset in its middle, and one at an offset past its end.
    int still = open("still", O_RDWR | O_CREAT | O_TRUNC, 0600), past = open("past", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(write(still, "0123456789", 10) == 10 && lseek(still, 4, SEEK_SET) == 4);
    CHECK(lseek(past, 1 << 20, SEEK_SET) == 1 << 20);
    for (int round = 0; round < rounds; round++) {
        line_of(line, round);
        CHECK(read(reading, found, LINE) == LINE && memcmp(found, line, LINE) == 0);
        CHECK(fgets(found, sizeof found, stream) && memcmp(found, line, LINE) == 0);
        CHECK(write(writing, line, LINE) == LINE && lseek(writing, 0, SEEK_CUR) == (off_t)(round + 1) * LINE);
        CHECK(lseek(appending, 0, SEEK_SET) == 0);
        CHECK(write(appending, line, LINE) == LINE && lseek(appending, 0, SEEK_CUR) == (off_t)(round + 1) * LINE);
        CHECK(write(far, line, LINE) == LINE && lseek(both, -LINE, SEEK_CUR) == (off_t)round * LINE);
        CHECK(read(both, found, LINE) == LINE && memcmp(found, line, LINE) == 0);
        CHECK(lseek(far, 0, SEEK_CUR) == (off_t)(round + 1) * LINE);
        rest();
        CHECK(lseek(still, 0, SEEK_CUR) == 4 && lseek(past, 0, SEEK_CUR) == 1 << 20);
        CHECK((fcntl(appending, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_WRONLY | O_APPEND));
        CHECK((fcntl(both, F_GETFL) & (O_ACCMODE | O_NOATIME)) == (O_RDWR | O_NOATIME));
        CHECK(fcntl(appending, F_GETFD) == FD_CLOEXEC && fcntl(far, F_GETFD) == FD_CLOEXEC && fcntl(both, F_GETFD) == 0);
        struct stat status;
        CHECK(fstat(appending, &status) == 0 && status.st_size == (off_t)(round + 1) * LINE);
    }
    CHECK(read(reading, found, 1) == 0 && read(still, found, LINE) == 6 && memcmp(found, "456789", 6) == 0);
    for (int i = 0; i < rounds; i++) {
        line_of(line, i);
        CHECK(pread(both, found, LINE, (off_t)i * LINE) == LINE && memcmp(found, line, LINE) == 0);
    }
    puts("every offset was kept");
}
