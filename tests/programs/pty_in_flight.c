// Tests that bytes in flight in pseudo-terminals are neither lost nor doubled nor echoed twice, in either mode and direction.
// @restored Terminals: unread output of the slave, also after the slave was closed, also more than the buffer holds
// @restored Terminals: unread input of the slave: raw bytes, lines, end-of-file marks, literal bytes, the unfinished line
// @restored Terminals: input that did not fit into the line discipline, which is echoed and translated when it fits
// @not-kept Terminals: a ^V whose literal character is still to come, and the column that erasing a tab returns to: the kernel does not show them
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

enum { RAW_BYTES = 9000, OUTPUT_BYTES = 11000, LINES = 700 };

struct pty {
    int master, slave;
    struct termios settings;
};

static struct pty make(int raw, tcflag_t local) {
    struct pty pty = {0};
    char name[64];
    pty.master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(pty.master >= 0 && unlockpt(pty.master) == 0 && ptsname_r(pty.master, name, sizeof name) == 0);
    CHECK((pty.slave = open(name, O_RDWR | O_NOCTTY)) >= 0);
    CHECK(tcgetattr(pty.slave, &pty.settings) == 0);
    if (raw) cfmakeraw(&pty.settings);
    else pty.settings.c_lflag = local;
    CHECK(tcsetattr(pty.slave, TCSANOW, &pty.settings) == 0);
    return pty;
}

static void put(int fd, const void *bytes, size_t size) {
    CHECK(write(fd, bytes, size) == (ssize_t)size);
}

static void get(int fd, const void *bytes, size_t size) {
    char *back = malloc(size);
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, back + got, size - got);
        CHECK(n > 0);
        got += (size_t)n;
    }
    CHECK(memcmp(back, bytes, size) == 0);
    free(back);
}

// One read gives exactly these bytes: one line.
static void get_line(int fd, const char *line, size_t size) {
    char back[5000];
    ssize_t n = read(fd, back, sizeof back);
    if (n != (ssize_t)size) dprintf(2, "%zd bytes for %zu\n", n, size);
    CHECK(n == (ssize_t)size && memcmp(back, line, size) == 0);
}

static void nothing(int fd) {
    struct pollfd poll_fd = {fd, POLLIN, 0};
    CHECK(poll(&poll_fd, 1, 0) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct pty raw = make(1, 0), lines = make(0, ICANON | IEXTEN), echo = make(0, ICANON | ECHO | ECHOE | ISIG | IEXTEN);
    struct pty mixed = make(0, ICANON | IEXTEN), full = make(0, ICANON | ECHO);
    char block[OUTPUT_BYTES];
    fill(block, sizeof block, 3);
    lines.settings.c_cc[VEOL] = ';';
    CHECK(tcsetattr(lines.slave, TCSANOW, &lines.settings) == 0);
    // More input than the line discipline holds, without echo and with.
    put(raw.master, block, RAW_BYTES);
    char *many = malloc(LINES * 16), *seen = malloc(LINES * 16);
    size_t many_size = 0;
    for (int i = 0; i < LINES; i++) many_size += (size_t)sprintf(many + many_size, "line %d\r", i);
    put(full.master, many, many_size);
    // Output that waits all the time, and output of a slave that was closed.
    put(raw.slave, block, sizeof block);
    int closed = posix_openpt(O_RDWR | O_NOCTTY);
    char name[64];
    CHECK(closed >= 0 && unlockpt(closed) == 0 && ptsname_r(closed, name, sizeof name) == 0);
    int last = open(name, O_RDWR | O_NOCTTY);
    CHECK(last >= 0);
    put(last, "last words", 10);
    usleep(20000);
    CHECK(close(last) == 0);
    // Lines and marks that wait all the time: text, an end of file, a line of literal bytes, one ended by VEOL, an unfinished one.
    put(mixed.master, "waits\n\004half\004\026\n\026\004\026\026x\n", 20);
    for (int round = 0; round < rounds; round++) {
        put(lines.master, "first\nsecond;third", 18);
        put(echo.master, "typ", 3);
        rest();
        get_line(lines.slave, "first\n", 6);
        get_line(lines.slave, "second;", 7);
        nothing(lines.slave);
        put(lines.master, " is finished\n", 13);
        get_line(lines.slave, "third is finished\n", 18);
        // The echo comes once, and what was typed can still be erased.
        get(echo.master, "typ", 3);
        put(echo.master, "\177e\n", 3);
        get_line(echo.slave, "tye\n", 4);
        get(echo.master, "\b \be\r\n", 6);
        rest();
        nothing(echo.master);
        nothing(lines.master);
        struct termios now = {0};
        CHECK(tcgetattr(echo.slave, &now) == 0 && memcmp(&now, &echo.settings, sizeof now) == 0);
        CHECK(tcgetattr(raw.slave, &now) == 0 && memcmp(&now, &raw.settings, sizeof now) == 0);
        CHECK(!(fcntl(raw.master, F_GETFL) & O_NONBLOCK) && !(fcntl(raw.slave, F_GETFL) & O_NONBLOCK));
    }
    get(raw.slave, block, RAW_BYTES);
    get(raw.master, block, sizeof block);
    nothing(raw.slave);
    get(closed, "last words", 10);
    char byte;
    CHECK(read(closed, &byte, 1) == -1 && errno == EIO);
    get_line(mixed.slave, "waits\n", 6);
    get_line(mixed.slave, "", 0);
    get_line(mixed.slave, "half", 4);
    get_line(mixed.slave, "\n\004\026x\n", 5);
    nothing(mixed.slave);
    // Each line is echoed once, and carriage returns are translated once.
    size_t echoed = 0, wanted = 0;
    char line[32], *expected = malloc(LINES * 16);
    for (int i = 0; i < LINES; i++) {
        int size = sprintf(line, "line %d\n", i);
        get_line(full.slave, line, (size_t)size);
        wanted += (size_t)sprintf(expected + wanted, "line %d\r\n", i);
        struct pollfd poll_fd = {full.master, POLLIN, 0};
        while (poll(&poll_fd, 1, 0) == 1) {
            ssize_t n = read(full.master, seen + echoed, (size_t)LINES * 16 - echoed);
            CHECK(n > 0);
            echoed += (size_t)n;
        }
    }
    for (int wait = 0; wait < 200 && echoed < wanted; wait++) {
        struct pollfd poll_fd = {full.master, POLLIN, 0};
        if (poll(&poll_fd, 1, 10) == 1) echoed += (size_t)read(full.master, seen + echoed, (size_t)LINES * 16 - echoed);
    }
    CHECK(echoed == wanted && memcmp(seen, expected, wanted) == 0);
    puts("every byte came through once");
}
