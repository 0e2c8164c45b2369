// Tests that a handler on its alternate stack is checkpointed in the middle, and that each thread keeps its own such stack.
// @restored Signals: alternate stacks of each thread, with handlers running on them
#include "check.h"

static int rounds;
static _Thread_local char *stack;
static _Thread_local volatile int handled;
enum { SIZE = 65536 };

static void on_usr1(int signal) {
    char here[3000];
    CHECK(here > stack && here < stack + SIZE);
    fill(here, sizeof here, (unsigned)signal);
    rest();
    CHECK(holds(here, sizeof here, (unsigned)signal));
    stack_t current;
    CHECK(sigaltstack(NULL, &current) == 0 && current.ss_flags == SS_ONSTACK && current.ss_sp == stack);
    handled++;
}

static void *work(void *argument) {
    size_t size = SIZE - (size_t)(long)argument * 4096;
    stack = malloc(SIZE);
    CHECK(stack);
    stack_t mine = {.ss_sp = stack, .ss_size = size}, current;
    CHECK(sigaltstack(&mine, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(pthread_kill(pthread_self(), SIGUSR1) == 0);
        CHECK(handled == round + 1);
        CHECK(sigaltstack(NULL, &current) == 0);
        CHECK(current.ss_sp == stack && current.ss_size == size && current.ss_flags == 0);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    pthread_t threads[3];
    for (long i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    stack_t current;
    CHECK(sigaltstack(NULL, &current) == 0 && current.ss_flags == SS_DISABLE);
    puts("every handler ran on its own stack");
}
