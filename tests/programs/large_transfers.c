// Tests that a blocking call which transfers more than fits at once transfers all of it: a checkpoint amid it does not cut it short. A signal of the program's own does.
// @restored Pipes: a half-done blocking write, which transfers the rest
// @restored UNIX sockets: half-done blocking calls (write, send, MSG_WAITALL), which transfer the rest
// @restored TCP sockets: a half-done recv with MSG_WAITALL, which waits for the rest
// @restored Terminals: a half-done blocking write, which transfers the rest
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>

enum { LEN = 40000, STEP = 4000 };

static pid_t helpers[8];
static int helping;

static unsigned char byte_at(long i) { return (unsigned char)(i * 7 + i / 256); }

static void pace(void) {
    struct timespec millisecond = {0, 1000000};
    CHECK(nanosleep(&millisecond, NULL) == 0);
}

// A child that takes what comes slowly, and looks at it.
static void taker(int fd, int other) {
    if ((helpers[helping++] = fork())) {
        CHECK(close(fd) == 0);
        return;
    }
    CHECK(close(other) == 0);
    unsigned char got[STEP];
    ssize_t len;
    for (long at = 0; (len = read(fd, got, STEP)) > 0; pace()) {
        for (ssize_t i = 0; i < len; i++, at = (at + 1) % LEN) CHECK(got[i] == byte_at(at));
    }
    _exit(3);
}

// A child that gives slowly.
static void giver(int fd, int other) {
    if ((helpers[helping++] = fork())) {
        CHECK(close(fd) == 0);
        return;
    }
    CHECK(close(other) == 0);
    unsigned char gives[LEN];
    for (long i = 0; i < LEN; i++) gives[i] = byte_at(i);
    for (;;) {
        for (long at = 0; at < LEN; at += STEP) {
            if (send(fd, gives + at, STEP, MSG_NOSIGNAL) != STEP) _exit(3);
            pace();
        }
    }
}

static void socket_pair(int ends[2]) {
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    int small = 4096;
    CHECK(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
}

static void tcp_pair(int ends[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(ends[0] >= 0 && connect(ends[0], (struct sockaddr *)&address, len) == 0);
    ends[1] = accept(listener, NULL, NULL);
    CHECK(ends[1] >= 0 && close(listener) == 0);
}

static void on_alarm(int signal) { (void)signal; }

// What nobody takes: the program's own signal ends the call, which tells how far it came.
static void is_cut_short(int fd, const unsigned char *gives) {
    struct itimerval once = {.it_value = {0, 5000}};
    CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
    CHECK(write(fd, gives, 5000) == 4096);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int pipes[2], written[2], sent[2], given[2], tcp[2], full[2], terminal, end;
    CHECK(pipe(pipes) == 0 && fcntl(pipes[1], F_SETPIPE_SZ, 4096) == 4096);
    taker(pipes[0], pipes[1]);
    socket_pair(written);
    taker(written[1], written[0]);
    socket_pair(sent);
    taker(sent[1], sent[0]);
    socket_pair(given);
    giver(given[1], given[0]);
    tcp_pair(tcp);
    giver(tcp[1], tcp[0]);
    CHECK(openpty(&terminal, &end, NULL, NULL, NULL) == 0);
    struct termios raw;
    CHECK(tcgetattr(end, &raw) == 0);
    cfmakeraw(&raw);
    CHECK(tcsetattr(end, TCSANOW, &raw) == 0);
    taker(terminal, end);
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);

    static unsigned char gives[LEN], got[LEN];
    for (long i = 0; i < LEN; i++) gives[i] = byte_at(i);
    for (int round = 0; round < rounds; round++) {
        switch (round % 7) {
        case 0: CHECK(write(pipes[1], gives, LEN) == LEN); break;
        case 1: CHECK(write(written[0], gives, LEN) == LEN); break;
        case 2: CHECK(send(sent[0], gives, LEN, MSG_NOSIGNAL) == LEN); break;
        case 3: CHECK(recv(given[0], got, LEN, MSG_WAITALL) == LEN && memcmp(got, gives, LEN) == 0); break;
        case 4: CHECK(recv(tcp[0], got, LEN, MSG_WAITALL) == LEN && memcmp(got, gives, LEN) == 0); break;
        case 5: CHECK(write(end, gives, LEN) == LEN); break;
        case 6:
            CHECK(pipe(full) == 0 && fcntl(full[1], F_SETPIPE_SZ, 4096) == 4096);
            is_cut_short(full[1], gives);
            CHECK(close(full[0]) == 0 && close(full[1]) == 0);
        }
    }
    int all[] = {pipes[1], written[0], sent[0], given[0], tcp[0], end};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) CHECK(close(all[i]) == 0);
    for (int i = 0; i < helping; i++) CHECK(kill(helpers[i], SIGKILL) == 0 && waitpid(helpers[i], NULL, 0) == helpers[i]);
    puts("everything was transferred at once");
    return 0;
}
