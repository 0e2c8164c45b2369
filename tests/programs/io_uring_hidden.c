// Tests that a program that can do without io_uring is told that there is none, also after a restart: by `syscall`, or in any way with `raw`.
// @restored io_uring: that there is none, for programs that ask by `syscall()` and have something else in its place; with `--no-io-uring` for all
#include "check.h"
#include <sys/syscall.h>

static long raw(long number, long a, void *b) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
    return result;
}

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv), is_raw = argc > 2;
    // Without the engine the kernel may have it.
    int is_hidden = getenv("CKPT_JOB_ID") != NULL;
    for (int round = 0; round < rounds; round++) {
        char params[120] = {0};
        if (is_hidden && is_raw)
            CHECK(raw(SYS_io_uring_setup, 2, params) == -ENOSYS && raw(SYS_io_uring_register, -1, params) == -ENOSYS);
        errno = 0;
        if (is_hidden)
            CHECK(syscall(SYS_io_uring_setup, 2, params) == -1 && errno == ENOSYS);
        rest();
    }
    puts("there is no io_uring");
}
