// Tests that signal handlers, their flags and masks, and each thread's own mask stay as they were set.
// @restored Signals: handlers, their flags and masks, masks of each thread
#include "check.h"

static _Thread_local volatile int handled;
static volatile int once;
static int rounds;

static void on_usr1(int signal, siginfo_t *info, void *context) {
    CHECK(signal == SIGUSR1 && context && info->si_pid == getpid());
    // The handler's own mask: SIGUSR2 is blocked while it runs, and so is SIGUSR1.
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
    CHECK(sigismember(&mask, SIGUSR2) == 1 && sigismember(&mask, SIGUSR1) == 1 && sigismember(&mask, SIGHUP) == 0);
    struct timespec a_while = {0, 3000000};
    CHECK(nanosleep(&a_while, NULL) == 0);
    handled++;
}

static void on_hup(int signal) {
    CHECK(signal == SIGHUP);
    once++;
}

static void same_action(int signal, const struct sigaction *expected) {
    struct sigaction found;
    CHECK(sigaction(signal, NULL, &found) == 0);
    // 0x04000000 is SA_RESTORER, which the C library adds.
    CHECK(found.sa_sigaction == expected->sa_sigaction && (found.sa_flags & ~0x04000000) == expected->sa_flags);
    for (int other = 1; other < 32; other++)
        CHECK(sigismember(&found.sa_mask, other) == sigismember(&expected->sa_mask, other));
}

static void *work(void *argument) {
    long id = (long)argument;
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + (int)id);
    CHECK(pthread_sigmask(SIG_SETMASK, &mask, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        sigset_t found;
        CHECK(pthread_sigmask(SIG_BLOCK, NULL, &found) == 0);
        for (int signal = 1; signal < 32; signal++) CHECK(sigismember(&found, signal) == 0);
        for (int other = 0; other < 4; other++) CHECK(sigismember(&found, SIGRTMIN + other) == (other == id));
        int before = handled;
        CHECK(pthread_kill(pthread_self(), SIGUSR1) == 0);
        CHECK(handled == before + 1);
        rest();
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    struct sigaction usr1 = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaddset(&usr1.sa_mask, SIGUSR2);
    CHECK(sigaction(SIGUSR1, &usr1, NULL) == 0);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    CHECK(sigaction(SIGPIPE, &ignore, NULL) == 0);
    struct sigaction hup = {.sa_handler = on_hup, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
    struct sigaction plain = {.sa_handler = SIG_DFL};
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(sigaction(SIGHUP, &hup, NULL) == 0);
        rest();
        same_action(SIGUSR1, &usr1);
        same_action(SIGPIPE, &ignore);
        same_action(SIGHUP, &hup);
        same_action(SIGTERM, &plain);
        CHECK(kill(getpid(), SIGPIPE) == 0);
        CHECK(pthread_kill(pthread_self(), SIGHUP) == 0);
        CHECK(once == round + 1);
        // SA_RESETHAND has taken the handler away.
        struct sigaction found;
        CHECK(sigaction(SIGHUP, NULL, &found) == 0 && found.sa_handler == SIG_DFL);
    }
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("every signal found its handler");
}
