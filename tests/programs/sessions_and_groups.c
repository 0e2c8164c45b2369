// Tests that sessions, process groups and orphans keep their numbers, and that signals still reach exactly one group.
// @restored Process: sessions, process groups, orphans
#include "check.h"
#include <fcntl.h>

struct shared {
    int ready[6], stop, usr1[6];
    pid_t pid[6];
};
static struct shared *shared;
static int me;

static void on_usr1(int signal) {
    (void)signal;
    shared->usr1[me]++;
}

// Lives until it is told to stop, and checks all the while that its ids stay what they are.
static void live(int index, pid_t parent, pid_t group, pid_t session) {
    me = index;
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    pid_t self = getpid();
    shared->pid[index] = self;
    __atomic_store_n(&shared->ready[index], 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST)) {
        CHECK(getpid() == self && (pid_t)syscall(SYS_getpid) == self);
        CHECK(getppid() == parent);
        CHECK(getpgid(0) == group && getpgrp() == group && getsid(0) == session);
        // A signal of ours may end the rest early: that one is not the checkpoint's fault.
        struct timespec ten_milliseconds = {0, 10000000};
        nanosleep(&ten_milliseconds, NULL);
    }
    _exit(40 + index);
}

static void wait_for(int index) {
    while (!__atomic_load_n(&shared->ready[index], __ATOMIC_SEQ_CST)) usleep(1000);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    pid_t self = getpid(), parent = getppid(), group = getpgrp(), session = getsid(0);
    pid_t child[6] = {0};
    // 0: a plain child; 1: leader of a group; 2: a member of 1's group; 3: leader of a session.
    if ((child[0] = fork()) == 0) live(0, self, group, session);
    if ((child[1] = fork()) == 0) {
        CHECK(setpgid(0, 0) == 0);
        live(1, self, getpid(), session);
    }
    wait_for(1);
    if ((child[2] = fork()) == 0) {
        CHECK(setpgid(0, child[1]) == 0);
        live(2, self, child[1], session);
    }
    if ((child[3] = fork()) == 0) {
        pid_t own = getpid();
        CHECK(setsid() == own);
        // 4: a child in that session, in a group of its own.
        if (fork() == 0) {
            CHECK(setpgid(0, 0) == 0);
            live(4, own, getpid(), own);
        }
        wait_for(4);
        live(3, self, own, own);
    }
    // 5: an orphan, in the session of one that is dead: a daemon.
    pid_t first = fork();
    if (first == 0) {
        CHECK(setsid() == getpid());
        pid_t leader = getpid();
        if (fork() == 0) {
            while (getppid() == leader) usleep(1000);
            live(5, getppid(), leader, leader);
        }
        _exit(0);
    }
    CHECK(first > 0 && waitpid(first, NULL, 0) == first);
    for (int i = 0; i < 6; i++) wait_for(i);
    for (int round = 0; round < rounds; round++) {
        CHECK(getpid() == self && getppid() == parent && getpgrp() == group && getsid(0) == session);
        CHECK(getpgid(child[0]) == group && getpgid(child[1]) == child[1] && getpgid(child[2]) == child[1]);
        CHECK(getsid(child[1]) == session && getsid(child[3]) == child[3] && getsid(shared->pid[4]) == child[3]);
        CHECK(getpgid(shared->pid[5]) == first && getsid(shared->pid[5]) == first);
        CHECK(kill(first, 0) == -1 && errno == ESRCH);
        if (round % 10 == 0) {
            int before[6];
            for (int i = 0; i < 6; i++) before[i] = __atomic_load_n(&shared->usr1[i], __ATOMIC_SEQ_CST);
            CHECK(killpg(child[1], SIGUSR1) == 0);
            for (int wait = 0; wait < 1000 && (shared->usr1[1] == before[1] || shared->usr1[2] == before[2]); wait++) usleep(1000);
            for (int i = 0; i < 6; i++) CHECK(__atomic_load_n(&shared->usr1[i], __ATOMIC_SEQ_CST) == before[i] + (i == 1 || i == 2));
        }
        rest();
    }
    __atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 4; i++) {
        int status;
        CHECK(waitpid(child[i], &status, 0) == child[i] && WIFEXITED(status) && WEXITSTATUS(status) == 40 + i);
    }
    // The daemon ends by itself; one that is left behind would be told of.
    for (int wait = 0; wait < 1000 && kill(shared->pid[5], 0) == 0; wait++) usleep(1000);
    puts("everybody kept their place");
}
