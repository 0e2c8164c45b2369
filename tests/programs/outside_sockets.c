// Tests that a program whose sockets lead outside of the job finds them disconnected after a restart, and can connect them again.
// The arguments: rounds, the port of an echo server over TCP and UDP, the paths of one over UNIX streams and of a UNIX datagram socket.
// @restored Sockets to the outside: listening sockets, UDP sockets, UNIX datagram sockets whose peer still exists
// @restored Sockets to the outside: connections come back as reset (ECONNRESET, EPOLLHUP) or with the peer gone; `--strict` refuses
#include "socket.h"
#include <poll.h>
#include <sys/epoll.h>

static struct sockaddr_in server = {.sin_family = AF_INET};
static const char *stream_path, *log_path;

static int tcp(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&server, sizeof server) == 0);
    return fd;
}

static int unix_stream(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    unix_connect(fd, stream_path);
    return fd;
}

// Whether an echo comes; else the connection must be over the way that is expected.
static int echoes(int fd, int error) {
    char byte = 'e';
    ssize_t sent = send(fd, &byte, 1, MSG_NOSIGNAL), got = sent == 1 ? recv(fd, &byte, 1, 0) : -1;
    if (got == 1) return 1;
    CHECK(got == 0 || errno == error || errno == EPIPE);
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    int rounds = rounds_of(argc, argv), tcp_lost = 0, unix_lost = 0;
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    stream_path = argv[3], log_path = argv[4];
    int connection = tcp(), local = unix_stream(), logger = socket(AF_UNIX, SOCK_DGRAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(logger >= 0 && udp >= 0 && connect(udp, (struct sockaddr *)&server, sizeof server) == 0);
    unix_connect(logger, log_path);
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    struct sockaddr_in any = {.sin_family = AF_INET}, listening, again;
    socklen_t length = sizeof any;
    CHECK(bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 5) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&listening, &length) == 0);
    struct epoll_event event = {.events = EPOLLIN};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        if (epoll_wait(epoll, &event, 1, 0) == 1) {
            // Reset: the error is told once, then it has ended.
            CHECK((event.events & (EPOLLHUP | EPOLLERR)) == (EPOLLHUP | EPOLLERR));
            char byte;
            CHECK(recv(connection, &byte, 1, 0) == -1 && errno == ECONNRESET && recv(connection, &byte, 1, 0) == 0);
            CHECK(close(connection) == 0);
            connection = tcp();
            event.events = EPOLLIN;
            CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event) == 0);
            tcp_lost++;
        }
        if (events(local) & POLLHUP) {
            CHECK(!echoes(local, EPIPE) && close(local) == 0);
            local = unix_stream();
            unix_lost++;
        }
        CHECK(echoes(connection, 0) && echoes(local, 0) && send(logger, "log", 3, 0) == 3);
        char byte = 'u';
        // A restart may lose a datagram that is on its way, as any network may.
        struct pollfd answer = {.fd = udp, .events = POLLIN};
        do CHECK(send(udp, &byte, 1, 0) == 1);
        while (poll(&answer, 1, 200) == 0);
        CHECK(recv(udp, &byte, 1, 0) == 1 && byte == 'u');
        CHECK(getsockname(listener, (struct sockaddr *)&again, &length) == 0 && memcmp(&listening, &again, length) == 0);
        CHECK(option(listener, SOL_SOCKET, SO_ACCEPTCONN) == 1 && has_name(logger, 1, log_path));
    }
    printf("lost %d over TCP and %d over UNIX\n", tcp_lost, unix_lost);
}
