// Tests that epoll instances keep what they wait for: levels, edges, one-shots that have fired or not, nested ones, and closed descriptors.
// @restored epoll: registrations with their data words, edges, one-shots that have fired or not, nested instances, descriptors closed since
#include "check.h"
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int outer;

static void control(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    CHECK(epoll_ctl(epoll, operation, fd, &event) == 0);
}

// What is ready now: the events that came with this data; none, if it did not come. Every other must be one of `also`.
static uint32_t reported(int epoll, uint64_t data, uint64_t also) {
    struct epoll_event events[16];
    int count = epoll_wait(epoll, events, 16, 0);
    CHECK(count >= 0);
    uint32_t found = 0;
    for (int i = 0; i < count; i++) {
        CHECK(events[i].data.u64 == data || events[i].data.u64 == also);
        if (events[i].data.u64 == data) found |= events[i].events;
    }
    return found;
}

static void add(int eventfd, uint64_t count) { CHECK(eventfd_write(eventfd, count) == 0); }

static void take(int eventfd) {
    eventfd_t count;
    CHECK(eventfd_read(eventfd, &count) == 0);
}

// The data of each registration.
enum { NONE, EDGE, ARMED, SPENT, INNER, CLOSED, REUSED, EXCLUSIVE };
#define LEVEL UINT64_C(0xfedcba9876543210)

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    outer = epoll_create1(EPOLL_CLOEXEC);
    int inner = epoll_create1(0), level[2];
    CHECK(outer >= 0 && inner >= 0 && pipe(level) == 0);
    int edge = eventfd(0, 0), armed = eventfd(0, 0), spent = eventfd(0, 0), nested = eventfd(0, 0), exclusive = eventfd(0, 0);
    int kept = eventfd(0, 0), other = eventfd(0, 0);
    control(outer, EPOLL_CTL_ADD, level[0], EPOLLIN, LEVEL);
    control(outer, EPOLL_CTL_ADD, edge, EPOLLIN | EPOLLET, EDGE);
    control(outer, EPOLL_CTL_ADD, armed, EPOLLIN | EPOLLONESHOT, ARMED);
    control(outer, EPOLL_CTL_ADD, spent, EPOLLOUT | EPOLLONESHOT, SPENT);
    control(outer, EPOLL_CTL_ADD, exclusive, EPOLLIN | EPOLLEXCLUSIVE, EXCLUSIVE);
    control(inner, EPOLL_CTL_ADD, nested, EPOLLIN, 1);
    control(outer, EPOLL_CTL_ADD, inner, EPOLLIN, INNER);
    // Two registrations under one number, whose first descriptor is closed; its file lives on under another number.
    int number = fcntl(kept, F_DUPFD, 100);
    CHECK(number >= 100);
    control(outer, EPOLL_CTL_ADD, number, EPOLLIN, CLOSED);
    CHECK(close(number) == 0 && dup2(other, number) == number);
    control(outer, EPOLL_CTL_ADD, number, EPOLLIN, REUSED);
    CHECK(reported(outer, SPENT, NONE) == EPOLLOUT && reported(outer, SPENT, NONE) == 0);
    // A child that has the same instance, and changes registrations of its parent's by their numbers.
    int down[2], up[2];
    CHECK(pipe(down) == 0 && pipe(up) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(close(down[1]) == 0 && close(up[0]) == 0);
        char byte;
        while (read(down[0], &byte, 1) == 1) {
            control(outer, EPOLL_CTL_MOD, level[0], EPOLLIN, byte % 2 ? LEVEL : ~LEVEL);
            CHECK(write(up[1], &byte, 1) == 1);
        }
        _exit(0);
    }
    CHECK(close(down[0]) == 0 && close(up[1]) == 0);
    int again = 0;
    for (int round = 0; round < rounds; round++) {
        CHECK(reported(outer, NONE, NONE) == 0);
        rest();
        char byte = (char)round;
        CHECK(write(down[1], &byte, 1) == 1 && read(up[0], &byte, 1) == 1);
        // A level is reported as long as it holds.
        CHECK(write(level[1], "x", 1) == 1);
        uint64_t data = byte % 2 ? LEVEL : ~LEVEL;
        CHECK(reported(outer, data, NONE) == EPOLLIN && reported(outer, data, NONE) == EPOLLIN);
        CHECK(read(level[0], &byte, 1) == 1);
        // An edge is reported; once more after a restart, and never when it is over.
        add(edge, 1);
        CHECK(reported(outer, EDGE, NONE) == EPOLLIN);
        rest();
        again += reported(outer, EDGE, NONE) != 0;
        CHECK(again <= 10);
        take(edge);
        CHECK(reported(outer, EDGE, NONE) == 0);
        // A one-shot is reported once, and only then needs to be armed again.
        add(armed, 1);
        CHECK(reported(outer, ARMED, NONE) == EPOLLIN && reported(outer, ARMED, NONE) == 0);
        take(armed);
        control(outer, EPOLL_CTL_MOD, armed, EPOLLIN | EPOLLONESHOT, ARMED);
        if (round % 5 == 0) {
            control(outer, EPOLL_CTL_MOD, spent, EPOLLOUT | EPOLLONESHOT, SPENT);
            CHECK(reported(outer, SPENT, NONE) == EPOLLOUT);
        }
        add(nested, 1);
        CHECK(reported(outer, INNER, NONE) == EPOLLIN && reported(inner, 1, NONE) == EPOLLIN);
        take(nested);
        add(exclusive, 1);
        CHECK(reported(outer, EXCLUSIVE, NONE) == EPOLLIN);
        take(exclusive);
        // The file whose descriptor was closed is another than the one that has its number now.
        add(kept, 1);
        CHECK(reported(outer, CLOSED, NONE) == EPOLLIN);
        add(other, 1);
        CHECK(reported(outer, REUSED, CLOSED) == EPOLLIN);
        take(kept), take(other);
        // What is registered is registered, under its number and no other.
        struct epoll_event event = {.events = EPOLLIN};
        CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, edge, &event) == -1 && errno == EEXIST);
        CHECK(epoll_ctl(outer, EPOLL_CTL_MOD, exclusive, &event) == -1 && errno == EINVAL);
        CHECK(epoll_ctl(outer, EPOLL_CTL_DEL, kept, NULL) == -1 && errno == ENOENT);
        CHECK(fcntl(outer, F_GETFD) == FD_CLOEXEC && fcntl(inner, F_GETFD) == 0);
        if (round % 5 == 3) {
            CHECK(epoll_ctl(outer, EPOLL_CTL_DEL, number, NULL) == 0);
            control(outer, EPOLL_CTL_ADD, number, EPOLLIN, REUSED);
        }
    }
    CHECK(close(down[1]) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("everything was waited for as it should be");
}
