// Tests that POSIX message queues keep names, attributes, permissions, messages with their priorities in order, and those who wait.
// @restored POSIX message queues: name, attributes, permissions, O_NONBLOCK, messages with priorities in order, processes that wait for messages or for room, removed names
// @refused POSIX message queues: with a registered notification (mq_notify; the kernel does not show its value), of another user
// @not-kept POSIX message queues: queues that no process has open; sharing with processes outside of the job (after a restart the job has its own queue)
#include "check.h"
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <sys/stat.h>

enum { SIZE = 120 };
static char names[4][40];

static mqd_t queue(int i, int flags, long capacity) {
    sprintf(names[i], "/ckpt-queue%d-%d", i, getpid());
    struct mq_attr attr = {.mq_maxmsg = capacity, .mq_msgsize = SIZE};
    mqd_t queue = mq_open(names[i], flags | O_CREAT | O_EXCL, 0640, &attr);
    CHECK(queue >= 0);
    return queue;
}

static void put(mqd_t queue, unsigned priority, unsigned key, size_t len) {
    char message[SIZE];
    fill(message, len, key);
    CHECK(mq_send(queue, message, len, priority) == 0);
}

static void take(mqd_t queue, unsigned priority, unsigned key, size_t len) {
    char message[SIZE];
    unsigned found;
    CHECK(mq_receive(queue, message, SIZE, &found) == (ssize_t)len && found == priority && holds(message, len, key));
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    mqd_t full = queue(0, O_RDWR, 3), sorted = queue(1, O_WRONLY | O_NONBLOCK, 10), there = queue(2, O_RDWR, 2), back = queue(3, O_RDWR, 2);
    mqd_t reader = mq_open(names[1], O_RDONLY | O_CLOEXEC);
    int inherited = dup(reader);
    CHECK(reader >= 0 && inherited >= 0 && mq_unlink(names[3]) == 0);
    for (unsigned i = 0; i < 3; i++) put(full, i, i, 50);
    const unsigned priorities[] = {4, 9, 4, 0, 31000, 0, 9};
    const unsigned order[] = {4, 1, 6, 0, 2, 3, 5};
    for (unsigned i = 0; i < 7; i++) put(sorted, priorities[i], 100 + i, i * 20);
    pid_t blocked = fork();
    CHECK(blocked >= 0);
    if (blocked == 0) {
        put(full, 7, 7, 10);
        _exit(0);
    }
    pid_t partner = fork();
    CHECK(partner >= 0);
    if (partner == 0) {
        for (int round = 0; round < rounds; round++) {
            take(there, (unsigned)round % 5, (unsigned)round, 60);
            put(back, (unsigned)round % 7, (unsigned)round, 70);
        }
        _exit(0);
    }
    for (int round = 0; round < rounds; round++) {
        rest();
        put(there, (unsigned)round % 5, (unsigned)round, 60);
        take(back, (unsigned)round % 7, (unsigned)round, 70);
        struct mq_attr attr;
        struct stat status;
        CHECK(mq_getattr(sorted, &attr) == 0 && attr.mq_maxmsg == 10 && attr.mq_msgsize == SIZE && attr.mq_curmsgs == 7 && attr.mq_flags == O_NONBLOCK);
        CHECK(mq_getattr(reader, &attr) == 0 && attr.mq_flags == 0);
        CHECK(mq_getattr(full, &attr) == 0 && attr.mq_curmsgs == 3 && fstat(full, &status) == 0 && (status.st_mode & 0777) == 0640 && status.st_uid == geteuid());
        CHECK(mq_send(reader, "", 0, 0) == -1 && errno == EBADF && mq_open(names[3], O_RDONLY) == -1 && errno == ENOENT);
        CHECK(fcntl(reader, F_GETFD) == FD_CLOEXEC && fcntl(inherited, F_GETFD) == 0);
        struct pollfd ready[2] = {{reader, POLLIN, 0}, {back, POLLIN, 0}};
        CHECK(poll(ready, 2, 0) == 1 && ready[0].revents == POLLIN);
        mqd_t again = mq_open(names[0], O_RDONLY);
        CHECK(again >= 0 && mq_getattr(again, &attr) == 0 && attr.mq_maxmsg == 3 && mq_close(again) == 0);
    }
    int status;
    CHECK(waitpid(partner, &status, 0) == partner && status == 0);
    for (unsigned i = 0; i < 7; i++) take(reader, priorities[order[i]], 100 + order[i], order[i] * 20);
    take(full, 2, 2, 50);
    CHECK(waitpid(blocked, &status, 0) == blocked && status == 0);
    take(full, 7, 7, 10);
    take(full, 1, 1, 50);
    take(full, 0, 0, 50);
    for (int i = 0; i < 3; i++) CHECK(mq_unlink(names[i]) == 0);
    puts("every message came in its order");
}
