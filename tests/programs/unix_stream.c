// Tests that connected UNIX streams and seqpackets keep what is in flight, their names, options, closed ways and ends.
// @restored UNIX sockets: stream and seqpacket pairs, bytes and message boundaries in flight in both directions
// @restored UNIX sockets: closed directions (shutdown), a peer that is gone (end of file, EPIPE, ECONNRESET)
// @restored UNIX sockets: SO_PEEK_OFF, O_NONBLOCK, buffer sizes, time-outs, SO_LINGER, SO_PASSCRED, registrations with epoll
#include "socket.h"
#include <sys/epoll.h>
#include <sys/time.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int stream[2], packets[2], half[2], gone[2], reset[2], blocked[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, packets) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, gone) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, reset) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, blocked) == 0);
    // Options.
    set_option(stream[0], SOL_SOCKET, SO_SNDBUF, 100000);
    set_option(stream[1], SOL_SOCKET, SO_PEEK_OFF, 0);
    set_option(half[1], SOL_SOCKET, SO_PASSCRED, 1);
    struct timeval timeout = {3600, 250000};
    CHECK(setsockopt(half[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
    struct linger linger = {1, 7};
    CHECK(setsockopt(half[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    int sndbuf = option(stream[0], SOL_SOCKET, SO_SNDBUF);
    // What stays as it is over all rounds.
    CHECK(send(gone[1], "last words", 10, 0) == 10 && close(gone[1]) == 0);
    CHECK(send(reset[0], "unread", 6, 0) == 6 && close(reset[1]) == 0);
    CHECK(send(half[0], "no more", 7, 0) == 7 && shutdown(half[0], SHUT_WR) == 0);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = 77};
    CHECK(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, stream[0], &event) == 0);
    // A child that waits in recv, with a time-out, for most of the time.
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(close(blocked[0]) == 0);
        CHECK(setsockopt(blocked[1], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
        char byte;
        ssize_t n;
        while ((n = recv(blocked[1], &byte, 1, 0)) == 1) CHECK(send(blocked[1], &byte, 1, 0) == 1);
        CHECK(n == 0);
        _exit(0);
    }
    CHECK(close(blocked[1]) == 0);
    for (int round = 0; round < rounds; round++) {
        unsigned key = (unsigned)round * 4;
        CHECK(send_pattern(stream[0], 30000, key, 0) == 30000 && send_pattern(stream[1], 500, key + 1, 0) == 500);
        char peeked[10], again[10];
        CHECK(recv(stream[1], peeked, 10, MSG_PEEK) == 10);
        CHECK(send(packets[0], "one", 3, 0) == 3 && send(packets[0], "three", 5, 0) == 5);
        CHECK(send(packets[1], "back", 4, 0) == 4);
        rest();
        CHECK(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u64 == 77 && event.events == EPOLLIN);
        // Where peeking goes on is kept.
        CHECK(option(stream[1], SOL_SOCKET, SO_PEEK_OFF) == 10 && option(stream[0], SOL_SOCKET, SO_PEEK_OFF) == -1);
        CHECK(recv(stream[1], again, 10, MSG_PEEK) == 10);
        for (int i = 0; i < 10; i++) CHECK((unsigned char)peeked[i] == pattern(key, (size_t)i) && (unsigned char)again[i] == pattern(key, (size_t)i + 10));
        set_option(stream[1], SOL_SOCKET, SO_PEEK_OFF, 0);
        receive_pattern(stream[1], 30000, key);
        receive_pattern(stream[0], 500, key + 1);
        CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
        char buffer[64];
        CHECK(recv(packets[1], buffer, 64, 0) == 3 && memcmp(buffer, "one", 3) == 0);
        CHECK(recv(packets[1], buffer, 64, 0) == 5 && memcmp(buffer, "three", 5) == 0);
        CHECK(recv(packets[1], buffer, 64, 0) == -1 && errno == EAGAIN);
        CHECK(recv(packets[0], buffer, 64, 0) == 4);
        CHECK((fcntl(packets[0], F_GETFL) & O_NONBLOCK) && fcntl(packets[0], F_GETFD) == FD_CLOEXEC);
        CHECK(!(fcntl(stream[0], F_GETFL) & O_NONBLOCK) && fcntl(stream[0], F_GETFD) == 0);
        CHECK(has_name(stream[0], 0, "") && has_name(stream[0], 1, ""));
        CHECK(option(stream[0], SOL_SOCKET, SO_SNDBUF) == sndbuf && option(stream[1], SOL_SOCKET, SO_PASSCRED) == 0);
        CHECK(option(half[1], SOL_SOCKET, SO_PASSCRED) == 1);
        struct timeval time;
        struct linger line;
        socklen_t length = sizeof time;
        CHECK(getsockopt(half[0], SOL_SOCKET, SO_RCVTIMEO, &time, &length) == 0 && time.tv_sec == 3600);
        length = sizeof line;
        CHECK(getsockopt(half[0], SOL_SOCKET, SO_LINGER, &line, &length) == 0 && line.l_onoff == 1 && line.l_linger == 7);
        // One way is closed, the other open.
        CHECK(send(half[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
        CHECK(events(half[1]) == (POLLIN | POLLOUT | POLLRDHUP));
        CHECK(send(half[1], "y", 1, 0) == 1 && recv(half[0], buffer, 64, 0) == 1);
        // The ends of those that are gone.
        CHECK(events(gone[0]) == (POLLIN | POLLOUT | POLLHUP | POLLRDHUP));
        CHECK(send(gone[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
        CHECK(events(reset[0]) & POLLERR);
        CHECK(send(blocked[0], "b", 1, 0) == 1 && recv(blocked[0], buffer, 64, 0) == 1 && buffer[0] == 'b');
    }
    char buffer[64];
    CHECK(recv(gone[0], buffer, 64, 0) == 10 && memcmp(buffer, "last words", 10) == 0 && recv(gone[0], buffer, 64, 0) == 0);
    CHECK(recv(reset[0], buffer, 64, 0) == -1 && errno == ECONNRESET && recv(reset[0], buffer, 64, 0) == 0);
    CHECK(recv(half[1], buffer, 64, 0) == 7 && recv(half[1], buffer, 64, 0) == 0);
    CHECK(close(blocked[0]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("every stream was what it was");
}
