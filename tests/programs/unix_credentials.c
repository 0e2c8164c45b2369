// Tests that UNIX sockets keep telling who made them, and messages in flight who sent them.
// @restored UNIX sockets: SO_PEERCRED of pairs, connections and listening sockets, including processes that have ended
// @restored UNIX sockets: SCM_CREDENTIALS of messages in flight, of every sender
#include "socket.h"

static struct ucred peer(int fd) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 && length == sizeof credentials);
    return credentials;
}

static int is(struct ucred one, pid_t pid) { return one.pid == pid && one.uid == getuid() && one.gid == getgid(); }

static struct ucred receive(int fd, const char *text) {
    char control[CMSG_SPACE(sizeof(struct ucred))], buffer[64];
    struct iovec part = {buffer, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(fd, &message, 0) == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header != NULL && header->cmsg_type == SCM_CREDENTIALS);
    struct ucred credentials;
    memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
    return credentials;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int listener = unix_bound(SOCK_STREAM, "listener"), pair[2], datagrams[2], down[2];
    CHECK(listen(listener, 5) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0 && pipe(down) == 0);
    set_option(pair[1], SOL_SOCKET, SO_PASSCRED, 1);
    set_option(datagrams[1], SOL_SOCKET, SO_PASSCRED, 1);
    pid_t own = getpid(), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        unix_connect(fd, "listener");
        char byte;
        CHECK(close(down[1]) == 0);
        while (read(down[0], &byte, 1) == 1) {
            CHECK(is(peer(fd), own) && is(peer(pair[0]), own));
            CHECK(send(pair[0], "child", 5, 0) == 5 && send(datagrams[0], "child", 5, 0) == 5);
            CHECK(send(fd, &byte, 1, 0) == 1);
        }
        _exit(0);
    }
    CHECK(close(down[0]) == 0);
    int server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    for (int round = 0; round < rounds; round++) {
        char byte = 'x';
        CHECK(send(pair[0], "parent", 6, 0) == 6 && send(datagrams[0], "parent", 6, 0) == 6);
        CHECK(write(down[1], &byte, 1) == 1 && recv(server, &byte, 1, 0) == 1);
        rest();
        CHECK(is(peer(server), child) && is(peer(pair[0]), own) && is(peer(pair[1]), own) && is(peer(listener), own));
        CHECK(is(receive(pair[1], "parent"), own) && is(receive(pair[1], "child"), child));
        CHECK(is(receive(datagrams[1], "parent"), own) && is(receive(datagrams[1], "child"), child));
    }
    CHECK(close(down[1]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("everybody was who they were");
}
