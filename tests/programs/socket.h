// What the programs about sockets share.
#pragma once
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

// A UNIX address; a name that begins with @ is abstract.
static inline socklen_t unix_address(struct sockaddr_un *address, const char *name) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    CHECK(strlen(name) < sizeof address->sun_path);
    strcpy(address->sun_path, name);
    if (name[0] != '@') return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1);
    address->sun_path[0] = 0;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
}

static inline int unix_bound(int type, const char *name) {
    struct sockaddr_un address;
    socklen_t length = unix_address(&address, name);
    int fd = socket(AF_UNIX, type, 0);
    CHECK(fd >= 0);
    if (name[0] != '@') unlink(name);
    CHECK(bind(fd, (struct sockaddr *)&address, length) == 0);
    return fd;
}

static inline void unix_connect(int fd, const char *name) {
    struct sockaddr_un address;
    socklen_t length = unix_address(&address, name);
    CHECK(connect(fd, (struct sockaddr *)&address, length) == 0);
}

// Whether a socket, or its peer, has this name; "" for none.
static inline int has_name(int fd, int peer, const char *name) {
    struct sockaddr_un address, wanted;
    socklen_t length = sizeof address, wanted_length = unix_address(&wanted, name);
    memset(&address, 0, sizeof address);
    CHECK((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&address, &length) == 0);
    if (name[0] == 0) return length == sizeof(sa_family_t);
    return length == wanted_length && memcmp(&address, &wanted, length) == 0;
}

static inline int option(int fd, int level, int name) {
    int value = 0;
    socklen_t length = sizeof value;
    CHECK(getsockopt(fd, level, name, &value, &length) == 0);
    return value;
}

static inline void set_option(int fd, int level, int name, int value) {
    CHECK(setsockopt(fd, level, name, &value, sizeof value) == 0);
}

static inline short events(int fd) {
    struct pollfd poll_one = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};
    CHECK(poll(&poll_one, 1, 0) >= 0);
    return poll_one.revents;
}

// Sends all of a block with this key, or as much as goes without waiting; gives how much.
static inline size_t send_pattern(int fd, size_t size, unsigned key, int flags) {
    unsigned char *block = malloc(size);
    CHECK(block != NULL);
    fill(block, size, key);
    size_t sent = 0;
    while (sent < size) {
        ssize_t n = send(fd, block + sent, size - sent, flags | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        CHECK(n > 0);
        sent += (size_t)n;
    }
    free(block);
    return sent;
}

static inline void receive_pattern(int fd, size_t size, unsigned key) {
    unsigned char *block = malloc(size);
    CHECK(block != NULL);
    size_t got = 0;
    while (got < size) {
        ssize_t n = recv(fd, block + got, size - got, 0);
        CHECK(n > 0);
        got += (size_t)n;
    }
    CHECK(holds(block, size, key));
    free(block);
}
