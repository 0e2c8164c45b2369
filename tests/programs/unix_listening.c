// Tests that listening UNIX sockets keep their names, and those who wait to be accepted; accepted connections keep theirs.
// @restored UNIX sockets: listening sockets with path or abstract name, whose file may be gone; the backlog and the connections in it, in order
// @restored UNIX sockets: listening sockets whose file was renamed in its directory, or whose first name is another's by now
// @restored UNIX sockets: accepted connections with the names of both ends, even if the listening socket is closed
// @refused UNIX sockets: connections that are not accepted yet and have data, or whose client is gone (the next checkpoint tries again)
#include "socket.h"

static int connected(const char *name, int type) {
    int fd = socket(AF_UNIX, type, 0);
    CHECK(fd >= 0);
    unix_connect(fd, name);
    return fd;
}

static void exchange(int one, int other) {
    char byte = 0;
    CHECK(send(one, "1", 1, 0) == 1 && recv(other, &byte, 1, 0) == 1 && byte == '1');
    CHECK(send(other, "2", 1, 0) == 1 && recv(one, &byte, 1, 0) == 1 && byte == '2');
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    char hidden[64], own[64];
    sprintf(hidden, "@ckpt-listening-%d", getpid());
    sprintf(own, "@ckpt-own-%d", getpid());
    int path = unix_bound(SOCK_STREAM, "./listener"), abstract = unix_bound(SOCK_SEQPACKET, hidden);
    int closed = unix_bound(SOCK_STREAM, "closed"), removed = unix_bound(SOCK_STREAM, "removed");
    CHECK(listen(path, 3) == 0 && listen(abstract, 5) == 0 && listen(closed, 1) == 0 && listen(removed, 1) == 0);
    // A connection whose listening socket is closed and another's whose file is gone; and one with a name of its own.
    int closed_client = connected("closed", SOCK_STREAM), closed_server = accept(closed, NULL, NULL);
    CHECK(closed_server >= 0 && close(closed) == 0);
    int removed_client = connected("removed", SOCK_STREAM), removed_server = accept(removed, NULL, NULL);
    CHECK(removed_server >= 0 && unlink("removed") == 0);
    int named_client = unix_bound(SOCK_SEQPACKET, own);
    unix_connect(named_client, hidden);
    int named_server = accept(abstract, NULL, NULL);
    CHECK(named_server >= 0);
    int renamed = unix_bound(SOCK_STREAM, "renamed.tmp"), next = unix_bound(SOCK_STREAM, "next.tmp");
    CHECK(listen(renamed, 3) == 0 && rename("renamed.tmp", "renamed") == 0);
    CHECK(listen(next, 3) == 0 && rename("next.tmp", "next") == 0);
    int other = unix_bound(SOCK_STREAM, "next.tmp");
    CHECK(listen(other, 3) == 0);
    // A child that waits in accept for most of the time.
    int blocking = unix_bound(SOCK_STREAM, "blocking");
    CHECK(listen(blocking, 5) == 0);
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
        int first = connected("listener", SOCK_STREAM), second = connected("listener", SOCK_STREAM);
        int third = connected(hidden, SOCK_SEQPACKET);
        rest();
        CHECK(option(path, SOL_SOCKET, SO_ACCEPTCONN) == 1 && option(first, SOL_SOCKET, SO_ACCEPTCONN) == 0);
        int servers[2];
        for (int i = 0; i < 2; i++) CHECK((servers[i] = accept(path, NULL, NULL)) >= 0);
        exchange(first, servers[0]);
        exchange(second, servers[1]);
        char byte;
        int packets = accept(abstract, NULL, NULL);
        CHECK(packets >= 0);
        exchange(third, packets);
        CHECK(has_name(path, 0, "./listener") && has_name(first, 1, "./listener") && has_name(servers[0], 0, "./listener"));
        CHECK(has_name(third, 1, hidden) && has_name(packets, 0, hidden) && has_name(packets, 1, ""));
        CHECK(close(first) == 0 && close(second) == 0 && close(third) == 0 && close(packets) == 0);
        for (int i = 0; i < 2; i++) CHECK(close(servers[i]) == 0);
        int listeners[] = {renamed, next, other};
        const char *names[] = {"renamed", "next", "next.tmp"};
        for (int i = 0; i < 3; i++) {
            int one = connected(names[i], SOCK_STREAM), two = accept(listeners[i], NULL, NULL);
            CHECK(two >= 0);
            exchange(one, two);
            CHECK(close(one) == 0 && close(two) == 0);
        }
        CHECK(has_name(renamed, 0, "renamed.tmp"));
        exchange(closed_client, closed_server);
        exchange(removed_client, removed_server);
        exchange(named_client, named_server);
        CHECK(has_name(closed_client, 1, "closed") && has_name(closed_server, 0, "closed") && has_name(closed_server, 1, ""));
        CHECK(has_name(removed_client, 1, "removed") && has_name(removed, 0, "removed"));
        CHECK(has_name(named_client, 0, own) && has_name(named_client, 1, hidden) && has_name(named_server, 1, own));
        // The backlog is full when it was.
        if (round == rounds - 1) {
            for (int i = 0; i < 4; i++) connected("listener", SOCK_STREAM);
            int more = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
            struct sockaddr_un address;
            socklen_t length = unix_address(&address, "listener");
            CHECK(connect(more, (struct sockaddr *)&address, length) == -1 && errno == EAGAIN);
        }
        int woken = connected("blocking", SOCK_STREAM);
        CHECK(recv(woken, &byte, 1, 0) == 1 && close(woken) == 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("everybody was accepted in turn");
}
