// Tests that a process keeps its start time, as those see it who know processes by their number and that: psutil, Java, ps.
// @restored Processes: when they started, as `/proc/PID/stat` shows it to programs that open it through the C library
#include "check.h"
#include <fcntl.h>

static unsigned long long field(char *text) {
    char *at = strrchr(text, ')');
    CHECK(at != NULL);
    for (int i = 0; i < 20; i++) {
        at = strchr(at + 1, ' ');
        CHECK(at != NULL);
    }
    return strtoull(at, NULL, 10);
}

static unsigned long long by_open(const char *path) {
    char text[2048] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && close(fd) == 0);
    return field(text);
}

static unsigned long long by_stream(const char *path) {
    char text[2048] = "";
    FILE *file = fopen(path, "r");
    CHECK(file != NULL && fgets(text, sizeof text, file) != NULL && fclose(file) == 0);
    return field(text);
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv), ends[2];
    unsigned long long own = by_open("/proc/self/stat"), later = 0;
    usleep(50000);
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte;
        CHECK(close(ends[1]) == 0);
        _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    unsigned long long its = by_stream(path);
    CHECK(its > own);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(by_open("/proc/self/stat") == own && by_open(path) == its && by_stream(path) == its);
        // One that is new has started now.
        pid_t other = fork();
        if (other == 0) {
            unsigned long long now = by_open("/proc/self/stat");
            _exit(now > its && now >= later ? 0 : 1);
        }
        snprintf(path, sizeof path, "/proc/%d/stat", other);
        later = by_open(path);
        snprintf(path, sizeof path, "/proc/%d/stat", child);
        int status;
        CHECK(waitpid(other, &status, 0) == other && status == 0);
    }
    int status;
    CHECK(close(ends[1]) == 0 && waitpid(child, &status, 0) == child && status == 0);
    puts("everybody has started when it did");
}
