// Tests trees of processes that come about by chance, by fork, setsid, setpgid, subreapers and exit: everybody keeps the parent, session and group.
// @restored Process: processes that a subreaper has adopted, in any session, also in those of dead leaders
#include "check.h"
#include <sys/prctl.h>

// The seed is the second argument.
enum { MOST = 30, ACTS = 120 };
enum act { NONE, FORK, SETSID, SETPGID, SUBREAPER, END, REAP, STOP };

struct ids {
    pid_t parent, group, session;
    char state;
};
struct person {
    pid_t pid;
    enum act act;
    long argument;
    struct ids ids;
};
static struct shared {
    int count, settled, stop;
    struct person people[MOST];
} *shared;

static unsigned long seed;
static long chance(long most) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (long)((seed >> 33) % (unsigned long)most);
}

static struct ids look(pid_t pid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    struct ids ids = {0, 0, 0, 0};
    FILE *file = fopen(path, "r");
    if (file == NULL) return ids;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *end = strrchr(text, ')');
    if (end != NULL) CHECK(sscanf(end + 1, " %c %d %d %d", &ids.state, &ids.parent, &ids.group, &ids.session) == 4);
    return ids;
}

static int is_gone(pid_t pid) {
    char state = look(pid).state;
    return state == 0 || state == 'Z' || state == 'X';
}

static void live(int own);

static void act(enum act act, long argument) {
    switch (act) {
    case FORK: {
        int next = shared->count;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) live(next);
        shared->people[next].pid = child;
        __atomic_store_n(&shared->count, next + 1, __ATOMIC_SEQ_CST);
        break;
    }
    case SETSID: setsid(); break;
    case SETPGID: setpgid(0, (pid_t)argument); break;
    case SUBREAPER: CHECK(prctl(PR_SET_CHILD_SUBREAPER, argument, 0, 0, 0) == 0); break;
    case REAP: waitpid(-1, NULL, WNOHANG); break;
    case END: _exit(0);
    default: break;
    }
}

static void pause_a_little(long microseconds) {
    struct timespec time = {0, microseconds * 1000};
    nanosleep(&time, NULL);
}

// Does what it is told to. When all are settled, checks that its ids stay what they are.
static void live(int own) {
    struct person *me = &shared->people[own];
    while (!__atomic_load_n(&shared->settled, __ATOMIC_SEQ_CST)) {
        enum act next = __atomic_load_n(&me->act, __ATOMIC_SEQ_CST);
        if (next != NONE) {
            act(next, me->argument);
            __atomic_store_n(&me->act, NONE, __ATOMIC_SEQ_CST);
        }
        pause_a_little(500);
    }
    int is_subreaper = 0, was_subreaper = 0;
    CHECK(prctl(PR_GET_CHILD_SUBREAPER, &was_subreaper, 0, 0, 0) == 0);
    while (!__atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST)) {
        CHECK(getpid() == me->pid && getppid() == me->ids.parent);
        CHECK(getpgrp() == me->ids.group && getsid(0) == me->ids.session);
        CHECK(prctl(PR_GET_CHILD_SUBREAPER, &is_subreaper, 0, 0, 0) == 0 && is_subreaper == was_subreaper);
        pause_a_little(10000);
    }
    _exit(0);
}

// Lets a process do something, and waits until it has.
static void let(int who, enum act what, long argument) {
    struct person *person = &shared->people[who];
    int count = shared->count;
    if (who == 0) {
        act(what, argument);
        return;
    }
    person->argument = argument;
    __atomic_store_n(&person->act, what, __ATOMIC_SEQ_CST);
    while (what == END ? !is_gone(person->pid) : __atomic_load_n(&person->act, __ATOMIC_SEQ_CST) != NONE) pause_a_little(100);
    if (what == FORK) CHECK(shared->count == count + 1);
}

static void something_happens(void) {
    int who = (int)chance(shared->count);
    if (is_gone(shared->people[who].pid)) return;
    long what = chance(20);
    if (what < 7 && shared->count < MOST) let(who, FORK, 0);
    else if (what < 10 && who != 0) let(who, SETSID, 0);
    else if (what < 13) let(who, SETPGID, chance(2) ? 0 : shared->people[chance(shared->count)].pid);
    else if (what < 15) let(who, SUBREAPER, chance(2));
    else if (what < 18 && who != 0) let(who, END, 0);
    else if (what == 19) let(who, REAP, 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(argc > 2);
    seed = strtoul(argv[2], NULL, 10) * 7919;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    shared->people[0].pid = getpid();
    shared->count = 1;
    for (int i = 0; i < ACTS; i++) something_happens();
    // The launcher waits at once for those that have come to it.
    usleep(50000);
    for (int i = 0; i < shared->count; i++) shared->people[i].ids = look(shared->people[i].pid);
    pid_t parent = getppid();
    __atomic_store_n(&shared->settled, 1, __ATOMIC_SEQ_CST);
    for (int round = 0; round < rounds; round++) {
        CHECK(getppid() == parent);
        for (int i = 0; i < shared->count; i++) {
            struct ids before = shared->people[i].ids, now = look(shared->people[i].pid);
            // Those that have ended and become the launcher's may be waited for at any time.
            if (before.state == 0 || (before.state == 'Z' && before.parent == parent)) continue;
            CHECK(now.parent == before.parent && now.group == before.group && now.session == before.session);
            CHECK((now.state == 'Z') == (before.state == 'Z'));
        }
        rest();
    }
    __atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 1; i < shared->count; i++) {
        for (int wait = 0; wait < 2000 && !is_gone(shared->people[i].pid); wait++) pause_a_little(1000);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
    puts("everybody kept their place");
}
