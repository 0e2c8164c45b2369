// Tests that TCP connections within a job keep their addresses, options and everything in flight, over IPv4, IPv6, and one within the other.
// @restored TCP sockets: connections within the job over IPv4, IPv6 and IPv4 within IPv6, with the addresses of both ends
// @restored TCP sockets: bytes in flight in both directions, including those the sender still holds back
// @restored TCP sockets: TCP_NODELAY, TCP_CORK, SO_KEEPALIVE and its parameters, SO_LINGER, SO_REUSEADDR, TCP_USER_TIMEOUT, buffer sizes, time-outs
#include "socket.h"
#include <sys/time.h>

struct pair {
    int client, server;
    struct sockaddr_storage names[2];
};

static void name_of(int fd, int peer, struct sockaddr_storage *address) {
    socklen_t length = sizeof *address;
    memset(address, 0, sizeof *address);
    CHECK((peer ? getpeername : getsockname)(fd, (struct sockaddr *)address, &length) == 0);
}

static struct pair connected(int server_family, const char *at, int client_family, const char *to) {
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    int listener = socket(server_family, SOCK_STREAM, 0);
    CHECK(listener >= 0);
    address.ss_family = (sa_family_t)server_family;
    CHECK(inet_pton(server_family, at, server_family == AF_INET ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr) == 1);
    set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    name_of(listener, 0, &address);
    in_port_t port = v4->sin_port;
    memset(&address, 0, sizeof address);
    address.ss_family = (sa_family_t)client_family;
    v4->sin_port = port;
    CHECK(inet_pton(client_family, to, client_family == AF_INET ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr) == 1);
    struct pair pair = {.client = socket(client_family, SOCK_STREAM, 0)};
    CHECK(pair.client >= 0 && connect(pair.client, (struct sockaddr *)&address, sizeof address) == 0);
    pair.server = accept(listener, NULL, NULL);
    CHECK(pair.server >= 0 && close(listener) == 0);
    name_of(pair.client, 0, &pair.names[0]);
    name_of(pair.server, 0, &pair.names[1]);
    return pair;
}

static void check_names(struct pair *pair) {
    struct sockaddr_storage name;
    name_of(pair->client, 0, &name);
    CHECK(memcmp(&name, &pair->names[0], sizeof name) == 0);
    name_of(pair->server, 0, &name);
    CHECK(memcmp(&name, &pair->names[1], sizeof name) == 0);
    struct sockaddr_storage client_peer, server_peer;
    name_of(pair->client, 1, &client_peer);
    name_of(pair->server, 1, &server_peer);
    CHECK(((struct sockaddr_in *)&client_peer)->sin_port == ((struct sockaddr_in *)&pair->names[1])->sin_port);
    CHECK(((struct sockaddr_in *)&server_peer)->sin_port == ((struct sockaddr_in *)&pair->names[0])->sin_port);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int has_v6 = access("/proc/net/if_inet6", F_OK) == 0;
    struct pair pairs[4];
    int count = 0;
    pairs[count++] = connected(AF_INET, "127.0.0.1", AF_INET, "127.0.0.1");
    pairs[count++] = connected(AF_INET, "127.0.0.3", AF_INET, "127.0.0.3");
    if (has_v6) {
        pairs[count++] = connected(AF_INET6, "::1", AF_INET6, "::1");
        pairs[count++] = connected(AF_INET6, "::", AF_INET, "127.0.0.1");
    }
    int tuned = pairs[0].client, fixed = pairs[1].server;
    set_option(tuned, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(tuned, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(tuned, IPPROTO_TCP, TCP_KEEPIDLE, 77);
    set_option(tuned, IPPROTO_TCP, TCP_KEEPINTVL, 11);
    set_option(tuned, IPPROTO_TCP, TCP_KEEPCNT, 5);
    set_option(tuned, IPPROTO_TCP, TCP_USER_TIMEOUT, 654321);
    set_option(pairs[0].server, IPPROTO_TCP, TCP_CORK, 1);
    set_option(fixed, SOL_SOCKET, SO_RCVBUF, 30000);
    set_option(fixed, SOL_SOCKET, SO_SNDBUF, 40000);
    int rcvbuf = option(fixed, SOL_SOCKET, SO_RCVBUF), sndbuf = option(fixed, SOL_SOCKET, SO_SNDBUF);
    struct timeval timeout = {77, 0}, time;
    CHECK(setsockopt(tuned, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0);
    struct linger linger = {1, 3}, line;
    CHECK(setsockopt(tuned, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    // A child that waits in recv for most of the time.
    struct pair waiting = connected(AF_INET, "127.0.0.1", AF_INET, "127.0.0.1");
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(close(waiting.client) == 0);
        char byte;
        ssize_t n;
        while ((n = recv(waiting.server, &byte, 1, 0)) == 1) CHECK(send(waiting.server, &byte, 1, 0) == 1);
        CHECK(n == 0);
        _exit(0);
    }
    CHECK(close(waiting.server) == 0);
    for (int round = 0; round < rounds; round++) {
        size_t sent[4];
        for (int i = 0; i < count; i++) {
            unsigned key = (unsigned)(round * 8 + i * 2);
            // As much as goes: more than the receiver takes.
            sent[i] = send_pattern(pairs[i].client, i == round % 4 ? 3000000 : 20000, key, MSG_DONTWAIT);
            CHECK(sent[i] >= 20000);
            CHECK(send_pattern(pairs[i].server, 700, key + 1, 0) == 700);
        }
        rest();
        for (int i = 0; i < count; i++) {
            unsigned key = (unsigned)(round * 8 + i * 2);
            if (i == 0) set_option(pairs[0].server, IPPROTO_TCP, TCP_CORK, 0);
            receive_pattern(pairs[i].server, sent[i], key);
            receive_pattern(pairs[i].client, 700, key + 1);
            if (i == 0) set_option(pairs[0].server, IPPROTO_TCP, TCP_CORK, 1);
            CHECK(events(pairs[i].server) == POLLOUT && events(pairs[i].client) == POLLOUT);
            check_names(&pairs[i]);
        }
        CHECK(option(tuned, IPPROTO_TCP, TCP_NODELAY) == 1 && option(fixed, IPPROTO_TCP, TCP_NODELAY) == 0);
        CHECK(option(tuned, SOL_SOCKET, SO_KEEPALIVE) == 1 && option(tuned, IPPROTO_TCP, TCP_KEEPIDLE) == 77);
        CHECK(option(tuned, IPPROTO_TCP, TCP_KEEPINTVL) == 11 && option(tuned, IPPROTO_TCP, TCP_KEEPCNT) == 5);
        CHECK(option(tuned, IPPROTO_TCP, TCP_USER_TIMEOUT) == 654321 && option(pairs[0].server, IPPROTO_TCP, TCP_CORK) == 1);
        CHECK(option(fixed, SOL_SOCKET, SO_RCVBUF) == rcvbuf && option(fixed, SOL_SOCKET, SO_SNDBUF) == sndbuf);
        CHECK(option(tuned, SOL_SOCKET, SO_REUSEADDR) == 0 && option(fixed, SOL_SOCKET, SO_REUSEADDR) == 1);
        socklen_t length = sizeof time;
        CHECK(getsockopt(tuned, SOL_SOCKET, SO_SNDTIMEO, &time, &length) == 0 && time.tv_sec == 77);
        length = sizeof line;
        CHECK(getsockopt(tuned, SOL_SOCKET, SO_LINGER, &line, &length) == 0 && line.l_onoff == 1 && line.l_linger == 3);
        char byte = 'w';
        CHECK(send(waiting.client, &byte, 1, 0) == 1 && recv(waiting.client, &byte, 1, 0) == 1);
    }
    CHECK(close(waiting.client) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("all connections held");
}
