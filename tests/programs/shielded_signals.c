// Tests that signals whose default action the launcher keeps from the job still are as they were: a program sees their default action, may have
// its own and the default again, and whoever of the job (or the kernel) sends one gets what it always did.
// @restored Signals: the default action of a signal that `--on` acts on
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#define _GNU_SOURCE
#include "check.h"
#include <sys/prctl.h>
#include <sys/resource.h>

static int rounds;
static volatile sig_atomic_t handled;

static void on_signal(int signal) { handled = signal; }

static int is_default(int signal) {
    struct sigaction action;
    CHECK(sigaction(signal, NULL, &action) == 0);
    return action.sa_handler == SIG_DFL;
}

static void actions(int number) {
    CHECK(is_default(number));
    struct sigaction own = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NODEFER}, before;
    sigaddset(&own.sa_mask, SIGUSR2);
    CHECK(sigaction(number, &own, &before) == 0 && before.sa_handler == SIG_DFL);
    CHECK(raise(number) == 0 && handled == number);
    own.sa_handler = SIG_DFL;
    CHECK(sigaction(number, &own, &before) == 0 && before.sa_handler == on_signal);
    CHECK((before.sa_flags & (SA_RESTART | SA_NODEFER)) == (SA_RESTART | SA_NODEFER) && sigismember(&before.sa_mask, SIGUSR2) == 1);
    CHECK(is_default(number));
    // The same struct for both.
    own.sa_handler = SIG_IGN;
    CHECK(sigaction(number, &own, &own) == 0 && own.sa_handler == SIG_DFL);
    CHECK(signal(number, SIG_DFL) == SIG_IGN && signal(number, on_signal) == SIG_DFL && signal(number, SIG_DFL) == on_signal);
    CHECK(is_default(number));
    CHECK(sigset(number, SIG_HOLD) == SIG_DFL && sigset(number, SIG_DFL) == SIG_HOLD && is_default(number));
    CHECK(siginterrupt(number, 1) == 0 && siginterrupt(number, 0) == 0);
    CHECK(signal(number, on_signal) == SIG_DFL && signal(number, SIG_DFL) == on_signal);
    sigset_t set;
    CHECK(sigprocmask(SIG_SETMASK, NULL, &set) == 0 && sigisemptyset(&set));
}

static void *in_thread(void *argument) {
    pthread_kill(pthread_self(), SIGUSR1);
    return argument;
}

static void *sleep_on(void *argument) {
    for (;;) pause();
    return argument;
}

static void way_kill(void) { kill(getpid(), SIGUSR1); }
static void way_term(void) { kill(getpid(), SIGTERM); }
static void way_raise(void) { raise(SIGUSR2); }
static void way_queue(void) { sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 7}); }
static void way_thread(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0);
    pthread_join(thread, NULL);
}
static void way_other_thread(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, sleep_on, NULL) == 0);
    CHECK(pthread_kill(thread, SIGUSR2) == 0);
    pthread_join(thread, NULL);
}
static void way_timer(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    struct itimerspec time = {.it_value = {0, 1000000}};
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &time, NULL) == 0);
    for (;;) pause();
}
// The signal has waited since before the mask was changed, and the call would let it in only for as long as it lasts.
static void way_suspend(void) {
    sigset_t set, none;
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && kill(getpid(), SIGTERM) == 0);
    sigsuspend(&none);
}
static void way_of_parent(void) {
    for (;;) pause();
}
static void way_of_the_dead(void) {
    pid_t target = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (fork() == 0) kill(target, SIGUSR1);
        _exit(0);
    }
    for (;;) pause();
}
static void way_parents_end(void) {
    // The child of a child is told of its parent's end.
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (fork() == 0) {
            CHECK(prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && write(ends[1], "x", 1) == 1);
            for (;;) pause();
        }
        char byte;
        CHECK(read(ends[0], &byte, 1) == 1);
        _exit(0);
    }
    char byte;
    close(ends[1]);
    CHECK(waitpid(child, NULL, 0) == child && read(ends[0], &byte, 1) == 0);
    raise(SIGTERM);
}
static void way_exec(void) {
    char command[64];
    snprintf(command, sizeof command, "kill -USR1 $$");
    execl("/bin/sh", "sh", "-c", command, NULL);
}

#define WAYS                                                                                                               \
    WAY(kill) WAY(term) WAY(raise) WAY(queue) WAY(thread) WAY(other_thread) WAY(timer) WAY(suspend) WAY(of_parent)          \
    WAY(of_the_dead) WAY(parents_end) WAY(exec)

static const struct {
    const char *name;
    void (*die)(void);
} ways[] = {
#define WAY(name) {#name, way_##name},
    WAYS};
enum { COUNT = sizeof ways / sizeof *ways };

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    struct rlimit none = {0, 0};
    CHECK(setrlimit(RLIMIT_CORE, &none) == 0);
    pid_t children[COUNT];
    for (int i = 0; i < COUNT; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            // Most of them late, so that checkpoints and restarts come first.
            for (int round = 0; round < rounds - i; round++) rest();
            ways[i].die();
            _exit(99);
        }
    }
    for (int round = 0; round < rounds; round++) {
        actions(SIGUSR1);
        actions(SIGTERM);
        rest();
    }
    for (int i = 0; i < COUNT; i++) {
        int status;
        if (ways[i].die == way_of_parent) CHECK(kill(children[i], SIGTERM) == 0);
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        printf("%s: %d\n", ways[i].name, WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status));
    }
    return 0;
}
