// Tests that what a process has told the kernel of itself stays, beside what process_settings.c tests.
// @restored Process: personality, core dump filter, PR_SET_THP_DISABLE, PR_SET_MEMORY_MERGE, PR_SET_MDWE, PR_SET_TSC, PR_MCE_KILL, PR_SET_SPECULATION_CTRL
// @not-kept Process: keyrings, audit login id, Landlock domains, L1D flushing: the kernel does not show them, or they cannot be set
// @not-kept Process: PR_SET_PTRACER: the kernel does not show it; after a restart processes of the job may trace each other
// @not-kept Process: PR_SET_SYSCALL_USER_DISPATCH: the kernel shows it only to a tracer, and a program that blocks calls dispatches the agent's too
#include "check.h"
#include <sys/personality.h>
#include <sys/prctl.h>

static int rounds;

static void filter(char *text, size_t size) {
    FILE *file = fopen("/proc/self/coredump_filter", "r");
    CHECK(file && fgets(text, (int)size, file) && fclose(file) == 0);
}

static void *strict(void *unused) {
    (void)unused;
    int value;
    CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(prctl(PR_GET_TSC, &value) == 0 && value == PR_TSC_SIGSEGV);
        CHECK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY);
    }
    return NULL;
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    enum { MEMORY_MERGE = 67, MDWE = 65, REFUSE_EXEC_GAIN = 1 };
    CHECK(personality(ADDR_NO_RANDOMIZE | SHORT_INODE) >= 0);
    FILE *file = fopen("/proc/self/coredump_filter", "w");
    CHECK(file && fputs("0x7b", file) > 0 && fclose(file) == 0);
    CHECK(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0);
    // A thread that may not read the time stamp counter.
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, strict, NULL) == 0);
    int merges = prctl(MEMORY_MERGE, 1, 0, 0, 0) == 0, no_gain = prctl(MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) == 0;
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    int huge = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    int speculation[2];
    for (int which = 0; which < 2; which++) {
        prctl(PR_SET_SPECULATION_CTRL, which, PR_SPEC_DISABLE, 0, 0);
        speculation[which] = prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0);
    }
    char before[32], now[32];
    filter(before, sizeof before);
    char *writable = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(writable != MAP_FAILED);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(personality(0xffffffff) == (ADDR_NO_RANDOMIZE | SHORT_INODE));
        filter(now, sizeof now);
        CHECK(strcmp(before, now) == 0 && strstr(now, "7b"));
        CHECK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY);
        CHECK(prctl(MEMORY_MERGE + 1, 0, 0, 0, 0) == merges || !merges);
        CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == huge);
        if (no_gain) {
            CHECK(prctl(MDWE + 1, 0, 0, 0, 0) == REFUSE_EXEC_GAIN);
            CHECK(mprotect(writable, 4096, PROT_READ | PROT_EXEC) == -1 && errno == EACCES);
        }
        for (int which = 0; which < 2; which++) CHECK(prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0) == speculation[which]);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    puts("nothing was forgotten");
}
