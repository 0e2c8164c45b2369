// Tests that blocking calls of every kind neither fail with EINTR nor begin their time-out anew at each checkpoint.
//
// All wait at once, for a hundredth of a second per round: each in a thread of one process ("threads"), or each in a
// process of its own ("processes").
// @restored Threads: the blocking call of a thread, with the rest of its time-out
#include "check.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/stat.h>

static double seconds;
static _Thread_local volatile int handled;

static void on_usr1(int signal) {
    (void)signal;
    handled++;
}

static struct timespec span(double time) { return (struct timespec){(time_t)time, (long)((time - (double)(time_t)time) * 1e9)}; }

// The clock that a call's time-out is measured by: the wall clock goes on while the job is not there, the others stand still.
static _Thread_local clockid_t measure;

static double reading(void) {
    struct timespec time;
    CHECK(clock_gettime(measure, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct timespec deadline(clockid_t clock) {
    struct timespec time, more = span(seconds);
    CHECK(clock_gettime(clock, &time) == 0);
    time.tv_sec += more.tv_sec + (time.tv_nsec + more.tv_nsec) / 1000000000;
    time.tv_nsec = (time.tv_nsec + more.tv_nsec) % 1000000000;
    return time;
}

// A child that acts after the time: it signals the thread that made it, or writes to a descriptor, or just ends.
static pid_t helper(int signal, int fd) {
    pid_t pid = getpid(), tid = gettid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct timespec time = span(seconds);
        CHECK(nanosleep(&time, NULL) == 0);
        if (signal) CHECK(syscall(SYS_tgkill, pid, tid, signal) == 0);
        if (fd >= 0) CHECK(write(fd, "x", 1) == 1);
        _exit(3);
    }
    return child;
}

static void ended(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static sigset_t only(int signal) {
    sigset_t set;
    sigemptyset(&set);
    if (signal) sigaddset(&set, signal);
    return set;
}

// A pipe that nobody writes to.
static int quiet_pipe(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    return ends[0];
}

static int call_poll(void) {
    struct pollfd fd = {.fd = quiet_pipe(), .events = POLLIN};
    return poll(&fd, 1, (int)(seconds * 1000)) == 0;
}
static int call_ppoll(void) {
    struct pollfd fd = {.fd = quiet_pipe(), .events = POLLIN};
    struct timespec time = span(seconds);
    sigset_t set = only(SIGUSR2);
    return ppoll(&fd, 1, &time, &set) == 0;
}
static int call_select(void) {
    int fd = quiet_pipe();
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    struct timeval time = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    return select(fd + 1, &set, NULL, NULL, &time) == 0 && time.tv_sec == 0 && time.tv_usec == 0;
}
static int call_pselect(void) {
    int fd = quiet_pipe();
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    struct timespec time = span(seconds);
    sigset_t mask = only(SIGUSR2);
    return pselect(fd + 1, &set, NULL, NULL, &time, &mask) == 0;
}
static int quiet_epoll(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), fd = quiet_pipe();
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890};
    CHECK(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return epoll;
}
static int call_epoll_wait(void) {
    struct epoll_event event;
    return epoll_wait(quiet_epoll(), &event, 1, (int)(seconds * 1000)) == 0;
}
static int call_epoll_pwait(void) {
    struct epoll_event event;
    sigset_t mask = only(SIGUSR2);
    return epoll_pwait(quiet_epoll(), &event, 1, (int)(seconds * 1000), &mask) == 0;
}
static int call_epoll_event(void) {
    // No time-out: what is waited for comes from another process.
    int ends[2], epoll = epoll_create1(0);
    CHECK(pipe(ends) == 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x1234567890};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    pid_t child = helper(0, ends[1]);
    memset(&event, 0, sizeof event);
    int good = epoll_wait(epoll, &event, 1, -1) == 1 && event.data.u64 == 0x1234567890 && event.events == EPOLLIN;
    ended(child);
    return good;
}
static int call_nanosleep(void) {
    struct timespec time = span(seconds);
    return nanosleep(&time, NULL) == 0;
}
static int call_clock_nanosleep(void) {
    struct timespec time = span(seconds);
    return clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL) == 0;
}
static int call_clock_nanosleep_until(void) {
    struct timespec time = deadline(CLOCK_REALTIME);
    return clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &time, NULL) == 0;
}
static int call_usleep(void) { return usleep((useconds_t)(seconds * 1e6)) == 0; }
static int call_futex_wait(void) {
    uint32_t word = 5;
    struct timespec time = span(seconds);
    return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, &time, NULL, 0) == -1 && errno == ETIMEDOUT;
}
static int call_futex_wait_until(void) {
    uint32_t word = 5;
    struct timespec time = deadline(CLOCK_MONOTONIC);
    return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 5, &time, NULL, FUTEX_BITSET_MATCH_ANY) == -1 && errno == ETIMEDOUT;
}
static int call_sem_timedwait(void) {
    sem_t semaphore;
    CHECK(sem_init(&semaphore, 0, 0) == 0);
    struct timespec time = deadline(CLOCK_REALTIME);
    return sem_timedwait(&semaphore, &time) == -1 && errno == ETIMEDOUT;
}
static int call_cond_timedwait(void) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    struct timespec time = deadline(CLOCK_REALTIME);
    CHECK(pthread_mutex_lock(&mutex) == 0);
    return pthread_cond_timedwait(&condition, &mutex, &time) == ETIMEDOUT;
}
static int call_sigtimedwait(void) {
    sigset_t set = only(SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    struct timespec time = span(seconds);
    return sigtimedwait(&set, NULL, &time) == -1 && errno == EAGAIN;
}
static int call_sigwaitinfo(void) {
    sigset_t set = only(SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    pid_t child = helper(SIGUSR2, -1);
    siginfo_t info;
    int good = sigwaitinfo(&set, &info) == SIGUSR2 && info.si_pid == child;
    ended(child);
    return good;
}
static int call_sigwait(void) {
    sigset_t set = only(SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    pid_t child = helper(SIGUSR2, -1);
    int signal = 0, good = sigwait(&set, &signal) == 0 && signal == SIGUSR2;
    ended(child);
    return good;
}
static int call_pipe_read(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = helper(0, ends[1]);
    char byte;
    int good = read(ends[0], &byte, 1) == 1 && byte == 'x';
    ended(child);
    return good;
}
static int call_pipe_write(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    static char much[1 << 16];
    CHECK(fcntl(ends[1], F_SETPIPE_SZ, 4096) == 4096 && write(ends[1], much, 4096) == 4096);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        call_nanosleep();
        for (int left = 4096 + 10000; left > 0;) {
            char some[1000];
            ssize_t got = read(ends[0], some, sizeof some);
            CHECK(got > 0);
            left -= (int)got;
        }
        _exit(3);
    }
    int good = write(ends[1], much, 10000) == 10000;
    ended(child);
    return good;
}
static int call_fifo_open(void) {
    char name[64];
    snprintf(name, sizeof name, "fifo.%d", gettid());
    CHECK(mkfifo(name, 0600) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        call_nanosleep();
        _exit(open(name, O_WRONLY) >= 0 ? 3 : 4);
    }
    int good = open(name, O_RDONLY) >= 0;
    ended(child);
    return good;
}
static int call_wait4(void) {
    int status;
    pid_t child = helper(0, -1);
    return wait4(child, &status, 0, NULL) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3;
}
static int call_waitid(void) {
    siginfo_t info;
    pid_t child = helper(0, -1);
    return waitid(P_PID, (id_t)child, &info, WEXITED) == 0 && info.si_pid == child && info.si_status == 3;
}
static int call_pause(void) {
    pid_t child = helper(SIGUSR1, -1);
    int good = pause() == -1 && errno == EINTR && handled == 1;
    ended(child);
    return good;
}
static int call_sigsuspend(void) {
    pid_t child = helper(SIGUSR1, -1);
    sigset_t set = only(SIGUSR2);
    int good = sigsuspend(&set) == -1 && errno == EINTR && handled == 1;
    ended(child);
    return good;
}

#define CALLS                                                                                                               \
    CALL(poll) CALL(ppoll) CALL(select) CALL(pselect) CALL(epoll_wait) CALL(epoll_pwait) CALL(epoll_event) CALL(nanosleep)   \
    CALL(clock_nanosleep) WALL(clock_nanosleep_until) CALL(usleep) CALL(futex_wait) CALL(futex_wait_until)                  \
    WALL(sem_timedwait) WALL(cond_timedwait) CALL(sigtimedwait) CALL(sigwaitinfo) CALL(sigwait) CALL(pipe_read)             \
    CALL(pipe_write) CALL(fifo_open) CALL(wait4) CALL(waitid) CALL(pause) CALL(sigsuspend)

static const struct {
    const char *name;
    int (*call)(void);
    clockid_t clock;
} calls[] = {
#define CALL(name) {#name, call_##name, CLOCK_MONOTONIC},
#define WALL(name) {#name, call_##name, CLOCK_REALTIME},
    CALLS};
enum { COUNT = sizeof calls / sizeof *calls };

// What is the matter with a call; nothing, if all is well.
static const char *verdicts[COUNT];

static void *make(void *argument) {
    long index = (long)argument;
    measure = calls[index].clock;
    double start = reading();
    errno = 0;
    int good = calls[index].call();
    static _Thread_local char text[128];
    double took = reading() - start;
    if (!good) snprintf(text, sizeof text, "failed after %.3f s (errno: %s)", took, strerror(errno));
    else if (took < seconds - 0.02) snprintf(text, sizeof text, "returned too early, after %.3f s", took);
    else if (took > seconds + 20) snprintf(text, sizeof text, "returned too late, after %.3f s", took);
    if (*text) verdicts[index] = strdup(text);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc > 2);
    seconds = rounds_of(argc, argv) / 100.0;
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    int in_threads = strcmp(argv[2], "threads") == 0;
    // With a further argument: that one call alone, in the only thread there is.
    if (argc > 3) {
        for (long i = 0; i < COUNT; i++)
            if (strcmp(calls[i].name, argv[3]) == 0) {
                make((void *)i);
                puts(verdicts[i] ? verdicts[i] : "ok");
                return verdicts[i] != NULL;
            }
        CHECK(!"such a call is known");
    }
    pthread_t threads[COUNT];
    pid_t children[COUNT];
    for (long i = 0; i < COUNT; i++) {
        if (in_threads) CHECK(pthread_create(&threads[i], NULL, make, (void *)i) == 0);
        else if ((children[i] = fork()) == 0) {
            make((void *)i);
            if (verdicts[i]) dprintf(2, "%s %s\n", calls[i].name, verdicts[i]);
            _exit(verdicts[i] != NULL);
        }
    }
    int failed = 0;
    for (int i = 0; i < COUNT; i++) {
        int status;
        if (in_threads) CHECK(pthread_join(threads[i], NULL) == 0);
        else {
            CHECK(waitpid(children[i], &status, 0) == children[i]);
            if (status) verdicts[i] = "failed";
        }
        printf("%s: %s\n", calls[i].name, verdicts[i] ? verdicts[i] : "ok");
        failed |= verdicts[i] != NULL;
    }
    return failed;
}
