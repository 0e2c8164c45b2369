// Tests that a call which a signal of the program's own is to end does end with EINTR, also when the signal comes while a checkpoint is taken, or just before one.
//
// The signal comes from a timer, which runs on while the process is frozen. It is set by a second thread that blocks the signal, when the first is seen to wait.
// @restored Signals: signals that arrive during a checkpoint or are pending in the image end the same call that they would have ended (EINTR), with and without SA_RESTART
#include "check.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>

static int ends[2], sockets[2], locked, word;
static pid_t child;

static void wait_read(void) {
    char byte;
    CHECK(read(ends[0], &byte, 1) == -1);
}
static void wait_receive(void) {
    char byte;
    CHECK(recv(sockets[0], &byte, 1, 0) == -1);
}
static void wait_child(void) { CHECK(waitpid(child, NULL, 0) == -1); }
static void wait_lock(void) { CHECK(flock(locked, LOCK_EX) == -1); }
static void wait_futex(void) { CHECK(syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL) == -1); }
static void wait_pause(void) { CHECK(pause() == -1); }
static void wait_poll(void) {
    struct pollfd one = {.fd = ends[0], .events = POLLIN};
    CHECK(poll(&one, 1, -1) == -1);
}
static void wait_sleep(void) {
    struct timespec hour = {3600, 0};
    CHECK(nanosleep(&hour, &hour) == -1);
}

static const struct {
    void (*wait)(void);
    long number;
    int restarts;
} calls[] = {
    {wait_read, SYS_read, 0},   {wait_receive, SYS_recvfrom, 0}, {wait_child, SYS_wait4, 0}, {wait_lock, SYS_flock, 0},
    {wait_futex, SYS_futex, 0}, {wait_pause, SYS_pause, 1},      {wait_poll, SYS_poll, 1},   {wait_sleep, SYS_clock_nanosleep, 1},
};
enum { CALLS = sizeof calls / sizeof *calls };

static volatile sig_atomic_t handled;
static volatile long awaited = -1;

static void on_alarm(int signal) {
    (void)signal;
    handled++;
}

// The call that the first thread waits in; -1: none.
static long waits_in(void) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", getpid());
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    ssize_t len = read(fd, text, sizeof text - 1);
    CHECK(close(fd) == 0);
    if (len <= 0) return -1;
    text[len] = 0;
    return text[0] == 'r' ? -1 : atol(text);
}

static void *alarms(void *argument) {
    unsigned seed = 1;
    (void)argument;
    for (;;) {
        long number = awaited;
        if (number >= 0 && waits_in() == number) {
            awaited = -1;
            struct itimerval once = {.it_value = {0, 1000 + rand_r(&seed) % 20000}};
            CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
        }
        usleep(200);
    }
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    locked = open("lock", O_RDWR | O_CREAT, 0600);
    int other = open("lock", O_RDWR);
    CHECK(locked >= 0 && other >= 0 && flock(other, LOCK_EX) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (;;) pause();
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, alarms, NULL) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        int which = round % CALLS, before = handled;
        struct sigaction action = {.sa_handler = on_alarm, .sa_flags = calls[which].restarts ? SA_RESTART : 0};
        CHECK(sigaction(SIGALRM, &action, NULL) == 0);
        awaited = calls[which].number;
        calls[which].wait();
        CHECK(errno == EINTR);
        CHECK(handled == before + 1);
    }
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    puts("every signal ended its call");
    return 0;
}
