// Tests that TCP connections keep urgent bytes, ways that are closed, and how they ended.
// @restored TCP sockets: urgent bytes with their position, inline and out of band, read or not
// @restored TCP sockets: closed directions (shutdown), a peer that has closed, a connection that was reset or has ended
#include "socket.h"

static void make_pair(int ends[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(ends[0] >= 0 && connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0);
    ends[1] = accept(listener, NULL, NULL);
    CHECK(ends[1] >= 0 && close(listener) == 0);
}

static int at_mark(int fd) {
    int mark;
    CHECK(ioctl(fd, SIOCATMARK, &mark) == 0);
    return mark;
}

static void expect(int fd, const char *text) {
    char buffer[64];
    CHECK(recv(fd, buffer, 64, 0) == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int urgent[2], inlined[2], taken[2], half[2], gone[2], reset[2], over[2], single[2];
    make_pair(urgent), make_pair(inlined), make_pair(taken), make_pair(half);
    make_pair(gone), make_pair(reset), make_pair(over), make_pair(single);
    set_option(inlined[1], SOL_SOCKET, SO_OOBINLINE, 1);
    // What stays as it is over all rounds.
    CHECK(send(half[0], "no more", 7, 0) == 7 && shutdown(half[0], SHUT_WR) == 0);
    CHECK(send(gone[0], "farewell", 8, 0) == 8 && close(gone[0]) == 0);
    struct linger linger = {1, 0};
    CHECK(send(reset[0], "cut", 3, 0) == 3 && setsockopt(reset[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0 && close(reset[0]) == 0);
    CHECK(send(over[0], "both", 4, 0) == 4 && shutdown(over[0], SHUT_WR) == 0 && shutdown(over[1], SHUT_WR) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(send(urgent[0], "before", 6, 0) == 6 && send(urgent[0], "!", 1, MSG_OOB) == 1 && send(urgent[0], "after", 5, 0) == 5);
        CHECK(send(inlined[0], "ab", 2, 0) == 2 && send(inlined[0], "!", 1, MSG_OOB) == 1 && send(inlined[0], "cd", 2, 0) == 2);
        CHECK(send(taken[0], "xy", 2, 0) == 2 && send(taken[0], "?", 1, MSG_OOB) == 1 && send(taken[0], "z", 1, 0) == 1);
        char byte = 0;
        while (!(events(taken[1]) & POLLPRI)) continue;
        CHECK(recv(taken[1], &byte, 1, MSG_OOB) == 1 && byte == '?');
        CHECK(send(single[0], "1", 1, MSG_OOB) == 1);
        rest();
        CHECK((events(urgent[1]) & POLLPRI) && !at_mark(urgent[1]));
        expect(urgent[1], "before");
        CHECK(at_mark(urgent[1]) && recv(urgent[1], &byte, 1, MSG_OOB) == 1 && byte == '!');
        expect(urgent[1], "after");
        CHECK(option(inlined[1], SOL_SOCKET, SO_OOBINLINE) == 1 && option(urgent[1], SOL_SOCKET, SO_OOBINLINE) == 0);
        expect(inlined[1], "ab");
        CHECK(at_mark(inlined[1]));
        expect(inlined[1], "!cd");
        CHECK(recv(taken[1], &byte, 1, MSG_OOB) == -1 && errno == EINVAL);
        expect(taken[1], "xy");
        expect(taken[1], "z");
        CHECK(at_mark(single[1]) && recv(single[1], &byte, 1, MSG_OOB) == 1 && byte == '1');
        // One way is closed, the other open.
        CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
        CHECK(events(half[1]) == (POLLIN | POLLOUT | POLLRDHUP));
        CHECK(send(half[1], "y", 1, 0) == 1);
        expect(half[0], "y");
        CHECK(events(gone[1]) == (POLLIN | POLLOUT | POLLRDHUP));
        CHECK((events(reset[1]) & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
        CHECK((events(over[1]) & (POLLIN | POLLRDHUP | POLLHUP)) == (POLLIN | POLLRDHUP | POLLHUP));
        CHECK(send(over[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    }
    char byte;
    expect(half[1], "no more");
    CHECK(recv(half[1], &byte, 1, 0) == 0);
    expect(gone[1], "farewell");
    CHECK(recv(gone[1], &byte, 1, 0) == 0);
    expect(reset[1], "cut");
    CHECK(recv(reset[1], &byte, 1, 0) == -1 && errno == ECONNRESET);
    expect(over[1], "both");
    CHECK(recv(over[1], &byte, 1, 0) == 0 && recv(over[0], &byte, 1, 0) == 0);
    puts("every end was the end it was");
}
