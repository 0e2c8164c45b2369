// Tests that descriptors that share an open file description still share it, over dup and over fork, and others do not.
// @restored Files: descriptions that are shared over dup and fork, close-on-exec flags
#include "check.h"
#include <fcntl.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int file = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(file >= 0);
    int twin = dup(file), own = open("shared", O_RDWR);
    CHECK(twin >= 0 && own >= 0);
    int down[2], up[2];
    CHECK(pipe(down) == 0 && pipe(up) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        // The child's end of the conversation: it moves the offset that it shares with its parent.
        CHECK(close(down[1]) == 0 && close(up[0]) == 0 && close(twin) == 0);
        char byte;
        while (read(down[0], &byte, 1) == 1) {
            CHECK(write(file, &byte, 1) == 1);
            rest();
            CHECK(write(up[1], &byte, 1) == 1);
        }
        _exit(0);
    }
    CHECK(close(down[0]) == 0 && close(up[1]) == 0);
    for (int round = 0; round < rounds; round++) {
        char byte = (char)round, back;
        CHECK(write(down[1], &byte, 1) == 1 && read(up[0], &back, 1) == 1 && back == byte);
        CHECK(lseek(file, 0, SEEK_CUR) == round + 1 && lseek(twin, 0, SEEK_CUR) == round + 1);
        CHECK(lseek(own, 0, SEEK_CUR) == round);
        CHECK(read(own, &back, 1) == 1 && back == byte);
        // Status flags belong to the description too.
        int flags = round % 2 ? O_APPEND : 0;
        CHECK(fcntl(twin, F_SETFL, flags) == 0 && (fcntl(file, F_GETFL) & O_APPEND) == flags && (fcntl(own, F_GETFL) & O_APPEND) == 0);
    }
    CHECK(close(down[1]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("what was shared stayed shared");
}
