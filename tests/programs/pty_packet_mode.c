// Tests that a pseudo-terminal's master in packet mode gets each status and each byte once.
// @restored Terminals: packet mode (TIOCPKT), with an unread status
// @restored Terminals: output stopped by a typed ^S or by tcflow(3)
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

// What arrives at a master does so a moment after it was sent.
static void until(int fd, short wanted) {
    struct pollfd poll_fd = {fd, wanted, 0};
    CHECK(poll(&poll_fd, 1, 1000) == 1);
}

static int events(int fd) {
    struct pollfd poll_fd = {fd, POLLIN | POLLOUT | POLLPRI, 0};
    CHECK(poll(&poll_fd, 1, 0) >= 0);
    return poll_fd.revents;
}

static void expect(int master, unsigned char status, const char *text) {
    unsigned char packet[64];
    until(master, POLLIN);
    ssize_t size = (ssize_t)strlen(text);
    ssize_t n = read(master, packet, sizeof packet);
    if (n != size + 1 || packet[0] != status) dprintf(2, "%zd bytes, status %#x for %#x\n", n, packet[0], status);
    CHECK(n == size + 1 && packet[0] == status && memcmp(packet + 1, text, (size_t)size) == 0);
}

static void make(int *master, int *slave, int packet) {
    char name[64];
    *master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(*master >= 0 && unlockpt(*master) == 0 && ptsname_r(*master, name, sizeof name) == 0);
    CHECK((*slave = open(name, O_RDWR | O_NOCTTY)) >= 0);
    CHECK(ioctl(*master, TIOCPKT, &packet) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int master, slave, typed, typed_slave, called, called_slave;
    make(&master, &slave, 1);
    make(&typed, &typed_slave, 0);
    make(&called, &called_slave, 0);
    struct termios settings;
    CHECK(tcgetattr(slave, &settings) == 0);
    CHECK(write(typed, "\023", 1) == 1 && tcflow(called_slave, TCOOFF) == 0);
    while (events(typed_slave) & POLLOUT) usleep(100);
    CHECK(fcntl(typed_slave, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    for (int round = 0; round < rounds; round++) {
        int on = 0;
        CHECK(ioctl(master, TIOCGPKT, &on) == 0 && on == 1);
        // A status and some bytes wait during the rest, or bytes only, or a status only.
        unsigned char status = 0;
        switch (round % 5) {
        case 0:
            CHECK(tcflush(slave, TCIFLUSH) == 0);
            status = TIOCPKT_FLUSHREAD;
            break;
        case 1:
            settings.c_iflag ^= IXON;
            CHECK(tcsetattr(slave, TCSANOW, &settings) == 0);
            status = settings.c_iflag & IXON ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP;
            break;
        case 2:
            CHECK(tcflow(slave, TCOOFF) == 0 && tcflow(slave, TCOON) == 0);
            status = TIOCPKT_START;
            break;
        case 3:
            CHECK(tcflow(slave, TCOOFF) == 0);
            status = TIOCPKT_STOP;
            break;
        }
        if (round % 5 != 3) CHECK(write(slave, "some text", 9) == 9);
        rest();
        if (status) {
            CHECK(events(master) & POLLPRI);
            expect(master, status, "");
        } else {
            CHECK(!(events(master) & POLLPRI));
        }
        if (round % 5 == 3) {
            CHECK(!(events(slave) & POLLOUT));
            CHECK(tcflow(slave, TCOON) == 0);
            expect(master, TIOCPKT_START, "");
        } else {
            expect(master, TIOCPKT_DATA, "some text");
        }
        // Nothing more.
        struct pollfd nothing = {master, POLLIN | POLLPRI, 0};
        CHECK(poll(&nothing, 1, 0) == 0);
        // The stopped ones.
        CHECK(!(events(typed_slave) & POLLOUT) && !(events(called_slave) & POLLOUT));
        CHECK(write(typed_slave, "x", 1) == -1 && errno == EAGAIN);
    }
    CHECK(write(typed, "\021", 1) == 1 && tcflow(called_slave, TCOON) == 0);
    while (!(events(typed_slave) & POLLOUT)) usleep(100);
    char text[8];
    CHECK(write(typed_slave, "typed", 5) == 5 && read(typed, text, 8) == 5 && memcmp(text, "typed", 5) == 0);
    CHECK(write(called_slave, "called", 6) == 6 && read(called, text, 8) == 6 && memcmp(text, "called", 6) == 0);
    puts("packets stay what they were");
}
