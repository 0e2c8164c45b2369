// Tests that sessions keep their controlling terminals and foreground groups, and that what is typed reaches the right group.
// @restored Terminals: controlling terminal of each session, and processes that have given it up
// @restored Terminals: foreground process group, `/dev/tty`, signals that are typed (^C), SIGHUP when the master is closed
// @not-kept Terminals: the number of a foreground group that has ended: the session leader becomes the foreground group
#include "check.h"
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t interrupts, hangups;

static void on_signal(int signal) {
    if (signal == SIGINT) interrupts++;
    else hangups++;
}

static void nap(void) {
    struct timespec ten_milliseconds = {0, 10000000};
    nanosleep(&ten_milliseconds, NULL);
}

static char tty_name[64];

// What a terminal that is hung up tells is an error; the signal comes right after that.
static int hung_up(int tty) {
    if (tcgetsid(tty) != -1) return 0;
    for (int wait = 0; wait < 100 && !hangups; wait++) nap();
    return hangups;
}

static void on(int signal) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

// In the foreground: tells of each interrupt, and that it can read.
static void foreground(pid_t session) {
    on(SIGINT);
    int said = 0, tty = open("/dev/tty", O_RDWR);
    CHECK(tty >= 0);
    while (!hangups) {
        CHECK((tcgetpgrp(tty) == getpid() && tcgetsid(tty) == session && getsid(0) == session) || hung_up(tty));
        int now = interrupts;
        if (now != said) {
            char text[16];
            CHECK(write(tty, text, (size_t)sprintf(text, "i%d.", now)) > 0 || hung_up(tty));
            said = now;
        }
        nap();
    }
}

// Leads the session; its terminal is known only by /dev/tty.
static void leader(void) {
    CHECK(setsid() == getpid());
    int slave = open(tty_name, O_RDWR);
    CHECK(slave >= 0 && ioctl(slave, TIOCGSID, &(pid_t){0}) == 0);
    int tty = open("/dev/tty", O_RDWR | O_NONBLOCK);
    CHECK(tty >= 0 && close(slave) == 0);
    pid_t session = getpid(), child = fork();
    if (child == 0) {
        CHECK(setpgid(0, 0) == 0);
        while (tcgetpgrp(tty) != getpid()) usleep(1000);
        on(SIGHUP);
        foreground(session);
        _exit(7);
    }
    setpgid(child, child);
    // Another one has no terminal, though it is in the session.
    pid_t without = fork();
    if (without == 0) {
        CHECK(ioctl(tty, TIOCNOTTY) == 0 && close(tty) == 0);
        while (getppid() == session) {
            CHECK(open("/dev/tty", O_RDWR) == -1 && errno == ENXIO && getsid(0) == session);
            nap();
        }
        _exit(0);
    }
    CHECK(tcsetpgrp(tty, child) == 0);
    on(SIGHUP);
    on(SIGINT);
    while (!hangups) {
        char name[64];
        CHECK(ttyname_r(STDIN_FILENO, name, sizeof name) != 0);
        CHECK((tcgetpgrp(tty) == child && tcgetsid(tty) == session) || hung_up(tty));
        if (hangups) break;
        CHECK((fcntl(tty, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDWR | O_NONBLOCK));
        // The same terminal under its own name.
        int again = open(tty_name, O_RDWR | O_NOCTTY);
        CHECK((again >= 0 && tcgetpgrp(again) == child && close(again) == 0) || hung_up(tty));
        nap();
    }
    CHECK(interrupts == 0);
    CHECK(kill(child, SIGHUP) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK(kill(without, SIGKILL) == 0 && waitpid(without, NULL, 0) == without);
    _exit(9);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && unlockpt(master) == 0 && ptsname_r(master, tty_name, sizeof tty_name) == 0);
    // No terminal of ours must be in the way of what the session asks.
    int null = open("/dev/null", O_RDONLY);
    CHECK(dup2(null, STDIN_FILENO) == STDIN_FILENO);
    pid_t session = fork();
    if (session == 0) {
        CHECK(close(master) == 0);
        leader();
    }
    // The foreground group is there.
    pid_t group, own;
    while (ioctl(master, TIOCGPGRP, &group) != 0 || group == session || group <= 0) usleep(1000);
    usleep(20000);
    struct termios settings;
    CHECK(tcgetattr(master, &settings) == 0);
    settings.c_lflag &= ~(tcflag_t)ECHO;
    CHECK(tcsetattr(master, TCSANOW, &settings) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(ioctl(master, TIOCGSID, &own) == 0 && own == session);
        CHECK(ioctl(master, TIOCGPGRP, &own) == 0 && own == group);
        if (round % 10 == 0) {
            char wanted[16], got[16] = "";
            size_t size = (size_t)sprintf(wanted, "i%d.", round / 10 + 1);
            CHECK(write(master, "\003", 1) == 1);
            for (size_t n = 0; n < size;) {
                ssize_t more = read(master, got + n, sizeof got - n);
                CHECK(more > 0);
                n += (size_t)more;
            }
            CHECK(strcmp(got, wanted) == 0);
        }
        rest();
    }
    CHECK(close(master) == 0);
    int status;
    CHECK(waitpid(session, &status, 0) == session && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    puts("the terminal controls whom it did");
}
