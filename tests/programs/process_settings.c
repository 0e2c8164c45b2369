// Tests that limits, umask, working directory, niceness, affinity, names and prctl settings of a process stay.
// @restored Process: limits, umask, working directory, OOM score, names, timer slack, dumpable, parent-death signal, child subreaper, no-new-privs
#include "check.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    CHECK(mkdir("inner", 0700) == 0 && chdir("inner") == 0);
    char where[4096], found[4096] = "";
    CHECK(getcwd(where, sizeof where));
    int directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), place = open("..", O_PATH);
    CHECK(directory >= 0 && place >= 0);
    umask(027);
    struct rlimit files = {200, 300}, stack, limit;
    CHECK(getrlimit(RLIMIT_STACK, &stack) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    struct rlimit core = {0, 0};
    CHECK(setrlimit(RLIMIT_CORE, &core) == 0);
    CHECK(setpriority(PRIO_PROCESS, 0, 5) == 0);
    CHECK(prctl(PR_SET_NAME, "a given name") == 0);
    CHECK(prctl(PR_SET_TIMERSLACK, 70000) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    CHECK(prctl(PR_SET_PDEATHSIG, SIGTERM) == 0);
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
    cpu_set_t one, set;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    uid_t uid = getuid();
    gid_t gid = getgid();
    int groups = getgroups(0, NULL);
    int dumpable = prctl(PR_GET_DUMPABLE);
    for (int round = 0; round < rounds; round++) {
        rest();
        CHECK(getcwd(found, sizeof found) && strcmp(found, where) == 0);
        struct stat here, there;
        CHECK(stat(".", &here) == 0 && fstat(directory, &there) == 0 && here.st_ino == there.st_ino);
        CHECK(stat("..", &here) == 0 && fstat(place, &there) == 0 && here.st_ino == there.st_ino);
        CHECK(fcntl(directory, F_GETFD) == FD_CLOEXEC && (fcntl(place, F_GETFL) & O_PATH));
        mode_t mask = umask(0);
        umask(mask);
        CHECK(mask == 027);
        CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == 200 && limit.rlim_max == 300);
        CHECK(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0);
        CHECK(getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur == stack.rlim_cur && limit.rlim_max == stack.rlim_max);
        CHECK(getpriority(PRIO_PROCESS, 0) == 5);
        char name[16];
        CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a given name") == 0);
        CHECK(prctl(PR_GET_TIMERSLACK) == 70000);
        CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
        int value;
        CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 1);
        CHECK(prctl(PR_GET_PDEATHSIG, &value) == 0 && value == SIGTERM);
        CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
        CHECK(prctl(PR_GET_DUMPABLE) == dumpable);
        CHECK(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_EQUAL(&set, &one));
        CHECK(getuid() == uid && geteuid() == uid && getgid() == gid && getegid() == gid && getgroups(0, NULL) == groups);
        CHECK(readlink("/proc/self/exe", found, sizeof found) > 0 && strncmp(strrchr(found, '/') + 1, "process_settings", 16) == 0);
        char line[256];
        FILE *arguments = fopen("/proc/self/cmdline", "r");
        CHECK(arguments && fgets(line, sizeof line, arguments) && strcmp(line, argv[0]) == 0 && fclose(arguments) == 0);
    }
    puts("nothing was set anew");
}
