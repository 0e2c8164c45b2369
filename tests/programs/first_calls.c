// Tests that a call which is only about to be made when a checkpoint comes is made: with a signal waiting, it must not be taken for one that this signal interrupted.
//
// A breakpoint stands before each call, so that most signals come when the call is what the thread will do next. Reading a regular file never ends with EINTR.
// @restored Signals: a call that is about to be made at a checkpoint is made
#include "check.h"
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/time.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int signal) {
    (void)signal;
    alarms++;
}

static void on_breakpoint(int signal) { (void)signal; }

static long read_after_breakpoint(int fd, char *byte) {
    long result = SYS_read;
    __asm__ volatile("int3\n\tsyscall" : "+a"(result) : "D"(fd), "S"(byte), "d"(1) : "rcx", "r11", "memory");
    return result;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int fd = open(argv[0], O_RDONLY);
    CHECK(fd >= 0);
    struct sigaction ends_calls = {.sa_handler = on_alarm}, restarts_calls = {.sa_handler = on_breakpoint, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &ends_calls, NULL) == 0 && sigaction(SIGTRAP, &restarts_calls, NULL) == 0);
    struct itimerval millisecond = {{0, 1000}, {0, 1000}};
    CHECK(setitimer(ITIMER_REAL, &millisecond, NULL) == 0);
    for (int round = 0; round < rounds; round++) {
        char byte;
        for (int before = alarms; alarms < before + 10;) {
            CHECK(read_after_breakpoint(fd, &byte) == 1);
            CHECK(lseek(fd, 0, SEEK_SET) == 0 && byte == 0x7f);
        }
    }
    puts("every call was made");
    return 0;
}
