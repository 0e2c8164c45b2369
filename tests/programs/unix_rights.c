// Tests that descriptors in flight arrive, whatever they are, and with the bytes that they were sent with.
// @restored UNIX sockets: descriptors in flight (SCM_RIGHTS), including files that no process has open, and sockets with further descriptors in flight
// @refused UNIX sockets: pidfds and files of /proc in flight
#include "socket.h"
#include <sys/eventfd.h>

static void send_rights(int fd, const char *text, const int *files, size_t count) {
    char control[CMSG_SPACE(sizeof(int) * 8)] = {0};
    struct iovec part = {(char *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * count)};
    memcpy(CMSG_DATA(header), files, sizeof(int) * count);
    CHECK(sendmsg(fd, &message, 0) == (ssize_t)strlen(text));
}

// Receives exactly this, with so many descriptors.
static void receive_rights(int fd, const char *text, int *files, size_t count) {
    char control[CMSG_SPACE(sizeof(int) * 8)], buffer[64];
    struct iovec part = {buffer, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(fd, &message, 0) == (ssize_t)strlen(text) && memcmp(buffer, text, strlen(text)) == 0);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (count == 0) {
        CHECK(header == NULL);
        return;
    }
    CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int) * count));
    memcpy(files, CMSG_DATA(header), sizeof(int) * count);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int stream[2], packets[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, packets) == 0);
    int known = open("known", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(known >= 0);
    for (int round = 0; round < rounds; round++) {
        // A file that is open here, and others that are only in flight: one with an offset, a pipe with bytes, a counter.
        int file = open("in-flight", O_RDWR | O_CREAT, 0600), ends[2], counter = eventfd(5, 0);
        CHECK(file >= 0 && pipe(ends) == 0 && counter >= 0 && write(file, "0123456789", 10) == 10 && lseek(file, 4, SEEK_SET) == 4);
        CHECK(write(ends[1], "piped", 5) == 5 && lseek(known, round, SEEK_SET) == round);
        send_rights(stream[0], "before", &known, 1);
        CHECK(send(stream[0], "bare", 4, 0) == 4);
        send_rights(stream[0], "with", (int[]){file, ends[0], known, counter}, 4);
        CHECK(send(stream[0], "after", 5, 0) == 5);
        CHECK(close(file) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0 && close(counter) == 0);
        // A socket in flight that holds another descriptor in flight, and its peer; nobody has either open.
        int inner[2], event = eventfd(9, 0);
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, inner) == 0 && event >= 0);
        send_rights(inner[0], "deep", &event, 1);
        send_rights(packets[0], "sockets", inner, 2);
        CHECK(close(inner[0]) == 0 && close(inner[1]) == 0 && close(event) == 0);
        rest();
        int got[4], twin;
        receive_rights(stream[1], "before", &twin, 1);
        CHECK(lseek(known, 0, SEEK_CUR) == round && lseek(twin, 3, SEEK_CUR) == round + 3 && lseek(known, 0, SEEK_CUR) == round + 3);
        receive_rights(stream[1], "bare", NULL, 0);
        receive_rights(stream[1], "with", got, 4);
        receive_rights(stream[1], "after", NULL, 0);
        char buffer[64];
        CHECK(read(got[0], buffer, 64) == 6 && memcmp(buffer, "456789", 6) == 0);
        CHECK(read(got[1], buffer, 64) == 5 && memcmp(buffer, "piped", 5) == 0 && read(got[1], buffer, 64) == 0);
        CHECK(lseek(got[2], 0, SEEK_CUR) == round + 3);
        eventfd_t count;
        CHECK(eventfd_read(got[3], &count) == 0 && count == 5);
        for (int i = 0; i < 4; i++) CHECK(close(got[i]) == 0);
        CHECK(close(twin) == 0);
        receive_rights(packets[1], "sockets", got, 2);
        int deep;
        receive_rights(got[1], "deep", &deep, 1);
        CHECK(eventfd_read(deep, &count) == 0 && count == 9);
        CHECK(send(got[1], "up", 2, 0) == 2 && recv(got[0], buffer, 64, 0) == 2);
        CHECK(close(got[0]) == 0 && close(got[1]) == 0 && close(deep) == 0);
    }
    puts("everything in flight has landed");
}
