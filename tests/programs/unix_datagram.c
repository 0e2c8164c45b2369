// Tests that UNIX datagram sockets keep their names, peers, and the messages in flight with their senders.
// @restored UNIX sockets: datagram sockets with path, abstract, automatic or no name; connected one way or both
// @restored UNIX sockets: datagrams in flight, with the addresses of their senders, including closed ones
// @restored UNIX sockets: a connected datagram peer that is gone (ECONNREFUSED)
// @not-kept UNIX sockets: empty datagrams in flight over two checkpoints: the kernel does not show them a second time
#include "socket.h"
#include <sys/stat.h>

static void send_to(int fd, const char *name, const char *text) {
    struct sockaddr_un address;
    socklen_t length = unix_address(&address, name);
    CHECK(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, length) == (ssize_t)strlen(text));
}

static void expect(int fd, const char *text, const char *from) {
    struct sockaddr_un address, wanted;
    socklen_t length = sizeof address, wanted_length = unix_address(&wanted, from);
    memset(&address, 0, sizeof address);
    char buffer[64];
    ssize_t n = recvfrom(fd, buffer, 64, MSG_DONTWAIT, (struct sockaddr *)&address, &length);
    CHECK(n == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0);
    if (from[0] == 0)
        CHECK(length == 0);
    else
        CHECK(length == wanted_length && memcmp(&address, &wanted, length) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char hidden[64], other[64], gone_name[64];
    sprintf(hidden, "@ckpt-datagram-%d", getpid());
    sprintf(other, "@ckpt-other-%d", getpid());
    sprintf(gone_name, "@ckpt-gone-%d", getpid());
    umask(027);
    int server = unix_bound(SOCK_DGRAM, "server"), abstract = unix_bound(SOCK_DGRAM, hidden);
    int client = socket(AF_UNIX, SOCK_DGRAM, 0), unlinked = unix_bound(SOCK_DGRAM, "soon-gone");
    CHECK(client >= 0 && unlink("soon-gone") == 0);
    set_option(server, SOL_SOCKET, SO_RCVBUF, 50000);
    int rcvbuf = option(server, SOL_SOCKET, SO_RCVBUF);
    // An automatic name.
    CHECK(bind(client, &(struct sockaddr){.sa_family = AF_UNIX}, sizeof(sa_family_t)) == 0);
    struct sockaddr_un automatic;
    socklen_t automatic_length = sizeof automatic;
    CHECK(getsockname(client, (struct sockaddr *)&automatic, &automatic_length) == 0 && automatic_length == sizeof(sa_family_t) + 6);
    char client_name[16] = "@";
    memcpy(client_name + 1, automatic.sun_path + 1, 5);
    unix_connect(client, "server");
    int pair[2], mutual = unix_bound(SOCK_DGRAM, other);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    unix_connect(mutual, hidden);
    unix_connect(abstract, other);
    // A peer that is gone, and a sender too.
    int gone = unix_bound(SOCK_DGRAM, gone_name), orphan = socket(AF_UNIX, SOCK_DGRAM, 0), late[2];
    unix_connect(orphan, gone_name);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, late) == 0 && send(late[1], "left behind", 11, 0) == 11 && close(late[1]) == 0);
    send_to(gone, "server", "from beyond");
    CHECK(close(gone) == 0);
    for (int round = 0; round < rounds; round++) {
        CHECK(send(client, "connected", 9, 0) == 9);
        send_to(unlinked, "server", "nameless file");
        send_to(pair[0], "server", "unnamed");
        CHECK(send(pair[0], "pair", 4, 0) == 4 && send(pair[1], "riap", 4, 0) == 4);
        CHECK(send(mutual, "to abstract", 11, 0) == 11 && send(abstract, "to other", 8, 0) == 8);
        if (round % 2) send_to(server, client_name, "no entry");
        rest();
        if (round == 0) expect(server, "from beyond", gone_name);
        expect(server, "connected", client_name);
        expect(server, "nameless file", "soon-gone");
        expect(server, "unnamed", "");
        expect(pair[1], "pair", "");
        expect(pair[0], "riap", "");
        expect(abstract, "to abstract", other);
        expect(mutual, "to other", hidden);
        if (round % 2) expect(client, "no entry", "server");
        char byte;
        CHECK(recv(server, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        CHECK(has_name(server, 0, "server") && has_name(abstract, 0, hidden) && has_name(client, 0, client_name));
        CHECK(has_name(client, 1, "server") && has_name(mutual, 1, hidden) && has_name(unlinked, 0, "soon-gone"));
        CHECK(has_name(pair[0], 1, "") && has_name(orphan, 1, gone_name));
        struct sockaddr_un address;
        socklen_t length = sizeof address;
        CHECK(getpeername(server, (struct sockaddr *)&address, &length) == -1 && errno == ENOTCONN);
        CHECK(option(server, SOL_SOCKET, SO_RCVBUF) == rcvbuf);
        struct stat stat;
        CHECK(lstat("server", &stat) == 0 && S_ISSOCK(stat.st_mode) && (stat.st_mode & 0777) == 0750);
        CHECK(lstat("soon-gone", &stat) == -1 && errno == ENOENT);
    }
    CHECK(send(orphan, "x", 1, 0) == -1 && errno == ECONNREFUSED);
    char buffer[64];
    CHECK(recv(late[0], buffer, 64, 0) == 11 && memcmp(buffer, "left behind", 11) == 0);
    puts("every datagram came from whom it should");
}
