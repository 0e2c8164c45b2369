// Tests that a static program, which no agent can be put into, runs on when its checkpoint fails. Also built for 32 bits, and
// run with another user's rights.
// @refused Process: static and 32-bit programs (the agent cannot be loaded into them)
#include <stdio.h>
#include <time.h>

int main(void) {
    struct timespec ten_milliseconds = {0, 10000000};
    for (int round = 0; round < 150; round++)
        if (nanosleep(&ten_milliseconds, NULL) != 0) return 1;
    puts("untouched");
    return 7;
}
