// Tests that listening TCP sockets keep their addresses, options and those who wait to be accepted.
// @restored TCP sockets: listening sockets, the backlog and the connections in it
// @restored TCP sockets: listening MPTCP sockets, and TCP connections accepted from them
// @restored TCP sockets: connections that a listening socket does not see before their first data (`TCP_DEFER_ACCEPT`)
// @restored TCP sockets: unconnected and bound sockets
// @refused TCP sockets: connections with data that are not accepted yet (they cannot be read; the next checkpoint tries again)
#include "socket.h"
#include <sys/epoll.h>

static struct sockaddr_in name_of(int fd, int peer) {
    struct sockaddr_in address = {0};
    socklen_t length = sizeof address;
    CHECK((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&address, &length) == 0);
    return address;
}

static int same(struct sockaddr_in one, struct sockaddr_in other) { return memcmp(&one, &other, sizeof one) == 0; }

static int bound(const char *ip, int reuse) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    CHECK(inet_pton(AF_INET, ip, &address.sin_addr) == 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, reuse);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static int connected(struct sockaddr_in to) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int all = bound("0.0.0.0", 1), one = bound("127.0.0.1", 1), unused = bound("127.0.0.1", 0), fresh = socket(AF_INET, SOCK_STREAM, 0);
    set_option(one, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
    set_option(one, IPPROTO_TCP, TCP_FASTOPEN, 5);
    CHECK(listen(all, 7) == 0 && listen(one, 3) == 0 && fcntl(one, F_SETFL, O_NONBLOCK) == 0 && fresh >= 0);
    struct sockaddr_in all_name = name_of(all, 0), one_name = name_of(one, 0), unused_name = name_of(unused, 0);
    struct sockaddr_in to_all = all_name;
    CHECK(inet_pton(AF_INET, "127.0.0.1", &to_all.sin_addr) == 1);
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 7};
    CHECK(epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, one, &event) == 0);
    int deferring = bound("127.0.0.1", 1);
    set_option(deferring, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1000);
    CHECK(listen(deferring, 3) == 0 && fcntl(deferring, F_SETFL, O_NONBLOCK) == 0);
    struct sockaddr_in deferring_name = name_of(deferring, 0);
    // An accepted connection that lasts.
    int client = connected(to_all), server = accept(all, NULL, NULL);
    CHECK(server >= 0);
    struct sockaddr_in client_name = name_of(client, 0);
    // A server that speaks MPTCP with clients that do not.
    int multipath = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), has_multipath = multipath >= 0;
    struct sockaddr_in multipath_name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int old_client = -1, old_server = -1;
    if (has_multipath) {
        CHECK(bind(multipath, (struct sockaddr *)&multipath_name, sizeof multipath_name) == 0 && listen(multipath, 5) == 0);
        multipath_name = name_of(multipath, 0);
        old_client = connected(multipath_name);
        CHECK((old_server = accept(multipath, NULL, NULL)) >= 0);
    }
    // A child that waits in accept for most of the time.
    int blocking = bound("127.0.0.1", 1);
    CHECK(listen(blocking, 5) == 0);
    struct sockaddr_in blocking_name = name_of(blocking, 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int round = 0; round < rounds; round++) {
            int fd = accept(blocking, NULL, NULL);
            CHECK(fd >= 0 && send(fd, "w", 1, 0) == 1 && close(fd) == 0);
        }
        _exit(0);
    }
    for (int round = 0; round < rounds; round++) {
        CHECK(epoll_wait(epoll, &event, 1, 0) == 0);
        int first = connected(one_name), second = connected(one_name), left = connected(to_all);
        struct sockaddr_in first_name = name_of(first, 0);
        CHECK(close(left) == 0);
        int silent = connected(deferring_name);
        struct sockaddr_in silent_name = name_of(silent, 0);
        int waiting = has_multipath ? connected(multipath_name) : -1;
        rest();
        if (has_multipath) {
            int taken = accept(multipath, NULL, NULL);
            char one_byte = 0;
            CHECK(taken >= 0 && send(waiting, "m", 1, 0) == 1 && recv(taken, &one_byte, 1, 0) == 1 && one_byte == 'm');
            CHECK(send(old_server, "o", 1, 0) == 1 && recv(old_client, &one_byte, 1, 0) == 1 && one_byte == 'o');
            CHECK(option(multipath, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_MPTCP && same(name_of(multipath, 0), multipath_name));
            struct linger reset = {1, 0};
            int two[2] = {waiting, taken};
            for (int i = 0; i < 2; i++) CHECK(setsockopt(two[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0 && close(two[i]) == 0);
        }
        CHECK(accept(deferring, NULL, NULL) == -1 && errno == EAGAIN);
        CHECK(send(silent, "3", 1, 0) == 1);
        int heard = accept(deferring, NULL, NULL);
        CHECK(epoll_wait(epoll, &event, 1, 0) == 1 && event.data.u64 == 7);
        int accepted = accept(one, NULL, NULL), other = accept(one, NULL, NULL);
        CHECK(accepted >= 0 && other >= 0 && accept(one, NULL, NULL) == -1 && errno == EAGAIN);
        CHECK(same(name_of(accepted, 1), first_name) && same(name_of(accepted, 0), one_name) && same(name_of(first, 1), one_name));
        char byte = 0;
        CHECK(send(first, "1", 1, 0) == 1 && recv(accepted, &byte, 1, 0) == 1 && byte == '1');
        CHECK(send(other, "2", 1, 0) == 1 && recv(second, &byte, 1, 0) == 1 && byte == '2');
        CHECK(heard >= 0 && same(name_of(heard, 1), silent_name) && recv(heard, &byte, 1, 0) == 1 && byte == '3');
        int gone = accept(all, NULL, NULL);
        CHECK(gone >= 0 && recv(gone, &byte, 1, 0) == 0);
        // In an order that leaves no connections behind in TIME_WAIT.
        struct linger reset = {1, 0};
        int ends[7] = {first, second, accepted, other, gone, silent, heard};
        for (int i = 0; i < 7; i++) CHECK(setsockopt(ends[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0 && close(ends[i]) == 0);
        CHECK(send(client, "3", 1, 0) == 1 && recv(server, &byte, 1, 0) == 1 && byte == '3');
        CHECK(same(name_of(client, 0), client_name) && same(name_of(server, 1), client_name) && same(name_of(server, 0), to_all));
        CHECK(same(name_of(all, 0), all_name) && same(name_of(one, 0), one_name) && same(name_of(unused, 0), unused_name));
        CHECK(name_of(fresh, 0).sin_port == 0 && fcntl(fresh, F_GETFD) == 0 && fcntl(one, F_GETFD) == FD_CLOEXEC);
        CHECK(option(unused, SOL_SOCKET, SO_REUSEADDR) == 0 && option(all, SOL_SOCKET, SO_REUSEADDR) == 1);
        CHECK(option(all, SOL_SOCKET, SO_ACCEPTCONN) == 1 && option(unused, SOL_SOCKET, SO_ACCEPTCONN) == 0);
        CHECK(option(one, IPPROTO_TCP, TCP_FASTOPEN) == 5);
        struct tcp_info info;
        socklen_t length = sizeof info;
        CHECK(getsockopt(all, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_sacked == 7);
        CHECK(events(fresh) == (POLLOUT | POLLHUP));
        int woken = connected(blocking_name);
        CHECK(recv(woken, &byte, 1, 0) == 1 && close(woken) == 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("everybody was accepted in turn");
}
