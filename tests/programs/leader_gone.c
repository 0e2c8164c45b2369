// Tests that a process goes on whose first thread has ended with pthread_exit, and that it keeps its pid.
// @restored Threads: a process whose first thread has ended
#include "check.h"

static int rounds;
static pid_t self;

static void *work(void *unused) {
    (void)unused;
    for (int round = 0; round < rounds; round++) {
        CHECK(getpid() == self && gettid() != self);
        rest();
    }
    puts("the others went on");
    exit(0);
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    self = getpid();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    pthread_exit(NULL);
}
