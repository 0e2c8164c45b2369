// Tests that packets in flight survive whatever became of the other end.
// @restored UNIX sockets: packets whose sender is closed or has closed its direction, empty ones and those with descriptors only
#include "socket.h"

// Sends one byte-less packet with a descriptor.
static void send_descriptor(int socket, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK(sendmsg(socket, &message, 0) == 0);
}

static int received_descriptor(int socket) {
    char control[CMSG_SPACE(sizeof(int))];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(socket, &message, MSG_DONTWAIT) == 0 && message.msg_controllen > 0);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void expect(int fd, const char *text) {
    char buffer[16];
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    CHECK(n == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int untouched[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, untouched) == 0 && close(untouched[1]) == 0);
    for (int round = 0; round < rounds; round++) {
        int closed[2], half[2], rights[2], pipes[2];
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, closed) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, half) == 0);
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, rights) == 0 && pipe(pipes) == 0);
        CHECK(send(closed[0], "one", 3, 0) == 3 && send(closed[0], "three", 5, 0) == 5 && close(closed[0]) == 0);
        CHECK(send(half[0], "last", 4, 0) == 4 && shutdown(half[0], SHUT_WR) == 0 && send(half[1], "back", 4, 0) == 4);
        CHECK(write(pipes[1], "in the pipe", 11) == 11);
        send_descriptor(rights[0], pipes[0]);
        CHECK(close(rights[0]) == 0 && close(pipes[0]) == 0);
        rest();
        expect(closed[1], "one");
        expect(closed[1], "three");
        expect(closed[1], "");
        expect(half[1], "last");
        expect(half[1], "");
        expect(half[0], "back");
        char text[11];
        int fd = received_descriptor(rights[1]);
        CHECK(read(fd, text, 11) == 11 && memcmp(text, "in the pipe", 11) == 0 && close(fd) == 0);
        expect(untouched[0], "");
        CHECK(close(closed[1]) == 0 && close(half[0]) == 0 && close(half[1]) == 0 && close(rights[1]) == 0 && close(pipes[1]) == 0);
    }
    puts("every packet arrived once");
}
