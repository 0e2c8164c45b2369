// Tests that a static program, which no agent can be put into, runs on when its checkpoint fails. Also built for 32 bits, and
// run with another user's rights.
// @refused Process: static and 32-bit programs (the agent cannot be loaded into them), including interpreters of programs: valgrind, qemu-x86_64-static
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static void disturbed(int signal) { _exit(signal); }

// With an argument it catches every signal, as the runtimes of Go, valgrind and qemu do.
int main(int argc, char **argv) {
    (void)argv;
    for (int number = 1; argc > 1 && number < 65; number++) signal(number, disturbed);
    struct timespec ten_milliseconds = {0, 10000000};
    for (int round = 0; round < 150; round++)
        if (nanosleep(&ten_milliseconds, NULL) != 0) return 1;
    puts("untouched");
    return 7;
}
