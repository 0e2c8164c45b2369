// Tests that signals whose default action the launcher keeps from the job still are as they were: a program sees their default action, may have
// its own and the default again, and whoever of the job (or the kernel) sends one gets what it always did.
// @restored Signals: the default action of a signal that `--on` acts on
#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#define _GNU_SOURCE
#include "check.h"
#include <execinfo.h>
#include <setjmp.h>
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

// The compiler takes it that kill() runs nothing of this file.
static volatile siginfo_t told;
static volatile int runs;
static int interrupted;
static void *volatile stack_seen;
static volatile sigset_t mask_seen;
static sigjmp_buf back;
static char alternate[64 << 10];

static void on_info(int signal, siginfo_t *info, void *frame) {
    CHECK(signal == info->si_signo && frame != NULL);
    told = *info;
    runs++;
    stack_seen = &signal;
    CHECK(sigprocmask(SIG_BLOCK, NULL, (sigset_t *)&mask_seen) == 0);
    // Whoever looks at the stack finds the way to the interrupted function, as in a handler that the kernel calls.
    void *frames[32];
    CHECK(backtrace(frames, 32) > 4);
}
static void on_jump(int signal) { siglongjmp(back, signal); }

static int is_on_alternate(void *address) { return (char *)address >= alternate && (char *)address < alternate + sizeof alternate; }

// Handlers are called as the kernel calls them, and the program is told what it has set.
static void handlers(int number) {
    struct sigaction own = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | SA_ONSTACK}, before;
    sigaddset(&own.sa_mask, SIGHUP);
    CHECK(sigaction(number, &own, NULL) == 0);
    for (int by = 0; by < 2; by++) {
        runs = 0;
        CHECK(by == 0 ? kill(getpid(), number) == 0 : sigqueue(getpid(), number, (union sigval){.sival_int = 5}) == 0);
        CHECK(runs == 1 && told.si_pid == getpid() && told.si_uid == getuid());
        CHECK(by == 0 ? told.si_code == SI_USER : told.si_code == SI_QUEUE && told.si_value.sival_int == 5);
        CHECK(is_on_alternate(stack_seen));
        sigset_t mask = mask_seen;
        CHECK(sigismember(&mask, number) == 1 && sigismember(&mask, SIGHUP) == 1 && sigismember(&mask, SIGINT) == 0);
    }
    CHECK(sigaction(number, NULL, &before) == 0 && before.sa_sigaction == on_info);
    CHECK((before.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART)) == (SA_SIGINFO | SA_ONSTACK));
    own = (struct sigaction){.sa_handler = on_jump};
    CHECK(sigaction(number, &own, &before) == 0 && before.sa_sigaction == on_info);
    CHECK(sigaction(number, NULL, &before) == 0 && before.sa_handler == on_jump && (before.sa_flags & SA_SIGINFO) == 0);
    if (sigsetjmp(back, 1) == 0) {
        kill(getpid(), number);
        CHECK(!"the handler does not return");
    }
    // A child that shares this memory may have other handlers.
    pid_t child = vfork();
    CHECK(child >= 0);
    if (child == 0) {
        own.sa_handler = SIG_DFL;
        sigaction(number, &own, NULL);
        kill(getpid(), number);
        _exit(9);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == number);
    CHECK(sigaction(number, NULL, &before) == 0 && before.sa_handler == on_jump);
    // One that the kernel takes away.
    own = (struct sigaction){.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    CHECK(sigaction(number, &own, NULL) == 0 && raise(number) == 0 && handled == number && is_default(number));
    // A call that is interrupted fails, or goes on, as the handler asks for.
    for (int restarts = 0; restarts < 2; restarts++) {
        own = (struct sigaction){.sa_handler = on_signal, .sa_flags = restarts ? SA_RESTART : 0};
        int ends[2];
        CHECK(sigaction(number, &own, NULL) == 0 && pipe(ends) == 0);
        pid_t parent = getpid();
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            struct timespec moment = {0, 20000000};
            nanosleep(&moment, NULL);
            kill(parent, number);
            nanosleep(&moment, NULL);
            _exit(write(ends[1], "x", 1) != 1);
        }
        char byte;
        handled = 0;
        ssize_t got = read(ends[0], &byte, 1);
        // The signal may come before the call where the machine is slow.
        CHECK(handled == number && (got == 1 || (!restarts && got == -1 && errno == EINTR)));
        interrupted += got == -1;
        while (waitpid(child, &status, 0) != child) continue;
        close(ends[0]);
        close(ends[1]);
    }
    own.sa_handler = SIG_DFL;
    CHECK(sigaction(number, &own, NULL) == 0);
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
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    CHECK(sigaltstack(&stack, NULL) == 0);
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
        if (round % 20 == 0) handlers(round % 40 ? SIGTERM : SIGUSR2);
        rest();
    }
    CHECK(interrupted > 0);
    for (int i = 0; i < COUNT; i++) {
        int status;
        if (ways[i].die == way_of_parent) CHECK(kill(children[i], SIGTERM) == 0);
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        printf("%s: %d\n", ways[i].name, WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status));
    }
    return 0;
}
