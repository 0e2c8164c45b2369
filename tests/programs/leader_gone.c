// Tests that a process goes on whose first thread has ended with pthread_exit: it keeps its pid, and the signals that wait for it keep their
// values, senders and order; and so do those of a process whose first thread takes no signal.
// @restored Threads: a process whose first thread has ended
// @restored Signals: pending signals of a process whose first thread has ended, or blocks every signal by raw calls
// @not-kept Signals: the overrun count of a timer signal pending for a process whose first thread has ended: only that thread may read it
#include "check.h"
#include <sys/socket.h>

static int rounds;
static int ends[2];
static pid_t self;

static void take(int signal, int code, pid_t sender, int value) {
    siginfo_t info = take_pending(signal);
    CHECK(info.si_code == code);
    if (code != SI_TIMER) CHECK(info.si_pid == sender && info.si_uid == getuid());
    if (code != SI_USER) CHECK(info.si_value.sival_int == value);
}

static void *work(void *unused) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = -7};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    for (int round = 0; round < rounds; round += 25) {
        for (int i = 0; i < 100; i++) CHECK(sigqueue(self, SIGRTMIN + 1, (union sigval){.sival_int = round + i}) == 0);
        CHECK(kill(self, SIGUSR1) == 0);
        // From another process, which a copy made by this one would not show.
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) _exit(kill(self, SIGUSR2) != 0);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(timer_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1}, NULL) == 0);
        for (int i = 0; i < 25 && round + i < rounds; i++) {
            sigset_t pending;
            rest();
            CHECK(getpid() == self && gettid() != self);
            CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGCHLD) == 1 && sigismember(&pending, SIGTERM) == 0);
        }
        for (int i = 0; i < 100; i++) take(SIGRTMIN + 1, SI_QUEUE, self, round + i);
        take(SIGUSR1, SI_USER, self, 0);
        take(SIGUSR2, SI_USER, child, 0);
        take(SIGRTMIN + 3, SI_TIMER, 0, -7);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        siginfo_t info;
        CHECK(sigtimedwait(&set, &info, &(struct timespec){0, 0}) == SIGCHLD);
        CHECK(info.si_code == CLD_EXITED && info.si_pid == child && info.si_status == 0);
        CHECK(sigpending(&set) == 0 && sigisemptyset(&set));
    }
    if (unused != NULL) return unused;
    // The end of this process must not be among what the other one looks for.
    char none;
    CHECK(read(ends[0], &none, 1) == 0);
    exit(0);
}

// Blocks everything, the library's own signals too.
static void block_all(void) {
    uint64_t all = ~0ull;
    CHECK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8) == 0);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    CHECK(pipe(ends) == 0);
    pid_t other = fork();
    CHECK(other >= 0);
    self = getpid();
    pthread_t thread;
    sigset_t set, before;
    sigfillset(&set);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, &before) == 0);
    CHECK(pthread_create(&thread, NULL, work, other == 0 ? NULL : &self) == 0);
    if (other == 0) {
        CHECK(close(ends[1]) == 0);
        pthread_exit(NULL);
    }
    // What waits in a socket is seen by a duplicate of it, which is got from the process, not from a thread.
    int pair[2];
    char waiting[8] = "";
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(pair[0], "waiting", 7) == 7);
    block_all();
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(close(ends[1]) == 0 && read(pair[1], waiting, 7) == 7 && strcmp(waiting, "waiting") == 0);
    int status;
    CHECK(waitpid(other, &status, 0) == other && status == 0);
    puts("the others went on");
}
