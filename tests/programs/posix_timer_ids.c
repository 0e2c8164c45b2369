// Tests that timers keep their ids, with gaps between them, and that each process and its children have their own.
// @restored POSIX timers: ids, with gaps; none is inherited over fork
#include "check.h"

static int timer(double first) {
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    struct itimerspec set = {{0, 0}, {(time_t)first, 0}};
    int id = -1;
    CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == 0);
    CHECK(syscall(SYS_timer_settime, id, 0, &set, NULL) == 0);
    return id;
}

static int has(int id, int first) {
    struct itimerspec now;
    if (syscall(SYS_timer_gettime, id, &now) == -1) return 0;
    // Of each only the one that was made: it has its own time.
    CHECK(now.it_value.tv_sec <= first && now.it_value.tv_sec > first - 60);
    return 1;
}

enum { TIMERS = 200 };

static void look(int rounds) {
    int ids[TIMERS];
    for (int i = 0; i < TIMERS; i++) ids[i] = timer(1000 * (i + 1));
    for (int i = 0; i < TIMERS; i++)
        if (i % 7 != 3 && i % 5 != 0) CHECK(syscall(SYS_timer_delete, ids[i]) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        for (int i = 0; i < TIMERS; i++) CHECK(has(ids[i], 1000 * (i + 1)) == (i % 7 == 3 || i % 5 == 0));
    }
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    timer(500);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(!has(0, 500));
        look(rounds);
        _exit(0);
    }
    look(rounds);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("each timer has its number");
}
