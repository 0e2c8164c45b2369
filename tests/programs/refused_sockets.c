// Tests that a job with a socket that is not kept runs on: makes the socket named by the argument, waits, and finds it as it was.
// It ends with 77 where this machine does not allow the socket.
// @refused Other sockets: AF_PACKET, AF_VSOCK, AF_ALG, raw IP, ping, MPTCP, SCTP and every other family
// @refused Other sockets: sockets of another network namespace than the launcher's
#include "socket.h"

static int make(const char *name) {
    if (strcmp(name, "packet") == 0) return socket(AF_PACKET, SOCK_DGRAM, 0);
    if (strcmp(name, "vsock") == 0) return socket(AF_VSOCK, SOCK_STREAM, 0);
    if (strcmp(name, "alg") == 0) return socket(AF_ALG, SOCK_SEQPACKET, 0);
    if (strcmp(name, "raw") == 0) return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (strcmp(name, "mptcp") == 0) return socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (strcmp(name, "out_of_band") == 0) {
        int ends[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        return send(ends[0], "!", 1, MSG_OOB) == 1 ? ends[1] : -1;
    }
    // A connection that holds data and is not accepted.
    if (strncmp(name, "unix_", 5) == 0) {
        int listener = unix_bound(SOCK_STREAM, "waiting"), client = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK(listen(listener, 1) == 0);
        unix_connect(client, "waiting");
        CHECK(send(client, "early", 5, 0) == 5);
        CHECK(strcmp(name, "unix_abandoned_waiting") != 0 || close(client) == 0);
        return listener;
    }
    if (strcmp(name, "tcp_waiting") == 0) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
        CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
        CHECK(connect(client, (struct sockaddr *)&address, length) == 0 && send(client, "early", 5, 0) == 5);
        return listener;
    }
    CHECK(!"such a socket is known");
    return -1;
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    int fd = make(argv[1]);
    if (fd < 0) return 77;
    for (int round = 0; round < 100; round++) rest();
    if (strstr(argv[1], "_waiting")) {
        char buffer[8];
        int server = accept(fd, NULL, NULL);
        CHECK(server >= 0 && recv(server, buffer, 8, 0) == 5);
    }
    puts("untouched");
}
