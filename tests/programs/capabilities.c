// Tests that processes and threads keep who they run as and what they may: a job of root whose parts became ordinary users, each in its way. Of
// an ordinary user's job it tests that nothing is gained.
// @restored Process: real, effective, saved and file system ids and groups, also of single threads
// @restored Process: capabilities (permitted, effective, inheritable, bounding, ambient) and securebits, also of single threads, as far as the user of the restart has them
#include "check.h"
#include <grp.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

struct who {
    char lines[16][256];
};

static const char *const keys[] = {"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"};
enum { KEYS = sizeof keys / sizeof *keys };

static void look(struct who *who) {
    memset(who, 0, sizeof *who);
    FILE *status = fopen("/proc/thread-self/status", "r");
    CHECK(status);
    char line[256];
    while (fgets(line, sizeof line, status))
        for (int i = 0; i < KEYS; i++)
            if (strncmp(line, keys[i], strlen(keys[i])) == 0) strcpy(who->lines[i], line);
    CHECK(fclose(status) == 0);
    snprintf(who->lines[KEYS], 256, "securebits %d", prctl(PR_GET_SECUREBITS));
}

static int rounds;

static void watch(void) {
    struct who before, now;
    look(&before);
    for (int round = 0; round < rounds; round++) {
        rest();
        look(&now);
        for (int i = 0; i <= KEYS; i++)
            if (strcmp(before.lines[i], now.lines[i])) dprintf(2, "was %s is %s\n", before.lines[i], now.lines[i]);
        CHECK(memcmp(&before, &now, sizeof now) == 0);
    }
}

static void set(uint32_t effective, uint32_t permitted, uint32_t inheritable) {
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0};
    uint32_t data[6] = {effective, permitted, inheritable, 0, 0, 0};
    CHECK(syscall(SYS_capset, &header, data) == 0);
}

enum { CHOWN = 1 << 0, KILL = 1 << 5, SETGID = 1 << 6, SETUID = 1 << 7, BIND = 1 << 10 };

static void *other_user(void *unused) {
    (void)unused;
    // By raw calls: libc's would change all threads.
    CHECK(syscall(SYS_setresgid, 3001, 3002, 3003) == 0 && syscall(SYS_setresuid, 4001, 4002, 4003) == 0);
    watch();
    return NULL;
}

static void *few_capabilities(void *unused) {
    (void)unused;
    set(KILL, KILL | CHOWN, CHOWN);
    watch();
    return NULL;
}

static void part(int number) {
    gid_t groups[] = {7, 70, 700};
    switch (number) {
    case 0: CHECK(setgroups(3, groups) == 0 && setresgid(1001, 1002, 1003) == 0 && setresuid(2001, 2002, 2003) == 0); break;
    case 1: CHECK(seteuid(2005) == 0); break;
    case 2:
        // As services do that keep one right: the user changes, what is permitted stays, and goes on over exec.
        CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0 && setresgid(1001, 1001, 1001) == 0 && setresuid(2001, 2001, 2001) == 0);
        set(BIND, BIND | KILL, BIND);
        CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0) == 0);
        break;
    case 3: CHECK(prctl(PR_CAPBSET_DROP, 21) == 0 && prctl(PR_CAPBSET_DROP, 0) == 0); break;
    case 4: CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP) == 0); break;
    case 5: CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) == 0 && setresuid(2001, 2001, 0) == 0); break;
    case 6: setfsuid(2009), setfsgid(1009); break;
    default: CHECK(prctl(PR_SET_KEEPCAPS, 1) == 0);
    }
}

int main(int argc, char **argv) {
    rounds = rounds_of(argc, argv);
    enum { PARTS = 8 };
    pid_t children[PARTS];
    int count = geteuid() == 0 ? PARTS : 0;
    for (int i = 0; i < count; i++)
        if ((children[i] = fork()) == 0) {
            part(i);
            watch();
            _exit(0);
        }
    pthread_t threads[2];
    if (count) {
        CHECK(pthread_create(&threads[0], NULL, other_user, NULL) == 0);
        CHECK(pthread_create(&threads[1], NULL, few_capabilities, NULL) == 0);
    }
    watch();
    for (int i = 0; i < count; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    for (int i = 0; i < (count ? 2 : 0); i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("everybody is who they were");
}
