// Tests that pseudo-terminals keep their numbers, settings, window sizes and states: open, hung up, closed on one side, never opened.
// @restored Terminals: pseudo-terminal pairs with the master in the job: number and path, any number of descriptions of each side
// @restored Terminals: settings (termios2), window size, exclusive mode, lock (TIOCSPTLCK), owner and mode of the node
// @restored Terminals: a slave whose master was closed (hung up), a master whose slaves were closed, a master whose slave was never opened
// @restored Terminals: a slave that was hung up by vhangup(2), beside slaves opened since
// @restored Terminals: access mode and status flags of each description
// @not-kept Terminals: input written to a pseudo-terminal whose slave was never opened: the kernel does not show it
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

static int open_master(int flags) {
    int master = posix_openpt(O_RDWR | O_NOCTTY | flags);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    return master;
}

static int open_slave(int master, int flags) {
    char name[64];
    CHECK(ptsname_r(master, name, sizeof name) == 0);
    int slave = open(name, flags | O_NOCTTY);
    CHECK(slave >= 0);
    return slave;
}

static int events(int fd) {
    struct pollfd poll_fd = {fd, POLLIN | POLLOUT, 0};
    CHECK(poll(&poll_fd, 1, 0) >= 0);
    return poll_fd.revents;
}

static void say(int from, int to, const char *text) {
    char back[64] = "";
    size_t size = strlen(text);
    CHECK(write(from, text, size) == (ssize_t)size);
    for (size_t got = 0; got < size;) {
        ssize_t n = read(to, back + got, sizeof back - got);
        CHECK(n > 0);
        got += (size_t)n;
    }
    CHECK(memcmp(back, text, size) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    // A hole before the first: numbers are not merely counted.
    int hole = open_master(0), master = open_master(0), other = open_master(O_NONBLOCK | O_CLOEXEC), lonely = open_master(0);
    int locked = posix_openpt(O_RDWR | O_NOCTTY), orphan_master = open_master(0), dying = open_master(0);
    CHECK(locked >= 0);
    int slave = open_slave(master, O_RDWR), writer = open_slave(master, O_WRONLY | O_NONBLOCK), same = dup(slave);
    int gone = open_slave(lonely, O_RDWR);
    int orphan = open_slave(orphan_master, O_RDWR);
    int other_slave = open_slave(other, O_RDWR);
    int hole_number;
    CHECK(ioctl(hole, TIOCGPTN, &hole_number) == 0);
    CHECK(close(hole) == 0 && close(gone) == 0 && close(orphan_master) == 0);
    // One that is hung up; it is opened anew afterwards.
    int hung = open_slave(dying, O_RDWR);
    // Only root may.
    int may_hang_up = ioctl(hung, TIOCVHANGUP) == 0;
    CHECK(may_hang_up || errno == EPERM);
    int fresh = open_slave(dying, O_RDWR);
    // Its description shows O_CLOEXEC among its flags for ever.
    int by_peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), inherited = dup(by_peer);
    CHECK(by_peer >= 0 && inherited >= 0);
    struct termios raw = {0}, odd = {0};
    CHECK(tcgetattr(slave, &raw) == 0);
    cfmakeraw(&raw);
    CHECK(tcsetattr(slave, TCSANOW, &raw) == 0 && tcsetattr(fresh, TCSANOW, &raw) == 0);
    CHECK(tcgetattr(slave, &raw) == 0);
    CHECK(tcgetattr(other_slave, &odd) == 0);
    odd.c_iflag = IXON | IXOFF | IUTF8 | INLCR;
    odd.c_oflag = OPOST | ONLCR | TAB3;
    odd.c_cflag = CS7 | PARENB | CREAD | HUPCL;
    odd.c_lflag = ISIG | ICANON | ECHO | ECHOCTL | IEXTEN | TOSTOP;
    odd.c_cc[VINTR] = 'i';
    odd.c_cc[VEOL2] = '!';
    odd.c_cc[VMIN] = 7;
    CHECK(cfsetispeed(&odd, B9600) == 0 && cfsetospeed(&odd, B19200) == 0);
    CHECK(tcsetattr(other_slave, TCSANOW, &odd) == 0 && tcgetattr(other_slave, &odd) == 0);
    struct winsize size = {33, 101, 640, 480}, got;
    CHECK(ioctl(other, TIOCSWINSZ, &size) == 0);
    CHECK(ioctl(other_slave, TIOCEXCL) == 0 && fchmod(slave, 0620) == 0);
    char names[7][64];
    int masters[] = {master, other, lonely, locked, dying};
    for (int i = 0; i < 5; i++) CHECK(ptsname_r(masters[i], names[i], sizeof names[i]) == 0);
    struct stat node;
    CHECK(fstat(orphan, &node) == 0);
    dev_t orphan_device = node.st_rdev;
    for (int round = 0; round < rounds; round++) {
        char name[64];
        for (int i = 0; i < 5; i++) CHECK(ptsname_r(masters[i], name, sizeof name) == 0 && strcmp(name, names[i]) == 0);
        CHECK(ttyname_r(slave, name, sizeof name) == 0 && strcmp(name, names[0]) == 0);
        CHECK(ttyname_r(writer, name, sizeof name) == 0 && strcmp(name, names[0]) == 0);
        CHECK(ttyname_r(fresh, name, sizeof name) == 0 && strcmp(name, names[4]) == 0);
        CHECK((fcntl(writer, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK));
        CHECK((fcntl(slave, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_RDWR);
        CHECK((fcntl(other, F_GETFL) & O_NONBLOCK) && fcntl(other, F_GETFD) == FD_CLOEXEC && fcntl(master, F_GETFD) == 0);
        CHECK(fcntl(slave, F_GETFD) == 0 && fcntl(by_peer, F_GETFD) == FD_CLOEXEC && fcntl(inherited, F_GETFD) == 0);
        say(master, slave, "down");
        say(slave, master, "up");
        say(same, master, "duplicate");
        say(writer, master, "second description");
        say(dying, fresh, "anew");
        // Settings.
        struct termios now = {0};
        CHECK(tcgetattr(slave, &now) == 0 && memcmp(&now, &raw, sizeof now) == 0);
        CHECK(tcgetattr(other_slave, &now) == 0 && memcmp(&now, &odd, sizeof now) == 0);
        CHECK(ioctl(other_slave, TIOCGWINSZ, &got) == 0 && memcmp(&got, &size, sizeof got) == 0);
        CHECK(ioctl(slave, TIOCGWINSZ, &got) == 0 && got.ws_row == 0);
        int value;
        CHECK(ioctl(other_slave, TIOCGEXCL, &value) == 0 && value == 1 && ioctl(slave, TIOCGEXCL, &value) == 0 && value == 0);
        CHECK(ioctl(locked, TIOCGPTLCK, &value) == 0 && value == 1 && ioctl(master, TIOCGPTLCK, &value) == 0 && value == 0);
        CHECK(open(names[3], O_RDWR | O_NOCTTY) == -1 && errno == EIO);
        CHECK(fstat(slave, &node) == 0 && (node.st_mode & 0777) == 0620 && node.st_uid == geteuid());
        // Closed on one side, or both never opened.
        char byte;
        CHECK((events(lonely) & POLLHUP) && read(lonely, &byte, 1) == -1 && errno == EIO);
        CHECK(events(locked) == POLLOUT && events(master) == POLLOUT);
        for (int i = 0; i < 1 + may_hang_up; i++) {
            int dead = i ? hung : orphan;
            CHECK(read(dead, &byte, 1) == 0 && write(dead, "x", 1) == -1 && errno == EIO);
            CHECK(events(dead) & POLLHUP);
            CHECK(tcgetattr(dead, &now) == -1 && errno == EIO);
        }
        CHECK(fstat(orphan, &node) == 0 && node.st_rdev == orphan_device);
        rest();
    }
    // The number that was free still is, unless another program has it now, as may be where all of the machine share their terminals.
    hole = open_master(0);
    int number;
    char taken[32];
    snprintf(taken, sizeof taken, "/dev/pts/%d", hole_number);
    CHECK(ioctl(hole, TIOCGPTN, &number) == 0);
    CHECK(number <= hole_number || access(taken, F_OK) == 0);
    say(open_slave(hole, O_RDWR), hole, "a new one");
    puts("every terminal is what it was");
}
