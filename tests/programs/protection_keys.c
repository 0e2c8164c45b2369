// Tests that memory keeps its protection key, threads their rights, and keys their numbers. It ends at once where the processor has none.
// @restored Memory: protection keys (the key of each mapping, which keys are allocated, each thread's rights), memory that may only be executed
#include "vmflags.h"
#include <setjmp.h>

enum { PAGE = 4096, PAGES = 16 };
static sigjmp_buf back;
static volatile int code;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    code = info->si_code;
    siglongjmp(back, 1);
}

// A handler that is left by a jump leaves its own rights behind.
static unsigned rights(void) {
    unsigned rights, high;
    __asm__ volatile("rdpkru" : "=a"(rights), "=d"(high) : "c"(0));
    return rights;
}

static int failed_with(unsigned rights) {
    __asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0) : "memory");
    return code;
}

// 0, or how an access fails.
static int reading(volatile char *at) {
    volatile unsigned before = rights();
    if (sigsetjmp(back, 1)) return failed_with(before);
    (void)*at;
    return 0;
}

static int writing(volatile char *at) {
    volatile unsigned before = rights();
    if (sigsetjmp(back, 1)) return failed_with(before);
    *at = *at;
    return 0;
}

static char *block(unsigned pattern_key) {
    char *at = mmap(NULL, (PAGES + 1) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && mprotect(at, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    fill(at, PAGES * PAGE, pattern_key);
    return at;
}

static int key_of(const void *at) {
    char line[64];
    smaps_line(at, "ProtectionKey:", line, sizeof line);
    return atoi(line);
}

static int hidden, readable, spare, rounds;
static char *secret, *constant, *plain, *code_page;

static void *other(void *unused) {
    (void)unused;
    // This thread may do what the first may not.
    CHECK(pkey_set(hidden, 0) == 0 && pkey_set(readable, PKEY_DISABLE_ACCESS) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(pkey_get(hidden) == 0 && pkey_get(readable) == PKEY_DISABLE_ACCESS);
        CHECK(holds(secret, PAGES * PAGE, 1));
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    int first = pkey_alloc(0, 0);
    if (first < 0) {
        for (int round = 0; round < rounds; round++) rest();
        puts("keys and rights were kept");
        return 0;
    }
    hidden = pkey_alloc(0, 0), readable = pkey_alloc(0, 0);
    // Memory that may only be executed takes a key by itself.
    static const unsigned char answer[] = {0xb8, 42, 0, 0, 0, 0xc3};
    code_page = block(0);
    memcpy(code_page, answer, sizeof answer);
    CHECK(mprotect(code_page, PAGES * PAGE, PROT_EXEC) == 0);
    spare = pkey_alloc(0, PKEY_DISABLE_WRITE);
    CHECK(hidden > 0 && readable > 0 && spare > 0 && pkey_free(first) == 0);
    secret = block(1), constant = block(2), plain = block(3);
    CHECK(pkey_mprotect(secret, PAGES * PAGE, PROT_READ | PROT_WRITE, hidden) == 0);
    CHECK(pkey_mprotect(constant, PAGES * PAGE, PROT_READ | PROT_WRITE, readable) == 0);
    // Some that is mapped and was never touched.
    char *empty = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(empty != MAP_FAILED && pkey_mprotect(empty, PAGE, PROT_READ, spare) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other, NULL) == 0);
    CHECK(pkey_set(hidden, PKEY_DISABLE_ACCESS) == 0 && pkey_set(readable, PKEY_DISABLE_WRITE) == 0);
    int executable_key = key_of(code_page);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(key_of(secret) == hidden && key_of(constant) == readable && key_of(plain) == 0 && key_of(empty) == spare);
        CHECK(pkey_get(hidden) == PKEY_DISABLE_ACCESS && pkey_get(readable) == PKEY_DISABLE_WRITE && pkey_get(spare) == PKEY_DISABLE_WRITE);
        CHECK(reading(secret) == SEGV_PKUERR && writing(constant) == SEGV_PKUERR);
        CHECK(holds(constant, PAGES * PAGE, 2) && holds(plain, PAGES * PAGE, 3) && reading(empty) == 0);
        CHECK(pkey_set(hidden, 0) == 0 && holds(secret, PAGES * PAGE, 1));
        CHECK(pkey_set(hidden, PKEY_DISABLE_ACCESS) == 0);
        // The code runs, and cannot be read.
        CHECK(key_of(code_page) == executable_key && ((int (*)(void))(uintptr_t)code_page)() == 42);
        CHECK(reading(code_page) == SEGV_PKUERR);
        // The lowest key that is free is the one that was given back.
        CHECK(pkey_alloc(0, 0) == first && pkey_free(first) == 0);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    // The kernel's own key cannot be had, and all others can still be given back.
    CHECK(pkey_free(executable_key) == -1 && pkey_free(spare) == 0 && pkey_free(hidden) == 0 && pkey_free(readable) == 0);
    puts("keys and rights were kept");
}
