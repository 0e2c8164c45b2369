// Tests that UDP sockets keep their addresses, peers, options, and the datagrams in flight with their senders.
// @restored UDP sockets: bound, unbound and connected sockets over IPv4 and IPv6, with their addresses
// @restored UDP sockets: datagrams in flight from sockets of this machine, with their senders, including closed ones
// @restored UDP sockets: closed directions (shutdown), SO_BUF_LOCK
// @not-kept UDP sockets: datagrams in flight from other machines: their sender address cannot be forged
// @not-kept UDP sockets: joined multicast groups: the kernel does not show them
// @not-kept UDP sockets: the error queue (IP_RECVERR) and corked data (UDP_CORK): the kernel does not show them
#include "socket.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

// Which of a socket's buffers have a size that the kernel does not change; 0 before Linux 5.15.
static int buffer_locks(int fd) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &value, &length) == 0 ? value : 0;
}

static struct sockaddr_storage name_of(int fd, int peer) {
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    CHECK((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&address, &length) == 0);
    return address;
}

static int same(struct sockaddr_storage one, struct sockaddr_storage other) { return memcmp(&one, &other, sizeof one) == 0; }

static int bound(int family, const char *ip) {
    struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
    void *at = family == AF_INET ? (void *)&((struct sockaddr_in *)&address)->sin_addr : (void *)&((struct sockaddr_in6 *)&address)->sin6_addr;
    CHECK(inet_pton(family, ip, at) == 1);
    int fd = socket(family, SOCK_DGRAM, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static void send_to(int fd, struct sockaddr_storage to, const char *text) {
    CHECK(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)strlen(text));
}

static void expect(int fd, const char *text, struct sockaddr_storage from) {
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    char buffer[64];
    ssize_t n = recvfrom(fd, buffer, 64, MSG_DONTWAIT, (struct sockaddr *)&address, &length);
    CHECK(n == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0 && same(address, from));
}

static void rounds_of_family(int family, const char *loopback, const char *any, int rounds) {
    int server = bound(family, loopback), client = bound(family, loopback), open_to_all = bound(family, any);
    int automatic = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0), fresh = socket(family, SOCK_DGRAM, 0);
    CHECK(automatic >= 0 && fresh >= 0);
    set_option(open_to_all, SOL_SOCKET, SO_BROADCAST, 1);
    set_option(server, SOL_SOCKET, SO_RCVBUF, 99999);
    if (family == AF_INET) set_option(server, IPPROTO_IP, IP_TTL, 9);
    int rcvbuf = option(server, SOL_SOCKET, SO_RCVBUF);
    struct sockaddr_storage server_name = name_of(server, 0), any_name = name_of(open_to_all, 0);
    CHECK(connect(client, (struct sockaddr *)&server_name, sizeof server_name) == 0);
    CHECK(connect(automatic, (struct sockaddr *)&server_name, sizeof server_name) == 0);
    int closed = bound(family, loopback);
    CHECK(connect(closed, (struct sockaddr *)&server_name, sizeof server_name) == 0 && shutdown(closed, SHUT_WR) == 0);
    int locked = socket(family, SOCK_DGRAM, 0);
    CHECK(locked >= 0);
    if (setsockopt(locked, SOL_SOCKET, SO_BUF_LOCK, &(int){1}, sizeof(int)) != 0) CHECK(errno == ENOPROTOOPT);
    int locks = buffer_locks(locked), server_locks = buffer_locks(server);
    struct sockaddr_storage client_name = name_of(client, 0), automatic_name = name_of(automatic, 0), to_any = server_name;
    ((struct sockaddr_in *)&to_any)->sin_port = ((struct sockaddr_in *)&any_name)->sin_port;
    for (int round = 0; round < rounds; round++) {
        CHECK(send(client, "connected", 9, 0) == 9 && send(automatic, "automatic", 9, 0) == 9);
        send_to(open_to_all, server_name, "from anywhere");
        send_to(server, client_name, "answer");
        send_to(server, to_any, "to all");
        int gone = bound(family, loopback);
        struct sockaddr_storage gone_name = name_of(gone, 0);
        send_to(gone, server_name, "gone");
        CHECK(close(gone) == 0);
        rest();
        expect(server, "connected", client_name);
        expect(server, "automatic", automatic_name);
        expect(server, "from anywhere", to_any);
        expect(server, "gone", gone_name);
        expect(client, "answer", server_name);
        expect(open_to_all, "to all", server_name);
        char byte;
        CHECK(recv(server, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        CHECK(recv(automatic, &byte, 1, 0) == -1 && errno == EAGAIN);
        CHECK(same(name_of(server, 0), server_name) && same(name_of(client, 0), client_name) && same(name_of(automatic, 0), automatic_name));
        CHECK(same(name_of(client, 1), server_name) && same(name_of(automatic, 1), server_name) && same(name_of(open_to_all, 0), any_name));
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        CHECK(getpeername(server, (struct sockaddr *)&address, &length) == -1 && errno == ENOTCONN);
        struct sockaddr_storage fresh_name = name_of(fresh, 0);
        CHECK(((struct sockaddr_in *)&fresh_name)->sin_port == 0);
        CHECK(option(open_to_all, SOL_SOCKET, SO_BROADCAST) == 1 && option(server, SOL_SOCKET, SO_BROADCAST) == 0);
        CHECK(option(server, SOL_SOCKET, SO_RCVBUF) == rcvbuf);
        CHECK(send(closed, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE && (events(closed) & (POLLRDHUP | POLLHUP)) == 0);
        CHECK(buffer_locks(locked) == locks && buffer_locks(server) == server_locks);
        if (family == AF_INET) CHECK(option(server, IPPROTO_IP, IP_TTL) == 9);
    }
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    if (access("/proc/net/if_inet6", F_OK) == 0) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            rounds_of_family(AF_INET6, "::1", "::", rounds);
            _exit(0);
        }
        rounds_of_family(AF_INET, "127.0.0.1", "0.0.0.0", rounds);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    } else {
        rounds_of_family(AF_INET, "127.0.0.1", "0.0.0.0", rounds);
    }
    puts("every datagram came from whom it should");
}
