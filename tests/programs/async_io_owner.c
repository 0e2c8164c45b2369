// Tests that files that send signals when something happens go on doing so, to the same owner.
// @restored Signal-driven I/O: O_ASYNC, F_SETOWN (process, thread, group), F_SETSIG, of pipes and terminals
// @refused Signal-driven I/O: directories watched by F_NOTIFY; owners outside of the job
// @not-kept Signal-driven I/O: write life-time hints (F_SET_RW_HINT): they belong to the inode, and do not affect data
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <termios.h>

static volatile sig_atomic_t count[4], bands, last_fd;
static volatile pid_t last_tid;

static void on_signal(int signal, siginfo_t *info, void *context) {
    (void)context;
    count[signal == SIGIO ? 0 : signal - SIGRTMIN]++;
    if (signal != SIGIO) last_fd = info->si_fd, bands |= (int)info->si_band;
    last_tid = gettid();
}

static volatile pid_t thread_id;
static volatile int stop;

static void *thread(void *unused) {
    (void)unused;
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGRTMIN + 2);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    thread_id = gettid();
    while (!stop) {
        struct timespec ten_milliseconds = {0, 10000000};
        nanosleep(&ten_milliseconds, NULL);
    }
    return NULL;
}

static void until(volatile sig_atomic_t *counter, int wanted) {
    for (int wait = 0; wait < 2000 && *counter < wanted; wait++) usleep(1000);
    if (*counter != wanted) dprintf(2, "%d signals for %d\n", (int)*counter, wanted);
    CHECK(*counter == wanted);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    CHECK(sigaction(SIGIO, &action, NULL) == 0);
    for (int i = 1; i < 4; i++) CHECK(sigaction(SIGRTMIN + i, &action, NULL) == 0);
    int plain[2], numbered[2], of_thread[2], of_group[2], quiet[2];
    CHECK(pipe(plain) == 0 && pipe(numbered) == 0 && pipe(of_thread) == 0 && pipe(of_group) == 0 && pipe(quiet) == 0);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, thread, NULL) == 0);
    while (!thread_id) usleep(1000);
    CHECK(fcntl(plain[0], F_SETOWN, getpid()) == 0 && fcntl(plain[0], F_SETFL, O_ASYNC) == 0);
    CHECK(fcntl(numbered[0], F_SETOWN, getpid()) == 0 && fcntl(numbered[0], F_SETSIG, SIGRTMIN + 1) == 0);
    CHECK(fcntl(numbered[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
    struct f_owner_ex owner = {F_OWNER_TID, thread_id};
    CHECK(fcntl(of_thread[0], F_SETOWN_EX, &owner) == 0 && fcntl(of_thread[0], F_SETSIG, SIGRTMIN + 2) == 0);
    CHECK(fcntl(of_thread[0], F_SETFL, O_ASYNC) == 0);
    // A group of its own, so that nobody else is disturbed.
    CHECK(setpgid(0, 0) == 0 && fcntl(of_group[0], F_SETOWN, -getpgrp()) == 0);
    CHECK(fcntl(of_group[0], F_SETSIG, SIGRTMIN + 3) == 0 && fcntl(of_group[0], F_SETFL, O_ASYNC) == 0);
    // Set, but not on.
    CHECK(fcntl(quiet[0], F_SETOWN, getpid()) == 0 && fcntl(quiet[0], F_SETSIG, SIGRTMIN + 1) == 0);
    char byte = 0;
    for (int round = 0; round < rounds; round++) {
        struct f_owner_ex now;
        CHECK(fcntl(plain[0], F_GETOWN) == getpid() && fcntl(plain[0], F_GETSIG) == 0);
        CHECK(fcntl(of_thread[0], F_GETOWN_EX, &now) == 0 && now.type == F_OWNER_TID && now.pid == thread_id);
        CHECK(fcntl(of_group[0], F_GETOWN_EX, &now) == 0 && now.type == F_OWNER_PGRP && now.pid == getpgrp());
        CHECK(fcntl(quiet[0], F_GETOWN) == getpid() && fcntl(quiet[0], F_GETSIG) == SIGRTMIN + 1);
        CHECK((fcntl(plain[0], F_GETFL) & O_ASYNC) && !(fcntl(quiet[0], F_GETFL) & O_ASYNC));
        CHECK((fcntl(numbered[0], F_GETFL) & (O_ASYNC | O_NONBLOCK)) == (O_ASYNC | O_NONBLOCK));
        int before[4] = {count[0], count[1], count[2], count[3]};
        CHECK(write(plain[1], &byte, 1) == 1);
        until(&count[0], before[0] + 1);
        CHECK(write(numbered[1], &byte, 1) == 1);
        until(&count[1], before[1] + 1);
        CHECK(last_fd == numbered[0]);
        CHECK(write(of_thread[1], &byte, 1) == 1);
        until(&count[2], before[2] + 1);
        CHECK(last_tid == thread_id);
        CHECK(write(of_group[1], &byte, 1) == 1);
        until(&count[3], before[3] + 1);
        CHECK(write(quiet[1], &byte, 1) == 1);
        CHECK(read(plain[0], &byte, 1) == 1 && read(numbered[0], &byte, 1) == 1 && read(of_thread[0], &byte, 1) == 1);
        CHECK(read(of_group[0], &byte, 1) == 1 && read(quiet[0], &byte, 1) == 1);
        rest();
    }
    stop = 1;
    CHECK(pthread_join(other, NULL) == 0);
    puts("every signal came to its owner");
}
