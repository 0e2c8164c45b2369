// Tests that connections wait to be accepted from several sockets that share an address (SO_REUSEPORT).
// @restored TCP: connections that wait to be accepted from several sockets that share an address (SO_REUSEPORT): as many from each; the kernel does not tell which
#define _GNU_SOURCE
#include "check.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { SERVERS = 3, CLIENTS = 9 };

static int listening(struct sockaddr_in *name) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    socklen_t len = sizeof *name;
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0);
    CHECK(bind(fd, (struct sockaddr *)name, len) == 0 && listen(fd, 32) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)name, &len) == 0);
    return fd;
}

static in_port_t port_of(int fd, int (*which)(int, struct sockaddr *, socklen_t *)) {
    struct sockaddr_in name;
    socklen_t len = sizeof name;
    CHECK(which(fd, (struct sockaddr *)&name, &len) == 0);
    return name.sin_port;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv), servers[SERVERS];
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < SERVERS; i++) servers[i] = listening(&name);
    for (int round = 0; round < rounds; round++) {
        // The kernel chooses by the client's port: what it has chosen is learnt by accepting, so each round has two parts with the same ports.
        int clients[CLIENTS], counts[2][SERVERS] = {0};
        in_port_t ports[CLIENTS];
        for (int part = 0; part < 2; part++) {
            for (int i = 0; i < CLIENTS; i++) {
                struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
                own.sin_port = part ? ports[i] : 0;
                struct linger now = {.l_onoff = 1};
                int one = 1;
                clients[i] = socket(AF_INET, SOCK_STREAM, 0);
                CHECK(clients[i] >= 0 && setsockopt(clients[i], SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
                CHECK(setsockopt(clients[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
                CHECK(bind(clients[i], (struct sockaddr *)&own, sizeof own) == 0);
                CHECK(connect(clients[i], (struct sockaddr *)&name, sizeof name) == 0);
                ports[i] = port_of(clients[i], getsockname);
            }
            if (part) rest();
            int accepted = 0;
            for (int i = 0; i < SERVERS; i++) {
                int fd;
                while ((fd = accept(servers[i], NULL, NULL)) >= 0) {
                    in_port_t from = port_of(fd, getpeername);
                    int at = 0;
                    while (at < CLIENTS && ports[at] != from) at++;
                    CHECK(at < CLIENTS);
                    counts[part][i]++;
                    accepted++;
                    CHECK(close(fd) == 0);
                }
                CHECK(errno == EAGAIN);
            }
            CHECK(accepted == CLIENTS && (part == 0 || memcmp(counts[0], counts[1], sizeof counts[0]) == 0));
            for (int i = 0; i < CLIENTS; i++) CHECK(close(clients[i]) == 0);
        }
    }
    puts("every connection was accepted");
}
