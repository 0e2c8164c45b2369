// Tests that a connection that is being made is made: a call of connect that waits does not notice checkpoints, with a time-out (the second
// argument, in seconds) or without (0).
// @restored TCP sockets: a connection in progress in a blocking call: it is started again
#include "socket.h"
#include <sys/time.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(argc == 3);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), first = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 0) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    // One fits into the backlog; who comes then has to wait.
    CHECK(connect(first, (struct sockaddr *)&address, length) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct timeval timeout = {atoi(argv[2]), 0};
        CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0);
        CHECK(connect(fd, (struct sockaddr *)&address, length) == 0);
        char byte;
        CHECK(recv(fd, &byte, 1, 0) == 1);
        _exit(0);
    }
    for (int round = 0; round < rounds; round++) rest();
    for (int i = 0; i < 2; i++) {
        int fd = accept(listener, NULL, NULL);
        CHECK(fd >= 0 && send(fd, "x", 1, 0) == 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("everybody was connected");
}
