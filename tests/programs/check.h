// What every program here needs: checks that say which one failed, rounds, and patterns to recognise memory by.
#pragma once
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                                                   \
    do {                                                                                                                   \
        if (!(condition)) {                                                                                                \
            dprintf(2, "%s:%d: %s does not hold (errno: %s)\n", __FILE__, __LINE__, #condition, strerror(errno));          \
            _exit(1);                                                                                                      \
        }                                                                                                                  \
    } while (0)

// How many rounds to make: the first argument. What a program prints must not depend on it.
static inline int rounds_of(int argc, char **argv) {
    CHECK(argc > 1);
    return atoi(argv[1]);
}

// One round's rest, in which most checkpoints fall. It must not be cut short by one.
static inline void rest(void) {
    struct timespec ten_milliseconds = {0, 10000000};
    CHECK(nanosleep(&ten_milliseconds, NULL) == 0);
}

// Takes a signal that is pending, at once.
static inline siginfo_t take_pending(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    siginfo_t info;
    struct timespec none = {0, 0};
    CHECK(sigtimedwait(&set, &info, &none) == signal);
    return info;
}

static inline double now(void) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// The byte that belongs at a place of a block with this key.
static inline unsigned char pattern(unsigned key, size_t at) { return (unsigned char)((key * 2654435761u + at * 40503u) >> 11); }

static inline void fill(void *block, size_t size, unsigned key) {
    for (size_t at = 0; at < size; at++) ((unsigned char *)block)[at] = pattern(key, at);
}

static inline int holds(const void *block, size_t size, unsigned key) {
    for (size_t at = 0; at < size; at++)
        if (((const unsigned char *)block)[at] != pattern(key, at)) return 0;
    return 1;
}
